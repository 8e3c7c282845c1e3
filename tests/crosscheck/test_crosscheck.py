"""The checks of `photoflux verify` on small images, for every variant; and that each can fail."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest

from photoflux.data.preparation import prepare
from photoflux.data.shape import Shape
from photoflux.engines.keras.engine import ENVIRONMENT, KerasEngine
from photoflux.engines.keras.worker import Worker
from photoflux.engines.proof import TraceRequest
from photoflux.errors import SettingError
from photoflux.model.layers import layers
from photoflux.model.variant import Variant
from photoflux.model.variants import variant, variants
from photoflux.verification import inputs, proof, tolerances
from photoflux.verification.checks import compare
from photoflux.verification.proof import Prover
from small import FEATURES, inputs_for, prepare_features
from small import logits as logits_by

BATCH, STEPS = 6, 10
# At this rate the weights hardly move, no activation crosses a kink, and what is left to differ is Adam itself.
SLOW = 1e-5
SHAPES = {"photo_cnn": Shape(3, 14, 18), "dense": Shape(1, 9, 7), "transfer": FEATURES}
WITH_DROPOUT = [name for name, v in variants().items() if v.dropout]


def request_for(
    v: Variant, classes: int, folder: Path, *, steps: int = STEPS, masked: bool = False, rate: float | None = None
) -> TraceRequest:
    """Random weights, images, labels and, if asked, dropout masks, fixed by the variant's name."""
    rng = np.random.default_rng(zlib.crc32(f"{v.name}{classes}{masked}".encode()))
    shape = SHAPES[v.architecture]
    path = folder / f"{v.name}-{classes}.safetensors"
    inputs.draw_weights(path, v, shape, classes, rng)
    images = inputs_for(v, shape, steps, BATCH, seed=zlib.crc32(f"{v.name}{classes}{masked}".encode()))
    return TraceRequest(
        variant=v,
        weights=path,
        images=images,
        labels=rng.integers(0, classes, (steps, BATCH)).astype(np.int32),
        classes=classes,
        learning_rate=v.learning_rate if rate is None else rate,
        masks=inputs.draw_masks(layers(v, shape, classes), steps, BATCH, rng) if masked else {},
    )


def assert_holds(check: proof.Check) -> None:
    shown = check.shown
    assert check.passed, f"{check.name}, {shown.name}: {shown.absolute:.3g} > {shown.tolerance:.3g}"


def assert_first_batch_agrees(request: TraceRequest, flux, keras) -> None:
    ours, theirs = flux.trace(request), keras.trace(request)
    assert set(ours) == set(theirs)
    assert {value.dtype for value in ours.values()} == {np.dtype(np.float32)}
    for check in (proof.round_trip, proof.activations, proof.losses):
        assert_holds(check(request, ours, theirs))
    first = inputs.first_step(request, inputs.decided_alike(request, ours, theirs))
    assert first.images.shape[1] > 0
    ours, theirs = flux.trace(first), keras.trace(first)
    assert_holds(proof.gradients(first, ours, theirs))
    assert_holds(proof.adam(first, ours, theirs))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", list(variants()))
def test_first_batch(name, classes, flux, keras, tmp_path):
    assert_first_batch_agrees(request_for(variant(name), classes, tmp_path, steps=1), flux, keras)


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_shared_masks(name, flux, keras, tmp_path):
    masked = request_for(variant(name), 2, tmp_path, steps=1, masked=True)
    assert_first_batch_agrees(masked, flux, keras)
    plain = flux.trace(dataclasses.replace(masked, masks={}))
    assert not np.array_equal(flux.trace(masked)["logits"], plain["logits"])


@pytest.mark.parametrize("classes", [2, 4])
def test_squared_error(classes, flux, keras, tmp_path):
    v = dataclasses.replace(variant("mlp"), loss="squared_error")
    assert_first_batch_agrees(request_for(v, classes, tmp_path, steps=1), flux, keras)


@pytest.mark.parametrize("rate", [None, SLOW])
@pytest.mark.parametrize("name", list(variants()))
def test_ten_steps(name, rate, flux, keras, tmp_path):
    v = variant(name)
    request = request_for(v, 2, tmp_path, masked=bool(v.dropout), rate=rate)
    ours, theirs = flux.trace(request), keras.trace(request)
    noise = proof.noise_of(keras, request, tmp_path)
    assert_holds(proof.trajectory(proof.curves_of(request, ours, theirs, noise), ours, theirs, noise))
    rate = request.learning_rate
    for key in (key for key in ours if key.startswith("final/")):
        difference = np.abs(ours[key] - theirs[key])
        # A step moves a weight by about η at most; where a gradient is rounding only, the two may move it apart.
        assert difference.max() <= 2 * STEPS * rate
        if rate == SLOW:
            # Elsewhere the two agree to a small share of a step; beside it, each step rounds the weight once.
            allowed = 0.02 * rate + STEPS * tolerances.EPS * np.abs(theirs[key])
            assert np.quantile(difference - allowed, 0.99) <= 0, f"{key}: {np.quantile(difference, 0.99):.3g}"


@pytest.mark.parametrize("name", list(variants()))
def test_a_model_trained_by_one_predicts_in_the_other(name, flux, keras, tmp_path):
    v = variant(name)
    request = request_for(v, 3, tmp_path)
    images = request.images.reshape(-1, *request.images.shape[2:])
    ours, theirs = (logits_by(engine, v, request.weights, images, 3, batch_size=7) for engine in (flux, keras))
    allowed = tolerances.summed(tolerances.terms_before(request)["output"], float(np.abs(theirs).max()))
    assert compare("logits", ours, theirs, allowed).passed


def test_images_in_any_order_in_memory_or_none(flux, tmp_path):
    """Julia reads the images from their address."""
    v = variant("l2")
    request = request_for(v, 3, tmp_path)
    images = request.images.reshape(-1, *request.images.shape[2:])
    expected = logits_by(flux, v, request.weights, images, 3)
    np.testing.assert_array_equal(logits_by(flux, v, request.weights, np.asfortranarray(images), 3), expected)
    backwards = images[::-2]
    np.testing.assert_array_equal(
        logits_by(flux, v, request.weights, backwards, 3), logits_by(flux, v, request.weights, backwards.copy(), 3)
    )
    assert logits_by(flux, v, request.weights, images[:0], 3).shape == (0, 3)


def test_images_of_another_type_are_refused(flux, keras, tmp_path):
    request = request_for(variant("l2"), 3, tmp_path)
    for engine in (flux, keras):
        with pytest.raises(SettingError, match=r"uint8 \(N, C, H, W\); received: float32"):
            logits_by(engine, variant("l2"), request.weights, request.images[0].astype(np.float32), 3)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """The demo's images, small and few."""
    return prepare("demo", tmp_path_factory.mktemp("scans") / "demo", image_size=16)


ROWS = (
    "weights there and back",
    "activations of every layer",
    "data loss, penalty, total",
    "gradient of every weight",
    "one step of Adam",
    "loss curve and last weights",
    "evaluation",
    "early stopping",
    "augmentation",
    "pixels",
)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Features of images that nobody made."""
    return prepare_features(tmp_path_factory.mktemp("features") / "data", 2)


@pytest.mark.parametrize("name", [name for name, v in variants().items() if v.takes_features])
def test_every_row_of_a_transfer_variant_holds(name, flux, keras, features):
    found = Prover(flux, keras, features, steps=5).prove(variant(name))
    rows = [*ROWS[:8], "mean and deviation of the training part", "pixels"]
    for check, row in zip(found.checks, rows, strict=True):
        assert check.name.startswith(row)
        assert_holds(check)


@pytest.mark.parametrize("name", ["l2", "dropout", "dense_l2"])
def test_every_row_holds(name, flux, keras, scans):
    found = Prover(flux, keras, scans, steps=5).prove(variant(name))
    for check, row in zip(found.checks, ROWS, strict=True):
        assert check.name.startswith(row)
        assert_holds(check)
    assert found.curves.ours.shape == (5,)


@pytest.mark.parametrize(
    ("fault", "first", "where"),
    [
        ("adam_epsilon", "one step of Adam", "conv1"),
        ("flipped_kernel", "activations of every layer", "conv1"),
        ("penalty_on_biases", "data loss, penalty, total", "penalty"),
        ("flatten_order", "activations of every layer", "dense1"),
        ("half_the_l2", "data loss, penalty, total", "penalty"),
    ],
)
def test_a_fault_is_caught(fault, first, where, flux, keras, scans, monkeypatch):
    """Each fault is in the code of one engine; the row named first is the first that fails, and says where."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    with KerasEngine() as faulty:
        faulty._process = Worker("faulty_keras", {**ENVIRONMENT, "FAULT": fault}, "faulty Keras worker")
        found = Prover(flux, faulty, scans, steps=3).prove(variant("l2"))
    failed = [check for check in found.checks if not check.passed]
    assert failed[0].name == first
    assert where in failed[0].shown.name
    # What depends on neither layers, losses nor steps still holds.
    assert [check.name for check in found.checks[-3:] if check.passed] == list(ROWS[-3:])


@pytest.mark.parametrize(
    ("fault", "first", "where"),
    [
        ("no_proximal_step", "one step of Adam, and the proximal one", "output.kernel"),
        ("deviation_of_a_sample", "mean and deviation of the training part", "standardise.deviation"),
    ],
)
def test_a_fault_of_a_transfer_variant_is_caught(fault, first, where, flux, features, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    with KerasEngine() as faulty:
        faulty._process = Worker("faulty_keras", {**ENVIRONMENT, "FAULT": fault}, "faulty Keras worker")
        found = Prover(flux, faulty, features, steps=3).prove(variant("transfer_l1"))
    failed = [check for check in found.checks if not check.passed]
    assert failed[0].name == first
    assert where in failed[0].shown.name


def test_a_penalty_on_biases_shows_in_the_biases_gradients_too(flux, scans, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    with KerasEngine() as faulty:
        faulty._process = Worker("faulty_keras", {**ENVIRONMENT, "FAULT": "penalty_on_biases"}, "faulty Keras worker")
        found = Prover(flux, faulty, scans, steps=2).prove(variant("l2"))
    gradient = next(check for check in found.checks if check.name == "gradient of every weight")
    wrong = {part.name for part in gradient.parts if not part.passed}
    assert wrong == {"conv1.bias", "conv2.bias", "conv3.bias", "dense1.bias"}
