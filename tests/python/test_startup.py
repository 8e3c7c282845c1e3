"""What happens at start, each in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys

SILENT = """
import sys
import photoflux
heavy = {"juliacall", "juliapkg", "keras", "tensorflow", "matplotlib", "sklearn", "scipy"}
print(sorted(heavy & set(sys.modules)), end="")
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_import_starts_nothing():
    done = python(SILENT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]", "")


BRIDGE = """
import os
os.environ.pop("PYTHON_JULIACALL_HANDLE_SIGNALS", None)
os.environ["PYTHON_JULIACALL_THREADS"] = "1"
from photoflux.engines import bridge
lines = []
module = bridge.start(lines.append)
assert bridge.start(lines.append) is module
assert len(lines) == 1 and lines[0].startswith("Starting Julia"), lines
assert os.environ["PYTHON_JULIACALL_HANDLE_SIGNALS"] == "yes"
assert os.environ["PYTHON_JULIACALL_THREADS"] == "1"
assert module.Threads.nthreads() == 1
import juliacall
assert not juliacall.Main.seval("isdefined(Main, :PhotoFlux)")
print(module.seval("string(pathof(PhotoFlux))"), end="")
"""


def test_the_bridge_keeps_the_users_settings_and_main_clean(flux):
    done = python(BRIDGE)
    assert done.returncode == 0, done.stderr
    from photoflux.variants import julia_package

    assert done.stdout.startswith(str(julia_package()))


def test_tensorflow_first_is_warned_of(flux):
    code = """
import sys, types, warnings
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
from photoflux.engines import bridge
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    bridge.start(print)
print([str(w.message) for w in caught if "tensorflow was imported before Julia" in str(w.message)] != [], end="")
"""
    done = python(code)
    assert done.stdout.endswith("True"), done.stdout + done.stderr
