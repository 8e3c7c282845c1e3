"""A preparation that is killed at any moment leaves nothing, and the next one makes the same bytes."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest

import photoflux
from kills import left_by_kills
from piles import files_below

# Slow where something has just been written.
KILLED = """
import os, sys, time, numpy as np, photoflux
real = os.fsync
os.fsync = lambda file: (time.sleep(0.02), real(file))
photoflux.prepare(tuple(np.load(sys.argv[1]).values()), sys.argv[2] + "/d", progress=False)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="stops a process and sees that it has stopped, as Linux says it")
@pytest.mark.fault("SIGKILL in `photoflux prepare`", costs="the preparation so far: it is made again")
def test_twenty_kills_at_random_moments(tmp_path):
    rng = np.random.default_rng(1)
    y = np.arange(200) % 2
    x = rng.integers(0, 156, (200, 16, 16, 3), np.uint8) + (100 * y)[:, None, None, None].astype(np.uint8)
    np.savez(tmp_path / "arrays.npz", x=x, y=y)
    whole = photoflux.prepare((x, y), tmp_path / "whole", progress=False)
    left = left_by_kills(
        KILLED,
        [str(tmp_path / "arrays.npz")],
        tmp_path / "killed",
        chance=random.Random(10),
        pause=0.03,
        begun=lambda place: any(place.iterdir()),
    )
    for place in left:
        made = photoflux.prepare((x, y), place / "d", progress=False)
        assert files_below(made.path) == files_below(whole.path)
        assert {path.name for path in place.iterdir()} == {"d"}
