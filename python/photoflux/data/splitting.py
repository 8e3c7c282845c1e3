"""Splits images into train, validation and test, stratified by class, with each group on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from photoflux.data.large_groups import place_large_groups
from photoflux.data.prepared import SPLITS

FRACTIONS = (0.7, 0.1, 0.2)
_NOTABLE = 0.05
_LARGE, _LARGE_SHARE = 20, 0.01


def split_groups(
    folder_labels: np.ndarray, groups: np.ndarray, seed: int, fractions: Sequence[float] = FRACTIONS
) -> np.ndarray:
    """Split images into train, validation and test, class by class, with each group on one side.

    Groups of more than 20 images, or of more than 1 % of their class, are placed first: `place_large_groups` looks at
    the images that they have of every class. A smaller group counts for the class that most of its images have. In
    every class the smaller groups are shuffled; those of several images go first, the largest first, each to the part
    that is furthest from its share; the single images then fill the shares exactly. A class of three or more groups
    that have no other classes is in every part that has a share; one of a single group trains only (`missing_parts`
    reports that).

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

    class_sizes = np.bincount(folder_labels)[class_of_group]
    large = (sizes > _LARGE) | ((sizes > 1) & (sizes > _LARGE_SHARE * class_sizes))
    counts = _count_classes(folder_labels, group_of, large)
    classes = counts.shape[1]
    totals = counts.sum(axis=0) + np.bincount(class_of_group[~large], sizes[~large], classes).astype(np.int64)
    others = np.bincount(class_of_group[~large], minlength=classes)
    part_of_group[large] = place_large_groups(counts, totals, others, shares, seed)

    for label in np.unique(class_of_group[~large]):
        members = np.flatnonzero(class_of_group == label)
        shuffled = np.random.default_rng([seed, int(label)]).permutation(members)
        small = shuffled[~large[shuffled]]
        filled = np.bincount(part_of_group[large], counts[:, label], len(shares))
        part_of_group[small] = _split_class(sizes[small], shares, filled)
    return part_of_group[group_of]


def split_tenth(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Choose a tenth of the images of each class to validate, where a dataset has a test part of its own.

    The rule needs nothing but SHA-256, so that Julia (`julia/datasets.jl`) makes the same parts of the same images. A
    group belongs to the class of its first image. The groups of a class come in the order of the SHA-256 of
    ``"SEED:POSITION"``, the position of their first image, from 0; each validates whose images still fit into the
    tenth, which is rounded to the nearest number (a half up) and is 1 or more. A class of one group trains only.

    Parameters
    ----------
    labels : numpy.ndarray
        Integer class of each image, from 0.
    groups : numpy.ndarray
        Integer group of each image.
    seed : int
        Fixes the choice.

    Returns
    -------
    numpy.ndarray
        uint8: 0 train, 1 validation.
    """
    _, first, group_of, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    validates = np.zeros(len(first), dtype=np.uint8)
    class_of = np.asarray(labels)[first]
    for label in np.unique(class_of):
        members = np.flatnonzero(class_of == label)
        if len(members) < 2:
            continue
        keys = {int(group): hashlib.sha256(f"{seed}:{first[group]}".encode()).digest() for group in members}
        left = max((int(sizes[members].sum()) + 5) // 10, 1)
        for group in sorted(keys, key=keys.__getitem__):
            if sizes[group] <= left:
                validates[group] = 1
                left -= int(sizes[group])
    return validates[group_of]


def missing_parts(
    folder_labels: np.ndarray,
    split: np.ndarray,
    names: Sequence[str],
    what: str = "different images",
    parts: Sequence[str] = SPLITS,
) -> list[str]:
    """Return a warning for each class that is absent from one of the parts, as it has too few of what is named."""
    warnings = []
    for label, name in enumerate(names):
        has = set(split[folder_labels == label].tolist())
        absent = [part for code, part in enumerate(SPLITS) if part in parts and code not in has]
        if has and absent:
            warnings.append(f"Class {name!r} has too few {what} to be in the {' and '.join(absent)} part.")
    return warnings


def uneven_parts(folder_labels: np.ndarray, split: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return a warning for each class of which a part has over 5 points more or less than its share."""
    warnings = []
    for label, name in enumerate(names):
        counts = np.bincount(split[folder_labels == label], minlength=len(FRACTIONS))
        shares = counts / max(counts.sum(), 1)
        if counts.sum() and np.abs(shares - FRACTIONS).max() > _NOTABLE + 1e-9:
            reached, wanted = (" / ".join(f"{100 * share:.0f}" for share in row) for row in (shares, FRACTIONS))
            warnings.append(f"Class {name!r} is split {reached} %, not {wanted} %, because its groups stay whole.")
    return warnings


def _majority(labels: np.ndarray, group_of: np.ndarray, groups: int) -> np.ndarray:
    """Return the commonest label of each group, the smallest where several are."""
    pairs, counts = np.unique(np.stack([group_of, labels]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    first = np.unique(pairs[0][order], return_index=True)[1]
    majority: np.ndarray = pairs[1][order][first]
    assert len(majority) == groups
    return majority


def _count_classes(labels: np.ndarray, group_of: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the images of each class in each chosen group, (groups, classes)."""
    classes = int(labels.max()) + 1
    place = np.cumsum(chosen) - 1
    inside = chosen[group_of]
    flat = place[group_of[inside]] * classes + labels[inside]
    return np.bincount(flat, minlength=np.count_nonzero(chosen) * classes).reshape(-1, classes)


def _split_class(sizes: np.ndarray, shares: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Return the part of each group of a class, given in shuffled order with its size.

    `filled` says how many images the large groups have put into each part.
    """
    parts = np.zeros(len(sizes), dtype=np.uint8)
    target = shares * (sizes.sum() + filled.sum())
    filled = filled.copy()
    order = np.argsort(-sizes, kind="stable")
    several = order[: np.count_nonzero(sizes > 1)]
    for group in several.tolist():
        part = int(np.argmax(np.where(shares > 0, target - filled, -np.inf)))
        parts[group] = part
        filled[part] += sizes[group]
    single = order[len(several) :]
    quotas = _quotas(target - filled, len(single))
    parts[single] = np.repeat(np.arange(len(shares)), quotas)
    _fill_empty(parts, sizes, shares, filled + quotas)
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


def _fill_empty(parts: np.ndarray, sizes: np.ndarray, shares: np.ndarray, filled: np.ndarray) -> None:
    """Give each empty part the smallest group of the part that has the most, training and testing first."""
    for part in (0, 2, 1):
        if shares[part] == 0 or filled[part] > 0:
            continue
        counts = np.bincount(parts, minlength=len(shares))
        smallest = [sizes[parts == code].min(initial=sizes.sum()) for code in range(len(shares))]
        richest = int(np.argmax(np.where(filled > smallest, counts, 0)))
        if counts[richest] > 0 and filled[richest] > smallest[richest]:
            held = np.flatnonzero(parts == richest)
            moved = held[np.argmin(sizes[held])]
            parts[moved] = part
            filled[[richest, part]] += [-sizes[moved], sizes[moved]]
