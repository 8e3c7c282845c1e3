"""Fits made on a cluster are those of one machine, also when a worker is killed among them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import photoflux
from clusters import started
from photoflux.engines.keras.engine import KerasEngine
from photoflux.errors import ClusterError

distributed = pytest.importorskip("distributed", reason="needs the extra dask")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arrays of a class that is bright and one that is dark, not quite apart."""
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    x = rng.integers(0, 156, (80, 8, 8, 3)) + (70 * y)[:, None, None, None]
    return photoflux.prepare((x.astype(np.uint8), y), tmp_path_factory.mktemp("data") / "d", progress=False).path


def compared(data: Path, out: Path, holdout: Path, **options: Any) -> Any:
    settings = {"seeds": 2, "epochs": 2, "batch_size": 8, "engine": "keras", "progress": False} | options
    return photoflux.compare(data, "baseline,l2", holdout=holdout, out=out, **settings)


@pytest.mark.fault(
    "a worker of `photoflux compare --dask` is killed", costs="the fit that it had begun: another begins it again"
)
@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_a_worker_that_is_killed_among_the_fits_changes_nothing(data: Path, keras: KerasEngine, tmp_path: Path):
    rng = np.random.default_rng(8)
    y = np.arange(60) % 2
    x = rng.integers(0, 156, (60, 8, 8, 3)) + (70 * y)[:, None, None, None]
    second = photoflux.prepare((x.astype(np.uint8), y), tmp_path / "second", progress=False).path
    here, runs, struck = compared(data, tmp_path / "here", second), tmp_path / "there" / "runs", []
    with started(2) as cluster:
        pids = [worker.pid for worker in cluster.workers.values()]

        def strike() -> None:
            while not runs.is_dir() or not any(path.name.startswith(("baseline", "l2")) for path in runs.iterdir()):
                time.sleep(0.02)
            os.kill(pids[0], signal.SIGKILL)
            struck.append(len(list(runs.iterdir())))

        thread = threading.Thread(target=strike, daemon=True)
        thread.start()
        there = compared(data, tmp_path / "there", second, dask=cluster.scheduler_address)
        thread.join()
    assert struck[0] < 4, "it was in the middle of the job"
    assert sorted(path.name for path in runs.iterdir()) == sorted(p.name for p in (here.path / "runs").iterdir())
    for run in runs.iterdir():
        whole = here.path / "runs" / run.name
        assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}
        rows, own_rows = (photoflux.load_run(path).history for path in (run, whole))
        assert [replace(row, seconds=0) for row in rows] == [replace(row, seconds=0) for row in own_rows]
        for name in (f"runs/{run.name}/weights", f"runs/{run.name}/logits", f"scores/{run.name}"):
            arrays, own = (load_file(folder.path / f"{name}.safetensors") for folder in (there, here))
            assert list(arrays) == list(own)
            # Bit for bit: the same library on the same machine, with the same seed.
            assert all(np.array_equal(arrays[key], own[key]) for key in own), name
        assert photoflux.load_run(run).data == photoflux.load_run(whole).data
    for row, own in zip(there.results, here.results, strict=True):
        assert row.per_seed == own.per_seed
    assert there.decision == here.decision
    again = compared(data, there.path, second, dask="tcp://127.0.0.1:9")
    assert again.decision == here.decision, "with all fits there, no cluster is needed"


def test_workers_that_do_not_see_the_dataset(data: Path, keras: KerasEngine, tmp_path: Path, monkeypatch: Any):
    from photoflux.comparison import spreading

    moved = shutil.copytree(data, tmp_path / "moved")
    monkeypatch.setattr(spreading, "_place_of", lambda prepared: (tmp_path / "gone", prepared.fingerprint))
    with (
        started(1) as cluster,
        pytest.raises(ClusterError, match=r"The workers do not see the prepared dataset .*gone"),
    ):
        compared(moved, tmp_path / "c", data, dask=cluster.scheduler_address, seeds=1)
    assert list((tmp_path / "c" / "runs").iterdir()) == []
