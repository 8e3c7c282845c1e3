"""WebP: removes metadata, whose damage would make Pillow refuse the whole file."""

from __future__ import annotations

from typing import BinaryIO

from photoflux.data.images.pieces import Span, joined

_PIXELS = frozenset({b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"})
# Those that can hold the orientation, and their flags in the VP8X chunk.
_ORIENTED = {b"EXIF": 0x08, b"XMP ": 0x04}
_KEPT_FLAGS = 0x12  # alpha, animation


def strip_webp(file: BinaryIO) -> BinaryIO:
    """Return a WebP of its pixels, and of the metadata that can hold the orientation where that is intact."""
    file.seek(0, 2)
    end, place = file.tell(), 12
    chunks: list[bytes | Span] = []
    extended, flags = b"", 0
    while place + 8 <= end:
        file.seek(place)
        header = file.read(8)
        name, length = header[:4], int.from_bytes(header[4:], "little")
        whole = 8 + length + length % 2
        if name == b"VP8X":
            extended = header + file.read(length)
        elif name in _PIXELS or (name in _ORIENTED and place + 8 + length <= end):
            flags |= _ORIENTED.get(name, 0)
            # The last byte of padding is often left out.
            chunks += [(place, min(whole, end - place)), b"\0" * (place + whole - end == 1)]
        place += whole
    if len(extended) == 18:
        chunks.insert(0, extended[:8] + bytes([extended[8] & _KEPT_FLAGS | flags]) + extended[9:])
    size = 4 + sum(len(chunk) if isinstance(chunk, bytes) else chunk[1] for chunk in chunks)
    return joined(file, [b"RIFF" + size.to_bytes(4, "little") + b"WEBP", *chunks])
