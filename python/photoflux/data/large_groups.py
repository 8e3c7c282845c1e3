"""Assigns large groups to parts of the split: keeps the best of many seeded random draws."""

from __future__ import annotations

import numpy as np

from photoflux.data.duplicates import components

_DRAWS, _FEWEST, _WORK = 256, 16, 10_000_000
# How much further off the shares than the best draw another may be: the more, the further the best itself is off.
_LEAST_SLACK, _SLACK = 0.02, 0.1
# The penalties of a draw in which a class lacks training, validation or test images, or has a part that is larger, by
# more than five points, than one that should be larger.
_ABSENT, _DISORDER, _TOLERANCE = (16, 4, 8), 1, 0.05


def place_large_groups(
    counts: np.ndarray, totals: np.ndarray, others: np.ndarray, shares: np.ndarray, seed: int
) -> np.ndarray:
    """Return a part for each large group, drawn so that the classes come near their shares.

    A draw takes the groups in random order, the larger ones rather first, and gives each to a part with a probability
    that grows with the room that the part still has for it. Of 256 draws those with the fewest faults are kept (a class
    that is absent from a part, a part that is larger than one that should be larger), and one of them is drawn: the
    nearer it comes to the shares, the likelier it is. None is taken that is over 2 points further off than the best, or
    over 10 where the best is itself far off. So another seed gives another split wherever there is more than one good
    one. Classes that no group has in common are placed apart, and do not change each other's split.

    Parameters
    ----------
    counts : numpy.ndarray
        Images of each class in each group, (groups, classes).
    totals : numpy.ndarray
        Images of each class, those in no large group too, (classes,); 1 or more where a group has that class.
    others : numpy.ndarray
        How many smaller groups each class has beside these, (classes,). They fill up what these leave.
    shares : numpy.ndarray
        The shares of train, validation and test; their sum is 1.
    seed : int
        Fixes the draws.

    Returns
    -------
    numpy.ndarray
        uint8, (groups,).
    """
    parts = np.zeros(len(counts), dtype=np.uint8)
    group, label = np.nonzero(counts)
    together = components(len(counts) + len(totals), group, len(counts) + label)
    for one in np.unique(together[: len(counts)]):
        groups = np.flatnonzero(together[: len(counts)] == one)
        labels = np.flatnonzero(together[len(counts) :] == one)
        # The small groups of the same class are shuffled by [seed, label].
        rng = np.random.default_rng([seed, int(labels[0]), 1])
        parts[groups] = _place(counts[np.ix_(groups, labels)], totals[labels], others[labels], shares, rng)
    return parts


def _place(
    counts: np.ndarray, totals: np.ndarray, others: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    # Shares of each class, so that a small class weighs as much as a large one.
    weights = counts / totals
    draws, filled = _draw(weights, shares, rng)
    faults = _faults(filled, others, shares)
    draws, first = np.unique(draws[faults == faults.min()], axis=0, return_index=True)
    filled = filled[faults == faults.min()][first]
    # Too full parts cannot be mended by the smaller groups; half the sum of all deviations, once those have filled up.
    error = np.maximum(filled - shares, 0).sum(axis=2).mean(axis=1)
    further = error - error.min()
    slack = min(_SLACK, _LEAST_SLACK + 1.5 * error.min())
    chances = np.where(further <= slack, np.exp(-2 * further / slack), 0)
    chosen: np.ndarray = draws[rng.choice(len(draws), p=chances / chances.sum())]
    return chosen


def _draw(weights: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return draws of parts, (draws, groups), and how full they leave each part, (draws, classes, parts)."""
    groups, classes = weights.shape
    number = min(_DRAWS, max(_FEWEST, _WORK // (groups * classes)))
    # Sorted by log(size) + Gumbel noise, groups come in random order, each with a probability that is as its size.
    order = np.argsort(-np.log(weights.sum(axis=1)) - rng.gumbel(size=(number, groups)), axis=1)
    row = np.arange(number)
    parts = np.zeros((number, groups), dtype=np.uint8)
    filled = np.zeros((number, classes, len(shares)))
    for step in range(groups):
        group = order[:, step]
        weight = weights[group]
        fits = np.minimum(weight[:, :, None], np.maximum(shares - filled, 0)).sum(axis=1)
        # Where no part has room left, the shares decide.
        chances = np.cumsum(fits + 1e-9 * shares, axis=1)
        part = (rng.random(number)[:, None] * chances[:, -1:] >= chances[:, :-1]).sum(axis=1)
        parts[row, group] = part
        filled[row, :, part] += weight
    return parts, filled


def _faults(filled: np.ndarray, others: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the penalty of each draw, missing parts first, once the smaller groups have filled up what they can."""
    faults = np.zeros(len(filled), dtype=np.int64)
    left = np.broadcast_to(others, filled.shape[:2]).copy()
    for part in np.argsort(-np.array(_ABSENT)):
        empty = (filled[:, :, part] == 0) & (shares[part] > 0)
        faults += _ABSENT[part] * (empty & (left == 0)).sum(axis=1)
        left -= empty & (left > 0)
    room = np.maximum(shares - filled, 0)
    rest = 1 - filled.sum(axis=2, keepdims=True)
    final = filled + room * rest / np.maximum(room.sum(axis=2, keepdims=True), 1e-12)
    ascending = final[:, :, np.argsort(shares)]
    faults += _DISORDER * (np.diff(ascending, axis=2) < -_TOLERANCE).sum(axis=(1, 2))
    return faults
