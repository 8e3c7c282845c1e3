"""Walks through the boxes that AVIF, HEIC and JPEG 2000 files are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO


def boxes(file: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of what is in the boxes between two places, as far as their lengths go."""
    while place + 8 <= end:
        file.seek(place)
        header = file.read(16)
        length, start = int.from_bytes(header[:4], "big"), place + 8
        if length == 1:
            length, start = int.from_bytes(header[8:], "big"), place + 16
        elif length == 0:
            length = end - place
        if start > place + length or place + length > end:
            return
        yield header[4:8], start, place + length
        place += length
