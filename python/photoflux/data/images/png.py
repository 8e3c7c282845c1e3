"""PNG: removes comments and colour profiles before Pillow would inflate them; checks that no rows are missing."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from PIL import Image

from photoflux.data.images.pieces import Span, joined

_SIGNATURE = 8
# The chunks that make the pixels; tRNS is left out where it is damaged.
_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})
# Those that can hold the orientation, read up to this many bytes.
_ORIENTED = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
_ORIENTED_BYTES = 1 << 17
_ORIENTED_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
# Values of a pixel by the type of its colours; first column and row, and the steps, of each pass of an interlaced PNG.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_WITH_ALPHA = (4, 6)
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_BLOCK = 1 << 18
DAMAGED_TRANSPARENCY = "its transparency is damaged and was left out"


class Png(NamedTuple):
    """The pixels of a PNG as a file, and what it says of their depth.

    Attributes
    ----------
    stream : file
        A PNG of the chunks that matter.
    bits : int
        Of a value, as it is stored.
    significant : int, optional
        sBIT: the bits that the values of the deepest channel, alpha apart, had before.
    note : str, optional
        What is to be noted.
    """

    stream: BinaryIO
    bits: int
    significant: int | None
    note: str | None


def strip_png(file: BinaryIO) -> Png:
    """Return a PNG without its metadata, the orientation apart; wrong checksums of metadata cost no pixels."""
    pieces: list[bytes | Span] = [(0, _SIGNATURE)]
    place, bits, colours, significant, note = _SIGNATURE, 8, 0, None, None
    kept: set[bytes] = set()
    while True:
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            break
        length, name = int.from_bytes(header[:4], "big"), header[4:]
        whole = length + 12
        if name in (b"sBIT", b"tRNS", b"IHDR"):
            data = file.read(min(length, 1024) + 4)
            sound = zlib.crc32(name + data[:-4]) == int.from_bytes(data[-4:], "big")
            if name == b"IHDR" and length == 13 and len(data) == 17:
                bits, colours = data[8], data[9]
            elif name == b"sBIT" and sound:
                # The last one is of the alpha, where there is one.
                significant = max(data[: -5 if colours in _WITH_ALPHA else -4], default=0) or None
        if name == b"tRNS" and not sound:
            note = DAMAGED_TRANSPARENCY
        # A critical chunk that is not known is left for the decoder to refuse.
        elif name in _PIXELS or not name[0] & 0x20:
            _add(pieces, (place, whole))
        elif name in _ORIENTED and length <= _ORIENTED_BYTES:
            data = file.read(length + 4)
            key = data[: data.find(b"\0") + 1] if name != b"eXIf" else b""
            if _can_be_used(name, key, data) and name + key not in kept:
                kept.add(name + key)
                _add(pieces, (place, whole))
        if name == b"IEND":
            break
        place += whole
    return Png(joined(file, pieces), bits, significant, note)


def lacks_rows(image: Image.Image, file: BinaryIO) -> bool:
    """Whether rows are missing of a loaded PNG whose compressed data comes to its end, which no decoder says.

    Where they are missing the image has zeros; only one with a last row of zeros, or interlaced, costs another look.
    """
    interlaced = bool(image.info.get("interlace"))
    last = image.crop((0, image.height - 1, image.width, image.height))
    if not interlaced and last.tobytes().strip(b"\0"):
        return False
    file.seek(_SIGNATURE + 8)
    header = file.read(13)
    bits, channels = header[8], _CHANNELS[header[9]]
    expected = 0
    for column, row, across, down in _ADAM7 if interlaced else _WHOLE:
        width, height = -(-(image.width - column) // across), -(-(image.height - row) // down)
        if width > 0:
            # Each row begins with the byte of its filter.
            expected += height * (1 + -(-width * bits * channels // 8))
    return sum(_inflated(file, expected)) < expected


def as_bytes(file: BinaryIO) -> BinaryIO:
    """Return a PNG of 16-bit grey with alpha as one of 8-bit RGBA: high and low byte of the grey, and of the alpha.

    Pillow gives the high bytes alone. A pixel has as many bytes in both, so only the header differs.
    """
    stream = strip_png(file).stream
    stream.seek(_SIGNATURE)
    header = bytearray(stream.read(21))
    header[16:18] = 8, 6
    head = bytes(header) + zlib.crc32(header[4:]).to_bytes(4, "big")
    end = stream.seek(0, 2)
    return joined(stream, [(0, _SIGNATURE), head, (_SIGNATURE + len(head), end - _SIGNATURE - len(head))])


def _inflated(file: BinaryIO, most: int) -> Iterator[int]:
    """Yield the lengths of the pieces of the inflated data, up to a number of bytes."""
    inflater = zlib.decompressobj()
    place = _SIGNATURE
    while most > 0:
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            return
        length, name = int.from_bytes(header[:4], "big"), header[4:]
        left = length if name == b"IDAT" else 0
        while left > 0 and (packed := file.read(min(left, _BLOCK))):
            left -= len(packed)
            while packed and most > 0:
                size = len(inflater.decompress(packed, _BLOCK))
                packed = inflater.unconsumed_tail
                most -= size
                yield size
        place += length + 12


def _add(pieces: list[bytes | Span], span: Span) -> None:
    last = pieces[-1]
    if not isinstance(last, bytes) and last[0] + last[1] == span[0]:
        pieces[-1] = (last[0], last[1] + span[1])
    else:
        pieces.append(span)


def _can_be_used(name: bytes, key: bytes, data: bytes) -> bool:
    """Whether a chunk that can hold the orientation is sound, small, and a text that Pillow looks into for it."""
    if zlib.crc32(name + data[:-4]) != int.from_bytes(data[-4:], "big"):
        return False
    if name == b"eXIf":
        return True
    if key not in _ORIENTED_TEXTS:
        return False
    body = data[len(key) : -4]
    if name == b"tEXt":
        return True
    if name == b"zTXt":
        packed = body[1:]
    elif body[:1] == b"\1":
        # An iTXt has a flag, the method, a language and the translated keyword before its text.
        packed = body[2:].split(b"\0", 2)[-1]
    else:
        return True
    try:
        inflater = zlib.decompressobj()
        inflater.decompress(packed, _ORIENTED_BYTES)
    except zlib.error:
        return False
    return not inflater.unconsumed_tail
