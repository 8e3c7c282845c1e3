"""run.json: the types that are made of it, and the same bytes written back."""

from __future__ import annotations

import dataclasses
import json

import pytest

from photoflux import RunError, load_run, variant
from photoflux.runs.description import RunMetrics, TrainMetrics
from photoflux.runs.evaluation import Metrics
from photoflux.runs.folder import amend

SCORES = {
    "loss": 0.559236521976554,
    "penalty": 1.2829306727573477,
    "total": 1.8421671947339018,
    "accuracy": 0.8,
    "balanced_accuracy": 0.5,
    "images": 60,
    "confusion": [[48, 0], [12, 0]],
    "precision": [0.8, 0.0],
    "recall": [1.0, 0.0],
    "folders": {"Painting": {"images": 48, "accuracy": 1.0}, "Photo": {"images": 12, "accuracy": 0.0}},
    "part": "validation",
    "left_out": 0,
    "notes": [],
    "rejected": 0,
}
# What `photoflux train l2 FOLDER` writes, entry by entry in this order.
WRITTEN = {
    "format": 1,
    "engine": "flux",
    "variant": variant("l2").as_dict(),
    "settings": {"epochs": 1, "batch_size": 32, "learning_rate": 0.001, "seed": 42, "balance": "none"},
    "data": {
        "name": "scans",
        "path": "/cache/prepared/scans-628fc8b50ba17c413131",
        "fingerprint": "ae84c476e403ea43",
        "seed": 42,
        "images": 600,
        "made_from": {"kind": "folder", "path": "/scans", "groups": None, "positive": "auto", "image_size": 16},
        "groups": None,
        "split": "given",
        "notes": ["2 files could not be read."],
        "classes": ["not Photo", "Photo"],
        "positive": "Photo",
        "channels": 3,
        "height": 16,
        "width": 24,
    },
    "versions": {"julia": "1.12.1", "threads": "2"},
    "kept_epoch": 1,
    "ended": "epochs",
    "seconds": 5.582459656999163,
    "metrics": {
        "train": {"loss": 0.5404180526733399, "penalty": 2.25, "total": 2.778326159431821, "accuracy": 0.8},
        "validation": SCORES,
        "test": {**SCORES, "part": "test", "left_out": 3, "notes": ["3 were left out."]},
    },
    "created": "2026-11-26T21:36:49+00:00",
    "initial": None,
    "threshold": None,
    "temperature": 1.25,
    "notes": ["curves.png could not be made: OSError"],
}
HISTORY = "epoch,seconds,train_loss,train_penalty,train_total,train_accuracy,validation_loss,validation_penalty,"
HISTORY += "validation_total,validation_accuracy\n1,5.5,0.5,2.25,2.75,0.75,0.56,1.28,1.84,0.8\n"


def without(values, *names):
    return {name: value for name, value in values.items() if name not in names}


@pytest.fixture
def folder(tmp_path):
    """Return what writes a run's description as it is given."""

    def write(values):
        (tmp_path / "run.json").write_text(json.dumps(values, indent=2) + "\n")
        (tmp_path / "history.csv").write_text(HISTORY)
        return tmp_path

    return write


def test_a_run_is_typed(folder):
    run = load_run(folder(WRITTEN))
    assert run.metrics.train == TrainMetrics(0.5404180526733399, 2.25, 2.778326159431821, 0.8)
    assert run.metrics.validation == Metrics(**SCORES)
    assert (run.metrics.test.accuracy, run.metrics.test.left_out) == (0.8, 3)
    assert list(run.metrics.by_part()) == ["train", "validation", "test"]
    assert (run.data.name, run.data.split, run.data.shape) == ("scans", "given", (3, 16, 24))


def test_the_same_bytes_are_written(folder):
    run = load_run(folder(WRITTEN))
    before = (run.path / "run.json").read_bytes()
    assert json.dumps(run.as_dict(), indent=2) + "\n" == before.decode()
    amend(run, metrics=run.metrics, notes=run.notes, data=run.data)
    assert (run.path / "run.json").read_bytes() == before


def test_a_part_that_is_scored_later_takes_its_place(folder):
    values = WRITTEN | {"metrics": without(WRITTEN["metrics"], "validation")}
    run = load_run(folder(values))
    assert run.metrics.validation is None
    amend(run, metrics=dataclasses.replace(run.metrics, validation=Metrics(**SCORES)))
    assert (run.path / "run.json").read_text() == json.dumps(WRITTEN, indent=2) + "\n"
    assert run.metrics.validation is None  # the run that was given stays as it was


def test_a_model_without_data_says_no_more_of_it(folder):
    unknown = ("seed", "images", "made_from", "groups", "split", "notes")
    data = without(WRITTEN["data"], *unknown) | {"name": "no data", "path": None, "fingerprint": ""}
    values = WRITTEN | {"data": data, "ended": "adopted", "metrics": {}}
    run = load_run(folder(values))
    assert run.as_dict() == values
    assert (run.data.path, run.data.images, run.data.notes, run.metrics) == (None, None, [], RunMetrics())


def test_what_julia_writes_is_read(folder):
    values = without(WRITTEN, "metrics", "created", "threshold", "temperature", "notes")
    run = load_run(folder(values | {"data": without(WRITTEN["data"], "path", "positive", "split", "notes")}))
    assert run.metrics == RunMetrics(TrainMetrics(0.5, 2.25, 2.75, 0.75))
    assert (run.data.path, run.data.positive, run.data.split, run.data.notes) == (None, None, "made", [])


def test_what_an_earlier_photoflux_wrote_is_read(folder):
    early = without(SCORES, "folders", "part", "left_out", "notes", "rejected")
    data = without(WRITTEN["data"], "seed", "images", "made_from", "groups", "split", "notes")
    run = load_run(folder(WRITTEN | {"data": data, "metrics": {"train": {}, "validation": early}}))
    assert run.metrics.validation == Metrics(**early)
    assert run.metrics.train is None and run.metrics.test is None
    assert (run.data.seed, run.data.made_from) == (None, None)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"data": without(WRITTEN["data"], "classes")}, "KeyError: 'classes'"),
        ({"data": WRITTEN["data"] | {"height": "tall"}}, "ValueError: .*'tall'"),
        ({"data": None}, ""),
        ({"metrics": {"test": without(SCORES, "accuracy")}}, "KeyError: 'accuracy'"),
        ({"metrics": {"test": SCORES | {"accuracy": "high"}}}, "ValueError: .*'high'"),
        ({"metrics": {"test": SCORES | {"loss": None}}}, "TypeError"),
        ({"metrics": {"train": {"loss": 1.0}}}, "KeyError: 'penalty'"),
        ({"metrics": []}, ""),
    ],
)
def test_a_damaged_description_is_one_clear_error(folder, entry, message):
    place = folder(WRITTEN | entry)
    with pytest.raises(RunError, match=f"cannot be read.*{message}"):
        load_run(place)
