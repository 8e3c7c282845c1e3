"""What a worker of a cluster does for a job: it has the run and its model once, and scores batches of sources."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from photoflux.data.images.helpers import Source
from photoflux.data.images.members import Member
from photoflux.engines import get_engine
from photoflux.engines.base import Model
from photoflux.engines.device import device_of
from photoflux.errors import ClusterError
from photoflux.filtering.scoring import LocalScorer, Scored
from photoflux.runs.progress import Display
from photoflux.runs.run import Run, load_run
from photoflux.runs.shift import Observed
from photoflux.runs.transfer import engine_of
from photoflux.system import atomic
from photoflux.system.cluster import THREAD, on_worker, other_versions
from photoflux.system.version import __version__

# Returns the model of a run, and the name of its engine; sent by its name, so it is in a module that workers have too.
Loader = Callable[[Run], tuple[Model, str]]
# How many images were looked at, and what `Observed.measured` says of them.
Looks = tuple[int, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Order:
    """What a worker is sent once.

    Attributes
    ----------
    token : str
        Of the job.
    version : str
        Of the PhotoFlux that sends it.
    files : dict of str to bytes
        Of the run's folder.
    load : Loader
        Loads the run there.
    """

    token: str
    version: str
    files: dict[str, bytes]
    load: Loader


class Unpacked(NamedTuple):
    """A member of an archive that was unpacked on another machine, with its bytes."""

    member: Member
    data: bytes


class Answer(NamedTuple):
    """What is known of a batch.

    Attributes
    ----------
    scored : list of Scored
        The items; sources are counted from 0 in the batch.
    looks : Looks
        At its images, if they were asked for.
    unseen : int
        Sources whose file the worker cannot read.
    engine, machine : str
        The engine that scored, and the worker's machine.
    """

    scored: list[Scored]
    looks: Looks
    unseen: int
    engine: str
    machine: str


def loaded(run: Run, engine: str | None, device: str = "cpu") -> tuple[Model, str]:
    """Return the model of a run on a worker, and the name of its engine; see `photoflux.engines.get_engine`."""
    found = get_engine(engine or "auto", lambda _: None, device_of(device))
    with Display(False) as display:
        return engine_of(found, run, display).load(run.variant, run.weights, run.shape, len(run.classes)), found.name


_STATIONS: dict[str, Station] = {}
# Of jobs at once; the oldest makes way, as one whose client has died.
_MOST = 2


def score(order: Order, batch: list[Source | Unpacked], look: bool) -> Answer:
    """Score a batch of sources in a worker process; `look` says whether images are looked at too.

    Raises
    ------
    PhotoFluxError
        If the run cannot be loaded here.
    """
    return on_worker(_score, order, batch, look)


def release(token: str) -> None:
    """Give up what a worker has of a job, when it has done what it is doing."""
    THREAD.submit(_end, token)


def _score(folder: Path, threads: int, order: Order, batch: list[Source | Unpacked], look: bool) -> Answer:
    if order.token not in _STATIONS:
        while len(_STATIONS) >= _MOST:
            _end(next(iter(_STATIONS)))
        _STATIONS[order.token] = Station(order, folder, threads)
    station = _STATIONS[order.token]
    try:
        return station.score(batch, look)
    except BaseException:
        _end(order.token)
        raise


def _end(token: str) -> None:
    station = _STATIONS.pop(token, None)
    if station is not None:
        station.end()


class Station:
    """A job in a worker process: the run's folder, processes that decode, and the model.

    Parameters
    ----------
    order : Order
        The job.
    folder : Path
        Where the worker may write.
    threads : int
        How many the worker has: so many processes decode.

    Raises
    ------
    ClusterError
        If the job is of another version of PhotoFlux.
    """

    def __init__(self, order: Order, folder: Path, threads: int) -> None:
        if order.version != __version__:
            raise ClusterError(other_versions(order.version, {"a worker": __version__}))
        # A worker under a nanny is daemonic and may not start processes, and those that decode end with it anyway.
        with contextlib.suppress(AssertionError):
            multiprocessing.current_process().daemon = False
        self._folder = atomic.new_scratch("station", folder)
        for name, data in order.files.items():
            # Not atomic: into this worker's scratch folder.
            (self._folder / name).write_bytes(data)
        self._run = load_run(self._folder)
        self._loader = order.load
        self._model: Model | None = None
        self._engine = ""
        self._looks = False
        self._observed: Observed | None = None
        self._scorer = LocalScorer(self._run, self._load, threads, self._see)
        self._before = 0  # sources of the batches before

    def end(self) -> None:
        """End its processes and remove its folder; an engine may stay in the process."""
        self._scorer.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _load(self) -> Model:
        self._model, self._engine = self._loader(self._run)
        return self._model

    def _see(self, pixels: np.ndarray, logits: np.ndarray, sizes: list[tuple[int, int]]) -> None:
        if not self._looks:
            return
        if self._observed is None:
            self._observed = Observed(self._model, self._run)
        self._observed.add(pixels, logits, sizes)

    def score(self, batch: list[Source | Unpacked], look: bool) -> Answer:
        """Score a batch; see `score`."""
        self._looks, self._observed = look, None
        unseen = sum(not isinstance(source, Unpacked) and not readable(source) for source in batch)
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            sources = [_unpacked(source, Path(place) / str(at)) for at, source in enumerate(batch)]
            scored = [item for items in self._scorer.scored(sources) for item in items]
        scored = [item._replace(number=item.number - self._before) for item in scored]
        self._before += len(batch)
        looks: Looks = (0, {}) if self._observed is None else (self._observed.images, self._observed.measured())
        return Answer(scored, looks, unseen, self._engine, platform.node())


def _unpacked(source: Source | Unpacked, file: Path) -> Source:
    if not isinstance(source, Unpacked):
        return source
    # Not atomic: into the worker's scratch folder.
    file.write_bytes(source.data)
    return source.member._replace(file=file, start=0)


def readable(source: Source) -> bool:
    """Say whether the file of a source can be read on this machine."""
    return os.access(source.file if isinstance(source, Member) else source, os.R_OK)
