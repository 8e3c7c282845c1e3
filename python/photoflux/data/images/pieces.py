"""Presents parts of a file and of memory as one file, so that a large file need not be copied."""

from __future__ import annotations

import bisect
import io
from collections.abc import Sequence
from itertools import accumulate
from typing import BinaryIO

# Offset and length of a piece of the file.
Span = tuple[int, int]


class Pieces(io.RawIOBase):
    """A read-only file made of bytes and of spans of another file, one after another."""

    def __init__(self, file: BinaryIO, pieces: Sequence[bytes | Span]) -> None:
        super().__init__()
        self._file = file
        self._pieces = list(pieces)
        lengths = [len(piece) if isinstance(piece, bytes) else piece[1] for piece in self._pieces]
        self._ends = list(accumulate(lengths))
        self._place = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._ends[-1] if self._ends else 0}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as one piece goes."""
        number = bisect.bisect_right(self._ends, self._place)
        if number == len(self._ends):
            return 0
        piece = self._pieces[number]
        left = self._ends[number] - self._place
        wanted = min(left, len(buffer))
        if isinstance(piece, bytes):
            data = piece[len(piece) - left :][:wanted]
        else:
            self._file.seek(piece[0] + piece[1] - left)
            data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def joined(file: BinaryIO, pieces: Sequence[bytes | Span]) -> BinaryIO:
    """Return the pieces as a file; those of a file in memory are put together there."""
    if isinstance(file, io.BytesIO):
        data = file.getbuffer()
        return io.BytesIO(b"".join(p if isinstance(p, bytes) else data[p[0] : p[0] + p[1]] for p in pieces))
    return io.BufferedReader(Pieces(file, pieces))
