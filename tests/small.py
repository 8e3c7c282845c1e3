"""Small datasets and random weights, and the formulas that an engine's numbers are compared with."""

import json
from pathlib import Path

import numpy as np

from photoflux.data.prepared import PreparedDataset, open_prepared
from photoflux.data.shape import Shape
from photoflux.data.writer import FilesWriter, ImageRecord
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.model.variants import variants
from photoflux.model.weights import expected_shapes, metadata_of, write_weights

# Every variant on the kind of classes that it was made for, and one of each architecture on the other kind.
KINDS = {"photo_cnn": "binary", "dense": "three", "transfer": "features"}
PAIRS = [(v, KINDS[v.architecture]) for v in variants().values()]
PAIRS += [(variants()["elastic_net"], "three"), (variants()["mlp"], "binary")]
FEATURES = Shape(12, 1, 1)


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
    with FilesWriter(folder, Shape(channels, size, size)) as writer:
        writer.append(images)
        files = [ImageRecord(f"{i}.png", str(k), "0" * 64, i, size, size) for i, k in enumerate(labels)]
        names = [f"class{k}" for k in range(classes)]
        return writer.finish(
            name="tiny", source="tests", classes=names, labels=labels, split=split, files=files, seed=1
        )


def prepare_features(folder: Path, classes: int, **options) -> PreparedDataset:
    """A tiny features dataset: noise, feature k is larger in class k, and the last feature is the same in all."""
    prepared = prepare(folder, classes, **options)
    features = np.random.default_rng(classes).gamma(2, 0.5, (len(prepared), *FEATURES)).astype(np.float32)
    features[np.arange(len(prepared)), prepared.labels] += 2
    features[:, -1] = 0.1
    np.save(folder / "images.npy", features)
    size = {"channels": FEATURES.channels, "image_size": [1, 1], "fingerprint": f"{classes} of features"}
    made = {"backbone": {"name": "nobody"}, "dataset": prepared.fingerprint}
    (folder / "meta.json").write_text(json.dumps(prepared.meta | size | {"features": made}))
    return open_prepared(folder)


def shape_for(variant: Variant, shape: Shape) -> Shape:
    """The shape of images, or of features where a variant takes these."""
    return FEATURES if variant.takes_features else shape


def inputs_for(variant: Variant, shape: Shape, *outer: int, seed: int = 5) -> np.ndarray:
    """Random images, or features where a variant takes these, (*outer, C, H, W)."""
    rng, size = np.random.default_rng(seed), (*outer, *shape_for(variant, shape))
    if variant.takes_features:
        return rng.gamma(2, 0.5, size).astype(np.float32)
    return rng.integers(0, 256, size, dtype=np.uint8)


def settings(**changes) -> Settings:
    return Settings(**{"epochs": 2, "batch_size": 8, "learning_rate": 0.001, **changes})


def random_weights(variant: Variant, shape: Shape, classes: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = expected_shapes(variant, shape, classes)
    weights = {name: rng.normal(0, 0.1, size).astype(np.float32) for name, size in shapes.items()}
    return {name: np.exp(value) if name.endswith(".deviation") else value for name, value in weights.items()}


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
