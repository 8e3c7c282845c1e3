"""Uses a split that a folder already has, completes missing parts and warns of copies across parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from photoflux.data.part_names import TEST, TRAIN, VALIDATION
from photoflux.data.prepared import SPLITS
from photoflux.data.splitting import split_groups
from photoflux.errors import DataError
from photoflux.system.names import first_few, printable

# Of the training images, to validate on where the folder has no part for that.
_CARVED = (0.9, 0.1, 0.0)
_RESPLIT = "`--resplit` keeps such images on one side."


def complete_split(parts: Sequence[str], expected: set[str], codes: np.ndarray, groups: np.ndarray, seed: int,
                   source: str) -> np.ndarray:  # fmt: skip
    """Return the split of images whose parts are given.

    Without a test part the validation images are the test part. Without a validation part, it is a tenth of the
    training images of each class; near-duplicates stay together.

    Parameters
    ----------
    parts : sequence of str
        The part of each image.
    expected : set of str
        The parts that the folder has.
    codes, groups : numpy.ndarray
        Integer class and group of each image.
    seed : int
        Fixes what is carved.
    source : str
        The folder, for messages.

    Returns
    -------
    numpy.ndarray
        uint8: 0 train, 1 validation, 2 test.

    Raises
    ------
    DataError
        If of a given part no image could be read.
    """
    empty = sorted(expected - set(parts))
    if empty:
        raise DataError(
            f"{source} is split already, and no image of its {' and '.join(empty)} part can be read. Repair it, or use "
            "`--resplit` (`resplit=True`) to pool all images and split them again."
        )
    split = np.array([SPLITS.index(part) for part in parts], dtype=np.uint8)
    if expected == {TRAIN, VALIDATION}:
        split[split == SPLITS.index(VALIDATION)] = SPLITS.index(TEST)
    if expected != {TRAIN, VALIDATION, TEST}:
        train = np.flatnonzero(split == 0)
        split[train] = split_groups(codes[train], groups[train], seed, _CARVED)
    return split


def absent_classes(codes: np.ndarray, split: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return a note for each class that has no image in a part of a given split."""
    notes = []
    for code, name in enumerate(names):
        absent = [part for at, part in enumerate(SPLITS) if not np.any((split == at) & (codes == code))]
        if absent:
            notes.append(f"Class {name!r} has no image in the {' and '.join(absent)} part.")
    return notes


def twins_across(split: np.ndarray, groups: np.ndarray, paths: Sequence[str], advice: str = _RESPLIT) -> list[str]:
    """Return a note for each part with images that are equal, or nearly, to images that train.

    Parameters
    ----------
    split, groups : numpy.ndarray
        The part, and the group of near-duplicates, of each image.
    paths : sequence of str
        The images.
    advice : str
        Ends the note: what to do.
    """
    notes = []
    trained = np.unique(groups[split == 0])
    for at, part in enumerate(SPLITS[1:], start=1):
        members = np.flatnonzero(split == at)
        twins = members[np.isin(groups[members], trained)]
        if len(twins):
            names = first_few(printable(paths[index]) for index in twins)
            notes.append(
                f"{len(twins)} of the {len(members)} {part} images are equal or nearly equal to training images, or in "
                f"a group with them ({names}): scores on them are too "
                f"optimistic. {advice}"
            )
    return notes
