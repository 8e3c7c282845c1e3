"""Which images train, validate and test: stratified by class, near-duplicates kept on one side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from photoflux.data.prepared import SPLITS

FRACTIONS = (0.7, 0.1, 0.2)


def split_groups(
    folder_labels: np.ndarray, groups: np.ndarray, seed: int, fractions: Sequence[float] = FRACTIONS
) -> np.ndarray:
    """Split images into train, validation and test, class by class, with each group on one side.

    A group with images of several classes counts for the one that most of them have. In every class the groups are
    shuffled; those of several images go first, the largest first, each to the part that is furthest from its share;
    the single images then fill the shares exactly. A class of three or more groups is in every part that has a share;
    one of a single group trains only (`missing_parts` reports that).

    scikit-learn's ``StratifiedGroupKFold`` weighs every fold for every group in Python, which takes hours for a
    million images, and may leave a small class out of a part; this takes seconds and does not.

    Parameters
    ----------
    folder_labels : numpy.ndarray
        Integer class of each image, from 0.
    groups : numpy.ndarray
        Integer group of each image.
    seed : int
        Fixes the split.
    fractions : sequence of float
        The shares of train, validation and test; their sum is 1. A share of 0 leaves a part empty.

    Returns
    -------
    numpy.ndarray
        uint8: 0 train, 1 validation, 2 test.
    """
    folder_labels = np.asarray(folder_labels)
    _, group_of = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group_of)
    class_of_group = _majority(folder_labels, group_of, len(sizes))
    part_of_group = np.zeros(len(sizes), dtype=np.uint8)
    shares = np.asarray(fractions, dtype=np.float64)
    for label in np.unique(class_of_group):
        members = np.flatnonzero(class_of_group == label)
        shuffled = np.random.default_rng([seed, int(label)]).permutation(members)
        part_of_group[shuffled] = _split_class(sizes[shuffled], shares)
    return part_of_group[group_of]


def missing_parts(folder_labels: np.ndarray, split: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return a warning for each class that is absent from a part."""
    warnings = []
    for label, name in enumerate(names):
        parts = set(split[folder_labels == label].tolist())
        absent = [part for code, part in enumerate(SPLITS) if code not in parts]
        if parts and absent:
            warnings.append(f"Class {name!r} has too few different images to be in the {' and '.join(absent)} part.")
    return warnings


def _majority(labels: np.ndarray, group_of: np.ndarray, groups: int) -> np.ndarray:
    """Return the commonest label of each group, the smallest where several are."""
    pairs, counts = np.unique(np.stack([group_of, labels]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    first = np.unique(pairs[0][order], return_index=True)[1]
    majority: np.ndarray = pairs[1][order][first]
    assert len(majority) == groups
    return majority


def _split_class(sizes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the part of each group of a class, given in shuffled order with its size."""
    parts = np.zeros(len(sizes), dtype=np.uint8)
    target = shares * sizes.sum()
    filled = np.zeros(len(shares))
    order = np.argsort(-sizes, kind="stable")
    several = order[: np.count_nonzero(sizes > 1)]
    for group in several.tolist():
        part = int(np.argmax(np.where(shares > 0, target - filled, -np.inf)))
        parts[group] = part
        filled[part] += sizes[group]
    single = order[len(several) :]
    parts[single] = np.repeat(np.arange(len(shares)), _quotas(target - filled, len(single)))
    _fill_empty(parts, sizes, shares)
    return parts


def _quotas(wanted: np.ndarray, total: int) -> np.ndarray:
    """Return whole numbers near `wanted` that add up to `total`; the largest remainders are rounded up."""
    wanted = np.maximum(wanted, 0)
    exact = wanted * (total / wanted.sum()) if wanted.sum() else np.eye(len(wanted))[0] * total
    quotas: np.ndarray = np.floor(exact + 1e-9).astype(np.int64)
    # At a tie the later part wins: of two images one trains and one tests.
    order = np.lexsort((-np.arange(len(exact)), -np.round(exact - quotas, 9)))
    quotas[order[: total - quotas.sum()]] += 1
    return quotas


def _fill_empty(parts: np.ndarray, sizes: np.ndarray, shares: np.ndarray) -> None:
    """Give each empty part the smallest group of the part that has the most, training and testing first."""
    for part in (0, 2, 1):
        counts = np.bincount(parts, minlength=len(shares))
        richest = int(np.argmax(counts))
        if shares[part] > 0 and counts[part] == 0 and counts[richest] > 1:
            held = np.flatnonzero(parts == richest)
            parts[held[np.argmin(sizes[held])]] = part
