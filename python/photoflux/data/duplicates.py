"""Groups equal and nearly equal images, so that copies never lie on both sides of a split."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

NEAR = 2
_LARGEST = 20
_LARGEST_SHARE = 0.01
# Hashes that share half their bits with more others than this are compared with this many only.
_WINDOW = 256


def group_duplicates(sha256: Sequence[str], phash: np.ndarray, folder_labels: np.ndarray) -> np.ndarray:
    """Return the group of each image: equal files, and perceptual hashes that differ in at most two of 64 bits.

    A group of more than 20 images and more than 1 % of its class is one of look-alikes (blank pages, one form filled
    in differently): kept whole it would unbalance the split, so in such a group only equal files stay together.

    Parameters
    ----------
    sha256 : sequence of str
        Digest of each file; one or more.
    phash : numpy.ndarray
        uint64 perceptual hash of each image.
    folder_labels : numpy.ndarray
        Integer class of each image, from 0.

    Returns
    -------
    numpy.ndarray
        int64 group of each image, numbered from 0 in the order of the first image.
    """
    _, equal = np.unique(np.asarray(sha256), return_inverse=True)
    hashes, code = np.unique(np.asarray(phash, dtype=np.uint64), return_inverse=True)
    files = int(equal.max()) + 1
    # A bipartite graph of files and hashes, with edges between near hashes: its components are the groups.
    left, right = _near_pairs(hashes)
    near = components(
        files + len(hashes), np.concatenate([equal, files + left]), np.concatenate([files + code, files + right])
    )[equal]
    sizes = np.bincount(near)
    class_size = np.zeros(len(sizes), dtype=np.int64)
    np.maximum.at(class_size, near, np.bincount(folder_labels)[folder_labels])
    oversized = sizes > np.maximum(_LARGEST, _LARGEST_SHARE * class_size)
    return number_groups(np.where(oversized[near], len(sizes) + equal, near))


def number_groups(groups: np.ndarray) -> np.ndarray:
    """Renumber groups from 0 in the order of their first images."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _near_pairs(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of different hashes that differ in at most `NEAR` bits.

    Of four 16-bit quarters two differing bits leave two untouched, so near hashes share one of six 32-bit keys:
    sorting by each key puts them side by side, and a million hashes need no million² comparisons.
    """
    lefts, rights = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    quarters = [(hashes >> np.uint64(16 * k)) & np.uint64(0xFFFF) for k in range(4)]
    for one, two in combinations(quarters, 2):
        key = (one << np.uint64(16)) | two
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        candidates = np.arange(len(key))
        for step in range(1, _WINDOW):
            candidates = candidates[candidates + step < len(key)]
            candidates = candidates[ordered[candidates] == ordered[candidates + step]]
            if not len(candidates):
                break
            left, right = order[candidates], order[candidates + step]
            close = _count_bits(hashes[left] ^ hashes[right]) <= NEAR
            lefts.append(left[close])
            rights.append(right[close])
    return np.concatenate(lefts), np.concatenate(rights)


def _count_bits(values: np.ndarray) -> np.ndarray:
    # np.bitwise_count came with NumPy 2.
    bits: np.ndarray = np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
    return bits


def distinct_looks(hashes: np.ndarray) -> np.ndarray:
    """Return the different perceptual hashes by which an image is known: those near to 20 images or fewer.

    One that more share is of look-alikes, such as blank pages, and tells nothing.
    """
    values, counts = np.unique(np.asarray(hashes, dtype=np.uint64), return_counts=True)
    left, right = np.unique(np.sort(_near_pairs(values), axis=0), axis=1)
    near = counts.copy()
    np.add.at(near, left, counts[right])
    np.add.at(near, right, counts[left])
    return values[near <= _LARGEST]


def looks_like(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Say for each perceptual hash, (N,), whether it differs from a known one in at most `NEAR` bits."""
    values, where = np.unique(np.asarray(hashes, dtype=np.uint64), return_inverse=True)
    every = np.union1d(values, known)
    is_known = np.isin(every, known)
    left, right = _near_pairs(every)
    near = is_known.copy()
    near[left[is_known[right]]] = True
    near[right[is_known[left]]] = True
    found: np.ndarray = near[np.searchsorted(every, values)][where]
    return found


def components(nodes: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the connected component of each node of a graph with edges between `left` and `right`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(nodes, nodes))
    labels: np.ndarray = connected_components(graph, directed=False)[1]
    return labels
