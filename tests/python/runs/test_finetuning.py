"""A run that was fine-tuned has a backbone of its own, in its folder, wherever this is."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

import photoflux
from photoflux.cli import app
from photoflux.errors import BackboneError, DivergedError, RunError, SettingError
from photoflux.features import backbone_from, folded_weights
from photoflux.features.folding import read_folded
from photoflux.reporting.reproduce import train_command
from photoflux.runs.progress import Display

onnx = pytest.importorskip("onnx", reason="the extra transfer is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra transfer is not installed")

OPTIONS = {"backbone": "tiny", "batch_size": 8, "learning_rate": 0.01, "l2": 0.01, "progress": False}


@pytest.fixture
def prepared(tmp_path):
    """Bright, and dark, noise."""
    rng = np.random.default_rng(3)
    y = np.arange(80) % 2
    x = rng.integers(0, 90, (80, 20, 20, 3), np.uint8)
    x[y == 1] += 40
    return photoflux.prepare((x, y), tmp_path / "prepared", progress=False)


def train(prepared, out, unfreeze=2, **options):
    return photoflux.train("transfer", prepared, out=out, unfreeze=unfreeze, **{"epochs": 3, **OPTIONS, **options})


def test_a_run_carries_the_backbone_that_was_trained_with_it(tiny, flux, prepared, tmp_path):
    frozen, run = train(prepared, tmp_path / "frozen", 0), train(prepared, tmp_path / "tuned")
    assert "unfrozen" not in frozen.backbone and not (frozen.path / "backbone.safetensors").exists()
    # The head's epochs are those of the frozen backbone, and fine-tuning's follow them.
    assert [row.epoch for row in run.history] == [1, 2, 3, 4, 5, 6] and run.kept_epoch > 3
    assert [row.train_total for row in run.history[:3]] == [row.train_total for row in frozen.history]
    tuned = read_folded(run.path / "backbone.safetensors")
    said = json.loads((run.path / "run.json").read_text())["backbone"]
    assert said == run.backbone
    assert (said["unfrozen"], said["file"], said["fingerprint"]) == (2, "backbone.safetensors", tuned.fingerprint)
    assert tuned.fingerprint != read_folded(folded_weights("tiny")).fingerprint
    # It is scored with that backbone: features, standardised, times the kernel.
    weights = load_file(run.weights)
    features = backbone_from(run.backbone, run.path).features_of(np.asarray(prepared.images))
    x = (features - weights["standardise.mean"]) / weights["standardise.deviation"]
    z = (x @ weights["output.kernel"] + weights["output.bias"])[:, 0]
    test = prepared.indices("test")
    assert run.metrics.test.accuracy == np.mean((z[test] > 0) == prepared.labels[test])
    assert train_command(run).endswith("--backbone tiny --unfreeze 2")
    # The folder is moved, and all that is done with a run still works.
    moved = photoflux.load_run(shutil.move(run.path, tmp_path / "moved"))
    images = np.asarray(prepared.images[test]).transpose(0, 2, 3, 1)
    found = photoflux.predict(moved, images, progress=False)
    p = np.array([row.probabilities[run.classes[1]] for row in found])
    assert np.abs(p - 1 / (1 + np.exp(-z[test]))).max() < 1e-4  # of two orders of sums
    assert photoflux.evaluate(moved, progress=False).accuracy == run.metrics.test.accuracy
    model = photoflux.export(moved, tmp_path / "model.onnx", progress=False)
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.astype(np.float32)})
    assert np.abs(logits[:, 0] - z[test]).max() < 1e-3
    assert "its last 2 blocks fine-tuned" in photoflux.report(moved).read_text(encoding="utf-8")
    (moved.path / "backbone.safetensors").unlink()
    with pytest.raises(BackboneError, match="was fine-tuned in this run, is missing or damaged"):
        photoflux.predict(moved, images, progress=False)


@pytest.mark.parametrize("minutes", [0, 10])
def test_fine_tuning_that_was_ended_goes_on_to_the_same_bytes(tiny, flux, prepared, tmp_path, monkeypatch, minutes):
    """With checkpoints after each batch, and with none but that of the interruption: the head's fit has none then."""
    whole, out, batches = train(prepared, tmp_path / "whole"), tmp_path / "r", 0
    head = 3 * -(-len(prepared.indices("train")) // 8)  # batches of the head's fit

    def batch(self, progress):
        nonlocal batches
        batches += 1
        if batches in (head + 3, head + 9):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Display, "batch", batch)
        part = train(prepared, out, checkpoint_minutes=minutes)
        assert (part.ended, len(part.history)) == ("interrupted", 3)
        with pytest.raises(RunError, match="can go on from epoch 1, after batch 3 of fine-tuning"):
            train(prepared, out)
        part = train(prepared, out, checkpoint_minutes=minutes, resume=True)
        assert part.ended == "interrupted"
    run = train(prepared, out, resume=True)
    for name in ("weights.safetensors", "backbone.safetensors"):
        assert (out / name).read_bytes() == (whole.path / name).read_bytes()
    assert [dataclasses.replace(row, seconds=0) for row in run.history] == [
        dataclasses.replace(row, seconds=0) for row in whole.history
    ]
    assert (run.metrics, run.kept_epoch, run.ended) == (whole.metrics, whole.kept_epoch, whole.ended)
    assert not (out / "checkpoints").exists()


def test_callbacks_are_told_of_both_fits_and_may_end_the_first(tiny, flux, prepared, tmp_path):
    class Told(photoflux.Callback):
        def __init__(self, last=0):
            self.seen, self.last = [], last

        def on_train_begin(self, fit):
            self.seen.append(fit.learning_rate)

        def on_epoch_end(self, fit):
            self.seen.append((fit.epoch, len(fit.history)))
            if len(self.seen) - 1 == self.last:
                fit.stop()

    told = Told()
    run = train(prepared, tmp_path / "both", epochs=2, callbacks=[told], max_time="10h")
    assert told.seen == [0.01, (1, 1), (2, 2), pytest.approx(0.001), (1, 1), (2, 2)] and len(run.history) == 4
    # A head that was stopped is not fine-tuned.
    run = train(prepared, tmp_path / "head", epochs=2, callbacks=[Told(1)])
    assert run.ended == "stopped" and len(run.history) == 1 and "unfrozen" not in run.backbone
    run = train(prepared, tmp_path / "time", epochs=2, max_time=1e-6)
    assert run.ended == "stopped" and len(run.history) == 1


def test_the_last_good_weights_where_fine_tuning_diverges(tiny, flux, prepared, tmp_path):
    with pytest.raises(DivergedError):
        train(prepared, tmp_path / "run", learning_rate=1e37, epochs=1)
    run = photoflux.load_run(tmp_path / "run")
    assert run.ended == "diverged"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unfreeze": 4}, "`unfreeze` must be 0 to 3, the blocks of tiny; received: 4"),
        ({"unfreeze": -1}, "`unfreeze` must be a whole number, 0 or more; received: -1"),
        (
            {"unfreeze": 1, "backbone": "tiny+other"},
            r"`unfreeze` trains one backbone of the table.*tiny\+other in float32",
        ),
        ({"unfreeze": 1, "precision": "int8"}, "`unfreeze` trains one backbone of the table.*tiny in int8"),
        ({"unfreeze": 1, "engine": "keras"}, "`unfreeze` is done by the engine flux alone; this one is keras"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused_before_anything_is_trained(tiny, prepared, tmp_path, options, words):
    with pytest.raises(SettingError, match=words):
        train(prepared, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_variants_without_a_backbone_have_no_blocks(prepared):
    with pytest.raises(SettingError, match="`unfreeze` is for the variants on a backbone only: transfer"):
        photoflux.train("l2", prepared, unfreeze=1, progress=False)


def test_the_command_has_the_option(tiny, prepared, tmp_path):
    words = ["train", "transfer", str(prepared.path), "--backbone", "tiny", "--unfreeze", "9"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "must be 0 to 3" in result.output
