import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from photoflux.data.prepared import PreparedDataset
from photoflux.data.writer import ImageRecord, PreparedWriter
from photoflux.engines.base import Augmentation, Settings, TraceRequest
from photoflux.engines.keras import KerasEngine, why_unavailable
from photoflux.errors import DataError, DivergedError, EngineError, RunError, SettingError
from photoflux.variants import Variant, variants
from photoflux.weights import expected_shapes, metadata_of, outputs_of, read_weights, write_weights

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))
# Every variant on the kind of classes that it was made for, and one of each architecture on the other kind.
PAIRS = [(v, "binary" if v.architecture == "photo_cnn" else "three") for v in variants().values()]
PAIRS += [(variants()["elastic_net"], "three"), (variants()["mlp"], "binary")]
PAIR_IDS = [f"{v.name}-{data}" for v, data in PAIRS]


@pytest.fixture(scope="module")
def engine():
    with KerasEngine() as engine:
        yield engine


def prepare(folder: Path, classes: int, size: int = 8, counts=None, channels: int = 3, band=130) -> PreparedDataset:
    """A tiny prepared dataset: noise, and class k has a bright band at row k (with band 0, nothing to learn)."""
    rng = np.random.default_rng(classes)
    counts = counts or [20] * classes
    labels = np.repeat(np.arange(classes, dtype=np.int32), counts)
    images = rng.integers(0, 120, (len(labels), channels, size, size), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, label, :] += np.uint8(band)
    split = np.zeros(len(labels), np.uint8)
    for label in range(classes):
        split[np.flatnonzero(labels == label)[-4:]] = 1
    with PreparedWriter(folder, channels=channels, height=size, width=size) as writer:
        writer.append(images)
        files = [ImageRecord(f"{i}.png", str(k), "0" * 64, i, size, size) for i, k in enumerate(labels)]
        names = [f"class{k}" for k in range(classes)]
        return writer.finish(
            name="tiny", source="tests", classes=names, labels=labels, split=split, files=files, seed=1
        )


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("binary") / "data", 2, counts=[21, 19])


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("three") / "data", 3, counts=[20, 12, 8])


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """No class can be learnt, so the validation loss soon rises."""
    return prepare(tmp_path_factory.mktemp("noise") / "data", 2, band=0)


def settings(**changes) -> Settings:
    return Settings(**{"epochs": 2, "batch_size": 8, "learning_rate": 0.001, **changes})


def random_weights(variant: Variant, shape: tuple[int, int, int], classes: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = expected_shapes(variant, *shape, classes)
    return {name: rng.normal(0, 0.1, size).astype(np.float32) for name, size in shapes.items()}


def write_random(path: Path, variant: Variant, shape: tuple[int, int, int], classes: int) -> dict[str, np.ndarray]:
    weights = random_weights(variant, shape, classes)
    write_weights(path, weights, metadata_of(variant, *shape, classes))
    return weights


def dense_logits(weights: dict[str, np.ndarray], images: np.ndarray, hidden: int) -> np.ndarray:
    x = images.transpose(0, 2, 3, 1).reshape(len(images), -1) / 255
    for number in range(1, hidden + 1):
        x = np.maximum(x @ weights[f"dense{number}.kernel"] + weights[f"dense{number}.bias"], 0)
    return x @ weights["output.kernel"] + weights["output.bias"]


def data_loss(variant: Variant, logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean data loss, in float64."""
    z = logits.astype(np.float64)
    if z.shape[1] == 1:
        z = np.concatenate([np.zeros_like(z), z], axis=1)  # sigmoid(z) is softmax(0, z)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    if variant.loss == "squared_error":
        onehot = np.eye(z.shape[1])[labels]
        columns = slice(1, None) if logits.shape[1] == 1 else slice(None)
        return float(0.5 * np.mean((p - onehot)[:, columns] ** 2))
    return float(-np.log(p[np.arange(len(p)), labels]).mean())


@pytest.mark.parametrize(("variant", "data"), PAIRS, ids=PAIR_IDS)
def test_every_variant_fits_and_reports_what_its_weights_give(engine, variant, data, request, tmp_path):
    prepared = request.getfixturevalue(data)
    classes, path = len(prepared.classes), tmp_path / "w.safetensors"
    fit = engine.fit(variant, prepared, settings(epochs=4, learning_rate=0.003), path)
    weights, metadata = read_weights(path)
    assert {name: value.shape for name, value in weights.items()} == expected_shapes(variant, 3, 8, 8, classes)
    assert metadata == metadata_of(variant, 3, 8, 8, classes)

    assert [row.epoch for row in fit.history] == [1, 2, 3, 4]
    assert fit.history[-1].validation_total < fit.history[0].train_total
    kept = fit.history[fit.kept_epoch - 1]
    # float32 sums of up to 1e5 terms against float64 ones
    assert kept.validation_penalty == pytest.approx(variant.penalty_of(weights), rel=1e-5)
    assert kept.validation_total == pytest.approx(kept.validation_loss + kept.validation_penalty, rel=1e-12)
    assert (kept.train_penalty > 0) == bool(variant.penalty)

    chosen = prepared.indices("validation")
    logits = engine.logits(variant, path, prepared.images[chosen], classes)
    assert logits.dtype == np.float32
    assert logits.shape == (len(chosen), outputs_of(classes))
    assert kept.validation_loss == pytest.approx(data_loss(variant, logits, prepared.labels[chosen]), rel=1e-4)
    predicted = logits[:, 0] > 0 if classes == 2 else logits.argmax(axis=1)
    assert kept.validation_accuracy == pytest.approx(np.mean(predicted == prepared.labels[chosen]), abs=1e-12)
    # dropout is off, and the batch size changes rounding only
    again = engine.logits(variant, path, prepared.images[chosen], classes, batch_size=3)
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-5)


def test_training_columns_are_means_over_images(engine, binary, tmp_path):
    variant = variants()["dense_l2"]
    totals = []
    # A step size that moves no weight: every batch is measured with the weights that the file holds.
    tiny = settings(epochs=1, learning_rate=1e-12, batch_size=12)
    fit = engine.fit(variant, binary, tiny, tmp_path / "w", on_batch=lambda at: totals.append(at) is not None)
    weights, _ = read_weights(tmp_path / "w")
    chosen = binary.indices("train")
    logits = engine.logits(variant, tmp_path / "w", binary.images[chosen], 2)
    (row,) = fit.history
    assert row.train_loss == pytest.approx(data_loss(variant, logits, binary.labels[chosen]), rel=1e-5)
    assert row.train_penalty == pytest.approx(variant.penalty_of(weights), rel=1e-5)
    assert row.train_accuracy == pytest.approx(np.mean((logits[:, 0] > 0) == binary.labels[chosen]), abs=1e-12)
    assert [(at.epoch, at.epochs, at.batch, at.batches) for at in totals] == [(1, 1, i, 3) for i in range(1, 4)]
    assert [at.images for at in totals] == [12, 12, 8]
    assert totals[-1].loss == row.train_total
    assert totals[-1].accuracy == row.train_accuracy


def test_the_last_short_batch_is_used(engine, three, tmp_path):
    seen = []
    engine.fit(variants()["dense_l2"], three, settings(epochs=1, batch_size=16), tmp_path / "w", on_batch=seen.append)
    assert [at.images for at in seen] == [16, 12]


def test_weights_come_back_bit_equal_and_logits_follow_the_formula(engine, tmp_path):
    variant, path = variants()["mlp"], tmp_path / "w"
    weights = write_random(path, variant, (3, 6, 5), 4)
    assert all(np.array_equal(value, weights[name]) for name, value in read_weights(path)[0].items())
    images = np.random.default_rng(1).integers(0, 256, (7, 3, 6, 5), dtype=np.uint8)
    # float32 products of 512 terms against NumPy's
    np.testing.assert_allclose(
        engine.logits(variant, path, images, 4), dense_logits(weights, images, 2), rtol=1e-4, atol=1e-5
    )
    assert engine.logits(variant, path, images[:0], 4).shape == (0, 4)


@pytest.mark.parametrize("name", ["dropout", "mlp"])
def test_same_seed_same_weights_bit_for_bit(engine, three, tmp_path, name):
    def fitted(file: str, seed: int) -> dict[str, np.ndarray]:
        engine.fit(variants()[name], three, settings(seed=seed, balance="augment"), tmp_path / file)
        return read_weights(tmp_path / file)[0]

    first, second, other = fitted("a", 3), fitted("b", 3), fitted("c", 4)
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not any(np.array_equal(first[key], other[key]) for key in first)


def test_initial_weights_are_glorot_uniform_with_zero_biases(engine, binary, tmp_path):
    engine.fit(variants()["baseline"], binary, settings(epochs=1, learning_rate=1e-12), tmp_path / "w")
    weights, _ = read_weights(tmp_path / "w")
    for layer, fan in {"conv2": 9 * (16 + 32), "dense1": 4 * 4 * 64 + 128}.items():
        limit = np.sqrt(6 / fan)
        kernel = weights[f"{layer}.kernel"]
        assert limit * 0.99 < np.abs(kernel).max() <= limit * 1.00001
        # the deviation of a uniform law, over thousands of draws
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
        assert np.abs(weights[f"{layer}.bias"]).max() < 1e-10


def test_early_stopping_stops_and_keeps_the_best_epoch(engine, noise, tmp_path):
    variant = dataclasses.replace(variants()["dense_dropout"], dropout={}, patience=3)
    fit = engine.fit(variant, noise, settings(epochs=40), tmp_path / "w")
    totals = [row.validation_total for row in fit.history]
    assert fit.ended == "early_stopping"
    assert fit.kept_epoch == 1 + int(np.argmin(totals)) == len(totals) - 3
    assert totals[-1] > 1.002 * min(totals)
    chosen = noise.indices("validation")
    logits = engine.logits(variant, tmp_path / "w", noise.images[chosen], 2)
    assert data_loss(variant, logits, noise.labels[chosen]) == pytest.approx(min(totals), rel=1e-4)

    # The epochs run out two after the best one: its weights are kept all the same.
    short = engine.fit(variant, noise, settings(epochs=fit.kept_epoch + 2), tmp_path / "v")
    assert (short.ended, short.kept_epoch) == ("epochs", fit.kept_epoch)
    best, kept = read_weights(tmp_path / "w")[0], read_weights(tmp_path / "v")[0]
    assert all(np.array_equal(best[key], kept[key]) for key in best)


def test_on_batch_ends_the_fit_with_the_weights_of_that_moment(engine, binary, tmp_path):
    variant, rows = variants()["dense_l2"], []

    def fitted(file: str, last: tuple[int, int]):
        return engine.fit(
            variant,
            binary,
            settings(epochs=3),
            tmp_path / file,
            on_batch=lambda at: (at.epoch, at.batch) == last,
            on_epoch=rows.append,
        )

    fit = fitted("w", (2, 2))
    assert (fit.ended, fit.kept_epoch, fit.history) == ("interrupted", 1, rows)
    assert len(rows) == 1
    assert fitted("v", (2, 3)).ended == "interrupted"
    first, second = read_weights(tmp_path / "w")[0], read_weights(tmp_path / "v")[0]
    # one Adam step further: no weight moves much more than the learning rate
    assert 0 < np.abs(first["output.kernel"] - second["output.kernel"]).max() < 0.002


def test_interrupted_with_patience_keeps_the_best_epoch(engine, noise, tmp_path):
    variant = dataclasses.replace(variants()["dense_dropout"], dropout={}, patience=30)
    fit = engine.fit(variant, noise, settings(epochs=40), tmp_path / "w", on_batch=lambda at: at.epoch == 15)
    totals = [row.validation_total for row in fit.history]
    assert (fit.ended, len(totals)) == ("interrupted", 14)
    assert fit.kept_epoch == 1 + int(np.argmin(totals)) < 14
    chosen = noise.indices("validation")
    logits = engine.logits(variant, tmp_path / "w", noise.images[chosen], 2)
    assert data_loss(variant, logits, noise.labels[chosen]) == pytest.approx(min(totals), rel=1e-4)


def test_interrupted_in_the_first_epoch(engine, binary, tmp_path):
    fit = engine.fit(variants()["early_stopping"], binary, settings(), tmp_path / "w", on_batch=lambda at: True)
    assert (fit.ended, fit.kept_epoch, fit.history) == ("interrupted", 0, [])
    assert read_weights(tmp_path / "w")[1]["variant"] == "early_stopping"


def test_ctrl_c_ends_the_fit_and_returns_the_run_so_far(engine, binary, tmp_path):
    def interrupt(row):
        if row.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    fit = engine.fit(variants()["dense_l2"], binary, settings(epochs=10_000), tmp_path / "w", on_epoch=interrupt)
    assert (fit.ended, fit.kept_epoch, len(fit.history)) == ("interrupted", 2, 2)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_the_worker_computes(engine, binary, tmp_path):
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    fit = engine.fit(variants()["dense_l2"], binary, settings(epochs=1_000_000), tmp_path / "w")
    timer.join()
    assert fit.ended == "interrupted"
    assert fit.kept_epoch == len(fit.history) < 1_000_000


def test_an_error_in_a_callback_stops_the_fit_and_comes_through(engine, binary, tmp_path):
    calls = []

    def broken(at):
        calls.append(at)
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        engine.fit(variants()["dense_l2"], binary, settings(), tmp_path / "w", on_batch=broken)
    assert len(calls) == 1
    assert engine.fit(variants()["dense_l2"], binary, settings(), tmp_path / "w").ended == "epochs"


def test_a_request_from_a_callback_is_refused(engine, binary, tmp_path):
    with pytest.raises(EngineError, match="busy"):
        engine.fit(
            variants()["dense_l2"], binary, settings(), tmp_path / "w", on_epoch=lambda row: engine.versions() and None
        )


# Squared, such weights overflow the penalty on every machine; a loss alone can stay finite where all units die.
@pytest.mark.parametrize(("name", "rate"), [("l2", 1e25), ("dense_l2", 1e25)])
def test_divergence_names_the_place_and_keeps_the_last_good_weights(engine, binary, tmp_path, name, rate):
    path, rows = tmp_path / "w", []
    with pytest.raises(DivergedError, match=r"The loss became (nan|inf) in .*epoch \d+.*learning_rate") as caught:
        engine.fit(variants()[name], binary, settings(epochs=50, learning_rate=rate), path, on_epoch=rows.append)
    assert str(path) in str(caught.value)
    assert (f"epoch {len(rows)}" if rows else "the initial ones") in str(caught.value)
    weights, _ = read_weights(path)
    assert all(np.isfinite(value).all() for value in weights.values())


def test_class_weights_follow_keras(engine, three, tmp_path):
    variant = dataclasses.replace(variants()["dense_l2"], penalty={})
    balanced = settings(epochs=1, learning_rate=1e-12, balance="weights", batch_size=28)
    (row,) = engine.fit(variant, three, balanced, tmp_path / "w").history
    chosen = three.indices("train")
    labels = three.labels[chosen]
    logits = engine.logits(variant, tmp_path / "w", three.images[chosen], 3)
    each = [data_loss(variant, logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))]
    counts = np.bincount(labels)
    assert counts.tolist() == [16, 8, 4]
    factors = len(labels) / (3 * counts)
    assert row.train_loss == pytest.approx(np.sum(factors[labels] * each) / len(labels), rel=1e-5)
    validation = three.indices("validation")
    plain = data_loss(
        variant, engine.logits(variant, tmp_path / "w", three.images[validation], 3), three.labels[validation]
    )
    assert row.validation_loss == pytest.approx(plain, rel=1e-5)


def test_augment_tops_every_class_up_with_changed_copies(engine, three, tmp_path):
    variant = dataclasses.replace(variants()["dense_l2"], penalty={})
    still = settings(epochs=2, learning_rate=1e-12, balance="augment", batch_size=16)
    seen = []
    first, second = engine.fit(variant, three, still, tmp_path / "w", on_batch=seen.append).history
    assert [at.images for at in seen] == [16, 16, 16] * 2  # 3 classes · 16 images
    # The weights stand still, so another loss means other copies: they are drawn afresh each epoch.
    assert first.train_loss != second.train_loss
    assert first.validation_loss == pytest.approx(second.validation_loss, rel=1e-6)
    chosen = three.indices("train")
    labels = three.labels[chosen]
    logits = engine.logits(variant, tmp_path / "w", three.images[chosen], 3)
    each = np.array([data_loss(variant, logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))])
    unchanged = np.mean([each[labels == label].mean() for label in range(3)])
    assert first.train_loss != pytest.approx(unchanged, rel=1e-6)


def test_balanced_classes_need_no_copies(engine, tmp_path):
    even = prepare(tmp_path / "even", 2)
    plain = engine.fit(variants()["dense_l2"], even, settings(epochs=1), tmp_path / "w").history
    same = engine.fit(variants()["dense_l2"], even, settings(epochs=1, balance="augment"), tmp_path / "v").history
    assert [dataclasses.replace(row, seconds=0) for row in plain] == [
        dataclasses.replace(row, seconds=0) for row in same
    ]


def test_grey_images_and_squared_error(engine, tmp_path):
    prepared = prepare(tmp_path / "grey", 3, channels=1)
    variant = dataclasses.replace(variants()["mlp"], loss="squared_error")
    fit = engine.fit(variant, prepared, settings(epochs=3), tmp_path / "w")
    chosen = prepared.indices("validation")
    logits = engine.logits(variant, tmp_path / "w", prepared.images[chosen], 3)
    assert fit.history[-1].validation_loss == pytest.approx(
        data_loss(variant, logits, prepared.labels[chosen]), rel=1e-4
    )


def trace_request(variant: Variant, classes: int, path: Path, masks=None, steps: int = 2) -> TraceRequest:
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (steps, 4, 3, 6, 6), dtype=np.uint8)
    labels = rng.integers(0, classes, (steps, 4)).astype(np.int32)
    return TraceRequest(variant, path, images, labels, classes, 0.001, masks or {})


@pytest.mark.parametrize(("variant", "data"), PAIRS, ids=PAIR_IDS)
def test_trace_of_every_variant(engine, variant, data, tmp_path):
    path, classes = tmp_path / "w", {"binary": 2, "three": 3}[data]
    weights = write_random(path, variant, (3, 6, 6), classes)
    request = trace_request(variant, classes, path)
    numbers = engine.trace(request)
    kinds = ("initial", "gradient", "first", "moment1", "moment2", "final")
    layers = ["rescale", *dict.fromkeys(name.partition(".")[0] for name in weights)]
    layers += ["pool"] if "conv1" in layers else []
    assert set(numbers) == {"logits", "loss", "penalty", "total"} | {f"activation/{layer}" for layer in layers} | {
        f"{kind}/{name}" for kind in kinds for name in weights
    }
    assert all(value.dtype == np.float32 for value in numbers.values())
    # A compiled graph and its layers one by one round differently.
    expected = engine.logits(variant, path, request.images[0], classes)
    np.testing.assert_allclose(numbers["logits"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(numbers["activation/output"], numbers["logits"])
    assert numbers["loss"][0] == pytest.approx(data_loss(variant, numbers["logits"], request.labels[0]), rel=1e-5)
    assert numbers["penalty"][0] == pytest.approx(variant.penalty_of(weights), rel=1e-5)
    np.testing.assert_array_equal(numbers["total"], numbers["loss"] + numbers["penalty"])
    for name, value in weights.items():
        gradient = numbers[f"gradient/{name}"]
        assert gradient.shape == value.shape
        np.testing.assert_array_equal(numbers[f"initial/{name}"], value)
        np.testing.assert_allclose(numbers[f"moment1/{name}"], 0.1 * gradient, rtol=1e-5, atol=0)
        np.testing.assert_allclose(numbers[f"moment2/{name}"], 0.001 * gradient**2, rtol=1e-4, atol=1e-30)
        # Keras' Adam, first step: lr·√(1−β₂)/(1−β₁) · (1−β₁)g / (√(1−β₂)·|g| + ε)
        g = gradient.astype(np.float64)
        step = 0.001 * np.sqrt(0.001) * g / (np.sqrt(0.001) * np.abs(g) + 1e-7)
        np.testing.assert_allclose(numbers[f"first/{name}"], value - step, rtol=0, atol=2e-7)
    assert not np.array_equal(numbers["first/output.kernel"], numbers["final/output.kernel"])


@pytest.mark.parametrize("variant", [v for v in variants().values() if v.penalty], ids=lambda v: v.name)
def test_the_penalty_adds_its_own_gradient(engine, variant, tmp_path):
    path = tmp_path / "w"
    weights = write_random(path, variant, (3, 6, 6), 3)
    with_penalty = engine.trace(trace_request(variant, 3, path, steps=1))
    without = engine.trace(trace_request(dataclasses.replace(variant, penalty={}), 3, path, steps=1))
    assert without["penalty"] == 0
    for name, w in weights.items():
        group = "conv" if name.startswith("conv") else "output" if name.startswith("output") else "hidden"
        factors = variant.penalty.get(group, {}) if name.endswith("kernel") else {}
        expected = factors.get("l1", 0) * np.sign(w) + 2 * factors.get("l2", 0) * w
        difference = with_penalty[f"gradient/{name}"] - without[f"gradient/{name}"]
        # float32 gradients of size 1
        np.testing.assert_allclose(difference, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "loss", "classes"),
    [("elastic_net", "cross_entropy", 2), ("mlp", "squared_error", 2), ("mlp", "squared_error", 3)],
)
def test_trace_gradient_against_finite_differences(engine, tmp_path, name, loss, classes):
    variant = dataclasses.replace(variants()[name], loss=loss)
    path = tmp_path / "w"
    weights = write_random(path, variant, (3, 6, 6), classes)
    request = trace_request(variant, classes, path, steps=1)
    numbers = engine.trace(request)

    def total(change: dict[str, np.ndarray]) -> float:
        moved = {key: value + change.get(key, 0) for key, value in weights.items()}
        write_weights(path, moved, metadata_of(variant, 3, 6, 6, classes))
        logits = engine.logits(variant, path, request.images[0], classes)
        return data_loss(variant, logits, request.labels[0]) + variant.penalty_of(moved)

    for key in ("output.kernel", "output.bias", "dense1.kernel"):
        gradient = numbers[f"gradient/{key}"].astype(np.float64)
        # along the gradient itself, where the difference is largest; float32 logits allow about 1e-3
        h = 1e-3 / np.linalg.norm(gradient)
        difference = (total({key: h * gradient}) - total({key: -h * gradient})) / (2 * h)
        assert difference == pytest.approx(np.sum(gradient**2), rel=0.02)


def test_trace_multiplies_by_the_masks(engine, tmp_path):
    variant, path = variants()["dense_dropout"], tmp_path / "w"
    weights = write_random(path, variant, (3, 6, 6), 3)
    mask = (np.random.default_rng(2).random((1, 4, 64)) < 0.5).astype(np.float32) * 2
    request = trace_request(variant, 3, path, {"dense2_dropout": mask}, steps=1)
    x = request.images[0].transpose(0, 2, 3, 1).reshape(4, -1) / 255
    for layer in ("dense1", "dense2"):
        x = np.maximum(x @ weights[f"{layer}.kernel"] + weights[f"{layer}.bias"], 0)
    expected = (x * mask[0]) @ weights["output.kernel"] + weights["output.bias"]
    numbers = engine.trace(request)
    np.testing.assert_allclose(numbers["logits"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(numbers["gradient/output.kernel"][(mask[0] == 0).all(axis=0)], 0)


def test_trace_masks_of_a_photo_variant(engine, tmp_path):
    variant, path = variants()["dropout"], tmp_path / "w"
    write_random(path, variant, (3, 6, 6), 2)
    masks = {"dense1_dropout": np.ones((1, 4, 128), np.float32), "pool_dropout": np.ones((1, 4, 3, 3, 16), np.float32)}
    plain = engine.trace(trace_request(variant, 2, path, steps=1))
    ones = engine.trace(trace_request(variant, 2, path, masks, steps=1))
    np.testing.assert_array_equal(plain["logits"], ones["logits"])
    masks["pool_dropout"] = np.zeros((1, 4, 3, 3, 16), np.float32)
    nothing = engine.trace(trace_request(variant, 2, path, masks, steps=1))
    assert not nothing["gradient/conv2.kernel"].any()
    with pytest.raises(SettingError, match="pool_dropout"):
        engine.trace(trace_request(variant, 2, path, {"pool_dropouts": masks["pool_dropout"]}, steps=1))


def test_stopping_is_what_the_histories_say(engine):
    assert engine.stopping([3, 2, 2, 2, 1], 2) == (4, 2)  # an equal loss is no better
    assert engine.stopping([3, 2, 2, 1, 5, 5], 2) == (6, 4)
    assert engine.stopping([3, 2, 1], 5) == (3, 3)


def test_augmented_flips_and_turns(engine):
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8), np.uint8)
    drawn = [Augmentation(), Augmentation(flip_x=True), Augmentation(flip_y=True), Augmentation(angle=np.pi / 2)]
    plain, mirrored, upside_down, turned = engine.augmented(np.repeat(image, 4, axis=0), drawn)
    np.testing.assert_array_equal(plain, image[0])
    np.testing.assert_array_equal(mirrored, image[0, :, :, ::-1])
    np.testing.assert_array_equal(upside_down, image[0, :, ::-1])
    np.testing.assert_allclose(turned, np.rot90(image[0], axes=(1, 2)), atol=0.01)  # 255·eps·8·8 = 0.002
    # Half the coordinates: the middle four pixels of a ramp are stretched to its whole.
    ramp = np.tile(np.arange(8, dtype=np.uint8) * 10, (1, 1, 8, 1))
    zoomed = engine.augmented(ramp, [Augmentation(zoom=0.5)])
    np.testing.assert_allclose(zoomed[0, 0, 4], 35 + (np.arange(8) - 3.5) * 5, atol=0.01)


def test_pixels_are_those_of_the_dataset(engine, binary):
    np.testing.assert_array_equal(engine.pixels(binary, np.array([2, 0])), binary.images[[2, 0]].astype(np.float32))


def test_weights_of_another_model_are_refused_with_both_shapes(engine, tmp_path):
    path = tmp_path / "w"
    write_random(path, variants()["dense_l2"], (3, 6, 6), 3)
    images = np.zeros((1, 3, 6, 6), np.uint8)
    with pytest.raises(RunError, match=r"≠ output\.kernel \(128, 3\) +output\.kernel \(128, 4\)"):
        engine.logits(variants()["dense_l2"], path, images, 4)
    with pytest.raises(RunError, match=r"≠ – +dense2\.kernel \(512, 256\)"):
        engine.logits(variants()["mlp"], path, images, 3)
    with pytest.raises(RunError, match="no weights file"):
        engine.logits(variants()["mlp"], tmp_path / "absent", images, 3)


def test_a_weights_file_that_changed_is_read_again(engine, tmp_path):
    variant, path, images = variants()["dense_l2"], tmp_path / "w", np.full((2, 3, 6, 6), 90, np.uint8)
    write_random(path, variant, (3, 6, 6), 3)
    first = engine.logits(variant, path, images, 3)
    changed = random_weights(variant, (3, 6, 6), 3, seed=1)
    write_weights(path, changed, metadata_of(variant, 3, 6, 6, 3))
    second = engine.logits(variant, path, images, 3)
    assert not np.allclose(first, second)
    np.testing.assert_allclose(second, dense_logits(changed, images, 1), rtol=1e-4, atol=1e-5)


def test_unusable_input(engine, binary, three, tmp_path):
    with pytest.raises(SettingError, match=r"uint8 \(N, C, H, W\); received: float64 \(1, 3, 6, 6\)"):
        engine.logits(variants()["mlp"], tmp_path / "w", np.zeros((1, 3, 6, 6)), 3)
    alone = prepare(tmp_path / "alone", 2)
    np.save(alone.path / "split.npy", np.zeros(len(alone), np.uint8))
    with pytest.raises(DataError, match="no validation images"):
        engine.fit(variants()["dense_l2"], alone, settings(), tmp_path / "w")
    with pytest.raises(RunError, match="cannot be written"):
        engine.fit(variants()["dense_l2"], binary, settings(epochs=1), tmp_path / "absent" / "w")
    (three.path / "split.npy").rename(three.path / "aside")
    try:
        with pytest.raises(DataError, match=r"split\.npy"):
            engine.fit(variants()["dense_l2"], three, settings(), tmp_path / "w")
    finally:
        (three.path / "aside").rename(three.path / "split.npy")


def test_a_killed_worker_is_a_clear_error_and_the_engine_goes_on(engine, binary, tmp_path):
    engine.versions()

    def kill(at):
        os.kill(engine._worker.pid, signal.SIGKILL)
        return False

    with pytest.raises(EngineError, match="Keras worker process was ended by signal SIGKILL"):
        engine.fit(variants()["dense_l2"], binary, settings(), tmp_path / "w", on_batch=kill)
    assert not list(tmp_path.iterdir())
    assert engine.fit(variants()["dense_l2"], binary, settings(epochs=1), tmp_path / "w").kept_epoch == 1


def test_versions_come_from_the_worker_and_nothing_is_imported_here(engine):
    assert set(engine.versions()) == {"keras", "tensorflow", "numpy", "python"}
    assert not {"keras", "tensorflow"} & set(sys.modules)


ORPHAN = """
import os, sys, threading
from photoflux.data.prepared import open_prepared
from photoflux.engines.base import Settings
from photoflux.engines.keras import KerasEngine
from photoflux.variants import variants
engine = KerasEngine()
def tell(row):
    print(engine._worker.pid, flush=True)
    threading.Timer(0.2, os._exit, (0,)).start()
engine.fit(variants()["dense_l2"], open_prepared(sys.argv[1]), Settings(10**6, 8, 0.001), sys.argv[2], on_epoch=tell)
"""


def test_the_worker_ends_with_its_parent_in_the_middle_of_a_fit(binary, tmp_path):
    import photoflux

    environment = {**os.environ, "PYTHONPATH": str(Path(photoflux.__file__).parents[1])}
    command = [sys.executable, "-c", ORPHAN, str(binary.path), str(tmp_path / "w")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    pid = int(done.stdout.split()[0])
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _alive(pid):
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_worker_that_cannot_start_says_why(monkeypatch, tmp_path):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise ImportError('this TensorFlow is broken')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(EngineError, match="exit code 1") as caught:
        KerasEngine().versions()
    assert "this TensorFlow is broken" in str(caught.value)


def test_why_unavailable_names_what_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorflow" else object())
    assert "tensorflow is not installed" in why_unavailable()
    with pytest.raises(EngineError, match="pip install"):
        KerasEngine().versions()


def test_foreign_and_truncated_weights_files(tmp_path):
    path = tmp_path / "w"
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(RunError, match="something else"):
        read_weights(path)
    write_random(path, variants()["dense_l2"], (1, 4, 4), 2)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(RunError, match="truncated"):
        read_weights(path)
    path.write_bytes(b"")
    with pytest.raises(RunError, match="truncated"):
        read_weights(path)
    with pytest.raises(RunError, match="no weights file"):
        read_weights(tmp_path)


def test_a_failed_write_leaves_the_old_weights_alone(tmp_path, monkeypatch):
    path, variant = tmp_path / "w", variants()["dense_l2"]
    write_random(path, variant, (1, 4, 4), 2)
    before = path.read_bytes()

    def full(arrays, file, metadata):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(RunError, match="No space left"):
        write_random(path, variant, (1, 4, 4), 2)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["w"]
