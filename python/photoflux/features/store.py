"""Keeps what networks have computed in the cache, a row for each picture, found by its pixels; rows are only appended.

A store holds the features that one network gave for images of one shape: ``pixels.sha256``, the SHA-256 of each
image's prepared pixels (32 bytes), and ``rows.f32``, the features in the same order. The same picture has the same row
in whatever dataset it stands, so that another split of the same images, a larger folder or two networks side by side
compute only what is new; and work that is cut short goes on where it stopped. A block's rows are on the disk before its
pixels' SHA-256 are, and what a process left half-written is cut off by the next.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from photoflux.data.cache import cache_folder, unwritable_cache
from photoflux.data.shape import Shape
from photoflux.features.network import Network
from photoflux.system import atomic, log
from photoflux.system.claims import claim

_KEY = 32  # bytes of a SHA-256


class Store:
    """The rows of a network for images of a shape; `opened` gives one.

    Parameters
    ----------
    folder : Path
        Where it is.
    features : int
        Numbers a row.
    """

    def __init__(self, folder: Path, features: int) -> None:
        self._keys, self._rows = folder / "pixels.sha256", folder / "rows.f32"
        self._features, self._width = features, 4 * features
        self._count = 0
        self._heads = np.empty(0, np.uint64)  # of the rows that were there, the first 8 bytes of each key, ascending
        self._places = np.empty(0, np.int64)  # and their rows

    def begin(self) -> None:
        """Read the index, and cut off what was not finished; only who has claimed the store may.

        Raises
        ------
        OSError
            If it cannot be read or written.
        """
        self._keys.parent.mkdir(parents=True, exist_ok=True)
        for file in (self._keys, self._rows):
            # Not atomic: the store only grows, and what was not finished is cut off here.
            file.touch()
        self._count = min(self._keys.stat().st_size // _KEY, self._rows.stat().st_size // self._width)
        for file, size in ((self._keys, self._count * _KEY), (self._rows, self._count * self._width)):
            os.truncate(file, size)  # Not atomic: as above.
        heads = np.frombuffer(self._keys.read_bytes(), ">u8").reshape(-1, _KEY // 8)[:, 0].astype(np.uint64)
        self._places = np.argsort(heads, kind="stable")
        self._heads = heads[self._places]

    def rows_of(self, images: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the rows of images, (N,) int64; those that are not there are computed and appended.

        Parameters
        ----------
        images : numpy.ndarray
            uint8, (N, C, H, W).
        compute : callable
            Gives the features of some of them, float32.

        Raises
        ------
        DataError
            If the cache cannot be written.
        """
        keys = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
        rows = np.array([self._find(key) for key in keys], dtype=np.int64)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            rows[missing] = self._append([keys[at] for at in missing], compute(images[missing]))
        return rows

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the features of rows, float32 (N, F)."""
        # Mapped for one block only: pages that stay mapped count as memory of the process.
        table = np.memmap(self._rows, "<f4", "r").reshape(-1, self._features)
        return np.array(table[rows])

    def _find(self, key: bytes) -> int:
        head = np.uint64(int.from_bytes(key[:8], "big"))
        at = int(np.searchsorted(self._heads, head))
        with self._keys.open("rb") as file:
            while at < len(self._heads) and self._heads[at] == head:
                file.seek(int(self._places[at]) * _KEY)
                if file.read(_KEY) == key:
                    return int(self._places[at])
                at += 1
        return -1

    def _append(self, keys: list[bytes], features: np.ndarray) -> np.ndarray:
        for path, data in ((self._rows, features.astype("<f4").tobytes()), (self._keys, b"".join(keys))):
            # Not atomic: appended and synced, the rows before their keys; `begin` cuts off what has no key.
            with _writing(path.parent), path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        first, self._count = self._count, self._count + len(keys)
        return np.arange(first, self._count)


@contextmanager
def opened(network: Network, shape: Shape) -> Iterator[Store]:
    """Give the store of a network for images of a shape, claimed for this process; another one waits until it is free.

    Raises
    ------
    DataError
        If the cache cannot be written.
    """
    name = atomic.short(re.sub(r"[^A-Za-z0-9_-]+", "-", network.name).strip("-"))
    folder = cache_folder() / "features" / f"{name}-{network.fingerprint[:32]}-{'x'.join(map(str, shape))}"
    store = Store(folder, network.features)
    with ExitStack() as stack:
        with _writing(folder):
            stack.enter_context(claim(folder, wait=math.inf, on_wait=say_waiting))
            store.begin()
        yield store


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable_cache(folder, error) from error


def say_waiting(holder: str) -> None:
    """Say for whom this process waits."""
    log.warn(f"Features of the same backbone are being computed by {holder}. Waiting until they are done …")
