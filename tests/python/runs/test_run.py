"""Run folders: whole or not there, and never code."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from photoflux import RunError, load_run, variant
from photoflux.data.shape import Shape
from photoflux.model.history import EpochRow
from photoflux.model.settings import Settings
from photoflux.runs import run as runs
from photoflux.runs.description import RunData, RunMetrics
from photoflux.runs.run import Run


def a_run(folder: Path) -> Run:
    rows = [EpochRow(i, 0.5, 1 / i, 0.1, 1 / i + 0.1, 0.5, 1.5, 0.1, 1.6, 0.25) for i in (1, 2)]
    data = RunData("d", "f", ["a", "b"], Shape(3, 8, 9))
    settings = Settings(2, 32, 0.001)
    return Run(folder, "flux", variant("l1"), settings, data, rows, 2, "epochs", 1.0, RunMetrics(), {"julia": "1.12"})


def write(folder: Path) -> Run:
    run = a_run(folder)
    with runs.writing(folder) as temporary:
        (temporary / "weights.safetensors").write_bytes(b"")
        runs.write_description(temporary, run)
    return run


def test_there_and_back(tmp_path):
    written, read = write(tmp_path / "r"), load_run(tmp_path / "r")
    for name in ("engine", "variant", "settings", "data", "history", "kept_epoch", "ended", "seconds", "versions"):
        assert getattr(read, name) == getattr(written, name), name
    assert read.created
    assert (tmp_path / "r" / "history.csv").read_text().splitlines()[0].startswith("epoch,seconds,train_loss,train_pen")
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_an_earlier_run_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    write(tmp_path / "r")
    before = (tmp_path / "r" / "run.json").read_text()
    with (
        pytest.raises(RunError, match=r"No space left on device.*unchanged"),
        runs.writing(tmp_path / "r") as temporary,
    ):
        (temporary / "half").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(KeyboardInterrupt), runs.writing(tmp_path / "r"):
        raise KeyboardInterrupt
    assert (tmp_path / "r" / "run.json").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r"]
    write(tmp_path / "r")
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_run_is_refused(tmp_path, kind):
    place = tmp_path / "thesis"
    if kind == "file":
        place.write_text("words")
    else:
        place.mkdir()
        (place / "chapter.tex").write_text("words")
    with pytest.raises(RunError, match="must be a new folder or an earlier run"):
        write(place)
    assert (place if kind == "file" else place / "chapter.tex").read_text() == "words"


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "r").mkdir()
    write(tmp_path / "r")
    assert load_run(tmp_path / "r").kept_epoch == 2


def test_what_cannot_be_read_says_why(tmp_path):
    with pytest.raises(RunError, match="there is no such folder"):
        load_run(tmp_path / "none")
    with pytest.raises(RunError, match=r"it has no run\.json"):
        load_run(tmp_path)
    write(tmp_path / "r")
    path = tmp_path / "r" / "run.json"
    values = json.loads(path.read_text())
    for broken, message in (
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        (json.dumps(values | {"format": 9}), "run format 9"),
        (json.dumps({k: v for k, v in values.items() if k != "engine"}), "KeyError: 'engine'"),
    ):
        path.write_text(broken)
        with pytest.raises(RunError, match=message):
            load_run(tmp_path / "r")
