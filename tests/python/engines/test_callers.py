"""Julia answers the thread that started it: others, and forked processes, are refused instead of waiting for ever."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import photoflux
from photoflux.data.shape import Shape
from photoflux.engines.flux import bridge
from photoflux.errors import FluxError
from photoflux.model.variants import variant
from photoflux.model.weights import metadata_of, write_weights
from photoflux.runs.progress import Display
from small import prepare, random_weights

SHAPE = Shape(3, 8, 8)
IMAGES = np.zeros((2, *SHAPE), np.uint8)


@pytest.fixture
def model(flux, tmp_path: Path):
    chosen = variant("dense_l2")
    write_weights(tmp_path / "w", random_weights(chosen, SHAPE, 2, 0), metadata_of(chosen, SHAPE, 2))
    return flux.load(chosen, tmp_path / "w", SHAPE, 2)


def test_another_thread_is_refused(flux, model, tmp_path: Path):
    """Everything that asks Julia, of the engine and of what it has loaded."""
    expected = model.logits(IMAGES)
    prepared = prepare(tmp_path / "data", 2)
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as pool:
        for call in (
            flux.versions,
            lambda: model.logits(IMAGES),
            lambda: photoflux.train("dense_l2", prepared.path, epochs=1, engine="flux", progress=False),
            lambda: photoflux.train("dense_l2", prepared.path, epochs=1, engine="auto", progress=False),
        ):
            with pytest.raises(FluxError, match=r"answers no other; this is mine_0.* Call PhotoFlux from") as refused:
                pool.submit(call).result(timeout=60)
            assert refused.value.kind == "thread"
    assert np.array_equal(model.logits(IMAGES), expected)


def test_a_fit_within_a_fit_is_done_before_it_goes_on(flux, tmp_path: Path, monkeypatch):
    """As one that a callback begins: neither changes the other's numbers."""
    prepared, inner = prepare(tmp_path / "data", 2), []

    def train(name, seed):
        options = {"epochs": 1, "batch_size": 8, "engine": "flux", "progress": False}
        return photoflux.train(
            "dense_l2", prepared.path, seed=seed, out=tmp_path / name, **options
        ).weights.read_bytes()

    expected = [train("one", 1), train("two", 2)]

    def begin(self, progress):
        if not inner:
            inner.append(b"")
            inner[0] = train("inner", 2)

    monkeypatch.setattr(Display, "batch", begin)
    assert [train("outer", 1), *inner] == expected


def test_a_ctrl_c_while_julia_loads_is_not_lost(monkeypatch):
    """Julia calls Python while it loads, and an exception there is one that it may catch."""

    def load():
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)

    load.cache_info = lambda: SimpleNamespace(currsize=0)
    monkeypatch.setattr(bridge, "_package", load)
    for name in ("_import_juliacall", "_warn_of_options", "check_caller"):
        monkeypatch.setattr(bridge, name, lambda *_: None)
    monkeypatch.setattr(bridge, "_owner", [])
    with pytest.raises(KeyboardInterrupt):
        bridge.start(print)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows forks no processes")
def test_a_forked_process_is_refused(flux, model):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            model.logits(IMAGES)
        except BaseException as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(child, 0)
    assert f"Julia runs in the process {os.getpid()}, from which this one, {child}, was forked" in text
    assert 'multiprocessing.get_context("spawn")' in text
