"""Every example runs, in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import photoflux
from julias import ROOT, julia_of_engine

EXAMPLES = ROOT / "examples"


def ran(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_the_grid_search_finds_settings_that_classify_digits(flux: object, tmp_path: Path):
    printed = ran(tmp_path, sys.executable, str(EXAMPLES / "grid_search.py"))
    assert len(re.findall(r"^\{'l2': ", printed, re.MULTILINE)) == 4
    accuracy = re.search(r"^best: .* other digits: (0\.\d+)$", printed, re.MULTILINE)
    # By chance 0.1; a network that learns nothing from the images fails.
    assert accuracy is not None and float(accuracy[1]) > 0.5


def test_the_variants_of_the_file_are_trained_and_compared(flux: object, tmp_path: Path):
    printed = ran(
        tmp_path, sys.executable, "-m", "photoflux", "compare", "demo", "--out", "which",
        "--variants", str(EXAMPLES / "my_variants.toml"), "--seeds", "1", "--epochs", "1", "--image-size", "16",
    )  # fmt: skip
    assert "wide_l2" in printed and "small" in printed


def test_the_own_source_is_written_and_trained(flux: object, tmp_path: Path):
    printed = ran(tmp_path, sys.executable, str(EXAMPLES / "own_source.py"), "--train")
    assert "{'train': {'circle': 140, 'square': 140}, 'validation'" in printed
    accuracy = re.search(r"test .* accuracy (0\.\d+|1\.0+)", printed)
    # By chance 0.5.
    assert accuracy is not None and float(accuracy[1]) > 0.7


def test_the_callback_logs_every_epoch_and_ends_the_fit(flux: object, tmp_path: Path):
    printed = ran(tmp_path, sys.executable, str(EXAMPLES / "callback.py"))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    run = photoflux.load_run(tmp_path / "runs" / "logged")
    assert [line["epoch"] for line in lines] == [row.epoch for row in run.history]
    assert [line["validation"] for line in lines] == [row.validation_total for row in run.history]
    assert run.ended == "stopped" and run.history[-1].validation_accuracy > 0.85
    assert "by the callback JsonLines (on_epoch_end)" in printed


def test_the_network_is_trained_in_julia(flux: Any, tmp_path: Path):
    julia = julia_of_engine(flux.julia)
    done = subprocess.run(
        [*julia.command, str(EXAMPLES / "own_network.jl")],
        cwd=tmp_path, env=julia.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    first, again = re.findall(r"^(?:test accuracy|loaded again ) (\d\.\d+)$", done.stdout, re.MULTILINE)
    # The classes differ in the brightness of half an image.
    assert first == again and float(first) > 0.8


def test_every_example_is_run_here_or_by_runs_test_networks():
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {
        "callback.py", "grid_search.py", "my_model.jl", "my_variants.toml", "own_network.jl", "own_source.py",
    }  # fmt: skip
