"""AVIF and HEIC: hides metadata from the decoder, whose damage or size would cost the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from photoflux.data.images.boxes import boxes
from photoflux.data.images.pieces import Span, joined

# EXIF; XMP and other texts, which may be compressed; private data. How such an image is turned is a property of it.
_METADATA = frozenset({b"Exif", b"mime", b"uri "})
# A type that no decoder knows.
_HIDDEN = b"skip"
_MOST_ITEMS = 1 << 16


def hide_metadata(file: BinaryIO) -> BinaryIO:
    """Return an AVIF or HEIC whose items of metadata are of a type that is not read, at the same places."""
    file.seek(0, 2)
    end = file.tell()
    pieces: list[bytes | Span] = []
    before = 0
    for place in _types(file, end):
        file.seek(place)
        if file.read(4) in _METADATA:
            pieces += [(before, place - before), _HIDDEN]
            before = place + 4
    return joined(file, [*pieces, (before, end - before)]) if pieces else file


def _types(file: BinaryIO, end: int) -> Iterator[int]:
    """Yield where the types of the items stand."""
    count = 0
    for name, start, stop in boxes(file, 0, end):
        if name != b"meta":
            continue
        for inner, at, until in boxes(file, start + 4, stop):
            if inner != b"iinf":
                continue
            file.seek(at)
            for entry, first, last in boxes(file, at + (6 if file.read(1) == b"\0" else 8), until):
                file.seek(first)
                version = file.read(1)
                # An id of 2 or 4 bytes and a protection of 2 come before the type.
                place = first + (8 if version == b"\2" else 10)
                if entry == b"infe" and version in (b"\2", b"\3") and place + 4 <= last:
                    yield place
                count += 1
                if count == _MOST_ITEMS:
                    return
