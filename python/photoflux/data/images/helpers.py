"""A worker process that decodes files and sends the results over a pipe; it ends with its parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from photoflux.data.images.decoding import DecodedFile, TooLargeError, decode_parts
from photoflux.data.images.members import Member
from photoflux.data.shape import Shape

# How long a process whose pipe has ended may take to end itself, in seconds.
_PATIENCE = 10
# Bytes that a process may take beyond those of its start, and one for large images.
MEMORY, MEMORY_LARGE = 2 << 30, 8 << 30
# Files of which it tells at once if they are decoded within `_SOON` seconds: a message costs both sides time.
TOGETHER, _SOON = 8, 0.01

Source = Path | Member


class Message(NamedTuple):
    """What a helper sends of a file: a part, or None where the file has an image that is to be decoded alone."""

    file: int
    part: DecodedFile | None
    last: bool


class Helper:
    """A process that decodes the sources it is given, in their order.

    Parameters
    ----------
    shape : Shape
        Of the images.
    large : bool
        Whether it decodes large images too.
    hashed : bool
        Whether it makes perceptual hashes.
    seconds : float
        How long it may take for a part of a source.

    Attributes
    ----------
    todo : deque of int
        The files that it was given and has not told the end of; the one under way is among the first `TOGETHER`.
    ready : bool
        Whether it has ever said anything; one that ends before could not be started.

    Raises
    ------
    OSError
        If the system does not start a process.
    """

    def __init__(self, shape: Shape, *, large: bool, hashed: bool, seconds: float) -> None:
        # Never fork: TensorFlow's and Julia's threads may be running in this process.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.todo: deque[int] = deque()
        self.ready = self._late = False
        self._seconds, self._since = seconds, time.monotonic()
        self._process = context.Process(target=_help, args=(theirs, shape, large, hashed), daemon=True)
        try:
            with hidden_main(), held_interrupts():
                self._process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()

    def give(self, files: Sequence[tuple[int, Source]]) -> None:
        """Send sources to decode; of a helper that has ended, `receive` says so."""
        if not self.todo:
            self._since = time.monotonic()
        self.todo.extend(index for index, _ in files)
        with contextlib.suppress(OSError):
            self.connection.send(files)

    def receive(self) -> list[Message]:
        """Wait for the next parts of files; the first answer, when the process is ready, has none.

        Raises
        ------
        EOFError
            If the process has ended.
        """
        try:
            messages: list[Message] = self.connection.recv()
        # In the middle of a message its end is an OSError.
        except OSError as error:
            raise EOFError from error
        self.ready = True
        self._since = time.monotonic()
        for message in messages:
            if message.last:
                self.todo.popleft()
        return messages

    def left(self) -> float:
        """Return the seconds that are left for the part under way, 0 or more."""
        if not self.ready or not self.todo:
            return self._seconds
        return max(0.0, self._since + self._seconds - time.monotonic())

    def end_late(self) -> None:
        """End the process because the part under way takes too long."""
        self._late = True
        self._process.kill()

    def why_it_ended(self) -> str:
        """Say how the process ended, as the reason of the file it was reading."""
        if self._late:
            return f"takes longer than {self._seconds:g} s to decode"
        self._process.join(_PATIENCE)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"the decoder ended with code {code} while it read this file"
        text = f"the decoder was killed by signal {-code} while it read this file"
        return f"{text}, perhaps because memory ran out" if -code == getattr(signal, "SIGKILL", 9) else text

    def end(self) -> None:
        """End the process, whatever it does, and wait until it is gone."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self.connection.close()


def _help(connection: Connection, shape: Shape, large: bool, hashed: bool) -> None:
    # Ctrl-C reaches every process of the terminal; the main one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    bound_memory(MEMORY_LARGE if large else MEMORY)
    with contextlib.suppress(EOFError, OSError):
        connection.send([])
        while True:
            given: list[tuple[int, Source]] = connection.recv()
            parts = (part for index, source in given for part in _messages(index, source, shape, large, hashed))
            for messages in _together(parts):
                connection.send(messages)


def _together(messages: Iterable[Message]) -> Iterator[list[Message]]:
    """Gather the ends of files; what is not a file's last part is not kept waiting, since the next may be fatal."""
    gathered: list[Message] = []
    began = time.monotonic()
    for message in messages:
        gathered.append(message)
        if not message.last or len(gathered) == TOGETHER or time.monotonic() - began > _SOON:
            yield gathered
            gathered, began = [], time.monotonic()
    if gathered:
        yield gathered


def bound_memory(most: int) -> None:
    """Have what would take so many bytes more than now fail in this process, where the system has such a limit."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + most
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _messages(index: int, path: Source, shape: Shape, large: bool, hashed: bool) -> Iterator[Message]:
    """Yield the parts of a file; each waits until it is known whether it is the last."""
    before = None
    try:
        for part in decode_parts(path, shape, large=large, hashed=hashed):
            if before is not None:
                yield Message(index, before, last=False)
            before = part
    except TooLargeError:
        if before is not None:
            yield Message(index, before, last=False)
        before = None
    yield Message(index, before, last=True)


def end_with_parent() -> None:
    """End this process when the one that has started it has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextlib.contextmanager
def held_interrupts() -> Iterator[None]:
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
def hidden_main() -> Iterator[None]:
    """Keep a new process from running the user's script again, which has no ``if __name__ == "__main__"``."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
