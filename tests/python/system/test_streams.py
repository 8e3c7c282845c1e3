"""Standard streams that are closed, missing or replaced when Julia starts, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What Julia does at its start: it looks at descriptors 0 to 2, and it and its children write to 1 and 2.
START = """
import os, subprocess, sys
REPLACED
from photoflux.system.streams import stdout_to_stderr
kept = open(sys.argv[1], "w")
with stdout_to_stderr():
    print("said by Python")
    for number in (0, 1, 2):
        os.fstat(number)
    os.write(1, b"said by Julia")
    subprocess.run([sys.executable, "-c", "print('said by a child')"], check=True)
kept.write("a result")
kept.close()
sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
if "closed" not in sys.argv:
    print("a result", flush=True)
"""
REPLACED = {
    "None": "sys.stdout = None",
    "both None": "sys.stdout = sys.stderr = None",
    "no fileno": "import io; sys.stdout = io.StringIO()",
    "no flush": "class Text:\n    def write(self, text): pass\nsys.stdout = Text()",
    "closed": "sys.stdout.close()",
}
CLOSED = ["", "<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- 2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize(
    ("replaced", "closed"), [("", closed) for closed in CLOSED] + [(name, "") for name in REPLACED]
)
def test_julia_can_start(closed, replaced, tmp_path):
    code = START.replace("REPLACED", REPLACED.get(replaced, ""))
    file = tmp_path / "result"
    command = ["/bin/sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-c", code, str(file), replaced]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Nothing that was said has gone into the file that the process opened, or between the results.
    assert file.read_text() == "a result"
    assert done.stdout == ("" if ">&-" in closed.split() or replaced == "closed" else "a result\n")
    if "2>&-" not in closed:
        assert "said by Julia" in done.stderr
        assert "said by a child" in done.stderr
