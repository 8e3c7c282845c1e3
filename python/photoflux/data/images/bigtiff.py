"""BigTIFF in the order of bytes that Pillow does not read it in: presents it as a TIFF of the classic form."""

from __future__ import annotations

import struct
from typing import BinaryIO

from photoflux.data.images.pieces import joined

_START = b"MM\0+\0\x08\0\0"
# Types of 8 bytes that the classic form does not have, which become numbers of 4: places within a file of 1 GiB.
_WIDE = {16: "Q", 17: "q", 18: "Q"}
_LONG = 4
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Directories within directories, which would still be of the other form: SubIFDs, EXIF, GPS.
_NESTED = {330, 34665, 34853}
_MOST_ENTRIES, _MOST_PAGES = 1000, 10_000


def classic(file: BinaryIO) -> BinaryIO:
    """Return a big-endian BigTIFF with directories of the classic form behind it; any other file as it is."""
    file.seek(0, 2)
    end = file.tell()
    file.seek(0)
    header = file.read(16)
    if header[:8] != _START or len(header) < 16:
        return file
    start = end + end % 2
    new, place, seen = b"", int.from_bytes(header[8:], "big"), set[int]()
    while place and place not in seen and len(seen) < _MOST_PAGES and len(new) <= end:
        seen.add(place)
        found = _directory(file, place, end, start + len(new))
        if found is None:
            break
        directory, far, place = found
        following = start + len(new) + len(directory) + 4 + len(far) if place and place not in seen else 0
        new += directory + struct.pack(">I", following) + far
    # A directory that cannot be read is one without entries.
    return joined(file, [struct.pack(">2sHI", b"MM", 42, start), (8, end - 8), bytes(start - end), new + bytes(6)])


def _directory(file: BinaryIO, place: int, end: int, at: int) -> tuple[bytes, bytes, int] | None:
    """Return a directory for a place, without the place of the next; what it refers to; where the next one was."""
    file.seek(place)
    count = int.from_bytes(file.read(8), "big")
    rows = file.read(20 * count + 8) if count <= _MOST_ENTRIES else b""
    if len(rows) < 20 * count + 8 or place >= end:
        return None
    entries = []
    for row in range(count):
        tag, kind, length, value = struct.unpack_from(">HHQ8s", rows, 20 * row)
        size = _SIZES.get(kind, 0) * length
        if not size or size > end or tag in _NESTED:
            continue
        if size > 8:
            where = int.from_bytes(value, "big")
            if kind not in _WIDE:
                entries.append((tag, kind, length, b"", where))
                continue
            file.seek(where)
            value = file.read(size)
        if kind in _WIDE:
            numbers = struct.unpack(f">{min(length, len(value) // 8)}{_WIDE[kind]}", value[:size])
            value, kind, length = (
                struct.pack(f">{len(numbers)}I", *(n & 0xFFFFFFFF for n in numbers)),
                _LONG,
                len(numbers),
            )
            size = len(value)
        entries.append((tag, kind, length, value[:size], 0))
    table, far = struct.pack(">H", len(entries)), b""
    behind = at + 2 + 12 * len(entries) + 4
    for tag, kind, length, value, where in entries:
        if len(value) > 4:
            where = behind + len(far)
            far += value + bytes(len(value) % 2)
        inline = struct.pack(">I", where & 0xFFFFFFFF) if where else value.ljust(4, b"\0")
        table += struct.pack(">HHI", tag, kind, length & 0xFFFFFFFF) + inline
    return table, far, int.from_bytes(rows[-8:], "big")
