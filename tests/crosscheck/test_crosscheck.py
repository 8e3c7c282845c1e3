"""The proof: from the same weights, on the same batches, Flux and Keras compute the same numbers.

Both compute in Float32 and sum in different orders. A sum of n terms of size s may differ by n·eps·s, eps = 1.2e-7;
what is summed in random order differs by about √n·eps·s in practice, and never by more than the bound. The tolerances
below are such bounds, and each names its n.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from photoflux.engines.base import TraceRequest
from photoflux.variants import Variant, variant, variants
from photoflux.weights import expected_shapes, metadata_of, write_weights

EPS = float(np.finfo(np.float32).eps)
BATCH, STEPS = 6, 10
# ReLU and pooling have kinks. At a variant's own rate, ten steps carry some activation across one in one engine and not
# in the other, and a convolution's gradient jumps by a share of itself. At this rate the weights hardly move, none
# crosses, and what is left to differ is Adam itself.
SLOW = 1e-5
SHAPES = {"photo_cnn": (3, 14, 18), "dense": (1, 9, 7)}
WITH_DROPOUT = [name for name, v in variants().items() if v.dropout]


def request_for(
    v: Variant, classes: int, folder: Path, *, steps: int = STEPS, masked: bool = False, rate: float | None = None
) -> TraceRequest:
    """Random weights, images, labels and, if asked, dropout masks, fixed by the variant's name."""
    rng = np.random.default_rng(zlib.crc32(f"{v.name}{classes}{masked}".encode()))
    channels, height, width = SHAPES[v.architecture]
    weights = {}
    for name, shape in expected_shapes(v, channels, height, width, classes).items():
        fans = np.prod(shape[:-2]) * (shape[-2] + shape[-1]) if len(shape) > 1 else 1000
        limit = np.sqrt(6 / fans)
        weights[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
    path = folder / f"{v.name}-{classes}.safetensors"
    write_weights(path, weights, metadata_of(v, channels, height, width, classes))
    masks = {}
    if masked:
        features = {"pool_dropout": (height // 2, width // 2, 16)} if "pool" in v.dropout else {}
        if "hidden" in v.dropout:
            features |= {f"dense{i}_dropout": (units,) for i, units in enumerate(v.hidden, 1)}
        for name, shape in features.items():
            dropped = v.dropout["pool" if name.startswith("pool") else "hidden"]
            keep = rng.random((steps, BATCH, *shape)) >= dropped
            masks[name] = (keep / (1 - dropped)).astype(np.float32)
    return TraceRequest(
        variant=v,
        weights=path,
        images=rng.integers(0, 256, (steps, BATCH, channels, height, width), np.uint8),
        labels=rng.integers(0, classes, (steps, BATCH)).astype(np.int32),
        classes=classes,
        learning_rate=v.learning_rate if rate is None else rate,
        masks=masks,
    )


def fan_in(v: Variant, classes: int) -> int:
    """Terms of the longest sum on the way to a logit: the largest layer's inputs, and the layers before it."""
    shapes = expected_shapes(v, *SHAPES[v.architecture], classes)
    return sum(int(np.prod(shape[:-1])) for name, shape in shapes.items() if name.endswith("kernel"))


def assert_close(name: str, ours: np.ndarray, theirs: np.ndarray, terms: int) -> None:
    """Compare to n·eps of the largest magnitude of the tensor."""
    assert ours.shape == theirs.shape, name
    assert ours.dtype == np.float32
    tolerance = terms * EPS * max(float(np.abs(theirs).max()), 1e-6)
    difference = float(np.abs(ours - theirs).max())
    assert difference <= tolerance, f"{name}: {difference:.3g} > {tolerance:.3g}"


def assert_first_numbers_agree(v: Variant, classes: int, ours: dict, theirs: dict) -> None:
    """Logits, data loss, penalty, total and gradients of the first batch."""
    terms = fan_in(v, classes)
    assert set(ours) == set(theirs)
    assert_close("logits", ours["logits"], theirs["logits"], terms)
    # The loss is a smooth function of the logits with slope at most 1, so it differs by no more than they do.
    assert_close("loss", ours["loss"][:1], theirs["loss"][:1], terms)
    # The number of weights bounds the penalty's sum; both libraries sum pairwise or in blocks: √ of it is generous.
    count = sum(int(np.prod(s)) for s in expected_shapes(v, *SHAPES[v.architecture], classes).values())
    assert_close("penalty", ours["penalty"][:1], theirs["penalty"][:1], int(np.sqrt(count)))
    assert_close("total", ours["total"][:1], theirs["total"][:1], terms)
    for name in ours:
        if name.startswith("gradient/"):
            # Back through the same sums, and once more over batch and places.
            places = BATCH * SHAPES[v.architecture][1] * SHAPES[v.architecture][2]
            assert_close(name, ours[name], theirs[name], terms + places)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", list(variants()))
def test_logits_loss_penalty_gradients(name, classes, flux, keras, tmp_path):
    v = variant(name)
    request = request_for(v, classes, tmp_path, steps=1)
    assert_first_numbers_agree(v, classes, flux.trace(request), keras.trace(request))


def adam_slack(ours: np.ndarray, theirs: np.ndarray, rate: float) -> np.ndarray:
    """How far one Adam step may differ where the gradients g differ by δ.

    At the first step the update is η·g/(|g| + ε/√(1 − β₂)), with slope at most η·ε'/(|g| + ε')², ε' = 3.2e-6, at the
    smaller |g|: steep near zero, where rounding alone decides the sign of g.
    """
    shifted = 1e-7 / np.sqrt(1e-3)
    smaller = np.minimum(np.abs(ours), np.abs(theirs))
    smaller[np.sign(ours) != np.sign(theirs)] = 0
    return rate * np.minimum(2, np.abs(ours - theirs) * shifted / (smaller + shifted) ** 2)


@pytest.mark.parametrize("name", list(variants()))
def test_adam_steps(name, flux, keras, tmp_path):
    v = variant(name)
    for rate in (v.learning_rate, SLOW):
        request = request_for(v, 2, tmp_path, rate=rate)
        assert_steps_agree(rate, flux.trace(request), keras.trace(request))


def assert_steps_agree(rate: float, ours: dict, theirs: dict) -> None:
    """Weights after one step and after all, and the losses on the way."""
    for name in [key.partition("/")[2] for key in ours if key.startswith("first/")]:
        one, other = ours[f"first/{name}"], theirs[f"first/{name}"]
        # Beside the gradients': the step itself is a few operations, and the weight is rounded once.
        slack = adam_slack(ours[f"gradient/{name}"], theirs[f"gradient/{name}"], rate)
        allowed = slack + 8 * EPS * rate + 2 * EPS * np.abs(other)
        assert np.all(np.abs(one - other) <= allowed), f"first/{name}: {np.abs(one - other).max():.3g}"
    for name in ("loss", "total"):
        # Ten steps of rate η move a logit of n terms by at most 10·η·n·|x|; that rounding shifts by a share of η.
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(ours["penalty"], theirs["penalty"], rtol=2e-5, atol=0)
    for name in [key.partition("/")[2] for key in ours if key.startswith("final/")]:
        difference = np.abs(ours[f"final/{name}"] - theirs[f"final/{name}"])
        # A step moves a weight by about η at most; where a gradient is rounding only, the two may move it apart.
        assert difference.max() <= 2 * STEPS * rate
        if rate == SLOW:
            # Elsewhere the two agree to a small share of a step; beside it, each step rounds the weight once.
            allowed = 0.02 * rate + STEPS * EPS * np.abs(theirs[f"final/{name}"])
            assert np.quantile(difference - allowed, 0.99) <= 0, f"final/{name}: {np.quantile(difference, 0.99):.3g}"


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_shared_masks(name, flux, keras, tmp_path):
    v = variant(name)
    for rate in (v.learning_rate, SLOW):
        request = request_for(v, 2, tmp_path, masked=True, rate=rate)
        ours, theirs = flux.trace(request), keras.trace(request)
        assert_first_numbers_agree(v, 2, ours, theirs)
        assert_steps_agree(rate, ours, theirs)
    unmasked = request_for(v, 2, tmp_path, steps=1)
    assert not np.array_equal(ours["logits"], flux.trace(unmasked)["logits"])


@pytest.mark.parametrize("classes", [2, 4])
def test_squared_error(classes, flux, keras, tmp_path):
    import dataclasses

    v = dataclasses.replace(variant("mlp"), loss="squared_error")
    request = request_for(v, classes, tmp_path, steps=1)
    assert_first_numbers_agree(v, classes, flux.trace(request), keras.trace(request))


@pytest.mark.parametrize("name", list(variants()))
def test_a_model_trained_by_one_predicts_in_the_other(name, flux, keras, tmp_path):
    v = variant(name)
    request = request_for(v, 3, tmp_path)
    images = request.images.reshape(-1, *request.images.shape[2:])
    ours = flux.logits(v, request.weights, images, 3, batch_size=7)
    theirs = keras.logits(v, request.weights, images, 3, batch_size=7)
    assert_close("logits", ours, theirs, fan_in(v, 3))


@pytest.mark.parametrize("fault", ["flipped kernel", "flatten order", "half the penalty"])
def test_a_fault_is_caught(fault, flux, keras, tmp_path):
    """The comparison can fail: each fault in what one engine is given breaks it."""
    v = variant("l2")
    request = request_for(v, 2, tmp_path, steps=1)
    theirs = keras.trace(request)
    if fault == "half the penalty":
        wrong = request_for(v.with_penalty(l2=0.005), 2, tmp_path, steps=1)
    else:
        from photoflux.weights import read_weights

        weights, metadata = read_weights(request.weights)
        if fault == "flipped kernel":
            weights["conv2.kernel"] = np.ascontiguousarray(weights["conv2.kernel"][::-1, ::-1])
        else:
            kernel = weights["dense1.kernel"].reshape(7, 9, 64, 128)
            weights["dense1.kernel"] = np.ascontiguousarray(kernel.transpose(1, 0, 2, 3)).reshape(-1, 128)
        write_weights(request.weights, weights, metadata)
        wrong = request
    with pytest.raises(AssertionError):
        assert_first_numbers_agree(v, 2, flux.trace(wrong), theirs)
