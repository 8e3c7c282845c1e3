"""Decodes many files, in this process or in worker processes; time and memory of a file are bounded there."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple, Self

from photoflux.data.checks import check_whole
from photoflux.data.images.decoding import DecodedFile, TooLargeError, decode_parts, left_out
from photoflux.data.images.helpers import TOGETHER, Helper, Source
from photoflux.data.shape import Shape

FEW = 200
# Seconds that a helper may take for a page or a file before it is ended.
SECONDS = 120.0
# Files that a helper is given at a time, and the most characters of their names: a pipe takes them without waiting.
_CHUNK, _CHUNK_NAMES = 16, 2048
# Bytes of decoded images that may wait for their turn; beyond them only the file whose turn it is is received.
_WAITING = 32 << 20
# Seconds after which a wait looks whether it is to stop.
_LOOK = 0.5
# What a part without pixels counts for.
_PART = 1024

Part = tuple[int, DecodedFile]


class Delivery(NamedTuple):
    """What was decoded of a source: a part of it, and whether that is its last.

    `number` counts the sources, from 0 in the order in which they were given.
    """

    number: int
    source: Source
    part: DecodedFile
    last: bool


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
        processes = processes_for(len(paths))
    with Decoders(shape, processes if processes > 1 else 0) as decoders:
        for decoded in decoders.decode(paths):
            yield decoded.number, decoded.part


class Decoders:
    """Processes that decode sources: a source that ends, hangs or overfills one costs itself, and no other.

    Parameters
    ----------
    shape : Shape
        Of the images.
    processes : int
        How many; 0: this process decodes, which nothing protects.
    hashed : bool
        Whether perceptual hashes are made.
    """

    def __init__(self, shape: Shape, processes: int, *, hashed: bool = True) -> None:
        self.shape, self.hashed = shape, hashed
        self.stopped = False
        self.helpers: list[Helper] = []
        self.given: Iterator[Source] = iter(())
        self.sources: dict[int, Source] = {}  # those that are not complete
        self.next = 0  # the first source that was never given to a helper
        self.returned: deque[int] = deque()  # given to a helper that has died
        self.waiting: defaultdict[int, deque[Delivery]] = defaultdict(deque)
        self.held = 0  # bytes of them
        self.received: Counter[int] = Counter()  # parts, of sources that are not complete
        self.alone: dict[int, str | None] = {}  # to be decoded alone: how its helper died; None of large images
        self.lone: Helper | None = None  # in which one was, and the next can be
        if processes and not multiprocessing.current_process().daemon:
            self._start(processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def end(self) -> None:
        """End the processes."""
        for helper in (*self.helpers, *filter(None, [self.lone])):
            helper.end()
        self.helpers, self.lone = [], None

    def stop(self) -> None:
        """Have `decode`, in whatever thread it runs, return within half a second, what it has not yielded given up."""
        self.stopped = True

    def decode(self, sources: Iterable[Source]) -> Generator[Delivery, None, None]:
        """Decode sources in their order; they are taken only as far ahead as the processes need.

        Yields
        ------
        Delivery
            One for each source or, of one with pages, several in succession. Of those that wait only a bounded number
            of bytes is held. A source that cannot be read gives the reason.
        """
        self.given = iter(sources)
        head = self.next
        while not self.stopped:
            self._give()
            if head == self.next and not self._taken():
                return
            yield from self._whole(head)
            head += 1

    def _start(self, count: int) -> None:
        for _ in range(count):
            try:
                self.helpers.append(self._helper(large=False))
            except OSError:
                return

    def _helper(self, *, large: bool) -> Helper:
        return Helper(self.shape, large=large, hashed=self.hashed, seconds=SECONDS)

    def _taken(self) -> bool:
        """Take one more of the sources; False if there is none."""
        for source in self.given:
            self.sources[self.next] = source
            self.next += 1
            self.returned.append(self.next - 1)
            return True
        return False

    def _whole(self, head: int) -> Iterator[Delivery]:
        """Decode others, and yield the parts of one source, to its last."""
        last = False
        while not last and not self.stopped:
            if self.waiting[head]:
                decoded = self.waiting[head].popleft()
                self.held -= _size(decoded.part)
                last = decoded.last
                yield decoded
            elif head in self.alone or not self.helpers:
                yield from self._alone(head) if head in self.alone else self._here(head)
                break
            else:
                self._give()
                for decoded in self._receive(head):
                    self.waiting[decoded.number].append(decoded)
                    self.held += _size(decoded.part)
        self._forget(head)

    def _forget(self, index: int) -> None:
        for kept in (self.sources, self.waiting, self.received, self.alone):
            kept.pop(index, None)
        if index in self.returned:
            self.returned.remove(index)

    def _give(self) -> None:
        for helper in self.helpers:
            if len(helper.todo) > _CHUNK // 2:
                continue
            chunk: list[tuple[int, Source]] = []
            room = _CHUNK_NAMES
            while len(chunk) < _CHUNK and room > 0 and (self.returned or self._taken()):
                index = self.returned.popleft()
                chunk.append((index, self.sources[index]))
                room -= len(str(self.sources[index]))
            if chunk:
                helper.give(chunk)

    def _receive(self, head: int) -> list[Delivery]:
        """Return what the helpers have ready; they may then have died, or left sources to be decoded alone."""
        helpers = self.helpers
        if self.held > _WAITING:
            # While nobody has the file whose turn it is, somebody must come free for it.
            helpers = [helper for helper in helpers if head in helper.todo] or helpers
        by_connection = {helper.connection: helper for helper in helpers}
        ready = wait(list(by_connection), min([_LOOK, *(helper.left() for helper in helpers)]))
        found = []
        for connection in ready:
            helper = by_connection[connection]  # type: ignore[index]
            try:
                messages = helper.receive()
            except EOFError:
                self._replace(helper)
                continue
            for message in messages:
                if message.part is None:
                    self.alone[message.file] = None
                    continue
                self.received[message.file] += 1
                found.append(Delivery(message.file, self.sources[message.file], message.part, message.last))
        for helper in helpers:
            if helper.connection not in ready and helper.left() == 0 and not helper.connection.poll():
                helper.end_late()
                self._replace(helper)
        return found

    def _replace(self, helper: Helper) -> None:
        """Go on without a helper that has died: suspected are the files of which it may have been reading one."""
        self.helpers.remove(helper)
        files = helper.todo
        if helper.ready:
            for _ in range(min(TOGETHER, len(files))):
                self.alone[files.popleft()] = helper.why_it_ended()
            self._start(1)
        helper.end()
        self.returned.extendleft(reversed(files))

    def _alone(self, index: int) -> Iterator[Delivery]:
        reason = self.alone[index]
        large, tries = reason is None, 0
        while tries < (2 if large else 1):
            tries += 1
            try:
                helper = self._lone(large=large)
            except OSError:
                break
            more = False
            try:
                helper.give([(index, self.sources[index])])
                yield from self._parts_of(helper, index)
                more = not large and any(why for other, why in self.alone.items() if other != index)
                return
            except TooLargeError:
                large, tries, reason = True, 0, None
            except EOFError:
                reason = helper.why_it_ended() if helper.ready else reason
            finally:
                if more:
                    self.lone = helper
                else:
                    helper.end()
        if reason is None:
            yield from self._here(index)
        else:
            yield Delivery(index, self.sources[index], left_out(0, reason), last=True)

    def _lone(self, *, large: bool) -> Helper:
        """Return a process for one source: that of the suspected one before, if it lives and is enough."""
        helper, self.lone = self.lone, None
        if helper is not None:
            if not large and not helper.connection.poll():
                return helper
            helper.end()
        return self._helper(large=large)

    def _parts_of(self, helper: Helper, index: int) -> Iterator[Delivery]:
        """Yield the parts that were not received before; a file has the same parts each time.

        Raises
        ------
        EOFError
            If the helper has ended.
        TooLargeError
            If it comes to an image that takes a process with more memory.
        """
        count, last = 0, False
        while not last:
            if not wait([helper.connection], min(_LOOK, helper.left())):
                if self.stopped or helper.left() == 0:
                    helper.end_late()
                    raise EOFError
                continue
            for message in helper.receive():
                if message.part is None:
                    raise TooLargeError
                last = message.last
                count += 1
                if count > self.received[index]:
                    self.received[index] = count
                    yield Delivery(index, self.sources[index], message.part, last)

    def _here(self, index: int) -> Iterator[Delivery]:
        source, before = self.sources[index], None
        for count, part in enumerate(decode_parts(source, self.shape, hashed=self.hashed), start=1):
            if before is not None:
                yield Delivery(index, source, before, last=False)
                before = None
            if count > self.received[index]:
                before = part
        yield Delivery(index, source, before or DecodedFile([], [], []), last=True)


def _size(part: DecodedFile) -> int:
    return _PART + sum(image.pixels.nbytes for image in part.images)


def processes_for(files: int) -> int:
    """Return in how many processes so many files are best decoded; 0: in this one."""
    return 0 if files < FEW else min(cores(), files // (FEW // 2))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
