"""The walk from the command to run.json is short and never leads back up."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

WALK = Path(__file__).resolve().parents[2] / "docs" / "walk.py"


def test_a_fit_takes_few_hops_from_the_command_to_run_json():
    done = subprocess.run([sys.executable, str(WALK)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout[done.stdout.index("```text") :].rstrip() + "\n"
    assert text in WALK.parents[1].joinpath("CONTRIBUTING.md").read_text(encoding="utf-8"), "docs/walk.py --write"
    *lines, last, _ = text.splitlines()
    found = re.fullmatch(r"(\d+) hops between modules, 0 of them back up", last)
    assert found is not None, done.stdout
    assert 10 <= int(found[1]) <= 20
    walk = [line.strip() for line in lines[1:]]
    stations = ["api:train", "data.preparation:prepare", "engines.flux.engine:FluxEngine.fit", "runs.folder:writing"]
    places = [walk.index(station) for station in stations]
    assert places == sorted(places)
