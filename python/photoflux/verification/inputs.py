"""The inputs that both engines are given: weights, batches and dropout masks, fixed by a seed."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.engines.proof import TraceRequest
from photoflux.errors import DataError
from photoflux.model.layers import Layer, layers
from photoflux.model.variant import Variant
from photoflux.model.weights import expected_shapes, metadata_of, read_weights, write_weights
from photoflux.verification.tolerances import summed, terms_before


def draw_weights(path: Path, v: Variant, shape: Shape, classes: int, rng: np.random.Generator) -> None:
    """Write Glorot-uniform kernels, and biases that are not zero, so that a penalty on biases would show.

    Means and deviations of a standardisation are neither 0 and 1 nor all the same.
    """
    weights = {}
    for name, size in expected_shapes(v, shape, classes).items():
        fans = np.prod(size[:-2]) * (size[-2] + size[-1]) if len(size) > 1 else 1000
        limit = np.sqrt(6 / fans)
        low, high = (0.5, 1.5) if name.endswith(".deviation") else (-limit, limit)
        weights[name] = rng.uniform(low, high, size).astype(np.float32)
    write_weights(path, weights, metadata_of(v, shape, classes))


def draw_masks(layers: Iterable[Layer], steps: int, batch: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the factors of each dropout layer: 0, or 1/(1 − rate) with probability 1 − rate; see `TraceRequest`."""
    return {
        layer.name: (rng.random((steps, batch, *layer.shape), np.float32) >= layer.rate) / np.float32(1 - layer.rate)
        for layer in layers
        if layer.kind == "dropout"
    }


def request_from(
    v: Variant, prepared: PreparedDataset, folder: Path, steps: int, batch: int, seed: int
) -> TraceRequest:
    """Return steps on shuffled training images of a dataset, in the same order for every variant.

    Raises
    ------
    DataError
        If the dataset has no training images.
    """
    training = prepared.indices("train")
    if not len(training):
        raise DataError(f"The train part of {prepared.name} has no images. Prepare it again from more images.")
    order = np.random.default_rng([seed, 1])
    epochs = -(-steps * batch // len(training))
    chosen = np.concatenate([order.permutation(training) for _ in range(epochs)])[: steps * batch]
    rng = np.random.default_rng([seed, 2, zlib.crc32(v.name.encode())])
    classes = len(prepared.classes)
    path = folder / f"{v.name}.safetensors"
    draw_weights(path, v, prepared.shape, classes, rng)
    return TraceRequest(
        variant=v,
        weights=path,
        images=prepared.images[chosen].reshape(steps, batch, *prepared.shape),
        labels=np.asarray(prepared.labels)[chosen].reshape(steps, batch).astype(np.int32),
        classes=classes,
        learning_rate=v.learning_rate,
        masks=draw_masks(layers(v, prepared.shape, classes), steps, batch, rng),
    )


def first_step(request: TraceRequest, images: np.ndarray) -> TraceRequest:
    """Return the first step alone, of the images where `images`, (batch,) of bool, is true."""
    return _cut(request, np.s_[:1, images])


def _cut(request: TraceRequest, places: tuple[Any, ...]) -> TraceRequest:
    """Return the request on those of its (steps, batch) of images."""
    return dataclasses.replace(
        request,
        images=request.images[places],
        labels=request.labels[places],
        masks={name: mask[places] for name, mask in request.masks.items()},
    )


def rounded_otherwise(request: TraceRequest, folder: Path, times: int) -> Iterator[TraceRequest]:
    """Give the same request with other roundings, as large as the activations' tolerance allows them to be, so often.

    Each weight is moved by up to λ·√n·eps of itself, n the terms on the way to a logit, and so every activation by
    about what two engines may differ by; and the images of each batch are reversed: the same batch in another order.
    """
    weights, metadata = read_weights(request.weights)
    share = summed(terms_before(request)["output"], 1.0)
    for number in range(times):
        rng = np.random.default_rng([3, number])
        moved = {
            name: value * (1 + share * rng.uniform(-1, 1, value.shape)).astype(np.float32)
            for name, value in weights.items()
        }
        path = folder / f"{request.weights.stem}-moved-{number}.safetensors"
        write_weights(path, moved, metadata)
        yield _cut(dataclasses.replace(request, weights=path), np.s_[:, ::-1])


def decided_alike(request: TraceRequest, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> np.ndarray:
    """Say for which images of the first batch both engines are on the same side of every kink.

    ReLU and max-pooling have a slope on either side of a kink and none at it. Where an activation is within rounding of
    zero, or two in a window are within rounding of each other, one engine can be here and the other there; both are
    correct, and the gradients differ by a whole term.

    Returns
    -------
    numpy.ndarray
        (batch,) of bool.
    """
    alike = np.ones(request.images.shape[1], bool)
    for layer in request.layers:
        a, b = (numbers.get(f"activation/{layer.name}", np.empty(0)) for numbers in (ours, theirs))
        if layer.relu and a.size and a.shape == b.shape:
            alike &= ((a > 0) == (b > 0)).reshape(len(a), -1).all(axis=1)
    for before, layer in pairwise(request.layers):
        if layer.kind != "max pooling":
            continue
        a, b = (_windows(numbers[f"activation/{before.name}"]) for numbers in (ours, theirs))
        differs = (a.argmax(axis=-1) != b.argmax(axis=-1)) & (a.max(axis=-1) > 0)
        for image, y, x, _ in np.argwhere(differs):
            # Places that see the same pixels give the same term, whichever of them is taken.
            seen = _patches(request.images[0, image], 2 * y, 2 * x)
            alike[image] &= all(np.array_equal(seen[0], patch) for patch in seen[1:])
    return alike


def _windows(activation: np.ndarray) -> np.ndarray:
    """Return (B, H, W, C) as (B, H/2, W/2, C, 4), the four of each window last, row by row."""
    batch, height, width, filters = activation.shape
    height, width = height // 2, width // 2
    cut = activation[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, filters)
    return cut.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height, width, filters, 4)


def _patches(image: np.ndarray, y: int, x: int) -> list[np.ndarray]:
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    return [padded[:, y + i : y + i + 3, x + j : x + j + 3] for i in (0, 1) for j in (0, 1)]
