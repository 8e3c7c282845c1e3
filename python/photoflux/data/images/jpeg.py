"""JPEG: removes metadata, and checks that no pixels are missing where the end marker is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

from photoflux.data.images.pieces import Span, joined

_START_OF_SCAN, _COMMENT = 0xDA, 0xFE
_FIRST_APP, _EXIF, _ADOBE, _LAST_APP = 0xE0, 0xE1, 0xEE, 0xEF
# Progressive frames, Huffman and arithmetic.
_PROGRESSIVE = (0xC2, 0xCA)
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA)
_END = b"\xff\xd9"
# A marker within the data of a scan; FF 00 is a value there, and FF D0 to D7 restart it.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
# What is put behind the data, so that a decoder that is short of bits makes different pixels of each: bits of all kinds
# and, for data that ends where the decoder expects a restart marker, those, from a different one each time.
_RANDOM = np.random.default_rng(0)
_FILLS = (
    *(bytes([byte]) * 256 for byte in (0x00, 0xFE, 0x55, 0xAA)),
    *(bytes(_RANDOM.integers(0, 255, 256, dtype=np.uint8)) for _ in range(4)),
)
_PADDINGS = tuple(
    fill + fill.join(bytes([0xFF, 0xD0 + (start + number) % 8]) for number in range(9)) + fill
    for start, fill in enumerate(_FILLS)
)
# An MCU without data is of this grey, which of CMYK is its inverse.
_GREY = range(126, 130)


def strip_jpeg(file: BinaryIO) -> BinaryIO:
    """Return a JPEG without comments and application segments, those with the orientation and colour space apart."""
    pieces: list[bytes | Span] = [(0, 2)]
    oriented: set[bytes] = set()
    whole = True
    for marker, place, length in _segments(file):
        if marker == _START_OF_SCAN:
            if whole:
                break
            file.seek(0, 2)
            return joined(file, [*pieces, (place, file.tell() - place)])
        file.seek(place + 4)
        data = file.read(29) if _FIRST_APP <= marker <= _LAST_APP else b""
        kind = data[:6] if data[:4] == b"Exif" else data
        if marker == _EXIF and (kind[:4] == b"Exif" or b"adobe.com/xap" in kind) and kind not in oriented:
            oriented.add(kind)
        elif _FIRST_APP <= marker <= _LAST_APP or marker == _COMMENT:
            sound = (marker == _FIRST_APP and data[:5] == b"JFIF\0" and length >= 18) or (
                marker == _ADOBE and data[:5] == b"Adobe" and length >= 16
            )
            if not sound:
                whole = False
                continue
        pieces.append((place, length))
    # Nothing is to be removed, or what comes before the first scan cannot be followed: the decoder says what is wrong.
    file.seek(0)
    return file


def complete_jpeg(file: BinaryIO) -> BinaryIO | None:
    """Return a JPEG with an end marker if all pixels are there without one, else None.

    A decoder fills up what is missing without a word. So the data is decoded with different bytes behind it: only if
    no pixel depends on them was there enough. Of a progressive JPEG the last scans must be there too.
    """
    file.seek(0)
    data = file.read()
    end = _end_of_data(data)
    if end is None:
        return None
    first = None
    for padding in _PADDINGS:
        # Straight behind the data: FF at its end would swallow the first byte.
        pixels = np.asarray(Image.open(joined(file, [data[:end], padding, _END]), formats=["JPEG"]))
        if first is not None and not np.array_equal(first, pixels):
            return None
        first = pixels
    return joined(file, [data[:end], _END])


def is_cut(image: Image.Image, file: BinaryIO) -> bool:
    """Whether a loaded JPEG has an end marker although pixels are missing before it, as repaired files can have.

    Its last pixel is grey then, or it is progressive and scans are missing; only such images cost another look.
    """
    if "progressive" in image.info:
        file.seek(0)
        return _end_of_data(file.read()) is None
    last = image.getpixel((image.width - 1, image.height - 1))
    values = last if isinstance(last, tuple) else (last,)
    return all(value in _GREY for value in values) and complete_jpeg(file) is None


def _end_of_data(data: bytes) -> int | None:
    """Return where the last scan's data ends, or None if scans are missing."""
    missing: dict[int, set[int]] = {}
    progressive, place, end = False, 2, len(data)
    while True:
        found = _MARKER.search(data, place)
        if found is None:
            break
        marker, place = found[1][0], found.end()
        if marker == _END[1]:
            end = found.start()
            break
        segment = data[place : place + int.from_bytes(data[place : place + 2], "big")]
        if len(segment) < 8 and (marker in _FRAMES or marker == _START_OF_SCAN):
            return None
        if marker in _FRAMES:
            progressive = marker in _PROGRESSIVE
            for component in range(segment[7]):
                missing[segment[8 + 3 * component]] = set(range(64 if progressive else 1))
        elif marker == _START_OF_SCAN:
            count = segment[2]
            first, last, bits = segment[3 + 2 * count : 6 + 2 * count]
            for component in range(count):
                if not progressive:
                    missing.pop(segment[3 + 2 * component], None)
                elif bits & 15 == 0:
                    missing[segment[3 + 2 * component]] -= set(range(first, last + 1))
        place += len(segment)
        if place >= len(data):
            # The file ends within a segment, or right behind one.
            return None
    if any(missing.values()):
        return None
    # A lone FF is half of the marker.
    return end - 1 if end == len(data) and data.endswith(b"\xff") else end


def _segments(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Yield marker, offset and length (marker included) of the segments up to the first scan, as far as they go."""
    place = 2
    while True:
        file.seek(place)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0x00, 0xD9):
            return
        if head[1] == 0xFF:
            place += 1
            continue
        length = int.from_bytes(head[2:], "big") + 2
        if length < 4:
            return
        yield head[1], place, length
        if head[1] == _START_OF_SCAN:
            return
        place += length
