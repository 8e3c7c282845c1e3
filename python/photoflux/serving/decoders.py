"""Decodes the files of jobs in helper processes, from a thread of its own; how a process and its file end is here."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from queue import SimpleQueue

from photoflux.data.images.decoding import DecodedFile, left_out
from photoflux.data.images.helpers import Helper, Message
from photoflux.data.shape import Shape
from photoflux.serving.jobs import Job, Piece
from photoflux.serving.metrics import Metrics

# Seconds that a helper may go on with a file that nobody waits for: to start another takes about as long.
_GRACE = 1.0
# Seconds until the next try, after a helper that could not be started.
_AGAIN = 1.0


@dataclass(eq=False)
class _Task:
    """A file to decode; `received` counts the parts that its job has, from whichever helper."""

    job: Job
    file: int
    since: float = 0.0
    received: int = 0
    tries: int = 0
    dropped: float | None = None  # when that was noticed


@dataclass(eq=False)
class _Worker:
    """A helper, the task it is at, and the parts that it has sent of it."""

    helper: Helper
    large: bool
    task: _Task | None = None
    sent: int = 0


@dataclass(eq=False)
class _Lanes:
    """The files that wait: for any helper, and for the one of large images."""

    ordinary: deque[_Task] = field(default_factory=deque)
    large: deque[_Task] = field(default_factory=deque)


class DecoderThread:
    """A thread that has the files of jobs decoded, a file a process at a time.

    Parameters
    ----------
    shape : Shape
        Of the images.
    workers : int
        Processes, 1 or more; large images are decoded in one more, which is started for each.
    seconds : float
        How long a file, or a page of it, may take.
    pieces : SimpleQueue of Piece
        Where decoded images go.
    most : int
        While so many wait there, no further file is begun.
    metrics : Metrics
        Of the service.
    """

    def __init__(
        self, shape: Shape, workers: int, seconds: float, pieces: SimpleQueue[Piece], most: int, metrics: Metrics
    ) -> None:
        self._shape, self._count, self._seconds = shape, workers, seconds
        self._pieces, self._most, self._metrics = pieces, most, metrics
        self._lock = threading.Lock()  # of the lanes
        self._lanes = _Lanes()
        self._workers: list[_Worker] = []
        self._next_start = 0.0
        self._ended = False
        self._bell, self._ring = multiprocessing.Pipe(duplex=False)
        self._rung = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decoders", daemon=True)

    def start(self) -> None:
        """Start the thread and its processes."""
        self._thread.start()

    def end(self) -> None:
        """End the processes and the thread."""
        self._ended = True
        self.wake()
        self._thread.join()
        self._ring.close()
        self._bell.close()

    @property
    def running(self) -> bool:
        """Whether it has not ended, or failed."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Have the files of a job decoded; what comes of them is told to the job, its images go to the pieces."""
        with self._lock:
            self._lanes.ordinary.extend(_Task(job, file) for file in range(len(job.uploads)))
        self.wake()

    def drop(self, job: Job) -> None:
        """Forget the files of a job that wait, and end what is at one of them, if it does not come to its end soon."""
        job.drop()
        with self._lock:
            for lane in (self._lanes.ordinary, self._lanes.large):
                for task in [task for task in lane if task.job is job]:
                    lane.remove(task)
        self.wake()

    def wake(self) -> None:
        """Have the thread look again at what there is to do."""
        if not self._rung.is_set():  # at most one message: a full pipe would block
            self._rung.set()
            self._ring.send_bytes(b"!")

    def _run(self) -> None:
        try:
            while not self._ended:
                self._start()
                self._give()
                self._receive()
        finally:
            for worker in self._workers:
                worker.helper.end()

    def _start(self) -> None:
        """Start the helpers that are missing."""
        if time.monotonic() < self._next_start:
            return
        try:
            while sum(not worker.large for worker in self._workers) < self._count:
                self._workers.append(self._worker(large=False))
            if self._lanes.large and not any(worker.large for worker in self._workers):
                self._workers.append(self._worker(large=True))
        except OSError:
            self._next_start = time.monotonic() + _AGAIN

    def _worker(self, *, large: bool) -> _Worker:
        return _Worker(Helper(self._shape, large=large, hashed=False, seconds=self._seconds), large)

    def _give(self) -> None:
        """Give each helper that is free a file."""
        for worker in self._workers:
            if worker.task is None and self._pieces.qsize() < self._most:
                lane = self._lanes.large if worker.large else self._lanes.ordinary
                with self._lock:
                    task = lane.popleft() if lane else None
                if task is not None:
                    task.since = time.monotonic()
                    worker.task, worker.sent = task, 0
                    worker.helper.give([(task.file, task.job.uploads[task.file].path)])

    def _receive(self) -> None:
        """Wait until something has happened, and deal with it."""
        workers = {worker.helper.connection: worker for worker in self._workers}
        ready = wait([self._bell, *workers], self._patience())
        if self._bell in ready:
            self._rung.clear()
            self._bell.recv_bytes()
        for connection, worker in workers.items():
            if connection in ready:
                try:
                    messages = worker.helper.receive()
                except EOFError:
                    self._lost(worker)
                    continue
                for message in messages:
                    self._take(worker, message)
            elif worker.helper.left() == 0:
                worker.helper.end_late()
                self._lost(worker, late=True)
            elif worker.task is not None and self._left_of_dropped(worker.task) == 0:
                self._lost(worker)

    def _patience(self) -> float | None:
        """Return the seconds until a helper is late, or one is to be ended or started; None: none of them."""
        times = [worker.helper.left() for worker in self._workers if worker.task is not None]
        times += [self._left_of_dropped(worker.task) for worker in self._workers if worker.task is not None]
        missing = sum(not worker.large for worker in self._workers) < self._count
        if missing or (self._lanes.large and not any(worker.large for worker in self._workers)):
            times.append(max(0.0, self._next_start - time.monotonic()))
        least = min(times, default=float("inf"))
        return None if least == float("inf") else least

    def _left_of_dropped(self, task: _Task) -> float:
        """Return how long a helper may go on with a file: for ever, if somebody waits for it."""
        if not task.job.dropped:
            return float("inf")
        now = time.monotonic()
        task.dropped = task.dropped or now
        return max(0.0, task.dropped + _GRACE - now)

    def _take(self, worker: _Worker, message: Message) -> None:
        task = worker.task
        if task is None:
            return
        worker.sent += 1
        if message.part is None:
            with self._lock:
                if not task.job.dropped:
                    self._lanes.large.append(task)
        elif worker.sent > task.received:
            task.received = worker.sent
            self._deliver(task, message.part, last=message.last)
        if message.last:
            worker.task = None
            if message.part is not None:
                self._metrics.decode_seconds.observe(time.monotonic() - task.since)
            if worker.large:  # its memory goes back
                self._workers.remove(worker)
                worker.helper.end()

    def _deliver(self, task: _Task, part: DecodedFile, *, last: bool) -> None:
        self._metrics.rejected.inc(len(part.rejected))
        for piece in task.job.decoded(task.file, part, last=last):
            self._pieces.put(piece)

    def _lost(self, worker: _Worker, *, late: bool = False) -> None:
        """Go on without a helper that has died, or is at a file that nobody waits for."""
        task, helper = worker.task, worker.helper
        self._workers.remove(worker)
        if not helper.ready:
            self._next_start = time.monotonic() + _AGAIN
        elif task is not None:
            self._metrics.decoders_lost.inc()
            task.tries += 1
        if task is not None and not task.job.dropped:
            # Once more, unless it was late: somebody may have ended the process for another reason.
            if late or task.tries > 1:
                self._deliver(task, left_out(0, helper.why_it_ended()), last=True)
            else:
                with self._lock:
                    (self._lanes.large if worker.large else self._lanes.ordinary).appendleft(task)
        helper.end()
