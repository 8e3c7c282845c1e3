"""The Julia suite, run by the Julia that serves this process."""

from __future__ import annotations

import subprocess
from pathlib import Path

SUITE = Path(__file__).parents[1] / "julia" / "runtests.jl"


def test_julia_suite(julia_command):
    command, environment = julia_command
    done = subprocess.run([*command, str(SUITE)], env=environment, capture_output=True, text=True, check=False)
    print(done.stdout[-20_000:])
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-6_000:]
    assert "PhotoFlux" in done.stdout and "training" in done.stdout
