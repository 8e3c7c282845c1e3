"""Small datasets and random weights, and the formulas that an engine's numbers are compared with."""

from pathlib import Path

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.data.writer import ImageRecord, PreparedWriter
from photoflux.model.settings import Settings
from photoflux.model.variants import Variant, variants
from photoflux.model.weights import expected_shapes, metadata_of, write_weights

# Every variant on the kind of classes that it was made for, and one of each architecture on the other kind.
PAIRS = [(v, "binary" if v.architecture == "photo_cnn" else "three") for v in variants().values()]
PAIRS += [(variants()["elastic_net"], "three"), (variants()["mlp"], "binary")]


PAIR_IDS = [f"{v.name}-{data}" for v, data in PAIRS]


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
    with PreparedWriter(folder, Shape(channels, size, size)) as writer:
        writer.append(images)
        files = [ImageRecord(f"{i}.png", str(k), "0" * 64, i, size, size) for i, k in enumerate(labels)]
        names = [f"class{k}" for k in range(classes)]
        return writer.finish(
            name="tiny", source="tests", classes=names, labels=labels, split=split, files=files, seed=1
        )


def settings(**changes) -> Settings:
    return Settings(**{"epochs": 2, "batch_size": 8, "learning_rate": 0.001, **changes})


def random_weights(variant: Variant, shape: Shape, classes: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = expected_shapes(variant, shape, classes)
    return {name: rng.normal(0, 0.1, size).astype(np.float32) for name, size in shapes.items()}


def write_random(path: Path, variant: Variant, shape: Shape, classes: int) -> dict[str, np.ndarray]:
    weights = random_weights(variant, shape, classes)
    write_weights(path, weights, metadata_of(variant, shape, classes))
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


def logits(engine, variant: Variant, weights: Path, images: np.ndarray, classes: int, **options) -> np.ndarray:
    """The logits of images of a model that is loaded for them."""
    return engine.load(variant, weights, Shape.of(images), classes).logits(images, **options)
