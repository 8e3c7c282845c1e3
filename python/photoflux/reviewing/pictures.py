"""Makes small pictures in processes that a bad file may end: sizes, quality, limits and the cache are set here."""

from __future__ import annotations

import io
import queue
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from photoflux.data.archives import members
from photoflux.data.images.formats import RefusedError
from photoflux.data.images.helpers import MEMORY
from photoflux.data.images.members import Member
from photoflux.data.images.pages import read_page
from photoflux.data.images.protected import Protected
from photoflux.system.atomic import scratch

# The longest side, in pixels.
SIDES = {"small": 320, "large": 1600}
_QUALITY = 85
_SECONDS = 30.0
_CACHED = 64 << 20  # bytes


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
        self._processes = [Protected(jpeg_of, seconds=_SECONDS, memory=MEMORY) for _ in range(processes)]
        self._idle: queue.LifoQueue[Protected[[Origin, int], bytes]] = queue.LifoQueue()
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
            made = process(*key)
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
