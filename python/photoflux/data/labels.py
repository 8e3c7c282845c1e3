"""Turns class folders into labels: all classes, or positive and not positive."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from photoflux.errors import DataError
from photoflux.system.names import class_name, composed, quoted

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


def label_folders(
    source: str, folders: Sequence[str], classes: Sequence[str], positive: str | None
) -> tuple[dict[str, int], list[str]]:
    """Return the label of each class folder for a run, and notes of what is to be known of it.

    A folder is a class if the names are equal in Unicode's composed form; or else, where only one folder comes into
    question, if they differ in case, in blanks around them, or as Photo and Photos do.

    Raises
    ------
    DataError
        If the run tells several classes apart and a folder is none of them.
    """
    found: dict[str, str] = {}
    notes = []
    for name in classes if positive is None else [positive]:
        equal = [folder for folder in folders if class_name(folder) == class_name(name)]
        alike = [folder for folder in folders if _key(folder) == _key(name)]
        if len(equal or alike) > 1:
            raise DataError(
                f"{source} has several folders for the run's class {_quoted(name)}: {_quoted(*(equal or alike))}. "
                "Expected one; put their images into one folder."
            )
        found |= dict.fromkeys(equal or alike, name)
        if alike and not equal:
            notes.append(f"The folder {_quoted(*alike)} of {source} counts as the run's class {_quoted(name)}.")
    others = [folder for folder in folders if folder not in found]
    if positive is None:
        if others:
            raise DataError(
                f"{source} has folders that are no class of the run: {_quoted(*others)}. The run's classes are "
                f"{_quoted(*classes)}. Rename these folders or take them out."
            )
        return {folder: list(classes).index(name) for folder, name in found.items()}, notes
    doubtful = [folder for folder in others if _key(folder) == _key(positive)]
    if doubtful:
        notes.append(
            f"{_quoted(*doubtful)} of {source} counts as {_quoted(classes[0])}: {_quoted(*found)} is there too."
        )
    if not found:
        notes.append(
            f"No folder of {source} is called {_quoted(positive)}: all images count as {_quoted(classes[0])} "
            f"({_quoted(*folders)})."
        )
    return {folder: int(folder in found) for folder in folders}, notes


def _quoted(*names: str) -> str:
    return ", ".join(map(quoted, names))


def _key(name: str) -> str:
    key = composed(name).strip().casefold()
    return PHOTO_NAMES[0] if key in PHOTO_NAMES else key
