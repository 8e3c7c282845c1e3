"""TIFF: tells ordinary files from raw files of cameras and from kinds of values that are not read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from PIL import Image
from PIL.TiffImagePlugin import OPEN_INFO, ImageFileDirectory_v2

_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_MAKE, _SAMPLES, _PLANES, _SUB_IFDS, _FORMAT, _DNG_VERSION = 271, 277, 284, 330, 339, 50706
_COLOUR_MAP = 320
# Values of a colour filter in front of the sensor, and demosaicked ones in the camera's own colours.
_SENSOR = {32803: "a colour filter array", 34892: "linear raw values"}
# Compressions of raw files: Kodak (also 65000), Sony, packed ones of several makers, Samsung, Nikon, Pentax.
_RAW_COMPRESSIONS = {262, 32767, 32769, 32770, 32772, 34713, 65000, 65535}
# Tags that only raw files have: the pattern of the sensor's colours, Leaf's and Sony's own data.
_RAW_TAGS = (33422, 34310, 50740)
# How many SubIFDs are looked into, and how many directories of a chain: one of many pages has no raw values first.
_MOST_SUB_IFDS, _MOST_PAGES = 16, 8
_KINDS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "undefined", 5: "complex signed", 6: "complex"}
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIE L*a*b*"}

# What Pillow's readers can unpack although its table of TIFFs does not have it: byte order, photometric interpretation,
# sample format, order of bits, bits, extra samples.
_MORE: dict[Any, tuple[str, str]] = {
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (b"MM", 1, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (b"II", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (b"MM", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (b"II", 0, (2,), 1, (16,), ()): ("I", "I;16S"),
    (b"MM", 0, (2,), 1, (16,), ()): ("I", "I;16BS"),
    (b"II", 0, (1,), 1, (32,), ()): ("I", "I;32N"),
    (b"MM", 0, (1,), 1, (32,), ()): ("I", "I;32B"),
    (b"MM", 1, (1,), 1, (32,), ()): ("I", "I;32B"),
    (b"II", 0, (2,), 1, (32,), ()): ("I", "I;32S"),
    (b"MM", 0, (2,), 1, (32,), ()): ("I", "I;32BS"),
    (b"II", 0, (2,), 1, (8,), ()): ("L", "L"),
    (b"MM", 0, (2,), 1, (8,), ()): ("L", "L"),
}
# What Pillow can open but not unpack, with a name for it in place of an unpacker's; each of its letters is of a plane.
AS_SAMPLES = "********"
_SAMPLES_OF = {0: ("L", 1), 1: ("L", 1), 2: ("RGB", 3)}
_MORE |= {
    (order, photometric, (kind,), 1, (bits,) * (colours + len(extra)), extra): (mode, AS_SAMPLES)
    for order in (b"II", b"MM")
    for photometric, (mode, colours) in _SAMPLES_OF.items()
    for kind in (1, 2, 3)
    for bits in ((16, 32, 64) if kind == 3 else (8, 16, 32, 64))
    for extra in ((), (0,), (1,), (2,))
    if (order, photometric, (kind,), 1, (bits,) * (colours + len(extra)), extra) not in _MORE
}
# Of 9 to 15 bits, packed.
_MORE |= {
    (order, photometric, (1,), 1, (bits,) * colours, ()): (mode, AS_SAMPLES)
    for order in (b"II", b"MM")
    for photometric, (mode, colours) in _SAMPLES_OF.items()
    for bits in range(9, 16)
    if (order, photometric, (1,), 1, (bits,) * colours, ()) not in OPEN_INFO | _MORE
}
# Of values whose kind is not defined the rule is to take them as unsigned.
_MORE |= {
    (order, photometric, (4,), fill, bits, extra): how
    for (order, photometric, kind, fill, bits, extra), how in (OPEN_INFO | _MORE).items()
    if kind == (1,)
}


@contextlib.contextmanager
def more_kinds() -> Iterator[None]:
    """Let Pillow open more kinds of TIFFs; what it finds is put back."""
    added = [key for key in _MORE if key not in OPEN_INFO]
    OPEN_INFO.update({key: _MORE[key] for key in added})
    try:
        yield
    finally:
        for key in added:
            OPEN_INFO.pop(key, None)


def with_colours(image: Image.Image) -> Image.Image:
    """Return an image of a palette with its colours where the writer gave them 8 bits, which should be 16.

    Read as they are meant, all would be black.
    """
    values = getattr(image, "tag_v2", {}).get(_COLOUR_MAP, ())
    count = len(values) // 3
    if not count or not 0 < max(values) < 256:
        return image
    colours = image.copy()
    colours.putpalette(bytes(values[at + channel * count] for at in range(count) for channel in range(3)))
    return colours


def directory(file: BinaryIO, offset: int | None = None) -> Mapping[int, Any]:
    """Return the tags of the first image, or of the one at an offset; none if they cannot be read."""
    with contextlib.suppress(Exception):
        file.seek(0)
        header = file.read(8)
        if header[2:4] in (b"+\0", b"\0+"):
            header += file.read(8)
        # The directory is read by Pillow only for the number that a TIFF has.
        if header[2:4] not in (b"+\0", b"\0+"):
            header = header[:2] + (b"*\0" if header[:2] == b"II" else b"\0*") + header[4:]
        tags = ImageFileDirectory_v2(header)
        file.seek(tags.next if offset is None else offset)
        tags.load(file)
        return tags
    return {}


def camera_raw(file: BinaryIO) -> str | None:
    """Return what a TIFF-like file is if a camera wrote it raw, else None.

    Such files have a preview as their first image, and the photograph in a SubIFD, on a later page or under the maker's
    own tags.
    Reduced copies in the SubIFDs of a larger image, as pyramids have them, are none.
    """
    # Tags are converted when they are asked for, and damaged ones raise then.
    with contextlib.suppress(Exception):
        file.seek(8)
        # Canon's older ones; Phase One's in either order of bytes.
        start = file.read(4)
        if start[:2] == b"CR" or start in (b"IIII", b"MMMM"):
            return "a camera raw file"
        return _raw_by(directory(file), file)
    return None


def _raw_by(first: Mapping[int, Any], file: BinaryIO) -> str | None:
    if _DNG_VERSION in first:
        return "a camera raw file (DNG)"
    offsets = first.get(_SUB_IFDS, ())
    offsets = offsets if isinstance(offsets, tuple) else (offsets,)
    others = [directory(file, int(offset)) for offset in offsets[:_MOST_SUB_IFDS] if isinstance(offset, int)]
    make = str(first.get(_MAKE, "")).strip("\0 ")
    by = f" of {make}" if make.isprintable() and make else ""
    for tags in (first, *others, *_next_pages(first, file)):
        sensor = _value(tags, _PHOTOMETRIC) in _SENSOR or any(tag in tags for tag in _RAW_TAGS)
        if sensor or _value(tags, _COMPRESSION) in _RAW_COMPRESSIONS:
            return f"a camera raw file{by}"
    reduced = int(_value(first, _SUBFILE_TYPE)) & 1
    for tags in others:
        if _pixels(tags) > _pixels(first) or (reduced and tags and not int(_value(tags, _SUBFILE_TYPE)) & 1):
            return f"a camera raw file{by}, or another that has the image in a SubIFD behind a preview"
    return None


def _next_pages(first: Any, file: BinaryIO) -> Iterator[Mapping[int, Any]]:
    """Yield the directories behind the first, as many as are looked into."""
    place = getattr(first, "next", 0)
    for _ in range(_MOST_PAGES):
        if not place:
            return
        tags: Any = directory(file, place)
        yield tags
        place = getattr(tags, "next", 0)


def values_in_words(tags: Mapping[int, Any]) -> str:
    """Say what kind of values a TIFF has, such as ``RGB of 32-bit floating-point values``."""
    bits = tags.get(_BITS, 1)
    bits = "/".join(str(bit) for bit in sorted(set(bits))) if isinstance(bits, tuple) else str(bits)
    photometric = _value(tags, _PHOTOMETRIC)
    colour = _COLOURS.get(photometric, f"photometric interpretation {photometric}")
    samples = int(_value(tags, _SAMPLES, 1))
    kind = _KINDS.get(int(_value(tags, _FORMAT, 1)), "unknown")
    planes = " in separate planes" if _value(tags, _PLANES, 1) == 2 else ""
    return f"{colour}, {samples} channel{'' if samples == 1 else 's'} of {bits}-bit {kind} values{planes}"


def not_unpacked(tags: Mapping[int, Any]) -> str:
    """Return the reason for a TIFF whose kind of values is not read."""
    return f"a TIFF of {values_in_words(tags)}, which is not read: convert it to 8 or 16 bits"


def _pixels(tags: Mapping[int, Any]) -> int:
    return int(_value(tags, _WIDTH)) * int(_value(tags, _HEIGHT))


def _value(tags: Mapping[int, Any], tag: int, otherwise: int = 0) -> Any:
    value = tags.get(tag, otherwise)
    value = (value[0] if value else otherwise) if isinstance(value, tuple) else value
    return value if isinstance(value, int) else otherwise
