"""The notebook runs from its first cell to its last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOUR = Path(__file__).parents[2] / "docs" / "tour.ipynb"


def test_the_tour_runs(keras):
    command = [sys.executable, "-m", "pytest", "-q", "--nbmake", "--nbmake-timeout=900", str(TOUR)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "1 passed" in done.stdout
