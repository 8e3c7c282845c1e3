"""Makes small pictures in processes that a bad file may end: sizes, quality, limits and the cache are set here."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import queue
import signal
import threading
from collections import OrderedDict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from photoflux.data.archives import members
from photoflux.data.images.formats import RefusedError
from photoflux.data.images.helpers import MEMORY, bound_memory, end_with_parent, held_interrupts, hidden_main
from photoflux.data.images.members import Member
from photoflux.data.images.pages import read_page
from photoflux.system.atomic import scratch
from photoflux.system.signals import unblock

# The longest side, in pixels.
SIDES = {"small": 320, "large": 1600}
_QUALITY = 85
_SECONDS = 30.0
_CACHED = 64 << 20  # bytes
_START = threading.Lock()


class Origin(NamedTuple):
    """Where an image is: a page of a file or of a member of an archive; of a prepared dataset's folder the `nth` image.

    `sha256` is that of the item, by which a picture is known.
    """

    path: str
    member: str
    nth: int
    page: int
    sha256: str


class Pictures:
    """JPEGs of images, made in processes and kept in a cache of a bounded size.

    Parameters
    ----------
    processes : int
        How many, 1 or more; each is started when it is needed.
    """

    def __init__(self, processes: int = 2) -> None:
        self._processes = [_Process() for _ in range(processes)]
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        for process in self._processes:
            self._idle.put(process)
        self._cache: OrderedDict[tuple[Origin, int], bytes] = OrderedDict()
        self._held, self._lock = 0, threading.Lock()

    def picture(self, origin: Origin, side: int) -> bytes:
        """Return an image as a JPEG, no side longer than `side`; threads wait for one another.

        Raises
        ------
        RefusedError
            With the reason why it cannot be shown.
        """
        key = origin, side
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        process = self._idle.get()
        try:
            made = process.ask(key)
        finally:
            self._idle.put(process)
        with self._lock:
            self._held += len(made) - len(self._cache.get(key, b""))
            self._cache[key] = made
            while self._held > _CACHED:
                self._held -= len(self._cache.popitem(last=False)[1])
        return made

    def end(self) -> None:
        """End the processes; what is under way is refused."""
        for process in self._processes:
            process.end_for_good()


class _Process:
    """A process that makes pictures; it is replaced when a file has ended it, or takes too long."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._changing, self._over = threading.Lock(), False

    def ask(self, key: tuple[Origin, int]) -> bytes:
        if self._process is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send(key)
            if not self._connection.poll(_SECONDS):
                self.end()
                raise RefusedError(f"takes longer than {_SECONDS:g} s to decode")
            answer: bytes | str = self._connection.recv()
        except (EOFError, OSError) as error:
            self.end()
            raise RefusedError("the decoder ended while it read this file") from error
        if isinstance(answer, str):
            raise RefusedError(answer)
        return answer

    def end(self) -> None:
        with self._changing:
            if self._process is None:
                return
            assert self._connection is not None
            self._process.kill()
            self._process.join()
            self._process.close()
            self._connection.close()
            self._process = None

    def end_for_good(self) -> None:
        """End it from another thread, which sees that it has ended, and have it not started again."""
        with self._changing:
            self._over = True
            process = self._process
            if process is not None:
                process.kill()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        # What hides the user's script is of the whole process.
        with self._changing, _START:
            if self._over:
                raise RefusedError("the review has ended")
            self._connection, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), daemon=True)
            with hidden_main(), held_interrupts():
                process.start()
            theirs.close()
            self._process = process


def _work(connection: Connection) -> None:
    # The threads of the server, which start it, block them.
    unblock()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    bound_memory(MEMORY)
    with contextlib.suppress(EOFError, OSError):
        while True:
            origin, side = connection.recv()
            answer: bytes | str
            try:
                answer = jpeg_of(origin, side)
            except RefusedError as error:
                answer = str(error)
            except MemoryError:
                answer = "needs more memory than there is for one image"
            connection.send(answer)


def jpeg_of(origin: Origin, side: int) -> bytes:
    """Return an image as a JPEG, no side longer than `side` pixels.

    Raises
    ------
    RefusedError
        If it cannot be read; with the reason.
    """
    path = Path(origin.path)
    if path.is_dir():
        image = _prepared(path, origin.nth)
    elif origin.member:
        image = _of_member(path, origin, side)
    else:
        image = read_page(path, origin.page, side=side)
    image.thumbnail((side, side), reducing_gap=2.0)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def _prepared(dataset: Path, position: int) -> Image.Image:
    try:
        images = np.load(dataset / "images.npy", mmap_mode="r", allow_pickle=False)
        pixels = np.ascontiguousarray(images[position].transpose(1, 2, 0))
    except (OSError, ValueError, IndexError, EOFError) as error:
        raise RefusedError(f"the prepared dataset cannot be read: {error}") from error
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _of_member(archive: Path, origin: Origin, side: int) -> Image.Image:
    with scratch("review") as folder:
        return read_page(find_member(archive, origin.member, origin.nth, folder), origin.page, side=side)


def find_member(archive: Path, name: str, nth: int, folder: Path) -> Member:
    """Return the member of an archive with a name, the `nth` of those with it.

    Raises
    ------
    RefusedError
        If there is none, or it cannot be read.
    """
    for listed in members(archive, folder, lambda other, count: (other, count) == (name, nth)):
        if (listed.name, listed.nth) == (name, nth) and listed.member is not None:
            return listed.member
        if not listed.name:
            raise RefusedError(listed.reason or "the archive cannot be read")
    raise RefusedError("is not in its archive any more")
