"""How a model shares the cores with the processes that decode for it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from photoflux.runs import stream
from photoflux.runs.stream import Block, share_cores


class Shared:
    """A model that can leave cores to others."""

    threads = 0

    def logits(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        return np.zeros((len(images), 1), np.float32)


@pytest.mark.parametrize(
    ("cores", "processes", "ahead", "threads"),
    [(8, 2, False, 6), (8, 8, False, 1), (2, 4, False, 1), (8, 8, True, 0), (8, 0, False, 8)],
)
def test_it_leaves_cores_to_decoding_unless_that_is_ahead(monkeypatch, cores, processes, ahead, threads):
    monkeypatch.setattr(stream, "cores", lambda: cores)
    model = Shared()
    share_cores(model, Block([], ahead), processes)
    assert model.threads == threads


def test_flux_computes_the_same_with_one_thread(flux, tmp_path):
    from piles import SHAPE, make_run

    run = make_run(tmp_path / "run")
    model = flux.load(run.variant, run.weights, run.shape, 2)
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    everyone = model.logits(images)
    model.threads = 1
    assert (model.logits(images) == everyone).all()


def test_waiting_counts_where_it_was_most_of_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    waits = stream._Waits()
    found = []
    # Looks are 5 ms apart: of 100 ms each, 0, 40, 60 and again 0 ms were spent so.
    for looks in (0, 8, 12, 0):
        now[0] += 0.1
        waits.looks += looks
        found.append(waits.were_most())
    assert found == [False, False, True, False]
