from __future__ import annotations

import time

import numpy as np
import pytest

from photoflux.data.duplicates import group_duplicates, number_groups


def group(phash: list[int], sha256: list[str] | None = None, labels: list[int] | None = None) -> list[int]:
    sha256 = [f"{n}" for n in range(len(phash))] if sha256 is None else sha256
    labels = [0] * len(phash) if labels is None else labels
    return group_duplicates(sha256, np.array(phash, dtype=np.uint64), np.array(labels)).tolist()


def test_equal_files_and_near_hashes():
    base = 0x123456789ABCDEF0
    assert group([base, ~base & (1 << 64) - 1, base]) == [0, 1, 0]
    assert group([base, base ^ 1, base ^ (1 << 63 | 1 << 20), base ^ 0b111]) == [0, 0, 0, 0]
    assert group([base, base ^ 0b111]) == [0, 1]
    assert group([base, ~base & (1 << 64) - 1], sha256=["x", "x"]) == [0, 0]


def test_every_pair_of_two_bits_is_found():
    base = 0xDEADBEEF01234567
    for one in range(64):
        for two in range(one + 1, 64, 7):
            assert group([base, base ^ (1 << one) ^ (1 << two)]) == [0, 0]


def test_against_all_pairs():
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 1 << 63, 60, dtype=np.uint64)
    hashes = centres[rng.integers(0, 60, 300)]
    for _ in range(4):
        hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, 300, dtype=np.uint64)) * rng.integers(
            0, 2, 300, dtype=np.uint64
        )
    parent = np.arange(300)
    for _ in range(300):
        before = parent.copy()
        for i in range(300):
            near = [j for j in range(300) if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= 2]
            parent[near] = parent[near].min()
        if np.array_equal(before, parent):
            break
    found = group_duplicates([str(n) for n in range(300)], hashes, np.zeros(300, int))
    if np.bincount(found).max() <= 20:
        assert found.tolist() == number_groups(parent).tolist()
    else:
        pytest.fail("the sample has a group that is too large to compare")


def test_a_crowd_of_look_alikes_is_not_one_group():
    blank = [0] * 40
    sha256 = ["twin", "twin", *(str(n) for n in range(38))]
    assert group(blank[:20], sha256[:20]) == [0] * 20
    groups = group(blank, sha256)
    assert groups[:2] == [0, 0]
    assert len(set(groups)) == 39
    # In a class of 5000 forty look-alikes are less than 1 %, and stay together.
    rest = np.random.default_rng(0).integers(1 << 40, 1 << 62, 5000).tolist()
    assert group(blank + rest)[:40] == [0] * 40


def test_a_million_hashes_take_seconds():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 64, 1_000_000, dtype=np.uint64)
    hashes[500_000:500_100] = hashes[:100] ^ np.uint64(1 << 40 | 1)
    hashes[600_000:700_000] = 5
    labels = rng.integers(0, 5, 1_000_000)
    sha256 = [str(n) for n in range(1_000_000)]
    start = time.process_time()
    groups = group_duplicates(sha256, hashes, labels)
    assert time.process_time() - start < 40
    assert groups[500_000:500_100].tolist() == groups[:100].tolist()
    assert len(np.unique(groups)) == 1_000_000 - 100
