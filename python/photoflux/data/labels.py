"""Turns class folders into labels: all classes, or positive and not positive."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from photoflux.errors import DataError
from photoflux.system.names import class_name, quoted

AUTO = "auto"
NONE = "none"
PHOTO_NAMES = ("photo", "photos")


def resolve_positive(positive: str | None, folders: Sequence[str]) -> str | None:
    """Return the folder class that is the positive one, or None for all classes as they are.

    Parameters
    ----------
    positive : str or None
        ``"auto"`` takes a class named Photo or Photos, in any case, if there is one; None or ``"none"`` takes all
        classes as they are; any other is the name of a class, compared in Unicode's composed form.
    folders : sequence of str
        The folder classes.

    Raises
    ------
    DataError
        If there is no such class; the message lists them.
    """
    if positive == AUTO:
        named = [name for name in folders if name.strip().casefold() in PHOTO_NAMES]
        return named[0] if len(named) == 1 else None
    if positive is None or (positive == NONE and NONE not in folders):
        return None
    for name in folders:
        if class_name(name) == class_name(positive):
            return name
    near = difflib.get_close_matches(str(positive).lower(), [name.lower() for name in folders], n=1, cutoff=0.5)
    hint = next((f" Did you mean {name}?" for name in folders if [name.lower()] == near), "")
    raise DataError(
        f"`positive` must be 'auto', 'none' or one of the classes {', '.join(folders)}; "
        f"received: {quoted(positive)}.{hint}"
    )


def to_labels(folders: Sequence[str], positive: str | None) -> tuple[list[str], np.ndarray]:
    """Return the class names and the label of each image from its folder class.

    With a positive class the names are ``["not X", "X"]`` and its images have label 1.
    """
    names, codes = np.unique(np.asarray(folders, dtype=object), return_inverse=True)
    if positive is None:
        return [str(name) for name in names], codes.astype(np.int32)
    return [f"not {positive}", positive], (names[codes] == positive).astype(np.int32)


def check_trainable(classes: Sequence[str], labels: np.ndarray, split: np.ndarray, source: str) -> None:
    """Refuse labels and a split that cannot be trained and tested.

    Raises
    ------
    DataError
        If a class has fewer than two images, or the validation or test part is empty.
    """
    sizes = np.bincount(labels, minlength=len(classes))
    for name, size in zip(classes, sizes, strict=True):
        if size < 2:
            raise DataError(
                f"Class {name!r} of {source} has {'one usable image' if size else 'no usable image'}, expected 2 "
                "or more: one to train with, one to test. Add images to it, or remove the class."
            )
    for part, code in (("validation", 1), ("test", 2)):
        if not np.any(split == code):
            raise DataError(
                f"{source} has too few different images for a {part} part: near-duplicates, and groups if you give "
                "some, stay on one side, and some class needs 3 or more groups. Add images."
            )
