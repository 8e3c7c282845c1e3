"""Prepares images that are in memory as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from PIL import Image

from photoflux.data.checks import SMALLEST, OnProgress, check_image_size, check_seed
from photoflux.data.duplicates import number_groups
from photoflux.data.finishing import Check, finish_classes
from photoflux.data.labels import AUTO, check_trainable, resolve_positive
from photoflux.data.prepared import SPLITS, PreparedDataset
from photoflux.data.shape import Shape
from photoflux.data.splitting import FRACTIONS, missing_parts, split_groups, split_tenth
from photoflux.data.writer import FilesWriter, ImageRecord
from photoflux.errors import DataError
from photoflux.system.names import quoted

_BATCH = 512


class Settings(TypedDict, total=False):
    """What a caller may choose for every kind of source; `write_images` says what each means, and what it is else."""

    seed: int
    positive: str | None
    image_size: int | None
    on_progress: OnProgress | None
    made_from: Mapping[str, Any] | None


def prepare_arrays(
    x: Any,
    y: Any,
    dest: str | Path,
    *,
    classes: Sequence[str] | None = None,
    **settings: Unpack[Settings],
) -> PreparedDataset:
    """Split and write images that are in memory.

    Parameters
    ----------
    x : array
        uint8, (N, H, W, C) with 1 or 3 channels, or (N, H, W).
    y : array
        Integer labels from 0, (N,).
    dest : str or Path
        The prepared dataset to make.
    classes : sequence of str, optional
        Class names in the order of the labels; by default "0", "1", …
    settings
        As in `write_images`.

    Raises
    ------
    DataError
        If the arrays are not such images and labels.
    """
    images, labels = check_images(x), check_labels(y)
    if len(images) != len(labels):
        raise DataError(
            f"`x` and `y` must have one entry per image; received {len(images)} images, {len(labels)} labels."
        )
    if not len(images):
        raise DataError("`x` must hold images; received none.")
    names = _check_classes(classes, labels)
    return write_images(
        dest,
        images,
        labels.astype(np.int32),
        names,
        paths=[f"x#{number}" for number in range(1, len(images) + 1)],
        name="arrays",
        source="arrays",
        **settings,
    )


def write_images(
    dest: str | Path,
    images: np.ndarray,
    codes: np.ndarray,
    names: Sequence[str],
    *,
    paths: Sequence[str],
    name: str,
    source: str,
    test_from: int | None = None,
    shares: Sequence[float] = FRACTIONS,
    check: Check = check_trainable,
    seed: int = 42,
    positive: str | None = AUTO,
    image_size: int | None = None,
    on_progress: OnProgress | None = None,
    made_from: Mapping[str, Any] | None = None,
) -> PreparedDataset:
    """Write decoded images as a prepared dataset: resized, grouped by equal pixels, split and labelled.

    Parameters
    ----------
    dest : str or Path
        The prepared dataset to make.
    images : numpy.ndarray
        uint8, (N, C, H, W).
    codes : numpy.ndarray
        Position of each image's class in `names`.
    names : sequence of str
        The class names.
    paths : sequence of str
        What ``files.csv`` calls each image.
    name, source, made_from
        As in `FilesWriter.finish`.
    test_from : int, optional
        The images from this position on are the test part, as their publisher meant, and a tenth of the others
        is the validation part; by default everything is split.
    shares : sequence of float
        Of the training, validation and test part, as in `split_groups`; 70 / 10 / 20 by default.
    check : callable
        As in `finish_classes`.
    seed : int
        Fixes the split, which is stratified; equal images stay on one side.
    positive : str or None
        The positive class, as in `prepare_folder`.
    image_size : int, optional
        Height and width to resize to; by default the images keep their size.
    on_progress : callable, optional
        Called with (images done, images in all, what is being done).
    """
    seed = check_seed(seed)
    count, shape = len(images), Shape.of(images)
    original = (shape.width, shape.height)
    if image_size is not None:
        check_image_size(image_size)
        shape = Shape(shape.channels, int(image_size), int(image_size))
    if min(shape.height, shape.width) < SMALLEST:
        raise DataError(f"The images of {name} are {shape.width} × {shape.height}, expected {SMALLEST} or more a side.")
    positive = resolve_positive(positive, names)
    digests: list[str] = []
    with FilesWriter(dest, shape) as writer:
        for start in range(0, count, _BATCH):
            batch = np.ascontiguousarray(images[start : start + _BATCH])
            digests += [hashlib.sha256(image.data).hexdigest() for image in batch]
            writer.append(_resize(batch, shape))
            if on_progress is not None:
                on_progress(start + len(batch), count, "Writing images")
        groups = number_groups(np.asarray(digests))
        split = _split(codes, groups, seed, test_from, shares)
        parts = [part for part, share in zip(SPLITS, shares, strict=True) if share]
        return finish_classes(
            writer,
            name=name,
            source=source,
            names=names,
            codes=codes,
            split=split,
            positive=positive,
            check=check,
            files=(
                ImageRecord(path, names[code], digest, group, *original)
                for path, code, digest, group in zip(paths, codes.tolist(), digests, groups.tolist(), strict=True)
            ),
            seed=seed,
            warnings=missing_parts(codes, split, names, parts=parts),
            made_from=made_from,
        )


def _split(
    codes: np.ndarray, groups: np.ndarray, seed: int, test_from: int | None, shares: Sequence[float]
) -> np.ndarray:
    if test_from is None:
        return split_groups(codes, groups, seed, shares)
    split = np.full(len(codes), 2, dtype=np.uint8)
    split[:test_from] = split_tenth(codes[:test_from], groups[:test_from], seed)
    return split


def _resize(images: np.ndarray, shape: Shape) -> np.ndarray:
    if Shape.of(images) == shape:
        return images
    result = np.empty((len(images), *shape), dtype=np.uint8)
    for position, image in enumerate(images):
        for channel, plane in enumerate(image):
            resized = Image.fromarray(plane).resize((shape.width, shape.height), Image.Resampling.BILINEAR)
            result[position, channel] = np.asarray(resized)
    return result


def check_images(x: Any) -> np.ndarray:
    """Return images in memory as uint8 (N, C, H, W), or raise a `DataError` that says what they should be."""
    images = as_array("x", x)
    _check_values("`x`", images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise DataError(f"`x` must have the shape (N, H, W, C) or (N, H, W); received {np.shape(x)}.")
    if images.shape[-1] not in (1, 3):
        hint = " The channels must be last: np.moveaxis(x, 1, -1)." if images.shape[1] in (1, 3) else ""
        raise DataError(f"`x` must have 1 or 3 channels, (N, H, W, C); received the shape {np.shape(x)}.{hint}")
    return images.transpose(0, 3, 1, 2)


def check_image(name: str, x: np.ndarray) -> np.ndarray:
    """Return one image as uint8 (H, W, C), or raise a `DataError` that says, by its name, what it should be."""
    _check_values(quoted(name), x)
    image = x[..., None] if x.ndim == 2 else x
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.size:
        first = image.ndim == 3 and image.size and image.shape[0] in (1, 3)
        hint = " The channels must be last: np.moveaxis(x, 0, -1)." if first else ""
        raise DataError(
            f"{quoted(name)} must have the shape (H, W), or (H, W, C) with 1 or 3 channels; received {x.shape}.{hint}"
        )
    return image


def _check_values(what: str, images: np.ndarray) -> None:
    if images.dtype != np.uint8:
        raise DataError(
            f"{what} must be uint8 with values from 0 to 255; received {images.dtype}{_how_to_convert(images)}"
        )


def as_array(argument: str, value: Any) -> np.ndarray:
    """Convert a value to an array.

    Raises
    ------
    DataError
        If it cannot be one; the message names the argument.
    """
    try:
        return np.asarray(value)
    # A tensor on a GPU, or with a gradient, raises what its library likes.
    except Exception as error:
        raise DataError(
            f"`{argument}` must be a NumPy array or convert to one; received {type(value).__name__}: {error}."
        ) from error


def _how_to_convert(images: np.ndarray) -> str:
    if not np.issubdtype(images.dtype, np.number) or not images.size:
        return "."
    if np.issubdtype(images.dtype, np.complexfloating):
        return "."
    bad = images.size - np.count_nonzero(np.isfinite(images))
    if bad:
        return f", of which {bad} values are NaN or infinite. Find out where they come from before converting."
    low, high = images.min(), images.max()
    if np.issubdtype(images.dtype, np.floating) and low >= 0 and high <= 1:
        return " from 0 to 1. Convert with (x * 255).round().astype('uint8')."
    if low >= 0 and high <= 255:
        return ". Convert with x.round().astype('uint8')."
    return f" from {low} to {high}. Scale it to 0..255, then x.round().astype('uint8')."


def check_labels(y: Any) -> np.ndarray:
    """Return labels as integers from 0, (N,), or raise a `DataError` that says what they should be."""
    labels = as_array("y", y)
    if labels.ndim != 1:
        hint = " One-hot labels: y.argmax(axis=1)." if labels.ndim == 2 and labels.shape[1] > 1 else ""
        hint = " Flatten it: y.ravel()." if labels.ndim == 2 and labels.shape[1] == 1 else hint
        raise DataError(f"`y` must have the shape (N,); received {labels.shape}.{hint}")
    if labels.dtype == np.bool_:
        labels = labels.astype(np.int32)
    if labels.size and not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"`y` must hold integer labels from 0; received {labels.dtype}.")
    if labels.size and labels.min() < 0:
        raise DataError(f"`y` must hold labels from 0; received {labels.min()}.")
    return labels


def _check_classes(classes: Sequence[str] | None, labels: np.ndarray) -> list[str]:
    top = int(labels.max())
    if classes is None:
        if top >= len(labels):
            raise DataError(f"`y` must hold labels from 0 without gaps; received {top} among {len(labels)} labels.")
        classes = [str(label) for label in range(top + 1)]
    names = list(classes)
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise DataError(f"`classes` must be different strings; received {names!r}.")
    if top >= len(names):
        raise DataError(
            f"`y` must hold labels from 0 to {len(names) - 1}, as there are {len(names)} classes; received {top}."
        )
    if len(names) < 2 or len(np.unique(labels)) < 2:
        raise DataError("`y` must hold two or more classes; received one: there is nothing to distinguish.")
    return names
