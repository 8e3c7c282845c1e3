"""A run is read back from its folder, and what cannot be read says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from photoflux import RunError, load_run, variant
from photoflux.data.shape import Shape
from photoflux.model.history import EpochRow
from photoflux.model.settings import Settings
from photoflux.reporting.i18n import translator
from photoflux.reporting.reproduce import why_not
from photoflux.runs.description import RunData, RunMetrics
from photoflux.runs.folder import write_description, writing
from photoflux.runs.run import Run


def a_run(folder: Path) -> Run:
    rows = [EpochRow(i, 0.5, 1 / i, 0.1, 1 / i + 0.1, 0.5, 1.5, 0.1, 1.6, 0.25) for i in (1, 2)]
    data = RunData("d", "f", ["a", "b"], Shape(3, 8, 9))
    settings = Settings(2, 32, 0.001)
    return Run(folder, "flux", variant("l1"), settings, data, rows, 2, "epochs", 1.0, RunMetrics(), {"julia": "1.12"})


def write(folder: Path) -> Run:
    run = a_run(folder)
    with writing(folder) as temporary:
        (temporary / "weights.safetensors").write_bytes(b"")
        write_description(temporary, run)
    return run


def test_there_and_back(tmp_path):
    written, read = write(tmp_path / "r"), load_run(tmp_path / "r")
    for name in ("engine", "variant", "settings", "data", "history", "kept_epoch", "ended", "seconds", "versions"):
        assert getattr(read, name) == getattr(written, name), name
    assert read.created
    assert (tmp_path / "r" / "history.csv").read_text().splitlines()[0].startswith("epoch,seconds,train_loss,train_pen")
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_a_run_of_julias_with_a_schedule_of_the_users_own(tmp_path):
    write(tmp_path / "r")
    path = tmp_path / "r" / "run.json"
    values = json.loads(path.read_text())
    values["settings"]["schedule"], values["ended"] = "own", "stopped"
    path.write_text(json.dumps(values))
    run = load_run(tmp_path / "r")
    assert (run.settings.schedule, run.ended) == ("own", "stopped")
    assert why_not(run, translator("en")) is not None
    path.write_text(json.dumps(values | {"settings": values["settings"] | {"schedule": "mine"}}))
    with pytest.raises(RunError, match="`schedule` must be one of constant"):
        load_run(tmp_path / "r")


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


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"architecture": "cnn"}, "`architecture` must be one of photo_cnn, dense, transfer, chain; received: 'cnn'."),
        (
            {"penalty": {"dense": {"l2": 0.01}}},
            "`penalty` of the architecture photo_cnn must be one of conv, hidden, output",
        ),
        ({"dropout": {"pool": "0.5"}}, "`dropout` of pool must be a number from 0 to below 1; received: '0.5'."),
        ({"color": "red"}, "`field` of a variant must be one of name, architecture, "),
        ("l1", "A variant must be given by its fields; received: 'l1'."),
        ({}, "A variant must say its name, architecture, hidden, "),
    ],
)
def test_a_variant_that_cannot_be_is_refused_in_words(tmp_path, variant, message):
    write(tmp_path / "r")
    file = tmp_path / "r" / "run.json"
    values = json.loads(file.read_text())
    values["variant"] = values["variant"] | variant if isinstance(variant, dict) and variant else variant
    file.write_text(json.dumps(values))
    with pytest.raises(RunError) as refused:
        load_run(tmp_path / "r")
    assert str(refused.value).startswith(f"The run {tmp_path / 'r'} cannot be read: {message}")
