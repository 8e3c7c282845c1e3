"""Scores the sources of a job on a cluster of dask.distributed: batches go out, and come back in their order."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from photoflux.data.images.helpers import Source
from photoflux.data.images.members import Member
from photoflux.errors import ClusterError, PhotoFluxError
from photoflux.filtering.scoring import Scored
from photoflux.filtering.station import Answer, Loader, Order, Unpacked, readable, release, score
from photoflux.runs.reference import NAME as REFERENCE
from photoflux.runs.run import Run
from photoflux.runs.transfer import TUNED
from photoflux.system import log
from photoflux.system.cluster import connect, submit
from photoflux.system.names import printable
from photoflux.system.version import __version__

# Sources of a batch, and bytes of its members that are sent with it; and such bytes that may be under way.
_BATCH, _BATCH_BYTES, _BYTES = 64, 4 << 20, 256 << 20
# Batches for each thread of the cluster that are under way, and at least.
_AHEAD, _FEW = 3, 4
# Seconds after which the size of the cluster is asked for again.
_SIZE = 10.0
# How often a batch is sent again whose run was lost with the workers that had it.
_SENDINGS = 3
# Of a run's folder, what scores depend on and what images are compared with.
_FILES = ("run.json", "history.csv", "weights.safetensors", TUNED, REFERENCE)


class Looker(Protocol):
    """What is told of the first images."""

    @property
    def wants(self) -> bool:
        """Whether it wants more of them."""
        ...

    def extend(self, images: int, measured: dict[str, np.ndarray]) -> None:
        """Take what `photoflux.runs.shift.Observed.measured` says of so many images."""
        ...


@dataclass
class _Batch:
    number: int  # of its first source
    sources: list[Source | Unpacked]
    look: bool
    bytes: int = 0
    sendings: int = 0
    future: Any = field(default=None)


class ClusterScorer:
    """Scores on the workers of a cluster; see `photoflux.filtering.scoring.Scorer`.

    Parameters
    ----------
    address : str
        Of the scheduler.
    run : Run
        A run of two classes.
    load : Loader
        Loads it on a worker.

    Raises
    ------
    ClusterError
        If the cluster cannot be used.
    """

    def __init__(self, address: str, run: Run, load: Loader) -> None:
        self._address = address
        self._client = connect(address)
        files = {name: (run.path / name).read_bytes() for name in _FILES if (run.path / name).is_file()}
        self._order = Order(secrets.token_hex(8), __version__, files, load)
        self._sent: Any = None
        self._looker: Looker | None = None
        self._next = 0
        self._held = 0  # bytes of members under way
        self._engine = ""
        self._threads, self._asked = 0, -_SIZE
        self._alone = False

    def show(self, looker: Looker) -> None:
        """Have the first images looked at."""
        self._looker = looker

    def end(self) -> None:
        """Have the workers give up what they have of the job, and leave the cluster."""
        with suppress(Exception):  # of a cluster that has gone nothing is left to end
            self._client.run(release, self._order.token, on_error="ignore")
        self._client.close()

    def scored(self, sources: Iterable[Source]) -> Generator[list[Scored], None, None]:
        """Yield the items of the sources, a batch at a time; see `Scorer.scored`."""
        waiting: deque[_Batch] = deque()
        try:
            for batch in self._batches(sources):
                self._send(batch)
                waiting.append(batch)
                while waiting and (self._is_full(waiting) or waiting[0].future.done()):
                    yield self._scored(waiting.popleft())
            while waiting:
                yield self._scored(waiting.popleft())
        finally:
            if waiting:
                with suppress(Exception):
                    self._client.cancel([batch.future for batch in waiting], force=True)

    def _batches(self, sources: Iterable[Source]) -> Iterator[_Batch]:
        batch = self._new()
        for source in sources:
            if isinstance(source, Member) and source.file != source.archive:
                with source.file.open("rb") as file:
                    file.seek(source.start)
                    batch.sources.append(Unpacked(source, file.read(source.stored)))
                batch.bytes += source.stored
            else:
                batch.sources.append(source)
            self._next += 1
            if len(batch.sources) == _BATCH or batch.bytes >= _BATCH_BYTES:
                yield batch
                batch = self._new()
        if batch.sources:
            yield batch

    def _new(self) -> _Batch:
        return _Batch(self._next, [], self._looker is not None and self._looker.wants)

    def _is_full(self, waiting: deque[_Batch]) -> bool:
        if time.monotonic() - self._asked > _SIZE:
            self._asked = time.monotonic()
            self._threads = sum(self._told(self._client.nthreads).values())
        return len(waiting) >= max(_FEW, _AHEAD * self._threads) or self._held >= _BYTES

    def _told(self, ask: Any) -> Any:
        try:
            return ask()
        except PhotoFluxError:
            raise
        except Exception as error:
            raise self._gone() from error

    def _gone(self) -> ClusterError:
        return ClusterError(
            f"The dask scheduler at {self._address} does not answer any more. Start the cluster and the job again: it "
            "goes on where it stopped."
        )

    def _send(self, batch: _Batch) -> None:
        def send() -> Any:
            if self._sent is None:
                # Once a worker; one that comes later has it of another.
                self._sent = self._client.scatter(self._order, broadcast=True, hash=False)
            return submit(self._client, score, self._sent, batch.sources, batch.look)

        if not batch.sendings:
            self._held += batch.bytes
        batch.sendings += 1
        batch.future = self._told(send)

    def _scored(self, batch: _Batch) -> list[Scored]:
        scored = self._answer(batch)
        self._held -= batch.bytes
        return [item._replace(number=item.number + batch.number) for item in scored]

    def _answer(self, batch: _Batch) -> list[Scored]:
        """Wait for the answer to a batch; a source that ends the workers that read it costs itself alone."""
        from distributed import KilledWorker

        self._wait(batch)
        if batch.future.status == "finished":
            answer: Answer = self._told(batch.future.result)
            self._check(batch, answer)
            if self._looker is not None and self._looker.wants:
                self._looker.extend(*answer.looks)
            return answer.scored
        error = batch.future.exception() if batch.future.status == "error" else None
        if isinstance(error, KilledWorker):
            return self._one_by_one(batch)
        if isinstance(error, PhotoFluxError):
            raise error
        if error is not None:
            raise ClusterError(f"A worker failed: {type(error).__name__}: {error}") from error
        if batch.sendings == _SENDINGS or self._client.status != "running":
            raise self._gone()
        # All workers that had the run were lost.
        self._sent = None
        self._send(batch)
        return self._answer(batch)

    def _wait(self, batch: _Batch) -> None:
        import distributed

        wait: Any = distributed.wait
        while not batch.future.done():
            with suppress(TimeoutError, CancelledError), self._client.as_current():
                wait([batch.future], timeout=_SIZE)
            if batch.future.done():
                return
            workers = self._told(self._client.nthreads)
            if not workers and not self._alone:
                log.warn(f"The dask scheduler at {self._address} has no worker left; waiting for one.")
            self._alone = not workers

    def _one_by_one(self, batch: _Batch) -> list[Scored]:
        if len(batch.sources) == 1:
            killed = batch.future.exception().allowed_failures + 1
            reason = f"the decoder ended with the worker process that read this file, {killed} times"
            return [Scored(0, 0, "", None, None, None, reason, last=True)]
        found: list[Scored] = []
        for at, source in enumerate(batch.sources):
            one = _Batch(batch.number + at, [source], batch.look)
            self._send(one)
            found += [item._replace(number=at) for item in self._answer(one)]
        return found

    def _check(self, batch: _Batch, answer: Answer) -> None:
        """Raise an error for what is not a fault of the files: engines that differ, and files that are not there."""
        files = [source for source in batch.sources if not isinstance(source, Unpacked)]
        if files and answer.unseen == len(files):
            for source in files:
                if readable(source):
                    file = source.file if isinstance(source, Member) else source
                    raise ClusterError(
                        f"The workers do not see the pile: {printable(file)} can be read here, and not on "
                        f"{answer.machine}. All machines must have the files at the same path, as on a shared file "
                        "system, and may read them."
                    )
        if self._engine and answer.engine and answer.engine != self._engine:
            raise ClusterError(
                f"The workers have different engines, {self._engine} and {answer.engine}, whose scores differ in the "
                "last digits. Choose one with `engine`, and install it on all of them."
            )
        self._engine = self._engine or answer.engine
