"""Every depth that a file can have: the picture comes out as it was, whatever its black and white are."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photoflux.data.images.decoding import DecodedFile, decode_file
from photoflux.data.images.depth import FLOAT, SIGNED, Samples, levels
from photoflux.data.shape import Shape

# Grey from black to white in 24 steps, and three of them for colours; two rows of each.
STEPS = np.repeat(np.linspace(0, 1, 24)[None], 8, 0)
COLOURS = np.stack([STEPS, STEPS[:, ::-1], STEPS / 2], axis=2)


def tiff(
    values: np.ndarray,
    bits: int,
    *,
    order: str = "<",
    photometric: int = 1,
    sample_format: int | None = None,
    tags: dict[int, tuple[str, Any]] | None = None,
    packed: bytes | None = None,
) -> bytes:
    """An uncompressed TIFF by hand: tags are (type, value), H for 16 and I for 32 bits, h, f and d."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    data = values.astype(values.dtype.newbyteorder(order)).tobytes() if packed is None else packed
    entries: dict[int, tuple[str, Any]] = {
        256: ("I", width),
        257: ("I", height),
        258: ("H", (bits,) * channels),
        259: ("H", 1),
        262: ("H", photometric),
        273: ("I", 8),
        277: ("H", channels),
        278: ("I", height),
        279: ("I", len(data)),
    }
    if sample_format is not None:
        entries[339] = ("H", (sample_format,) * channels)
    entries |= tags or {}
    codes = {"H": 3, "I": 4, "h": 8, "f": 11, "d": 12}
    data += b"\0" * (len(data) % 2)
    far, directory = b"", struct.pack(order + "H", len(entries))
    place = 8 + len(data) + 2 + 12 * len(entries) + 4
    for tag, (kind, value) in sorted(entries.items()):
        value = value if isinstance(value, tuple) else (value,)
        raw = struct.pack(f"{order}{len(value)}{kind}", *value)
        directory += struct.pack(order + "HHI", tag, codes[kind], len(value))
        if len(raw) <= 4:
            directory += raw.ljust(4, b"\0")
        else:
            directory += struct.pack(order + "I", place + len(far))
            far += raw
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8 + len(data))
    return start + data + directory + b"\0\0\0\0" + far


def png(values: np.ndarray, bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: values (height, width[, channels]), and chunks to put before the pixels."""
    height, width = values.shape[:2]
    if bits == 16:
        rows = values.astype(">u2").tobytes()
    elif bits == 8:
        rows = values.astype(np.uint8).tobytes()
    else:
        digits = (values.astype(np.uint8)[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = np.packbits(digits.reshape(height, -1), axis=1).tobytes()
    length = len(rows) // height
    lines = b"".join(b"\0" + rows[row * length : (row + 1) * length] for row in range(height))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def pack(values: np.ndarray, bits: int) -> bytes:
    """Values of any number of bits, the rows of whole bytes."""
    digits = (values[..., None].astype(np.int64) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def decode(path: Path, data: bytes) -> DecodedFile:
    path.write_bytes(data)
    return decode_file(path, Shape(3, 8, 24))


def scaled(white: float, kind: Any, black: float = 0, picture: np.ndarray = STEPS) -> np.ndarray:
    values = black + picture * (white - black)
    return (values if np.dtype(kind).kind == "f" else np.rint(values)).astype(kind)


BOTH = ("<", ">")
FROM_TO = {340: ("h", -500), 341: ("h", 500)}
FEW_SHADES = {"png 1 ": 1, "png 2 ": 3, "png 4 ": 15, "tiff 1 ": 1, "tiff 1,": 1, "tiff 2 ": 3, "tiff 4,": 15}
RAMP = tuple(range(0, 65536, 257))
TWELVE, STRETCHED = "end below 4096, so it was read as 12-bit", "were stretched"
# What is written, and a part of the note, or None: the picture comes out in every row.
GREYS: dict[str, tuple[bytes, str | None]] = {
    "png 1 bits": (png(scaled(1, np.uint8), 1, 0), None),
    "png 2 bits": (png(scaled(3, np.uint8), 2, 0), None),
    "png 4 bits": (png(scaled(15, np.uint8), 4, 0), None),
    "png 8": (png(scaled(255, np.uint8), 8, 0), None),
    "png 16": (png(scaled(65535, np.uint16), 16, 0), None),
    "png 12 in 16": (png(scaled(4095, np.uint16), 16, 0), TWELVE),
    "png 10 in 16": (png(scaled(1023, np.uint16), 16, 0), "end below 1024, so it was read as 10-bit"),
    "png 14 in 16": (png(scaled(16383, np.uint16), 16, 0), "end below 16384, so it was read as 14-bit"),
    "png 8 in 16": (png(scaled(255, np.uint16), 16, 0), "end below 256, so it was read as 8-bit"),
    "png 12 in 16, sBIT": (png(scaled(4095, np.uint16), 16, 0, (b"sBIT", b"\x0c")), None),
    "png 12 spread over 16, sBIT": (png(scaled(65535, np.uint16), 16, 0, (b"sBIT", b"\x0c")), None),
    "png 16 with alpha": (png(np.stack([scaled(65535, np.uint16), np.full((8, 24), 65535)], 2), 16, 4), None),
    **{
        f"png {bits} in 16 with alpha of {opaque}": (
            png(np.stack([scaled((1 << bits) - 1, np.uint16), np.full((8, 24), opaque)], 2), 16, 4),
            f"so it was read as {bits}-bit",
        )
        for bits, opaque in ((12, 65535), (10, 65535), (8, 65535), (12, 4095), (10, 1023))
    },
    "png 10 in 16 with alpha, sBIT": (
        png(np.stack([scaled(1023, np.uint16), np.full((8, 24), 65535)], 2), 16, 4, (b"sBIT", b"\x0a\x10")),
        None,
    ),
    "float nan": (tiff(np.where(np.eye(8, 24), np.nan, scaled(1, "f4")).astype("f4"), 32, sample_format=3), None),
}
for order in BOTH:
    GREYS |= {
        f"tiff 1 {order}": (tiff(STEPS, 1, order=order, packed=pack(scaled(1, int), 1)), None),
        f"tiff 1, white is zero {order}": (
            tiff(STEPS, 1, order=order, photometric=0, packed=pack(1 - scaled(1, int), 1)), None
        ),
        f"tiff 2 {order}": (tiff(STEPS, 2, order=order, packed=pack(scaled(3, int), 2)), None),
        f"tiff 4, white is zero {order}": (
            tiff(STEPS, 4, order=order, photometric=0, packed=pack(15 - scaled(15, int), 4)), None
        ),
        f"tiff 8 {order}": (tiff(scaled(255, np.uint8), 8, order=order), None),
        f"tiff 8, white is zero {order}": (tiff(255 - scaled(255, np.uint8), 8, order=order, photometric=0), None),
        f"tiff signed 8 {order}": (
            tiff(scaled(127, np.int8, -128), 8, order=order, sample_format=2), "signed 8-bit values were stretched"
        ),
        f"tiff 12 packed {order}": (tiff(STEPS, 12, order=order, packed=pack(scaled(4095, int), 12)), None),
        f"tiff 12 packed, white is zero {order}": (
            tiff(STEPS, 12, order=order, photometric=0, packed=pack(4095 - scaled(4095, int), 12)), None
        ),
        **{
            f"tiff {bits} packed, {name} is zero {order}": (
                tiff(STEPS, bits, order=order, photometric=photometric, packed=pack(steps, bits)),
                None,
            )
            for bits in (9, 10, 11, 13, 14, 15)
            for name, photometric, steps in (
                ("black", 1, scaled((1 << bits) - 1, int)),
                ("white", 0, (1 << bits) - 1 - scaled((1 << bits) - 1, int)),
            )
        },
        **{
            f"tiff {bits} in two bytes {order}": (tiff(scaled((1 << bits) - 1, np.uint16), bits, order=order), None)
            for bits in (10, 12, 14)
        },
        f"tiff 16 {order}": (tiff(scaled(65535, np.uint16), 16, order=order), None),
        f"tiff 16, white is zero {order}": (
            tiff(65535 - scaled(65535, np.uint16), 16, order=order, photometric=0), None
        ),
        f"tiff 12 in 16 {order}": (tiff(scaled(4095, np.uint16), 16, order=order), TWELVE),
        f"tiff 12 in 16, white is zero {order}": (
            tiff(4095 - scaled(4095, np.uint16), 16, order=order, photometric=0), TWELVE
        ),
        f"tiff 12 in 16, declared {order}": (
            tiff(scaled(4095, np.uint16), 16, order=order, tags={281: ("H", 4095)}), None
        ),
        f"tiff declared from and to {order}": (
            tiff(scaled(30_000, np.uint16, 900), 16, order=order, tags={280: ("H", 900), 281: ("H", 30_000)}), None
        ),
        f"tiff declared too little {order}": (
            tiff(scaled(4095, np.uint16), 16, order=order, tags={281: ("H", 255)}), TWELVE
        ),
        f"tiff 8 of no kind {order}": (tiff(scaled(255, np.uint8), 8, order=order, sample_format=4), None),
        f"tiff 12 in 16 of no kind {order}": (tiff(scaled(4095, np.uint16), 16, order=order, sample_format=4), TWELVE),
        f"tiff fractions that overstep {order}": (
            tiff(scaled(1.25, "f4"), 32, order=order, sample_format=3), STRETCHED
        ),
        f"tiff palette {order}": (
            tiff(scaled(255, np.uint8), 8, order=order, photometric=3, tags={320: ("H", RAMP * 3)}), None
        ),
        f"tiff palette of 8 bits {order}": (
            tiff(scaled(255, np.uint8), 8, order=order, photometric=3, tags={320: ("H", tuple(range(256)) * 3)}), None
        ),
        f"tiff signed 16 {order}": (
            tiff(scaled(32767, np.int16, -32768), 16, order=order, sample_format=2), STRETCHED
        ),
        f"tiff signed 16, none negative {order}": (
            tiff(scaled(4095, np.int16), 16, order=order, sample_format=2), TWELVE
        ),
        f"tiff signed 16, declared {order}": (
            tiff(scaled(500, "i2", -500), 16, order=order, sample_format=2, tags=FROM_TO), None
        ),
        f"tiff 32 {order}": (tiff(scaled(2**32 - 1, np.uint32), 32, order=order), STRETCHED),
        f"tiff 12 in 32 {order}": (tiff(scaled(4095, np.uint32), 32, order=order), TWELVE),
        f"tiff 16 in 32 {order}": (tiff(scaled(65535, np.uint32), 32, order=order), "read as 16-bit"),
        f"tiff signed 32 {order}": (tiff(scaled(9e8, np.int32, -9e8), 32, order=order, sample_format=2), STRETCHED),
        f"tiff fractions {order}": (tiff(scaled(1, "f4"), 32, order=order, sample_format=3), None),
        f"tiff fractions, white is zero {order}": (
            tiff(1 - scaled(1, "f4"), 32, order=order, sample_format=3, photometric=0), None
        ),
        f"tiff float to 255 {order}": (tiff(scaled(255, "f4"), 32, order=order, sample_format=3), "read as 8-bit"),
        f"tiff float to 4095 {order}": (tiff(scaled(4095, "f4"), 32, order=order, sample_format=3), TWELVE),
        f"tiff float of any range {order}": (tiff(scaled(7, "f4", -3), 32, order=order, sample_format=3), STRETCHED),
        f"tiff float, declared {order}": (
            tiff(scaled(7, "f4", -3), 32, order=order, sample_format=3, tags={340: ("f", -3.0), 341: ("f", 7.0)}), None
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", GREYS)
def test_grey(tmp_path: Path, name: str):
    data, note = GREYS[name]
    decoded = decode(tmp_path / "a", data)
    assert decoded.rejected == []
    (image,) = decoded.images
    shades = next((shades for start, shades in FEW_SHADES.items() if name.startswith(start)), 255)
    expected = np.rint(np.rint(STEPS * shades) * (255 / shades))
    difference = np.abs(image.pixels.astype(int) - expected)
    if "nan" in name:
        difference[:, np.eye(8, 24) == 1] = 0
    # 8-bit signed values, and 10 bits, have steps of their own.
    assert difference.max() <= 1
    assert [page for page, _ in decoded.notes] == ([] if note is None else [0])
    assert note is None or note in decoded.notes[0][1]


COLOURED: dict[str, tuple[bytes, str | None]] = {
    "png 8": (png(scaled(255, np.uint8, picture=COLOURS), 8, 2), None),
    "png 16": (png(scaled(65535, np.uint16, picture=COLOURS), 16, 2), None),
    "png 12 in 16": (png(scaled(4095, np.uint16, picture=COLOURS), 16, 2), TWELVE),
    "png 8 in 16": (png(scaled(255, np.uint16, picture=COLOURS), 16, 2), "read as 8-bit"),
    "png 12 in 16, sBIT": (png(scaled(4095, np.uint16, picture=COLOURS), 16, 2, (b"sBIT", b"\x0c\x0c\x0c")), None),
    "png 16 with alpha": (
        png(np.concatenate([scaled(65535, np.uint16, picture=COLOURS), np.full((8, 24, 1), 65535)], 2), 16, 6), None
    ),
    "png 12 in 16 with alpha": (
        png(np.concatenate([scaled(4095, np.uint16, picture=COLOURS), np.full((8, 24, 1), 65535)], 2), 16, 6), TWELVE
    ),
}  # fmt: skip


def opaque(white: int, value: int) -> np.ndarray:
    return np.concatenate([scaled(white, np.uint16, picture=COLOURS), np.full((8, 24, 1), value, np.uint16)], 2)


def apart(values: np.ndarray, order: str, photometric: int = 2, **tags: Any) -> bytes:
    """A TIFF of 16-bit channels, each in a plane of its own."""
    planes = values.transpose(2, 0, 1).astype(f"{order}u2")
    count, size = len(planes), planes[0].nbytes
    places = tuple(8 + number * size for number in range(count))
    more = {
        258: ("H", (16,) * count),
        277: ("H", count),
        284: ("H", 2),
        273: ("I", places),
        279: ("I", (size,) * count),
    }
    if tags.get("extra"):
        more[338] = ("H", tags["extra"])
    return tiff(values, 16, order=order, photometric=photometric, packed=planes.tobytes(), tags=more)


for order in BOTH:
    COLOURED |= {
        **{
            f"tiff {bits} packed {order}": (
                tiff(COLOURS, bits, order=order, photometric=2,
                     packed=pack(scaled((1 << bits) - 1, int, picture=COLOURS).reshape(8, -1), bits)),
                None,
            )
            for bits in (9, 10, 12, 14)
        },
        f"tiff 16 in planes {order}": (apart(scaled(65535, np.uint16, picture=COLOURS), order), None),
        f"tiff 12 in 16 in planes {order}": (apart(scaled(4095, np.uint16, picture=COLOURS), order), TWELVE),
        f"tiff 12 in 16 in planes with alpha {order}": (apart(opaque(4095, 65535), order, extra=2), TWELVE),
        **{
            f"tiff 12 in 16 with {extra} {order}": (
                tiff(opaque(4095, 65535), 16, order=order, photometric=2, tags={338: ("H", extra)}), TWELVE
            )
            for extra in (0, 1, 2)
        },
        f"tiff 12 in 16 with alpha of 12 {order}": (
            tiff(opaque(4095, 4095), 16, order=order, photometric=2, tags={338: ("H", 2)}), TWELVE
        ),
        f"tiff 8 {order}": (tiff(scaled(255, np.uint8, picture=COLOURS), 8, order=order, photometric=2), None),
        f"tiff 16 {order}": (tiff(scaled(65535, np.uint16, picture=COLOURS), 16, order=order, photometric=2), None),
        f"tiff 12 in 16 {order}": (
            tiff(scaled(4095, np.uint16, picture=COLOURS), 16, order=order, photometric=2), TWELVE
        ),
        f"tiff 12 in 16, declared {order}": (
            tiff(
                scaled(4095, np.uint16, picture=COLOURS), 16, order=order, photometric=2, tags={281: ("H", (4095,) * 3)}
            ),
            None,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", COLOURED)
def test_colours(tmp_path: Path, name: str):
    data, note = COLOURED[name]
    decoded = decode(tmp_path / "a", data)
    assert decoded.rejected == []
    expected = np.rint(COLOURS * 255).transpose(2, 0, 1)
    # Pillow takes the high bytes of full 16-bit colours.
    assert np.abs(decoded.images[0].pixels - expected).max() <= 1
    assert [page for page, _ in decoded.notes] == ([] if note is None else [0])
    assert note is None or note in decoded.notes[0][1]


@pytest.mark.parametrize("order", BOTH)
@pytest.mark.parametrize("white", [65535, 4095])
def test_black_of_cmyk_is_scaled_as_its_colours_are(tmp_path: Path, order: str, white: int):
    black = np.zeros((8, 24, 4), np.uint16)
    black[..., 3] = white - scaled(white, np.uint16)
    decoded = decode(tmp_path / "a", tiff(black, 16, order=order, photometric=5))
    assert np.abs(decoded.images[0].pixels - np.rint(STEPS * 255)).max() <= 1
    assert [TWELVE in note for _, note in decoded.notes] == ([True] if white == 4095 else [])


def test_planes_that_are_not_read_are_named(tmp_path: Path):
    decoded = decode(tmp_path / "a", apart(opaque(65535, 0), "<", photometric=5))
    assert decoded.images == []
    assert "CMYK, 4 channels of 16-bit unsigned values in separate planes, which is not read" in decoded.rejected[0][1]


def test_compressed_and_on_a_page(tmp_path: Path):
    """libtiff gives 16-bit colours in the machine's order, and the low bytes are fetched of the right page."""
    first = Image.fromarray(scaled(255, np.uint8, picture=COLOURS))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[first], compression="tiff_deflate")
    values = scaled(4095, np.uint16)
    Image.fromarray(values).save(tmp_path / "g.tif", compression="tiff_lzw")
    decoded = decode_file(tmp_path / "g.tif", Shape(3, 8, 24))
    assert np.abs(decoded.images[0].pixels[0] - np.rint(STEPS * 255)).max() == 0
    assert TWELVE in decoded.notes[0][1]
    pages = [Image.fromarray(scaled(top, np.uint16)) for top in (65535, 4095, 1023)]
    pages[0].save(tmp_path / "p.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    decoded = decode_file(tmp_path / "p.tif", Shape(3, 8, 24))
    assert [page for page, _ in decoded.notes] == [2, 3]
    assert all(np.abs(image.pixels[0] - np.rint(STEPS * 255)).max() <= 1 for image in decoded.images)


def test_transparent_values(tmp_path: Path):
    """tRNS names a value as it is stored: of 16 bits, or of fewer than 8."""
    values = scaled(65535, np.uint16)
    pixels = (
        decode(tmp_path / "a", png(values, 16, 0, (b"tRNS", struct.pack(">H", int(values[0, 5]))))).images[0].pixels
    )
    assert (pixels[0, 0, 4], pixels[0, 0, 5], pixels[0, 0, 6]) == (44, 255, 67)
    small = scaled(15, np.uint8)
    pixels = decode(tmp_path / "b", png(small, 4, 0, (b"tRNS", struct.pack(">H", 5)))).images[0].pixels
    assert (pixels[0][small == 5] == 255).all()
    assert (pixels[0][small == 6] == 102).all()
    colours = scaled(65535, np.uint16, picture=COLOURS)
    named = struct.pack(">HHH", *colours[0, 3].tolist())
    pixels = decode(tmp_path / "c", png(colours, 16, 2, (b"tRNS", named))).images[0].pixels
    assert pixels[:, 0, 3].tolist() == [255, 255, 255]
    assert pixels[:, 0, 4].tolist() != [255, 255, 255]


def test_black_images_are_not_noted(tmp_path: Path):
    for name, data in (
        ("a", png(np.zeros((8, 24), np.uint16), 16, 0)),
        ("b", png(np.zeros((8, 24, 3), np.uint16), 16, 2)),
        ("c", tiff(np.zeros((8, 24), np.float32), 32, sample_format=3)),
        ("d", tiff(np.full((8, 24), np.nan, np.float32), 32, sample_format=3)),
    ):
        decoded = decode(tmp_path / name, data)
        assert decoded.images[0].pixels.max() == 0
        assert decoded.notes == []


@pytest.mark.parametrize(
    ("values", "samples", "expected"),
    [
        ((0, 255), Samples(32, SIGNED), (0, 255)),
        ((-1000, 1000), Samples(32, SIGNED), (-1000, 1000)),
        ((0.0, 200_000.0), Samples(32, FLOAT), (0, 200_000)),
        ((3.0, 3.0), Samples(32, FLOAT), (0, 255)),
        ((0.0, 1.01), Samples(32, FLOAT), (0, 1.01)),
        ((0.0, 2.0), Samples(32, FLOAT), (0, 255)),
        ((1e6, 1e6), Samples(32, FLOAT), (1e6, 1e6 + 1)),
        ((0, 4095), Samples(16), (0, 4095)),
        ((0, 4096), Samples(16), (0, 16383)),
        ((0, 16384), Samples(16), (0, 65535)),
        ((0, 4095), Samples(16, significant=16), (0, 65535)),
        ((0, 500), Samples(16, low=0, high=1000), (0, 1000)),
    ],
)
def test_the_rule(values: tuple[float, float], samples: Samples, expected: tuple[float, float]):
    assert levels(*values, samples)[:2] == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            tiff(STEPS, 10, packed=pack(scaled(1023, int), 10), tags={317: ("H", 2)}),
            "grey, 1 channel of 10-bit unsigned",
        ),
        (tiff(STEPS, 6, packed=pack(scaled(63, int), 6)), "grey, 1 channel of 6-bit unsigned"),
        (tiff(scaled(65535, np.uint16, picture=COLOURS), 16, photometric=8), "CIE L*a*b*, 3 channels of 16-bit"),
    ],
)
def test_what_pillow_cannot_unpack_is_named(tmp_path: Path, data: bytes, expected: str):
    decoded = decode(tmp_path / "a.tif", data)
    assert decoded.images == []
    ((page, reason),) = decoded.rejected
    assert page == 0
    assert expected in reason
    assert reason.endswith("which is not read: convert it to 8 or 16 bits")


def test_pillow_is_left_as_it_was(tmp_path: Path):
    from PIL.TiffImagePlugin import OPEN_INFO

    before = dict(OPEN_INFO)
    decode(tmp_path / "a", tiff(scaled(4095, np.uint16), 16, order=">", photometric=0))
    assert before == OPEN_INFO


@pytest.mark.parametrize("order", BOTH)
def test_odd_tags_cost_no_pixels(tmp_path: Path, order: str):
    odd: dict[int, tuple[str, Any]] = {
        34665: ("I", 10**9),
        34853: ("I", 8),
        40965: ("I", 2**32 - 1),
        330: ("I", 0),
        282: ("I", 0),
        274: ("d", 1.5),
        34675: ("H", (1, 2, 3)),
        700: ("H", (65535,) * 50),
        305: ("H", 65535),
        65000: ("d", (1.0,) * 3000),
    }
    for tags in (*({number: value} for number, value in odd.items()), odd):
        decoded = decode(tmp_path / "a", tiff(scaled(255, np.uint8), 8, order=order, tags=tags))
        assert decoded.rejected == decoded.notes == [], tags
        assert np.abs(decoded.images[0].pixels[0] - np.rint(STEPS * 255)).max() <= 1
