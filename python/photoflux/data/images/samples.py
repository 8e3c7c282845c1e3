"""Reads TIFFs of values that Pillow has no mode for, such as RGB of floating-point numbers, from their bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from photoflux.data.images.depth import FLOAT, SIGNED, Samples, levels, scaled
from photoflux.data.images.formats import RefusedError
from photoflux.data.images.pieces import joined
from photoflux.data.images.tiffs import not_unpacked, values_in_words

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _ROWS = 256, 257, 258, 259, 262, 277, 278
_PLANES, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _EXTRA = 284, 317, 322, 323, 338
# Where their bytes are, and how many.
_STRIPS, _TILES = (273, 279), (324, 325)
_SHORT, _LONG = 3, 4
_DIFFERENCES, _FLOATING_POINT = 2, 3
_ASSOCIATED, _UNASSOCIATED = 1, 2
# None, LZW, deflate (two numbers), PackBits, LZMA and Zstandard: what gives back bytes as they were.
_LOSSLESS = {1, 5, 8, 32946, 32773, 34925, 50000}
# Bytes of all values of an image; the file's own are less where they are compressed.
_MOST_BYTES = 1 << 31
_BAND = 1 << 20


class _Layout(NamedTuple):
    """How the values lie in a file; `across` is the width of a tile, or of the image where there are strips.

    `packed` is how many bits a value has where they are packed without regard to bytes, else 0.
    """

    width: int
    height: int
    channels: int
    extra: tuple[int, ...]
    dtype: np.dtype[Any]
    apart: bool
    predictor: int
    across: int
    packed: int


def picture_of_samples(file: BinaryIO, tags: Any, samples: Samples) -> tuple[Image.Image, str | None]:
    """Return the image of a directory in 8 bits, not turned, and what is to be noted.

    Its bytes are unpacked by Pillow as those of a grey image, and its values are put together from them.

    Parameters
    ----------
    file : file
        The TIFF.
    tags : ImageFileDirectory_v2
        Of the image: grey or RGB, with other channels or without, of 8, 16, 32 or 64 bits each.
    samples : Samples
        What it says of its values.

    Raises
    ------
    RefusedError
        If it has too many bytes, or no places of its pixels.
    """
    layout = _layout(tags, samples.kind)
    if tags.get(_COMPRESSION, 1) not in _LOSSLESS or (layout.packed and (layout.predictor != 1 or _TILES[0] in tags)):
        raise RefusedError(not_unpacked(tags))
    if layout.width * layout.height * layout.channels * layout.dtype.itemsize > _MOST_BYTES:
        what = values_in_words(tags)
        raise RefusedError(f"a TIFF of {what}, in more than {_MOST_BYTES >> 30} GiB: convert it to 8 or 16 bits")
    planes = [_bytes_of(file, tags, layout, plane) for plane in (range(layout.channels) if layout.apart else [None])]
    colours = layout.channels - len(layout.extra)
    least, greatest = np.inf, -np.inf
    for _, values in _bands(planes, layout):
        seen = values[..., :colours]
        seen = seen[np.isfinite(seen)]
        if seen.size:
            least, greatest = min(least, float(seen.min())), max(greatest, float(seen.max()))
    black, white, note = levels(least, greatest, samples) if least <= greatest else (0.0, 1.0, None)
    alpha = next((kind for kind in layout.extra if kind in (_ASSOCIATED, _UNASSOCIATED)), 0)
    mode = {0: "RGB", _ASSOCIATED: "RGBa", _UNASSOCIATED: "RGBA"}[alpha] if alpha or colours == 3 else "L"
    result = Image.new(mode, (layout.width, layout.height))
    for top, values in _bands(planes, layout):
        eight = scaled(values[..., :colours], black, white)
        if samples.inverted:
            eight = 255 - eight
        if mode == "L":
            eight = eight[..., 0]
        elif colours == 1:
            eight = np.repeat(eight, 3, axis=2)
        if alpha:
            opaque = 1 if samples.kind == FLOAT else np.iinfo(layout.dtype).max
            place = colours + layout.extra.index(alpha)
            eight = np.concatenate([eight, scaled(values[..., place : place + 1], 0, opaque)], axis=2)
        result.paste(Image.frombytes(mode, eight.shape[1::-1], np.ascontiguousarray(eight).tobytes()), (0, top))
    return result.convert("RGBA") if mode == "RGBa" else result, note


def two_bytes_each(tags: Mapping[int, Any]) -> bool:
    """Whether values of 9 to 15 bits stand in two bytes each, uncompressed, and not packed as the tags mean."""
    bits = np.max(tags.get(_BITS, 1))
    if not 8 < bits < 16 or tags.get(_COMPRESSION, 1) != 1 or _STRIPS[1] not in tags:
        return False
    return bool(np.sum(tags[_STRIPS[1]]) >= 2 * tags[_WIDTH] * tags[_HEIGHT] * int(tags.get(_SAMPLES, 1)))


def deep_planes(tags: Mapping[int, Any]) -> bool:
    """Whether the channels are apart and of more than 8 bits, which Pillow would unpack as if they were bytes.

    Raises
    ------
    RefusedError
        If they are, and are no grey or RGB.
    """
    bits, channels = np.max(tags.get(_BITS, 1)), int(tags.get(_SAMPLES, 1))
    if tags.get(_PLANES, 1) != 2 or bits <= 8 or channels == 1:
        return False
    if channels != {0: 1, 1: 1, 2: 3}.get(tags.get(_PHOTOMETRIC, 0), 0) + len(tags.get(_EXTRA, ())):
        raise RefusedError(not_unpacked(tags))
    return True


def _layout(tags: Any, kind: int) -> _Layout:
    bits = tags[_BITS][0] if isinstance(tags[_BITS], tuple) else tags[_BITS]
    packed = bits if bits % 8 and not two_bytes_each(tags) else 0
    bits = 16 if bits % 8 else bits
    letter = "f" if kind == FLOAT else "i" if kind == SIGNED else "u"
    order = "<" if tags.prefix == b"II" else ">"
    width = tags[_WIDTH]
    return _Layout(
        width,
        tags[_HEIGHT],
        int(tags.get(_SAMPLES, 1)),
        tuple(tags.get(_EXTRA, ())),
        np.dtype(f"{order}{letter}{bits // 8}"),
        tags.get(_PLANES, 1) == 2,
        tags.get(_PREDICTOR, 1),
        tags.get(_TILE_WIDTH, width) if _TILES[0] in tags else width,
        packed,
    )


def _bytes_of(file: BinaryIO, tags: Mapping[int, Any], layout: _Layout, plane: int | None) -> Image.Image:
    """Return all bytes of a plane, or of all channels, as a grey image: those of a row stand in a row."""
    size = layout.dtype.itemsize * (1 if layout.apart else layout.channels)
    tiled = _TILES[0] in tags
    across = -(-layout.width // layout.across) * layout.across * size
    if layout.packed:
        across = -(-layout.width * layout.packed * (1 if layout.apart else layout.channels) // 8)
    offsets, counts = (tuple(tags[tag]) for tag in (_TILES if tiled else _STRIPS))
    if plane is not None:
        share = len(offsets) // layout.channels
        offsets, counts = offsets[plane * share :][:share], counts[plane * share :][:share]
    # The row of a tile is packed as a whole, with what stands over the edge of the image.
    entries: dict[int, tuple[int, tuple[int, ...]]] = {
        _WIDTH: (_LONG, (across,)),
        _HEIGHT: (_LONG, (layout.height,)),
        _BITS: (_SHORT, (8,)),
        _COMPRESSION: (_SHORT, (tags.get(_COMPRESSION, 1),)),
        _PHOTOMETRIC: (_SHORT, (1,)),
        _SAMPLES: (_SHORT, (1,)),
        (_TILES if tiled else _STRIPS)[0]: (_LONG, offsets),
        (_TILES if tiled else _STRIPS)[1]: (_LONG, counts),
    }
    if tiled:
        entries |= {_TILE_WIDTH: (_LONG, (layout.across * size,)), _TILE_HEIGHT: (_LONG, (tags[_TILE_HEIGHT],))}
    else:
        entries[_ROWS] = (_LONG, (min(tags.get(_ROWS, layout.height), layout.height),))
    file.seek(0, 2)
    end = file.tell()
    padding = end % 2
    stream = joined(
        file,
        [
            struct.pack("<2sHI", b"II", 42, end + padding),
            (8, end - 8),
            bytes(padding),
            _directory(entries, end + padding),
        ],
    )
    image = Image.open(stream, formats=["TIFF"])
    image.load()
    return image


def _directory(entries: dict[int, tuple[int, tuple[int, ...]]], place: int) -> bytes:
    rows, far = b"", b""
    start = place + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        raw = struct.pack(f"<{len(values)}{'H' if kind == _SHORT else 'I'}", *values)
        value = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", start + len(far))
        far += raw if len(raw) > 4 else b""
        rows += struct.pack("<HHI", tag, kind, len(values)) + value
    return struct.pack("<H", len(entries)) + rows + bytes(4) + far


def _bands(planes: list[Image.Image], layout: _Layout) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the values, (rows, width, channels), in bands of whole rows, each with its first row."""
    rows = max(1, _BAND // layout.width)
    for top in range(0, layout.height, rows):
        bands = [
            _values(np.asarray(plane.crop((0, top, plane.width, min(top + rows, layout.height)))), layout)
            for plane in planes
        ]
        yield top, np.concatenate(bands, axis=2)[:, : layout.width]


def _values(raw: np.ndarray, layout: _Layout) -> np.ndarray:
    """Return the values of rows of bytes, whose differences were stored where there is a predictor."""
    rows, size = len(raw), layout.dtype.itemsize
    channels = 1 if layout.apart else layout.channels
    values: np.ndarray
    if layout.packed:
        # The first bit is the highest, whatever the order of bytes is.
        bits = np.unpackbits(raw, axis=1)[:, : layout.width * channels * layout.packed]
        digits = bits.reshape(rows, -1, layout.packed).astype(np.uint16)
        values = (digits << np.arange(layout.packed - 1, -1, -1, dtype=np.uint16)).sum(axis=2, dtype=np.uint16)
    elif layout.predictor == _FLOATING_POINT:
        # Differences of bytes; the first bytes of all numbers of a row, the most significant, stand before the second.
        parts = raw.reshape(rows, -1, layout.across * size, channels).cumsum(axis=2, dtype=np.uint8)
        parts = parts.reshape(rows, -1, size, layout.across * channels).swapaxes(2, 3)
        values = np.ascontiguousarray(parts).view(layout.dtype.newbyteorder(">"))
    elif layout.predictor == _DIFFERENCES:
        unsigned = np.dtype(f"u{size}")
        stored = raw.view(unsigned.newbyteorder(layout.dtype.byteorder))
        sums = stored.reshape(rows, -1, layout.across, channels).cumsum(axis=2, dtype=unsigned)
        values = sums.view(layout.dtype.newbyteorder("="))
    else:
        values = raw.view(layout.dtype)
    return values.reshape(rows, -1, channels)
