"""Decodes many files, in this process or in worker processes, and returns them in the order given."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Sequence
from multiprocessing.connection import wait
from pathlib import Path

from photoflux.data.checks import check_whole
from photoflux.data.images.decoding import DecodedFile, decode_parts, left_out
from photoflux.data.images.helpers import Helper
from photoflux.data.shape import Shape

FEW = 200
# Files that a helper is given at a time, and the most characters of their names: a pipe takes them without waiting.
_CHUNK, _CHUNK_NAMES = 16, 2048
# Bytes of decoded images that may wait for their turn; beyond them only the file whose turn it is is received.
_WAITING = 32 << 20
# What a part without pixels counts for.
_PART = 1024

Part = tuple[int, DecodedFile]


def decode_files(paths: Sequence[Path], shape: Shape, *, processes: int | None = None) -> Generator[Part, None, None]:
    """Decode files in order; the results do not depend on the number of processes.

    A large image (`decoding.LARGE`) is decoded while nothing else is received, in a process of its own. A file whose
    helper died is tried once more in a process of its own, and rejected if that one dies too. Where helpers cannot be
    started (daemonic processes, a system that refuses), this process decodes.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    shape : Shape
        Of the images.
    processes : int, optional
        How many to decode in; by default one for each usable core, and this process alone under 200 files.

    Yields
    ------
    (int, DecodedFile)
        The position of a file and what was decoded of it: one part of each file or, of one with pages, several in
        succession. Of those that wait only a bounded number of bytes is held.
    """
    if processes is not None:
        check_whole("`processes`", processes, 1, "an integer")
    else:
        processes = 1 if len(paths) < FEW else min(_cores(), len(paths) // (FEW // 2))
    pool = _Pool(paths, shape)
    if processes > 1 and not multiprocessing.current_process().daemon:
        pool.start(processes)
    try:
        yield from pool.parts()
    finally:
        pool.end()


class _Pool:
    """The helpers, what they were given, and what came of it before its turn."""

    def __init__(self, paths: Sequence[Path], shape: Shape) -> None:
        self.paths = paths
        self.shape = shape
        self.helpers: list[Helper] = []
        self.next = 0  # the first file that was never given to a helper
        self.returned: deque[int] = deque()  # given to a helper that has died
        self.waiting: defaultdict[int, deque[DecodedFile]] = defaultdict(deque)
        self.held = 0  # bytes of them
        self.received: Counter[int] = Counter()  # parts, of files that are not complete
        self.complete: set[int] = set()
        self.alone: dict[int, str | None] = {}  # to be decoded alone: how its helper died; None of large images

    def start(self, count: int) -> None:
        for _ in range(count):
            try:
                self.helpers.append(Helper(self.shape, large=False))
            except OSError:
                return

    def end(self) -> None:
        while self.helpers:
            self.helpers.pop().end()

    def parts(self) -> Generator[Part, None, None]:
        for head in range(len(self.paths)):
            while True:
                waiting = self.waiting[head]
                while waiting:
                    part = waiting.popleft()
                    self.held -= _size(part)
                    yield head, part
                if head in self.complete:
                    break
                if head in self.alone:
                    yield from self._alone(head)
                    break
                if not self.helpers:
                    yield from self._here(head)
                    break
                self._give()
                self._receive(head)
            self.waiting.pop(head, None)
            self.received.pop(head, None)
            self.alone.pop(head, None)
            self.complete.discard(head)

    def _give(self) -> None:
        for helper in self.helpers:
            if len(helper.todo) > _CHUNK // 2:
                continue
            chunk: list[tuple[int, Path]] = []
            room = _CHUNK_NAMES
            while len(chunk) < _CHUNK and room > 0 and (self.returned or self.next < len(self.paths)):
                if self.returned:
                    index = self.returned.popleft()
                else:
                    index, self.next = self.next, self.next + 1
                chunk.append((index, self.paths[index]))
                room -= len(str(self.paths[index]))
            if chunk:
                helper.give(chunk)

    def _receive(self, head: int) -> None:
        helpers = self.helpers
        if self.held > _WAITING:
            # While nobody has the file whose turn it is, somebody must come free for it.
            helpers = [helper for helper in helpers if head in helper.todo] or helpers
        by_connection = {helper.connection: helper for helper in helpers}
        for connection in wait(list(by_connection)):
            helper = by_connection[connection]  # type: ignore[index]
            try:
                message = helper.receive()
            except EOFError:
                self._replace(helper)
                continue
            if message is None:
                continue
            index, part, last = message
            if part is None:
                self.alone[index] = None
                continue
            self.waiting[index].append(part)
            self.held += _size(part)
            self.received[index] += 1
            if last:
                self.complete.add(index)
                del self.received[index]

    def _replace(self, helper: Helper) -> None:
        """Go on without a helper that has died: the file that it was reading is suspected, the others are not."""
        self.helpers.remove(helper)
        files = helper.todo
        if helper.ready:
            if files:
                self.alone[files.popleft()] = helper.why_it_ended()
            self.start(1)
        helper.end()
        self.returned.extendleft(reversed(files))

    def _alone(self, index: int) -> Generator[Part, None, None]:
        reason = self.alone[index]
        for _ in range(2 if reason is None else 1):
            try:
                helper = Helper(self.shape, large=True)
            except OSError:
                break
            try:
                helper.give([(index, self.paths[index])])
                yield from self._parts_of(helper, index)
                return
            except EOFError:
                reason = helper.why_it_ended() if helper.ready else reason
            finally:
                helper.end()
        if reason is None:
            yield from self._here(index)
        else:
            yield index, left_out(0, reason)

    def _parts_of(self, helper: Helper, index: int) -> Generator[Part, None, None]:
        """Yield the parts that were not received before; a file has the same parts each time."""
        count, last = 0, False
        while not last:
            message = helper.receive()
            if message is None:
                continue
            _, part, last = message
            assert part is not None
            count += 1
            if count > self.received[index]:
                self.received[index] = count
                yield index, part

    def _here(self, index: int) -> Generator[Part, None, None]:
        for count, part in enumerate(decode_parts(self.paths[index], self.shape), start=1):
            if count > self.received[index]:
                yield index, part


def _size(part: DecodedFile) -> int:
    return _PART + sum(image.pixels.nbytes for image in part.images)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
