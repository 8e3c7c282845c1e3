"""A cluster on this machine, and models that its workers load, where they can import them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.runs.run import Run
from piles import Brightness


def started(workers: int) -> Any:
    """A cluster of so many worker processes on this machine."""
    from distributed import LocalCluster, Status

    for last in (False, False, True):
        cluster = LocalCluster.__new__(LocalCluster)
        try:
            cluster.__init__(
                n_workers=workers, processes=True, threads_per_worker=1, dashboard_address=":0", memory_limit=0
            )
        except AssertionError:
            # It gives its own thread ten seconds to start, and a busy machine may take longer. Nothing of it runs.
            cluster.status = Status.closed
            if last:
                raise
        else:
            return cluster
    raise AssertionError


class Slow(Brightness):
    """A model that takes a while for a block, so that a worker can be killed before the work is done."""

    def logits(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        time.sleep(0.3)
        return super().logits(images, batch_size=batch_size)


def brightness(_: Run) -> tuple[Brightness, str]:
    return Brightness(), "brightness"


def slow(_: Run) -> tuple[Brightness, str]:
    return Slow(), "brightness"


def engine_of_the_process(_: Run) -> tuple[Brightness, str]:
    return Brightness(), f"engine {os.getpid()}"


def failing(_: Run) -> tuple[Brightness, str]:
    raise OSError("no such engine")


class Deadly(Brightness):
    """A model that ends its process at an image of a mean of 60 to 90, as a lack of memory would."""

    def logits(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        means = images.mean(axis=(1, 2, 3))
        if ((means > 60) & (means < 90)).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().logits(images, batch_size=batch_size)


def deadly(_: Run) -> tuple[Brightness, str]:
    return Deadly(), "brightness"


def kept(dask_worker: object) -> list[str]:
    """Say what a worker has of jobs."""
    from photoflux.filtering.station import _STATIONS
    from photoflux.system.cluster import THREAD

    THREAD.submit(int).result()
    folder = Path(dask_worker.local_directory)
    return [*_STATIONS, *(path.name for path in folder.iterdir() if path.name.startswith("photoflux"))]
