"""TIFFs of values that Pillow has no mode for: the picture comes out however they are ordered, packed and laid out."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from photoflux.data.images import samples
from photoflux.data.images.decoding import Decoded, decode_file
from photoflux.data.images.pages import read_page
from photoflux.data.shape import Shape

HEIGHT, WIDTH = 40, 50
# Red rises to the right, green downwards, blue to the left; black and white are both there.
RAMPS = np.stack(
    [
        np.repeat(np.linspace(0, 1, WIDTH)[None], HEIGHT, 0),
        np.repeat(np.linspace(0, 1, HEIGHT)[:, None], WIDTH, 1),
        np.repeat(np.linspace(1, 0, WIDTH)[None], HEIGHT, 0),
    ],
    axis=2,
)


def differences(rows: np.ndarray) -> bytes:
    """Predictor 2: each value less the one before it in its row, of the same channel; (rows, width, channels)."""
    unsigned = rows.view(f"u{rows.dtype.itemsize}".replace("u", rows.dtype.byteorder.replace("|", "=") + "u"))
    before = np.concatenate([np.zeros_like(unsigned[:, :1]), unsigned[:, :-1]], axis=1)
    return (unsigned - before).astype(unsigned.dtype).tobytes()


def byte_planes(rows: np.ndarray) -> bytes:
    """Predictor 3: a row's most significant bytes, then the second, …; then differences of bytes, by channels."""
    packed = b""
    for row in rows:
        big = row.astype(row.dtype.newbyteorder(">")).ravel().view(np.uint8).reshape(-1, row.dtype.itemsize)
        line = big.T.ravel()
        channels = row.shape[1]
        less = np.concatenate([np.zeros(channels, np.uint8), line[:-channels]])
        packed += (line - less).astype(np.uint8).tobytes()
    return packed


def tiff(
    values: np.ndarray,
    *,
    order: str = "<",
    big: bool = False,
    photometric: int | None = None,
    predictor: int = 1,
    deflate: bool = False,
    tile: int = 0,
    apart: bool = False,
    rows: int = 16,
    tags: dict[int, tuple[str, tuple[int, ...]]] | None = None,
) -> bytes:
    """A TIFF by hand, in strips of some rows or in tiles; values (height, width, channels)."""
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    values = values.astype(values.dtype.newbyteorder(order))
    height, width, channels = values.shape
    pieces = []
    for plane in [values[..., c : c + 1] for c in range(channels)] if apart else [values]:
        if tile:
            padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
            pieces += [
                padded[y : y + tile, x : x + tile]
                for y in range(0, len(padded), tile)
                for x in range(0, padded.shape[1], tile)
            ]
        else:
            pieces += [plane[y : y + rows] for y in range(0, height, rows)]
    packed = []
    for piece in pieces:
        piece = np.ascontiguousarray(piece)
        raw = {1: piece.tobytes, 2: lambda p=piece: differences(p), 3: lambda p=piece: byte_planes(p)}[predictor]()
        packed.append(zlib.compress(raw) if deflate else raw)
    places = [16 + sum(map(len, packed[:number])) for number in range(len(packed))]
    entries: dict[int, tuple[str, tuple[int, ...]]] = {
        256: ("I", (width,)),
        257: ("I", (height,)),
        258: ("H", (values.dtype.itemsize * 8,) * channels),
        259: ("H", (8 if deflate else 1,)),
        262: ("H", (photometric if photometric is not None else 2 if channels > 2 else 1,)),
        277: ("H", (channels,)),
        284: ("H", (2 if apart else 1,)),
        317: ("H", (predictor,)),
        339: ("H", (kind,) * channels),
        324 if tile else 273: ("I", tuple(places)),
        325 if tile else 279: ("I", tuple(map(len, packed))),
    }
    entries |= {322: ("I", (tile,)), 323: ("I", (tile,))} if tile else {278: ("I", (rows,))}
    entries |= tags or {}
    data = b"".join(packed)
    data += bytes(len(data) % 2)
    place, width_of, count = 16 + len(data), (8 if big else 4), ("Q" if big else "I")
    far, lines = b"", struct.pack(order + ("Q" if big else "H"), len(entries))
    start = place + len(lines) + (20 if big else 12) * len(entries) + width_of
    for tag, (letter, numbers) in sorted(entries.items()):
        raw = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        lines += struct.pack(order + "HH" + count, tag, {"H": 3, "I": 4}[letter], len(numbers))
        lines += raw.ljust(width_of, b"\0") if len(raw) <= width_of else struct.pack(order + count, start + len(far))
        far += raw if len(raw) > width_of else b""
    name = {"<": b"II", ">": b"MM"}[order]
    header = struct.pack(order + "HHHQ", 43, 8, 0, place) if big else struct.pack(order + "HI", 42, place) + bytes(8)
    return name + header + data + lines + bytes(width_of) + far


def one(path: Path, data: bytes, note: str | None = None) -> Decoded:
    path.write_bytes(data)
    decoded = decode_file(path, Shape(3, HEIGHT, WIDTH))
    assert decoded.rejected == []
    assert [page for page, _ in decoded.notes] == ([] if note is None else [0])
    assert note is None or note in decoded.notes[0][1]
    (image,) = decoded.images
    return image


def off(image: Decoded, expected: np.ndarray) -> int:
    return int(np.abs(image.pixels.transpose(1, 2, 0) - np.rint(expected * 255)).max())


# What is written, black and white among its values, and a part of the note.
DEPTHS: dict[str, tuple[float, float, str | None]] = {
    "f2": (0, 1, None),
    "f4": (0, 1, None),
    "f8": (0, 1, None),
    "u4": (0, 65535, "read as 16-bit"),
    "u8": (0, 4095, "read as 12-bit"),
    "i1": (-128, 127, "stretched"),
    "i2": (-32768, 32767, "stretched"),
    "i4": (-5e8, 5e8, "stretched"),
}


def of_kind(kind: str, picture: np.ndarray = RAMPS) -> np.ndarray:
    black, white, _ = DEPTHS[kind]
    values = black + picture * (white - black)
    return (values if kind[0] == "f" else np.rint(values)).astype(kind)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", DEPTHS)
def test_colours(tmp_path: Path, kind: str, order: str):
    image = one(tmp_path / "a", tiff(of_kind(kind), order=order), DEPTHS[kind][2])
    # What is rounded twice is off by one at most; half precision has 11 bits.
    assert off(image, RAMPS) <= 1
    assert (image.width, image.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["f2", "f8", "u8"])
def test_grey(tmp_path: Path, kind: str, order: str):
    grey = RAMPS[..., :1]
    data = tiff(of_kind(kind, grey), order=order)
    assert off(one(tmp_path / "a", data, DEPTHS[kind][2]), grey) <= 1
    assert read_page(tmp_path / "a", 0).mode == "L"
    data = tiff(of_kind(kind, 1 - grey), order=order, photometric=0)
    assert off(one(tmp_path / "b", data, DEPTHS[kind][2]), grey) <= 1


LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {"deflate": True},
    "one strip": {"rows": HEIGHT},
    "tiles": {"tile": 16},
    "tiles, deflate": {"tile": 16, "deflate": True},
    "planes": {"apart": True},
    "planes of one strip": {"apart": True, "rows": HEIGHT, "deflate": True},
    "planes of tiles": {"apart": True, "tile": 32, "deflate": True},
    "BigTIFF": {"big": True},
    "BigTIFF, tiles": {"big": True, "tile": 16, "deflate": True},
}


@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_layouts(tmp_path: Path, layout: str, order: str, predictor: int):
    for kind in ("f4", "f8") if predictor == 3 else ("f4", "i2"):
        options = LAYOUTS[layout] | ({"deflate": True} if predictor > 1 else {})
        data = tiff(of_kind(kind), order=order, predictor=predictor, **options)
        assert off(one(tmp_path / "a", data, DEPTHS[kind][2]), RAMPS) <= 1, kind


@pytest.mark.parametrize("channels", [1, 3])
def test_transparency(tmp_path: Path, channels: int):
    """On white: colours that were multiplied by their alpha come out as those that were not."""
    picture, alpha = RAMPS[..., :channels], np.full((HEIGHT, WIDTH, 1), 0.5)
    alpha[:10] = 0
    expected = picture * alpha + 1 - alpha
    for extra, colours, tolerance in ((2, picture, 1), (1, picture * alpha, 2)):
        values = np.concatenate([colours, alpha], axis=2).astype("f4")
        data = tiff(values, photometric=2 if channels == 3 else 1, tags={338: ("H", (extra,))})
        # An alpha of 127.5 is rounded, which is 1 of a value; colours that were halved have lost a bit: 1 more.
        assert off(one(tmp_path / "a", data), expected) <= tolerance
    values = np.concatenate([picture, alpha], axis=2).astype("f4")
    data = tiff(values, photometric=2 if channels == 3 else 1, tags={338: ("H", (0,))})
    assert off(one(tmp_path / "b", data), picture) <= 1


def test_it_is_turned(tmp_path: Path):
    stored = np.rot90(RAMPS, 1)
    image = one(tmp_path / "a", tiff(stored.astype("f4"), tags={274: ("H", (6,))}))
    assert (image.width, image.height) == (WIDTH, HEIGHT)
    assert off(image, RAMPS) <= 1
    assert read_page(tmp_path / "a", 0).size == (WIDTH, HEIGHT)


def test_values_without_sense(tmp_path: Path):
    values = RAMPS.astype("f4")
    values[0, 0] = np.nan
    values[1, 1] = np.inf
    values[2, 2] = -np.inf
    image = one(tmp_path / "a", tiff(values))
    assert image.pixels[:, 1, 1].tolist() == [255] * 3
    assert image.pixels[:, 0, 0].tolist() == image.pixels[:, 2, 2].tolist() == [0] * 3
    assert one(tmp_path / "b", tiff(np.full((HEIGHT, WIDTH, 3), np.nan, "f4"))).pixels.max() == 0


def check_damaged(path: Path, data: bytes, times: int) -> None:
    """Overwritten anywhere or cut off: an image or a reason comes of it."""
    rng = np.random.default_rng(0)
    for number in range(times):
        damaged = bytearray(data)
        for place in rng.integers(8, len(data), 1 + number % 4).tolist():
            damaged[place] = int(rng.integers(0, 256))
        path.write_bytes(damaged if number % 2 else damaged[: int(rng.integers(4, len(data)))])
        decoded = decode_file(path, Shape(3, 8, 8))
        assert decoded.images or decoded.rejected


def test_damage_gives_an_image_or_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = tiff(of_kind("f4"), deflate=True, predictor=3)
    check_damaged(tmp_path / "a", data, 200)
    (tmp_path / "b").write_bytes(tiff(of_kind("f4"), tags={259: ("H", (7,))}))
    assert (
        decode_file(tmp_path / "b", Shape(3, 8, 8))
        .rejected[0][1]
        .startswith("a TIFF of RGB, 3 channels of 32-bit floating-point values, which is not read")
    )
    monkeypatch.setattr(samples, "_MOST_BYTES", HEIGHT * WIDTH * 12 - 1)
    (tmp_path / "c").write_bytes(data)
    assert ", in more than " in decode_file(tmp_path / "c", Shape(3, 8, 8)).rejected[0][1]


def test_it_is_read_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = tiff(of_kind("f4"), predictor=3, deflate=True)
    whole = one(tmp_path / "a", data).pixels
    monkeypatch.setattr(samples, "_BAND", 3 * WIDTH)
    assert np.array_equal(one(tmp_path / "b", data).pixels, whole)


@pytest.mark.parametrize("order", ["<", ">"])
def test_bigtiff_of_any_values(tmp_path: Path, order: str):
    """Pillow itself reads BigTIFF in one order of bytes only."""
    eight = np.rint(RAMPS * 255).astype("u1")
    for options in ({}, {"tile": 16}, {"deflate": True}, {"rows": HEIGHT}):
        assert off(one(tmp_path / "a", tiff(eight, order=order, big=True, **options)), RAMPS) == 0
    sixteen = np.rint(RAMPS * 65535).astype("u2")
    assert off(one(tmp_path / "b", tiff(sixteen, order=order, big=True)), RAMPS) <= 1
    assert off(one(tmp_path / "c", tiff(sixteen[..., :1], order=order, big=True)), RAMPS[..., :1]) <= 1


def with_pages(order: str, count: int) -> bytes:
    """A BigTIFF of pages: as many as there are copies of one file behind another, their directories linked."""
    data = b""
    for number in range(count):
        page = bytearray(tiff(np.full((4, 6, 3), 40 * number + 1, "u1"), order=order, big=True))
        (place,) = struct.unpack_from(order + "Q", page, 8)
        (entries,) = struct.unpack_from(order + "Q", page, place)
        start = len(data)
        for entry in range(place + 8, place + 8 + 20 * entries, 20):
            tag, kind, length, value = struct.unpack_from(order + "HHQQ", page, entry)
            if {3: 2, 4: 4}[kind] * length > 8:
                struct.pack_into(order + "Q", page, entry + 12, value + start)
            elif tag == 273:
                struct.pack_into(order + "I", page, entry + 12, 16 + start)
        following = start + len(page) + place if number < count - 1 else 0
        struct.pack_into(order + "Q", page, place + 8 + 20 * entries, following)
        data += bytes(page)
    return data


@pytest.mark.parametrize("order", ["<", ">"])
def test_pages_of_a_bigtiff(tmp_path: Path, order: str):
    (tmp_path / "a").write_bytes(with_pages(order, 3))
    decoded = decode_file(tmp_path / "a", Shape(3, 4, 4))
    assert decoded.rejected == []
    assert [(image.page, int(image.pixels.max())) for image in decoded.images] == [(1, 1), (2, 41), (3, 81)]


def test_a_damaged_bigtiff_has_a_reason(tmp_path: Path):
    check_damaged(tmp_path / "a", with_pages(">", 2), 300)
