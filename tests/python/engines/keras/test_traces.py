"""The numbers of single steps that the Keras engine traces."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from photoflux.data.shape import Shape
from photoflux.engines.proof import TraceRequest
from photoflux.errors import SettingError
from photoflux.model.layers import penalty_of
from photoflux.model.variant import Variant
from photoflux.model.variants import variants
from photoflux.model.weights import metadata_of, write_weights
from small import PAIR_IDS, PAIRS, data_loss, inputs_for, shape_for, write_random
from small import logits as logits_by

SHAPE = Shape(3, 6, 6)


def trace_request(variant: Variant, classes: int, path: Path, masks=None, steps: int = 2) -> TraceRequest:
    images = inputs_for(variant, SHAPE, steps, 4)
    labels = np.random.default_rng(6).integers(0, classes, (steps, 4)).astype(np.int32)
    return TraceRequest(variant, path, images, labels, classes, 0.001, masks or {})


@pytest.mark.parametrize("chosen", ["l2", "transfer"])
def test_steps_that_were_compiled_for_another_request_give_the_same(chosen, keras, tmp_path):
    """Weights, Adam's moments and a standardisation's statistics are the request's, not those of the one before."""
    variant, other = variants()[chosen], variants()["mlp"]
    shape = shape_for(variant, SHAPE)
    paths = [tmp_path / "one", tmp_path / "two", tmp_path / "other"]
    weights = write_random(paths[0], variant, shape, 3)
    write_weights(
        paths[1], {name: value * np.float32(1.5) for name, value in weights.items()}, metadata_of(variant, shape, 3)
    )
    write_random(paths[2], other, SHAPE, 3)
    one, two, between = (trace_request(v, 3, path) for v, path in zip((variant, variant, other), paths, strict=True))
    keras.trace(one)
    after = keras.trace(two)
    keras.trace(between)
    fresh = keras.trace(two)
    for key, value in fresh.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)
    assert not np.array_equal(fresh["logits"], keras.trace(one)["logits"])


@pytest.mark.parametrize(("variant", "data"), PAIRS, ids=PAIR_IDS)
def test_trace_of_every_variant(keras, variant, data, tmp_path):
    path, classes = tmp_path / "w", {"binary": 2, "three": 3, "features": 3}[data]
    weights = write_random(path, variant, shape_for(variant, SHAPE), classes)
    request = trace_request(variant, classes, path)
    numbers = keras.trace(request)
    layers = {layer.name for layer in request.layers if layer.kind not in ("flatten", "dropout")}
    trained = [name for name in weights if name.endswith((".kernel", ".bias"))]
    assert set(numbers) == {"logits", "loss", "penalty", "total"} | {f"activation/{layer}" for layer in layers} | {
        *(f"{kind}/{name}" for kind in ("initial", "first", "final") for name in weights),
        *(f"{kind}/{name}" for kind in ("gradient", "moment1", "moment2") for name in trained),
    }
    assert all(value.dtype == np.float32 for value in numbers.values())
    # A compiled graph and its layers one by one round differently.
    expected = logits_by(keras, variant, path, request.images[0], classes)
    np.testing.assert_allclose(numbers["logits"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(numbers["activation/output"], numbers["logits"])
    assert numbers["loss"][0] == pytest.approx(data_loss(variant, numbers["logits"], request.labels[0]), rel=1e-5)
    assert numbers["penalty"][0] == pytest.approx(penalty_of(request.layers, weights), rel=1e-5)
    np.testing.assert_array_equal(numbers["total"], numbers["loss"] + numbers["penalty"])
    for name, value in weights.items():
        np.testing.assert_array_equal(numbers[f"initial/{name}"], value)
        if name not in trained:
            np.testing.assert_array_equal(numbers[f"final/{name}"], value)
            continue
        gradient = numbers[f"gradient/{name}"]
        assert gradient.shape == value.shape
        np.testing.assert_allclose(numbers[f"moment1/{name}"], 0.1 * gradient, rtol=1e-5, atol=0)
        np.testing.assert_allclose(numbers[f"moment2/{name}"], 0.001 * gradient**2, rtol=1e-4, atol=1e-30)
        # Keras' Adam, first step: lr·√(1−β₂)/(1−β₁) · (1−β₁)g / (√(1−β₂)·|g| + ε)
        g = gradient.astype(np.float64)
        step = 0.001 * np.sqrt(0.001) * g / (np.sqrt(0.001) * np.abs(g) + 1e-7)
        expected = value - step
        if variant.proximal and name == "output.kernel":
            # What it is divided by is what Adam's step is, and what is left of it is 0 exactly.
            reach = variant.penalty["output"]["l1"] * 0.001 * np.sqrt(0.001) / 0.1 / (np.sqrt(0.001) * np.abs(g) + 1e-7)
            expected = np.sign(expected) * np.maximum(np.abs(expected) - reach, 0)
        np.testing.assert_allclose(numbers[f"first/{name}"], expected, rtol=0, atol=2e-7)
    assert not np.array_equal(numbers["first/output.kernel"], numbers["final/output.kernel"])


@pytest.mark.parametrize("variant", [v for v in variants().values() if v.penalty], ids=lambda v: v.name)
def test_the_penalty_adds_its_own_gradient(keras, variant, tmp_path):
    path = tmp_path / "w"
    weights = write_random(path, variant, shape_for(variant, SHAPE), 3)
    with_penalty = keras.trace(trace_request(variant, 3, path, steps=1))
    without = keras.trace(trace_request(dataclasses.replace(variant, penalty={}, proximal=False), 3, path, steps=1))
    assert without["penalty"] == 0
    for name, w in weights.items():
        if name.startswith("standardise"):
            continue
        group = "conv" if name.startswith("conv") else "output" if name.startswith("output") else "hidden"
        factors = variant.penalty.get(group, {}) if name.endswith("kernel") else {}
        l1 = 0 if variant.proximal else factors.get("l1", 0)  # that part is a step of its own
        expected = l1 * np.sign(w) + 2 * factors.get("l2", 0) * w
        difference = with_penalty[f"gradient/{name}"] - without[f"gradient/{name}"]
        # float32 gradients of size 1
        np.testing.assert_allclose(difference, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "loss", "classes"),
    [("elastic_net", "cross_entropy", 2), ("mlp", "squared_error", 2), ("mlp", "squared_error", 3)],
)
def test_trace_gradient_against_finite_differences(keras, tmp_path, name, loss, classes):
    variant = dataclasses.replace(variants()[name], loss=loss)
    path = tmp_path / "w"
    weights = write_random(path, variant, SHAPE, classes)
    request = trace_request(variant, classes, path, steps=1)
    numbers = keras.trace(request)

    def total(change: dict[str, np.ndarray]) -> float:
        moved = {key: value + change.get(key, 0) for key, value in weights.items()}
        write_weights(path, moved, metadata_of(variant, SHAPE, classes))
        logits = logits_by(keras, variant, path, request.images[0], classes)
        return data_loss(variant, logits, request.labels[0]) + penalty_of(request.layers, moved)

    for key in ("output.kernel", "output.bias", "dense1.kernel"):
        gradient = numbers[f"gradient/{key}"].astype(np.float64)
        # along the gradient itself, where the difference is largest; float32 logits allow about 1e-3
        h = 1e-3 / np.linalg.norm(gradient)
        difference = (total({key: h * gradient}) - total({key: -h * gradient})) / (2 * h)
        assert difference == pytest.approx(np.sum(gradient**2), rel=0.02)


def test_trace_multiplies_by_the_masks(keras, tmp_path):
    variant, path = variants()["dense_dropout"], tmp_path / "w"
    weights = write_random(path, variant, SHAPE, 3)
    mask = (np.random.default_rng(2).random((1, 4, 64)) < 0.5).astype(np.float32) * 2
    request = trace_request(variant, 3, path, {"dense2_dropout": mask}, steps=1)
    x = request.images[0].transpose(0, 2, 3, 1).reshape(4, -1) / 255
    for layer in ("dense1", "dense2"):
        x = np.maximum(x @ weights[f"{layer}.kernel"] + weights[f"{layer}.bias"], 0)
    expected = (x * mask[0]) @ weights["output.kernel"] + weights["output.bias"]
    numbers = keras.trace(request)
    np.testing.assert_allclose(numbers["logits"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(numbers["gradient/output.kernel"][(mask[0] == 0).all(axis=0)], 0)


def test_trace_masks_of_a_photo_variant(keras, tmp_path):
    variant, path = variants()["dropout"], tmp_path / "w"
    write_random(path, variant, SHAPE, 2)
    masks = {"dense1_dropout": np.ones((1, 4, 128), np.float32), "pool_dropout": np.ones((1, 4, 3, 3, 16), np.float32)}
    plain = keras.trace(trace_request(variant, 2, path, steps=1))
    ones = keras.trace(trace_request(variant, 2, path, masks, steps=1))
    np.testing.assert_array_equal(plain["logits"], ones["logits"])
    masks["pool_dropout"] = np.zeros((1, 4, 3, 3, 16), np.float32)
    nothing = keras.trace(trace_request(variant, 2, path, masks, steps=1))
    assert not nothing["gradient/conv2.kernel"].any()
    with pytest.raises(SettingError, match="pool_dropout"):
        keras.trace(trace_request(variant, 2, path, {"pool_dropouts": masks["pool_dropout"]}, steps=1))
