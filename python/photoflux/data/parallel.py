"""Decoding many files: in this process if they are few, else in fresh ones, always in the order given."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import ModuleType

from photoflux.data.decoding import DecodedFile, decode_file
from photoflux.errors import DataError, SettingError

FEW = 200
_CHUNK = 32
# Chunks that wait for each process: enough to keep it busy, few enough to bound the memory.
_AHEAD = 3


def decode_files(
    paths: Sequence[Path], *, height: int, width: int, channels: int = 3, processes: int | None = None
) -> Generator[DecodedFile, None, None]:
    """Decode files in order; the results do not depend on the number of processes.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    height, width, channels : int
        Shape of the images.
    processes : int, optional
        How many to decode in; by default one for each usable core, and this process alone under 200 files.

    Raises
    ------
    DataError
        If a process dies, as the system does to one that takes too much memory.
    """
    if processes is not None and (isinstance(processes, bool) or not isinstance(processes, int) or processes < 1):
        raise SettingError(f"`processes` must be an integer, 1 or more; received: {processes!r}.")
    if processes is None:
        processes = 1 if len(paths) < FEW else min(_cores(), len(paths) // (FEW // 2))
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    if processes == 1:
        for path in paths:
            yield decode_file(path, height=height, width=width, channels=channels)
        return
    # Never fork: TensorFlow's and Julia's threads may be running in this process.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_ignore_interrupt)
    waiting: deque[Future[list[DecodedFile]]] = deque()
    try:
        for chunk in chunks:
            with _hidden_main(), _held_interrupts():
                waiting.append(pool.submit(_decode_chunk, chunk, height, width, channels))
            if len(waiting) >= processes * _AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "A process that decodes images died, perhaps because memory ran out. Try again with `processes=1`."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode_chunk(paths: Sequence[Path], height: int, width: int, channels: int) -> list[DecodedFile]:
    return [decode_file(path, height=height, width=width, channels=channels) for path in paths]


def _ignore_interrupt() -> None:
    # Ctrl-C reaches every process of the terminal; the main one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _held_interrupts() -> Iterator[None]:
    """Start a process with Ctrl-C blocked, until it ignores it; in this process it comes after the start."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep a new process from running the user's script again, which has no ``if __name__ == "__main__"``."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
