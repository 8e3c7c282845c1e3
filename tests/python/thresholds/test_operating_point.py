"""`photoflux threshold` from a run's logits to its run.json and its predictions."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import photoflux
from photoflux import DataError, RunError, SettingError
from photoflux.model.history import EpochRow
from photoflux.model.settings import Settings
from photoflux.runs.description import RunData, RunMetrics
from photoflux.runs.evaluation import Metrics, probabilities
from photoflux.runs.folder import amend, write_description, writing
from photoflux.runs.prediction import predictions_of
from photoflux.runs.run import LOGITS, Run
from photoflux.thresholds.calibration import fit_temperature
from photoflux.thresholds.choice import measure, precision_threshold, recall_threshold

SCORES = Metrics(1.0, 0.1, 1.1, 0.5, 0.5, 4, [[1, 1], [1, 1]], [0.5, 0.5], [0.5, 0.5])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """1,000 images of two classes; the pixels do not matter."""
    rng = np.random.default_rng(5)
    x = rng.integers(0, 255, (1000, 8, 8, 3), np.uint8)
    folder = tmp_path_factory.mktemp("data") / "prepared"
    return photoflux.prepare((x, np.arange(1000) % 2), folder, progress=False)


def scored(folder: Path, prepared, **changes) -> Run:
    """Write a run of `prepared` whose logits are right but for noise."""
    rng = np.random.default_rng(6)
    logits = {}
    for part in ("validation", "test"):
        labels = np.asarray(prepared.labels[prepared.indices(part)])
        logits[part] = (4.0 * labels - 2 + 1.2 * rng.normal(size=len(labels)))[:, None].astype(np.float32)
    values = {
        "path": folder,
        "engine": "flux",
        "variant": photoflux.variant("dense_l2"),
        "settings": Settings(1, 32, 0.001),
        "data": RunData.of(prepared),
        "history": [EpochRow(1, 0.5, 1.0, 0.1, 1.1, 0.5, 1.5, 0.1, 1.6, 0.25)],
        "kept_epoch": 1,
        "ended": "epochs",
        "seconds": 0.5,
        "metrics": RunMetrics(validation=SCORES, test=SCORES),
        "versions": {},
    }
    run = Run(**(values | changes))
    with writing(folder) as temporary:
        (temporary / "weights.safetensors").write_bytes(b"untouched")
        save_file(logits, temporary / LOGITS)
        write_description(temporary, run)
    return run


@pytest.fixture
def run(tmp_path, dataset):
    return scored(tmp_path / "r", dataset)


@pytest.mark.parametrize(("promise", "choose"), [("recall", recall_threshold), ("precision", precision_threshold)])
def test_the_threshold_is_kept_in_the_run(run, dataset, promise, choose):
    before = json.loads((run.path / "run.json").read_text())
    found = photoflux.threshold(run.path, **{promise: 0.9}, confidence=0.9)
    scores, labels = (
        {part: f(part) for part in ("validation", "test")}
        for f in (lambda p: probabilities(run.logits(p))[:, 1], lambda p: dataset.labels[dataset.indices(p)])
    )
    assert found.score == choose(scores["validation"], labels["validation"], 0.9, 0.9)
    assert found.score in scores["validation"]
    for part in scores:
        assert found.measured[part] == measure(scores[part], labels[part], found.score, 0.9)
    after = json.loads((run.path / "run.json").read_text())
    kept = after.pop("threshold")
    assert {key: kept[key] for key in ("score", "positive", "promise", "value", "confidence")} == {
        "score": found.score, "positive": "1", "promise": promise, "value": 0.9, "confidence": 0.9
    }  # fmt: skip
    assert kept["validation"] == found.measured["validation"].as_dict()
    assert kept["test"] == found.measured["test"].as_dict()
    assert kept["chosen"]
    assert after.pop("temperature") == fit_temperature(run.logits("validation"), labels["validation"])
    assert before.pop("threshold") is before.pop("temperature") is None
    assert after == before
    assert (run.path / "weights.safetensors").read_bytes() == b"untouched"
    assert {p.name for p in run.path.iterdir()} == {
        "run.json", "history.csv", "weights.safetensors", "logits.safetensors", "calibration.png"
    }  # fmt: skip
    read = photoflux.load_run(run.path)
    assert read.threshold == found.run.threshold == kept
    assert read.temperature == found.run.temperature == found.calibration.temperature
    assert f"for a {promise} of 0.9 or more" in str(read)


def test_the_promise_prints_its_price(run):
    found = photoflux.threshold(run, recall=0.9, confidence=0.9)
    recall, precision = found.measured["test"].recall, found.measured["test"].precision
    text = str(found)
    assert f"“1” from a score of {np.float32(found.score)!s} on" in text
    assert f"{precision.value:.3f} ({precision.hits} of {precision.of}; at least {precision.low:.3f}" in text
    assert f"({recall.hits} of {recall.of};" in text
    assert "temperature" in text
    assert "Note" not in text
    assert text.splitlines()[0] in found._repr_html_().replace("&lt;", "<")
    assert json.loads(json.dumps(found.as_dict()))["test"]["precision"]["value"] == precision.value


def test_a_new_threshold_takes_the_place_of_the_old_and_a_new_run_has_none(run, dataset):
    photoflux.threshold(run, recall=0.9, confidence=0.9)
    photoflux.threshold(run, precision=0.8)
    assert photoflux.load_run(run.path).threshold["promise"] == "precision"
    scored(run.path, dataset)
    again = photoflux.load_run(run.path)
    assert again.threshold is again.temperature is None
    assert "for a precision of" not in str(again)


def test_a_refusal_leaves_the_run_as_it_was(run):
    before = {p.name: p.read_bytes() for p in run.path.iterdir()}
    with pytest.raises(DataError, match=r"needs at least 299 .*there are 50\."):
        photoflux.threshold(run, recall=0.99)
    assert {p.name: p.read_bytes() for p in run.path.iterdir()} == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of `recall` and `precision`; received neither"),
        ({"recall": 0.9, "precision": 0.9}, "received both"),
        ({"recall": 1.0}, "`recall` must be above 0 and below 1; received: 1.0"),
        ({"precision": 0.9, "confidence": 0.4}, "`confidence` must be above 0.5"),
    ],
)
def test_what_is_no_promise_is_refused(run, given, message):
    with pytest.raises(SettingError, match=message):
        photoflux.threshold(run, **given)


def test_more_than_two_classes_have_no_threshold(tmp_path, dataset):
    run = scored(tmp_path / "r", dataset, data=dataclasses.replace(RunData.of(dataset), classes=["a", "b", "c"]))
    with pytest.raises(SettingError, match=r"two classes; the run .* has 3: a, b, c\. Train one with `positive`"):
        photoflux.threshold(run, recall=0.9)


def test_data_that_is_gone_or_another_is_refused(run, dataset, tmp_path):
    for data, error, message in (
        ({"path": None, "made_from": None}, DataError, "does not say where its prepared dataset is"),
        ({"path": str(tmp_path / "gone")}, DataError, "cannot be prepared again from arrays"),
        ({"path": str(tmp_path / "gone"), "made_from": None}, DataError, "does not say what it was made from"),
        ({"fingerprint": "another"}, DataError, "no longer the one"),
    ):
        other = dataclasses.replace(run, data=dataclasses.replace(run.data, **data))
        with pytest.raises(error, match=message):
            photoflux.threshold(other, recall=0.9)


def test_logits_that_are_not_the_runs_own_are_refused(run):
    """As where Julia saved a run over an older one: it writes neither metrics nor logits."""
    with pytest.raises(RunError, match="not those of this run"):
        photoflux.threshold(dataclasses.replace(run, metrics=RunMetrics()), recall=0.9)
    logits = {part: run.logits(part) for part in ("validation", "test")}
    save_file(logits | {"validation": logits["validation"][:-1]}, run.path / LOGITS)
    with pytest.raises(RunError, match="not those of this run"):
        photoflux.threshold(run, recall=0.9)
    save_file(logits | {"validation": np.full_like(logits["validation"], np.nan)}, run.path / LOGITS)
    with pytest.raises(RunError, match="not finite"):
        photoflux.threshold(run, recall=0.9)
    (run.path / LOGITS).unlink()
    with pytest.raises(RunError, match="has no logits of its validation part"):
        photoflux.threshold(run, recall=0.9)


def test_what_weakens_a_promise_is_said(tmp_path, dataset):
    started = {"path": "elsewhere", "fingerprint": "f"}
    for changes, words in (
        ({"variant": photoflux.variant("early_stopping")}, "the epoch was chosen on the validation part"),
        ({"ended": "adopted", "initial": started}, "the model was imported"),
        ({"initial": started}, "the initial weights came from elsewhere"),
        ({"data": dataclasses.replace(RunData.of(dataset), groups="f")}, "images of a group are alike"),
    ):
        found = photoflux.threshold(scored(tmp_path / "r", dataset, **changes), recall=0.9, confidence=0.9)
        assert [note.startswith(words) for note in found.notes] == [True]
        assert f"Note: {words}" in str(found)


def test_a_full_disk_leaves_run_json_as_it_was(run, monkeypatch):
    before = (run.path / "run.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match=r"could not be changed: .*No space left.* It is as it was"):
        photoflux.threshold(run, recall=0.9, confidence=0.9)
    assert (run.path / "run.json").read_bytes() == before
    assert not list(run.path.glob(".*"))


def test_a_threshold_holds_without_its_picture(run, monkeypatch):
    photoflux.threshold(run, recall=0.9, confidence=0.9)
    assert (run.path / "calibration.png").is_file()

    def failing(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("photoflux.reporting.plots.plot_calibration", failing)
    promise = photoflux.threshold(run, recall=0.8, confidence=0.9)
    assert promise.notes[-1] == "calibration.png could not be made: RuntimeError: no fonts"
    assert photoflux.load_run(run.path).threshold["value"] == 0.8
    assert not (run.path / "calibration.png").exists()


@pytest.mark.parametrize("threshold", [{}, {"score": "much", "promise": "recall", "value": 0.9}, [0.5]])
def test_a_threshold_that_is_none_is_found_when_the_run_is_read(run, threshold):
    path = run.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threshold": threshold}))
    with pytest.raises(RunError, match="cannot be read"):
        photoflux.load_run(run.path)


def test_a_run_of_before_has_no_threshold(run):
    path = run.path / "run.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({key: values[key] for key in values if key not in ("threshold", "temperature")}))
    read = photoflux.load_run(run.path)
    assert read.threshold is read.temperature is None


@pytest.fixture(scope="module")
def trained(keras, tmp_path_factory):
    """A run of Keras and its first forty images, (N, H, W, C)."""
    y = np.arange(200) % 2
    x = np.random.default_rng(1).integers(0, 100, (200, 8, 8, 3), np.uint8)
    x[y == 1, :, 4:] += 60
    out = tmp_path_factory.mktemp("run") / "r"
    return photoflux.train("dense_l2", (x, y), engine="keras", epochs=2, out=out, progress=False), x[:40]


def model_of(engine, run):
    return engine.load(run.variant, run.weights, run.shape, len(run.classes))


def test_predictions_go_by_the_threshold(keras, trained):
    run, x = trained

    def predict(run):
        return predictions_of(model_of(keras, run), run, [""] * len(x), x.transpose(0, 3, 1, 2))

    plain = predict(run)
    scores = np.array([p.probabilities["1"] for p in plain])
    assert [p.label for p in plain] == ["1" if score > 0.5 else "0" for score in scores]
    kept = photoflux.threshold(run, recall=0.7, confidence=0.9).run
    for threshold in (
        kept.threshold["score"],
        scores.max(),
        scores.min(),
        np.nextafter(np.float32(scores.max()), np.float32(1)),
    ):
        amend(kept, threshold=kept.threshold | {"score": float(threshold)})
        found = predict(photoflux.load_run(run.path))
        assert [p.label for p in found] == ["1" if score >= np.float32(threshold) else "0" for score in scores]
        assert [p.probabilities for p in found] == [p.probabilities for p in plain]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "photoflux", *map(str, arguments)]
    return subprocess.run(words, env=os.environ, capture_output=True, text=True, check=False)


def test_the_command_line(run):
    done = command("threshold", run.path, "--precision", 0.8, "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert len(done.stdout.splitlines()) == 1
    assert values["score"] == photoflux.load_run(run.path).threshold["score"]
    assert {"run", "positive", "promise", "value", "confidence", "validation", "test", "calibration"} <= set(values)
    text = command("threshold", run.path, "--recall", 0.9, "--confidence", 0.9)
    assert text.returncode == 0, text.stderr
    assert text.stdout.startswith(f"Run {run.path}: “1” from a score of ")
    refused = command("threshold", run.path, "--recall", 0.999)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "needs at least 2995 validation images of the class" in refused.stderr
    neither = command("threshold", run.path)
    assert (neither.returncode, neither.stdout) == (2, "")
    assert neither.stderr.startswith("Error: Give one of")
    assert "Traceback" not in refused.stderr + neither.stderr


def test_predict_says_which_threshold_it_used(keras, trained, tmp_path):
    run, x = trained
    Image.fromarray(x[0]).save(tmp_path / "a.png")
    run = dataclasses.replace(run, threshold=None)
    (plain,) = predictions_of(model_of(keras, run), run, [""], x[:1].transpose(0, 3, 1, 2))
    # Below every score, or above: no probability is more than 1.
    score, label = (2.0, "0") if plain.label == "1" else (0.0, "1")
    amend(run, threshold={"score": score, "promise": "recall", "value": 0.9})
    done = command("predict", run.path, tmp_path / "a.png", "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert (values["threshold"], values["predictions"][0]["label"]) == (score, label)
