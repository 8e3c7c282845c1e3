"""Fine-tuning through Flux: head and backbone are trained on, and the backbone's file is one that ONNX Runtime runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import small
from photoflux.data.shape import Shape
from photoflux.errors import BackboneError, DivergedError, EngineError
from photoflux.features import backbone_from, features_dataset, folded_weights, open_backbone
from photoflux.features.folding import read_folded
from photoflux.model.variants import variants

pytest.importorskip("onnxruntime", reason="features run through onnxruntime, which is not installed")
pytest.importorskip("onnx", reason="the graph is written with onnx, which is not installed")

VARIANT = variants()["transfer"]
SETTINGS = small.settings(epochs=3, learning_rate=0.01)


@pytest.fixture
def fitted(tiny, flux, tmp_path):
    """A dataset of images and the weights of a head that was fitted to their features."""
    prepared = small.prepare(tmp_path / "prepared", 2, size=20)
    weights = tmp_path / "weights.safetensors"
    flux.fit(VARIANT, features_dataset(prepared, open_backbone("tiny")), SETTINGS, weights)
    return prepared, weights


def tune(flux, prepared, weights, name="tuned", **options):
    """Fine-tune a copy of the head's weights; return the fit and both files."""
    folder = weights.parent / name
    folder.mkdir()
    head, tuned = Path(shutil.copy(weights, folder)), folder / "backbone.safetensors"
    options = {"unfreeze": 2, "settings": SETTINGS, **options}
    fit = flux.fine_tune(VARIANT, prepared, options.pop("settings"), head, folded_weights("tiny"), tuned, **options)
    return fit, head, tuned


def test_head_and_backbone_are_trained_on_and_their_file_is_a_backbone(flux, fitted):
    prepared, weights = fitted
    batches, rows = [], []
    fit, head, tuned = tune(
        flux, prepared, weights, on_batch=lambda progress: batches.append(progress) and False, on_epoch=rows.append
    )
    assert [row.epoch for row in fit.history] == [1, 2, 3] and rows == fit.history and len(batches) == 3 * 4
    assert fit.kept_epoch >= 1 and head.read_bytes() != weights.read_bytes()
    was, found = read_folded(folded_weights("tiny")), read_folded(tuned)
    assert (found.name, found.source, found.blocks) == (was.name, was.source, was.blocks)
    assert found.fingerprint != was.fingerprint  # and `weights` checks that it is that of the tensors
    changed = {name for name, value in found.weights.items() if not np.array_equal(value, was.weights[name])}
    assert changed == {name for name in was.weights if not name.startswith(("stem", "block1."))}
    # By ONNX Runtime's features of the file, the head has the loss of the kept epoch. Each feature is off by at most
    # 3e-4 (tests/python/features/test_backbone.py), of a deviation of 0.05 or more, times 16 weights below 0.1.
    backbone = backbone_from(
        open_backbone("tiny").as_dict() | {"fingerprint": found.fingerprint, "file": tuned.name}, tuned.parent
    )
    chosen = prepared.indices("validation")
    features = backbone.features_of(prepared.images[chosen])[:, :, None, None]
    z = flux.load(VARIANT, head, Shape(16, 1, 1), 2).logits(features)[:, 0]
    loss = np.mean(np.log1p(np.exp(-np.where(prepared.labels[chosen] == 1, z, -z))))
    assert abs(loss - fit.history[fit.kept_epoch - 1].validation_loss) < 16 * 0.1 * 3e-4 / 0.05


def test_it_is_the_same_again(flux, fitted):
    results = [tune(flux, *fitted, name=str(number))[1:] for number in range(2)]
    assert [path.read_bytes() for path in results[0]] == [path.read_bytes() for path in results[1]]


def test_it_ends_while_the_frozen_blocks_are_computed_or_at_a_batch(flux, fitted):
    prepared, weights = fitted
    was, seen = read_folded(folded_weights("tiny")), []

    def stop(done, total):
        seen.append((done, total))
        return True

    for name, options in {"images": {"on_images": stop}, "batch": {"on_batch": lambda progress: True}}.items():
        fit, head, tuned = tune(flux, prepared, weights, name=name, **options)
        assert (fit.history, fit.kept_epoch, fit.ended) == ([], 0, "interrupted")
        assert read_folded(tuned).fingerprint == was.fingerprint
        assert np.array_equal(load_file(head)["output.kernel"], load_file(weights)["output.kernel"])
    assert seen == [(16, 40)]


def test_a_loss_that_diverges_leaves_the_last_good_weights(flux, fitted):
    prepared, weights = fitted
    with pytest.raises(DivergedError, match=r"The weights of the start were kept\. They are in .*weights\.safetensors"):
        tune(flux, prepared, weights, settings=small.settings(learning_rate=1e38))
    tuned = weights.parent / "tuned" / "backbone.safetensors"
    assert read_folded(tuned).fingerprint == read_folded(folded_weights("tiny")).fingerprint


def test_more_blocks_than_there_are(flux, fitted):
    prepared, weights = fitted
    with pytest.raises(EngineError, match="`unfreeze` must be 1 to 3, the backbone's blocks; received: 4"):
        tune(flux, prepared, weights, unfreeze=4)


def test_the_backbone_of_a_run_that_is_missing_or_damaged(flux, fitted):
    values = open_backbone("tiny").as_dict()
    _, _, tuned = tune(flux, *fitted)
    values |= {"fingerprint": read_folded(tuned).fingerprint, "file": tuned.name}
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 20), dtype=np.uint8)
    assert not np.array_equal(
        backbone_from(values, tuned.parent).features_of(images), open_backbone("tiny").features_of(images)
    )
    with pytest.raises(BackboneError, match="of other weights"):
        backbone_from(values | {"fingerprint": "00"}, tuned.parent)
    whole = tuned.read_bytes()
    tuned.write_bytes(whole[:-4] + b"\0\0\0\1")
    for _ in range(2):
        with pytest.raises(BackboneError, match="was fine-tuned in this run, is missing or damaged"):
            backbone_from(values, tuned.parent)
        tuned.unlink(missing_ok=True)
