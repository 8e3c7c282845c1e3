"""What a report says: verdict, examples, and the commands that repeat the run."""

from __future__ import annotations

import base64
import dataclasses
import io
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import photoflux
from photoflux import RunError, cli, variant
from photoflux.data.prepared import open_prepared
from photoflux.model.settings import chosen_variant, settings_of
from photoflux.reporting import examples
from photoflux.reporting.i18n import ENGLISH
from photoflux.reporting.report_data import gather
from photoflux.reporting.reproduce import train_command, why_not
from photoflux.reporting.verdict import interval, verdict
from photoflux.runs.description import RunMetrics
from photoflux.runs.evaluation import Metrics


def test_thumbnails_are_bounded():
    rng = np.random.default_rng(0)
    for shape, mode, size in (((3, 700, 350), "RGB", (56, 112)), ((1, 28, 28), "L", (28, 28))):
        data = examples.thumbnail(rng.integers(0, 256, shape, np.uint8)).removeprefix("data:image/jpeg;base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (picture.mode, picture.size, picture.format) == (mode, size, "JPEG")
        assert len(data) < 20_000


@pytest.mark.parametrize("kind", ["worst_errors", "correct_examples"])
def test_the_worst_errors_come_first_and_the_most_confident_examples(run, scans, kind, monkeypatch):
    monkeypatch.setattr(examples, "PER_GROUP", 4)
    report_data = gather(run, ENGLISH)
    scored = report_data.scored["test"]
    # All wrong, or all right, as far from 0 as they were.
    sign = (2 * scored.labels[:, None] - 1) * (-1 if kind == "worst_errors" else 1)
    moved = dataclasses.replace(scored, logits=sign * np.abs(scored.logits))
    found = getattr(examples, kind)(dataclasses.replace(report_data, scored={"test": moved}), "test", ENGLISH)
    paths, folders = [row["path"] for row in scans.files()], np.array(scans.folder_labels())[scored.indices]
    assert [group.title for group in found] == sorted(set(folders))
    for group in found:
        places = [list(scored.indices).index(paths.index(picture.path)) for picture in group.pictures]
        of_folder = np.flatnonzero(folders == group.title)
        assert group.images == group.selected == len(of_folder) >= 2
        furthest = of_folder[np.argsort(-np.abs(scored.logits[of_folder, 0]))]
        # The worst are the furthest; examples are spread from the furthest to the nearest.
        expected = furthest[:4] if kind == "worst_errors" else furthest[[0, -1]]
        assert places == expected.tolist()


def test_the_interval_is_wilsons():
    k, n, z = 37, 50, 1.959963984540054
    middle, half = (k / n + z * z / 2 / n), z * np.sqrt(k / n * (1 - k / n) / n + z * z / 4 / n / n)
    expected = ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n))
    assert interval(k, n) == pytest.approx(expected, rel=1e-9)


VERDICTS = [
    ([0.9, 0.5, 0.7, 0.8], {}, "From epoch 3 on it overfits: the validation loss rises from 0.500 to 0.800"),
    ([0.9, 0.5, 0.7, 0.8], {}, "while the training loss falls from 0.500 to 0.250"),
    ([0.9, 0.8], {}, "no overfitting is seen"),
    ([0.9], {}, "One epoch does not tell"),
    (
        [0.9, 0.5, 0.7, 0.8],
        {},
        "It stopped early, after 4 of at most 30 epochs, when the total validation loss had not",
    ),
    ([0.9, 0.5], {"ended": "interrupted"}, "It was interrupted after 2 of 30 epochs; the weights of epoch 2 are kept."),
    ([0.9, 0.5], {"ended": "stopped"}, "It was stopped after 2 of at most 30 epochs, by a callback or its time budget"),
    ([0.9, 0.5], {"ended": "diverged"}, "The loss became infinite or NaN after 2 of 30 epochs"),
    ([0.9, 0.5], {"ended": "epochs"}, "It was trained for all 2 epochs"),
    ([0.9, 0.5], {}, "At epoch 2 the accuracy is 60.0\u202f% in training and 60.0\u202f% in validation: a gap of +0.0"),
    ([], {"ended": "adopted"}, "It was imported from a Keras model, not trained here"),
]


@pytest.mark.parametrize(("losses", "changes", "said"), VERDICTS, ids=lambda value: str(value)[:40])
def test_the_verdict_on_the_fit(run, rows, losses, changes, said):
    kept = {"kept_epoch": min(2, len(losses)), "variant": variant("early_stopping"), "history": rows(*losses)}
    assert said in " ".join(verdict(dataclasses.replace(run, **kept | changes), ENGLISH))


def test_a_validation_loss_that_rises_with_the_training_loss_is_no_overfitting(run, rows):
    first, second = rows(0.5, 0.9)
    history = [first, dataclasses.replace(second, train_loss=2.0)]
    said = " ".join(verdict(dataclasses.replace(run, history=history), ENGLISH))
    assert "lowest at epoch 1 and ends at 0.900; as the training loss does not fall after it" in said


def scores(confusion, folders):
    counts = np.array(confusion)
    recall = np.diag(counts) / counts.sum(axis=1)
    precision = np.diag(counts) / counts.sum(axis=0)
    accuracy = np.trace(counts) / counts.sum()
    return Metrics(
        0.5,
        0.0,
        0.5,
        accuracy,
        recall.mean(),
        int(counts.sum()),
        confusion,
        precision.tolist(),
        recall.tolist(),
        folders,
    )


def test_the_verdict_on_the_test_part(run):
    folders = {"Photo": {"images": 100, "accuracy": 0.9}, "Text": {"images": 200, "accuracy": 0.995}}
    folders["Sketch"] = {"images": 200, "accuracy": 0.9}
    better = dataclasses.replace(run, metrics=RunMetrics(test=scores([[379, 21], [10, 90]], folders)))
    said = verdict(better, ENGLISH)
    assert "On the 500 images of the test part, which it had not seen, its accuracy is 93.8\u202f%" in said[0]
    assert "more than always predicting “not Photo”, which would be correct for 80.0\u202f%" in said[0]
    assert "It finds 90.0\u202f% of the images of “Photo” (recall), and 81.1\u202f% of its predictions of" in said[1]
    assert "“Sketch” is most often predicted as “Photo”: 20 of 200 images (10.0\u202f%)" in said[1]
    same = dataclasses.replace(run, metrics=RunMetrics(test=scores([[390, 10], [90, 10]], folders)))
    assert "No difference is detected from always predicting “not Photo”" in verdict(same, ENGLISH)[0]
    worse = dataclasses.replace(run, metrics=RunMetrics(test=scores([[200, 200], [20, 80]], folders)))
    assert "That is less than always predicting “not Photo”" in verdict(worse, ENGLISH)[0]


def test_a_model_that_never_predicts_the_class(run):
    folders = {name: {"images": 100, "accuracy": float(name != "Photo")} for name in ("Photo", "Text", "Sketch")}
    found = scores([[200, 0], [100, 1]], folders)
    none = dataclasses.replace(found, confusion=[[200, 0], [100, 0]], precision=[0.67, 0.0])
    said = verdict(dataclasses.replace(run, metrics=RunMetrics(test=none)), ENGLISH)
    assert said[1] == "It predicts “Photo” for no image, and so finds none of the 100."


SETTINGS = [
    {},
    {"epochs": 7, "batch_size": 8, "learning_rate": 0.00037, "seed": 9, "balance": "augment"},
    {"l1": 0.25},
    {"l2": 0.0},
    {"loss": "squared_error", "seed": 7},
    {"schedule": "one_cycle"},
]


@pytest.mark.parametrize("given", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["elastic_net", "mlp"])
@pytest.mark.parametrize("place", [None, "/runs/my earlier run"])
def test_the_command_makes_the_same_fit(run, scans, monkeypatch, given, name, place):
    if name == "mlp" and "l1" in given:
        given = {"l1": 0.25, "l2": 0.5}
    recipe = chosen_variant(name, given.get("l1"), given.get("l2"), given.get("loss"))
    own = {key: given.get(key) for key in ("epochs", "batch_size", "learning_rate")}
    settings = settings_of(recipe, **own, seed=given.get("seed", 42), balance=given.get("balance", "none"))
    settings = dataclasses.replace(settings, schedule=given.get("schedule", "constant"))
    initial = place and {"path": place, "fingerprint": "f"}
    made = dataclasses.replace(run, variant=recipe, settings=settings, initial=initial)
    assert why_not(made, ENGLISH) is None
    program, *words = shlex.split(train_command(made))
    assert program == "photoflux"
    assert len(words) == 5 + 2 * len(given) + 2 * bool(place)  # what is the variant's own is left out
    received = {}

    def train(variant, data, **arguments):
        received.update(arguments, variant=variant, data=data)
        raise RunError("not now")

    monkeypatch.setattr(cli.api, "train", train)
    CliRunner().invoke(cli.app, words)
    assert chosen_variant(*(received[key] for key in ("variant", "l1", "l2", "loss"))) == recipe
    taken = ("epochs", "batch_size", "learning_rate", "seed", "balance", "on_nonfinite", "schedule")
    fitted = settings_of(recipe, *(received[key] for key in taken))
    assert fitted == settings
    assert received["engine"] == run.engine
    assert Path(received["data"]) == scans.path
    assert (received["initial"] and str(received["initial"])) == place


def test_the_other_command_makes_the_dataset_again(tmp_path, Page, write_run):
    prepared = photoflux.prepare("demo", tmp_path / "demo set", image_size=16, seed=5, positive="Text", progress=False)
    run = write_run(tmp_path / "r", prepared)
    read = Page(photoflux.report(run).read_text(encoding="utf-8"))
    assert read.code[0] == train_command(run)
    shutil.rmtree(prepared.path)
    done = CliRunner().invoke(cli.app, shlex.split(read.code[1])[1:])
    assert done.exit_code == 0, done.output
    assert open_prepared(prepared.path).fingerprint == prepared.fingerprint


def test_a_variant_that_no_command_makes(run, tmp_path):
    recipe = dataclasses.replace(run.variant, hidden=(64,))
    for changes, said in (
        ({"variant": recipe}, "its variant is not of the table"),
        ({"variant": dataclasses.replace(recipe, name="mine")}, "its variant is not of the table"),
        ({"initial": {"path": None, "fingerprint": "f"}}, "weights that were in memory only"),
    ):
        path = photoflux.report(dataclasses.replace(run, **changes), tmp_path / "r.html")
        assert said in path.read_text(encoding="utf-8")
