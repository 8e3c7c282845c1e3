"""JPEG 2000: reads from its header how deep the values are, and at which smaller sizes it can be decoded."""

from __future__ import annotations

from typing import Any, BinaryIO, NamedTuple

from photoflux.data.images.boxes import boxes

_SIZE, _STYLE, _COMPONENT_STYLE, _START_OF_TILE = 0x51, 0x52, 0x53, 0x90
_MOST_MARKERS = 1000


class Codestream(NamedTuple):
    """What a JPEG 2000 says of its pixels.

    Attributes
    ----------
    bits : int
        Of a value of the deepest channel.
    halvings : int
        How many times its sides can be halved by leaving out detail; 0 where its values are places in a palette.
    """

    bits: int
    halvings: int


def codestream(file: BinaryIO) -> Codestream:
    """Return what the header says; 8 bits and no halvings as far as it cannot be followed."""
    file.seek(0, 2)
    end, place, palette = file.tell(), 0, False
    file.seek(0)
    if file.read(2) != b"\xff\x4f":
        place = end
        for name, start, stop in boxes(file, 0, end):
            if name == b"jp2h":
                palette = any(inner == b"pclr" for inner, _, _ in boxes(file, start, stop))
            elif name == b"jp2c":
                place = start
                break
    bits, halvings, shifted = 8, list[int](), False
    place += 2
    for _ in range(_MOST_MARKERS):
        file.seek(place)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] == _START_OF_TILE:
            break
        length = int.from_bytes(head[2:], "big")
        data = file.read(min(length, 1 << 16))
        if head[1] == _SIZE and len(data) > 36:
            shifted = data[10:18] != bytes(8)
            bits = max((depth & 0x7F for depth in data[36:-2:3]), default=7) + 1
        elif head[1] == _STYLE and len(data) > 5:
            halvings.append(data[5])
        elif head[1] == _COMPONENT_STYLE and len(data) > 2:
            halvings.append(data[2])
        place += 2 + length
    return Codestream(bits, 0 if palette or shifted else min(halvings, default=0))


def reduce(image: Any, halvings: int, side: int) -> int:
    """Let an image that Pillow has opened be decoded smaller, no side below a length; return how often it halves."""
    for count in range(halvings, 0, -1):
        part = 1 << count
        # Pillow rounds where the format rounds up, and refuses what it has not expected.
        if all(length // part >= side and (length + part // 2) // part == -(-length // part) for length in image.size):
            image.reduce = count
            return count
    return 0
