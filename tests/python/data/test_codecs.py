"""JPEG 2000, AVIF, HEIC and MPO: the picture as it was, turned once; a reason where a library or a part is missing."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from photoflux.data.images import libraries, opening
from photoflux.data.images.decoding import Decoded, TooLargeError, decode_file, decode_parts
from photoflux.data.images.items import hide_metadata
from photoflux.data.images.jpeg2000 import Codestream, codestream
from photoflux.data.images.opening import source_of
from photoflux.data.images.pages import read_page
from photoflux.data.images.parallel import decode_files
from photoflux.data.shape import Shape

NOISE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
# How a camera stores an upright picture under each orientation, from the EXIF standard.
STORED = {
    1: NOISE,
    2: NOISE[:, ::-1],
    3: NOISE[::-1, ::-1],
    4: NOISE[::-1],
    5: NOISE.transpose(1, 0, 2),
    6: np.rot90(NOISE, 1),
    7: NOISE[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(NOISE, -1),
}


def saved(kind: str, values: np.ndarray | Image.Image = NOISE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = values if isinstance(values, Image.Image) else Image.fromarray(np.ascontiguousarray(values))
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jp2(values: np.ndarray | Image.Image = NOISE, **options: Any) -> bytes:
    return saved("JPEG2000", values, irreversible=False, **options)


def avif(values: np.ndarray | Image.Image = NOISE, **options: Any) -> bytes:
    if not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    return saved("AVIF", values, **{"quality": 100, "subsampling": "4:4:4"} | options)


def heic(values: np.ndarray | Image.Image = NOISE, *, orientation: int = 1, **options: Any) -> bytes:
    """A HEIC without loss: the identity in place of YCbCr, and no channel at half the size."""
    library = pytest.importorskip("pillow_heif", reason="needs the extra 'formats'")
    image = values if isinstance(values, Image.Image) else Image.fromarray(np.ascontiguousarray(values))
    file = library.from_pillow(image)
    exif = Image.Exif()
    exif[0x0112] = orientation
    # It writes the turn of the EXIF that the image has.
    file[0].info["exif"] = exif.tobytes()
    buffer = io.BytesIO()
    file.save(buffer, **{"quality": -1, "chroma": 444, "matrix_coefficients": 0} | options)
    return buffer.getvalue()


def one(path: Path, data: bytes, height: int = 64, width: int = 96, channels: int = 3) -> Decoded:
    path.write_bytes(data)
    decoded = decode_file(path, Shape(channels, height, width))
    assert decoded.rejected == decoded.notes == []
    (image,) = decoded.images
    return image


def off(image: Decoded, expected: np.ndarray = NOISE) -> int:
    return int(np.abs(image.pixels.transpose(1, 2, 0).astype(int) - expected).max())


def reason(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    decoded = decode_file(path, Shape(3, 16, 16))
    assert decoded.images == []
    ((page, text),) = decoded.rejected
    assert page == 0
    return text


def test_without_loss(tmp_path: Path):
    for data in (jp2(), jp2(no_jp2=True), jp2(tile_size=(32, 32)), heic()):
        image = one(tmp_path / "a", data)
        assert off(image) == 0
        assert (image.page, image.width, image.height) == (0, 96, 64)
        assert np.array_equal(np.asarray(read_page(tmp_path / "a", 0)), NOISE)


def test_avif(tmp_path: Path):
    """At its best quality it keeps YCbCr of 8 bits without loss: rounding each of Y, Cb and Cr by 1/2.

    R = Y + 1.402 Cr is off by up to 1/2 + 1.402/2 + 1/2 = 1.7 and B = Y + 1.772 Cb by 1.9, and clipping adds at most 1.
    """
    assert off(one(tmp_path / "a", avif())) <= 3
    # mif1, the container's brand, may stand first.
    data = avif()
    assert off(one(tmp_path / "b", data.replace(b"ftypavif", b"ftypmif1", 1))) <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_once(tmp_path: Path, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = one(tmp_path / "a", avif(STORED[orientation], exif=exif))
    assert (image.width, image.height) == (96, 64)
    assert off(image) <= 3
    image = one(tmp_path / "b", heic(STORED[orientation], orientation=orientation))
    assert (image.width, image.height) == (96, 64)
    assert off(image) == 0
    assert read_page(tmp_path / "b", 0).size == (96, 64)


def test_the_container_says_how_it_is_turned_not_the_exif(tmp_path: Path):
    """As its standard has it: a copy of a picture that was turned already often keeps the camera's EXIF."""
    data = heic()
    upright = b"\x01\x12\0\3\0\0\0\1\0\1"
    assert data.count(upright) == 1
    assert off(one(tmp_path / "a", data.replace(upright, upright[:-1] + b"\6"))) == 0


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK"])
def test_modes_of_jpeg_2000(tmp_path: Path, mode: str):
    image = Image.fromarray(NOISE).convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(NOISE[..., 0]))
    image.save(tmp_path / "same.tif")
    expected = one(tmp_path / "b", (tmp_path / "same.tif").read_bytes()).pixels
    assert np.array_equal(one(tmp_path / "a", jp2(image)).pixels, expected)


def test_transparency_is_laid_on_white(tmp_path: Path):
    image = Image.fromarray(NOISE)
    image.putalpha(0)
    for data in (jp2(image), avif(image), heic(image)):
        assert one(tmp_path / "a", data).pixels.min() == 255


def box(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data) + 8, name) + data


def palette_jp2(places: np.ndarray, colours: list[tuple[int, int, int]]) -> bytes:
    """A JP2 whose values are places in a palette."""
    stream = jp2(places, no_jp2=True)
    height, width = places.shape
    header = box(b"ihdr", struct.pack(">IIHBBBB", height, width, 1, 7, 7, 0, 0))
    header += box(b"colr", struct.pack(">BBBI", 1, 0, 0, 16))
    header += box(b"pclr", struct.pack(">HB3B", len(colours), 3, 7, 7, 7) + bytes(np.ravel(colours).tolist()))
    header += box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, channel) for channel in range(3)))
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", header) + box(b"jp2c", stream)


def test_a_palette_of_jpeg_2000_is_resolved_and_never_averaged(tmp_path: Path):
    colours = [(250, 0, 0), (0, 240, 0), (0, 0, 230), (9, 9, 9)]
    places = np.repeat(np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2), 256, 0), 256, 1)
    data = palette_jp2(places, colours)
    assert codestream(io.BytesIO(data)).halvings == 0
    image = one(tmp_path / "a", data, 16, 16)
    assert (image.width, image.height) == (512, 512)
    assert [image.pixels[:, row, column].tolist() for row in (4, 12) for column in (4, 12)] == [
        list(colour) for colour in colours
    ]


def deep_jp2(values: np.ndarray, bits: int) -> bytes:
    """A JPEG 2000 of values of fewer than 16 bits, which Pillow does not write.

    It codes values less half their range: those of 16 bits with another middle are the same stream but for the depth.
    """
    data = bytearray(jp2(values + np.uint16(32768 - (1 << bits - 1)), no_jp2=True))
    depth = data.index(b"\xff\x51") + 40
    assert data[depth] == 15
    data[depth] = bits - 1
    return bytes(data)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_more_than_8_bits(tmp_path: Path, bits: int):
    white = (1 << bits) - 1
    values = np.linspace(0, white, 96 * 64).reshape(64, 96).astype(np.uint16)
    data = jp2(values) if bits == 16 else deep_jp2(values, bits)
    assert codestream(io.BytesIO(data)).bits == bits
    assert np.array_equal(one(tmp_path / "a", data).pixels[0], np.rint(values * (255 / white)))
    # A declared depth holds for a dark picture as well.
    dark = values // 8
    data = jp2(dark) if bits == 16 else deep_jp2(dark, bits)
    (tmp_path / "b").write_bytes(data)
    decoded = decode_file(tmp_path / "b", Shape(1, 64, 96))
    if bits == 16:
        # 16 bits are what everything is stored in: values that end below 8192 are taken for 14.
        assert "read as 14-bit" in decoded.notes[0][1]
    else:
        assert decoded.notes == []
        assert np.array_equal(decoded.images[0].pixels[0], np.rint(dark * (255 / white)))


def test_dark_colours_of_16_bits_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow keeps their high bytes only, and writes no such file: one of 8 bits is said to have 16."""
    monkeypatch.setattr(opening, "codestream", lambda file: Codestream(16, 0))
    for greatest, noted in ((0, False), (63, True), (64, False)):
        (tmp_path / "a").write_bytes(jp2(np.full((64, 96, 3), greatest, np.uint8)))
        decoded = decode_file(tmp_path / "a", Shape(3, 8, 8))
        assert decoded.images[0].pixels.max() == greatest
        assert ["it is dark" in note for _, note in decoded.notes] == [True] * noted


@pytest.mark.parametrize("dark", [1, 8])
def test_more_than_8_bits_of_heic(tmp_path: Path, dark: int):
    """Grey comes in 16 bits, of which the file has the upper 10: rounding is 1/4 of a step in 8."""
    values = np.linspace(0, 65535 // dark, 96 * 64).reshape(64, 96).astype(np.uint16)
    image = one(tmp_path / "a", heic(values, chroma=None, matrix_coefficients=6), channels=1)
    assert np.abs(image.pixels[0] - values / 257).max() <= 1


def test_a_large_jpeg_2000_is_decoded_smaller_and_reported_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from photoflux.data.images import decoding

    # 1300 × 900 are 1.2 million pixels, halved twice they are 73,000.
    monkeypatch.setattr(decoding, "LARGE", 100_000)
    smooth = Image.fromarray(NOISE[:4, :5]).resize((1300, 900), Image.Resampling.BICUBIC)
    for data in (jp2(smooth), jp2(smooth, no_jp2=True)):
        (tmp_path / "a").write_bytes(data)
        image = one(tmp_path / "a", data, 30, 40)
        assert (image.width, image.height) == (1300, 900)
        # Up to an eighth of a pixel off; of the 8 pixels between two values one takes up to 1.5 × 255 / 8 = 48.
        assert off(image, np.asarray(smooth.resize((40, 30), Image.Resampling.BILINEAR))) <= 6
        assert codestream(io.BytesIO(data)) == Codestream(8, 5)
        assert list(decode_parts(tmp_path / "a", Shape(3, 30, 40), large=False))


def test_fewer_sizes_than_the_header_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    smooth = Image.fromarray(NOISE[:9, :13]).resize((640, 480), Image.Resampling.BICUBIC)
    expected = np.asarray(smooth.resize((40, 30), Image.Resampling.BILINEAR))
    data = jp2(smooth, no_jp2=True, num_resolutions=1)
    assert codestream(io.BytesIO(data)).halvings == 0
    assert off(one(tmp_path / "a", data, 30, 40), expected) == 0
    monkeypatch.setattr(opening, "codestream", lambda file: Codestream(8, 5))
    image = one(tmp_path / "a", data, 30, 40)
    assert (image.width, image.height) == (640, 480)
    assert off(image, expected) == 0


def test_a_large_one_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from photoflux.data.images import decoding

    monkeypatch.setattr(decoding, "LARGE", 96 * 64 - 1)
    for data in (jp2(), avif(), heic()):
        (tmp_path / "a").write_bytes(data)
        with pytest.raises(TooLargeError):
            list(decode_parts(tmp_path / "a", Shape(3, 64, 96), large=False))


def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path):
    data = bytearray(jp2(no_jp2=True))
    place = data.index(b"\xff\x51") + 6
    struct.pack_into(">II", data, place, 20_000, 10_001)
    assert reason(tmp_path / "a", bytes(data)).startswith("has 20000 × 10001 pixels, the limit is 200 million")
    data = bytearray(heic())
    place = data.index(b"ispe") + 8
    struct.pack_into(">II", data, place, 20_000, 10_001)
    assert reason(tmp_path / "b", bytes(data)).startswith("has 20000 × 10001 pixels, the limit is 200 million")


def test_sequences_give_their_first_image(tmp_path: Path):
    other = Image.new("RGB", (96, 64), "white")
    library = pytest.importorskip("pillow_heif", reason="needs the extra 'formats'")
    assert off(one(tmp_path / "a", avif(Image.fromarray(NOISE), save_all=True, append_images=[other, other]))) <= 3
    assert off(one(tmp_path / "b", heic(save_all=True, append_images=[library.from_pillow(other)[0]]))) == 0


def hidden_in(data: bytes) -> bytes:
    file = hide_metadata(io.BytesIO(data))
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("make", [avif, heic])
def test_metadata_is_not_read(tmp_path: Path, make: Any):
    plain = one(tmp_path / "a", make())
    xmp = b"<x:xmpmeta/>" + b" " * 100_000
    data = make(exif=b"Exif\0\0II*\0\x08\0\0\0\0\0" + b"garbage" * 9, xmp=xmp)
    # Such as a directory beyond the end.
    data = data.replace(b"II*\0\x08\0\0\0", b"II*\0\xff\xff\xff\xff")
    hidden = hidden_in(data)
    assert len(hidden) == len(data)
    assert sum(a != b for a, b in zip(hidden, data, strict=True)) in range(4, 9)
    assert np.array_equal(one(tmp_path / "b", data).pixels, plain.pixels)
    with source_of("AVIF" if make is avif else "HEIF", io.BytesIO(data)).open() as image:
        assert not image.info.get("exif") and not image.info.get("xmp")


def test_damaged_boxes_end_the_walk(tmp_path: Path):
    data = heic()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, 420, 6).tolist():
            damaged[place] = int(rng.integers(0, 256))
        hidden_in(bytes(damaged))
        codestream(io.BytesIO(bytes(damaged)))
    # A box that is longer than the file, and one that has no length.
    assert hidden_in(b"\xff\xff\xff\xffmeta") == b"\xff\xff\xff\xffmeta"
    assert hidden_in(b"\0\0\0\1meta" + bytes(8)) == b"\0\0\0\1meta" + bytes(8)


@pytest.mark.parametrize("make", [jp2, avif, heic])
def test_any_damage_gives_an_image_or_a_reason(tmp_path: Path, make: Any):
    data = make()
    rng = np.random.default_rng(0)
    for share in (0.01, 0.1, 0.5, 0.9):
        assert reason(tmp_path / "a", data[: int(len(data) * share)]).startswith(("broken ", "a HEIC")), share
    for _ in range(40):
        damaged = bytearray(data)
        for place in rng.integers(0, 500, 3).tolist():
            damaged[place] = int(rng.integers(0, 256))
        (tmp_path / "b").write_bytes(damaged)
        decoded = decode_file(tmp_path / "b", Shape(3, 8, 8))
        assert decoded.images or decoded.rejected


INSTALL = "a HEIC or HEIF image, which needs the package pillow-heif: install it, pip install 'photoflux[formats]'"
HEIC_START = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic"


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for start in (b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic", b"hevc\0\0\0\0msf1hevc"):
        assert reason(tmp_path / "a", b"\0\0\0\x1cftyp" + start) == INSTALL


def test_a_missing_library_is_named_by_the_processes_that_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "pillow_heif.py").write_text("raise ImportError('hidden')")
    # A new process has the path of this one.
    monkeypatch.syspath_prepend(tmp_path / "hidden")
    (tmp_path / "a").write_bytes(HEIC_START)
    ((_, decoded),) = list(decode_files([tmp_path / "a"], Shape(3, 8, 8), processes=2))
    assert decoded.rejected == [(0, INSTALL)]


def test_a_pillow_without_a_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(libraries.features, "check", lambda name: False)
    text = reason(tmp_path / "a", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1")
    assert text.startswith(f"an AVIF image, which this Pillow ({Image.__version__}) was built without")
    assert text.endswith("pip install --upgrade 'pillow>=11.3'")
    assert reason(tmp_path / "a", jp2()).startswith("a JPEG 2000 image, which this Pillow")


def test_the_first_image_of_an_mpo(tmp_path: Path):
    other = Image.new("RGB", (96, 64), "white")
    data = saved("MPO", save_all=True, append_images=[other], quality=95)
    second = data.index(b"\xff\xd8\xff", 2)
    with Image.open(io.BytesIO(data[:second])) as first:
        expected = np.asarray(first)
    image = one(tmp_path / "a", data)
    assert (image.page, image.width, image.height) == (0, 96, 64)
    assert off(image, expected) == 0
    # Of a damaged second image nothing is needed.
    assert off(one(tmp_path / "b", data[: second + 200]), expected) == 0
    assert reason(tmp_path / "c", data[: second // 2]).startswith("broken JPEG: ")


@pytest.mark.parametrize("make", [jp2, avif, heic])
def test_large_files_are_read_piece_by_piece(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch):
    small = one(tmp_path / "a", make())
    monkeypatch.setattr(opening, "_IN_MEMORY", 10)
    large = one(tmp_path / "a", make())
    assert (small.sha256, small.phash) == (large.sha256, large.phash)
    assert np.array_equal(small.pixels, large.pixels)


def test_pillow_is_left_as_it_was(tmp_path: Path):
    Image.init()
    before = list(Image.ID), dict(Image.OPEN)
    one(tmp_path / "a", heic())
    assert (list(Image.ID), dict(Image.OPEN)) == before
