from __future__ import annotations

import hashlib
import io
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photoflux.data.images import decoding, opening
from photoflux.data.images.decoding import Decoded, decode_file
from photoflux.data.images.formats import FORMATS
from photoflux.data.shape import Shape

# Top left red, top right green, bottom left blue, bottom right grey: every turn and flip shows.
QUARTERS = np.zeros((32, 48, 3), np.uint8)
QUARTERS[:16, :24], QUARTERS[:16, 24:], QUARTERS[16:, :24], QUARTERS[16:, 24:] = (
    (230, 20, 20), (20, 200, 20), (20, 20, 220), (128, 128, 128)
)  # fmt: skip
PICTURE = Image.fromarray(QUARTERS)


def one(path: Path, **shape: int) -> Decoded:
    decoded = decode_file(path, Shape(**{"channels": 3, "height": 32, "width": 48} | shape))
    assert decoded.rejected == []
    (image,) = decoded.images
    return image


def reason(path: Path) -> str:
    decoded = decode_file(path, Shape(3, 16, 16))
    assert decoded.images == []
    ((page, text),) = decoded.rejected
    assert page == 0
    return text


def corners(pixels: np.ndarray) -> np.ndarray:
    """The colours in the middle of the four quarters, (4, C)."""
    _, height, width = pixels.shape
    rows, columns = [height // 4, height // 4, height * 3 // 4, height * 3 // 4], [width // 4, width * 3 // 4] * 2
    return pixels[:, rows, columns].T.astype(int)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.png", {}, 0),
        ("a.bmp", {}, 0),
        ("a.tif", {}, 0),
        ("lzw.tif", {"compression": "tiff_lzw"}, 0),
        ("a.gif", {}, 0),
        ("a.webp", {"lossless": True}, 0),
        ("a.jp2", {}, 0),
        ("a.j2k", {}, 0),
        ("a.avif", {"quality": 100, "subsampling": "4:4:4"}, 2),
        ("a.jpg", {"quality": 95, "subsampling": 0}, 4),
    ],
)
def test_formats(tmp_path: Path, name: str, options: dict[str, object], tolerance: int):
    path = saved(tmp_path / name, PICTURE, **options)
    image = one(path)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (3, 32, 48)
    assert image.pixels.flags.c_contiguous
    assert np.abs(image.pixels.transpose(1, 2, 0).astype(int) - QUARTERS)[2:14, 2:22].max() <= tolerance
    assert np.abs(corners(image.pixels) - corners(QUARTERS.transpose(2, 0, 1))).max() <= tolerance
    assert (image.page, image.width, image.height) == (0, 48, 32)
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_content_decides_not_the_extension(tmp_path: Path):
    path = saved(tmp_path / "really-a-png.jpg", PICTURE, format="PNG")
    assert np.array_equal(one(path).pixels.transpose(1, 2, 0), QUARTERS)
    (tmp_path / "a.png").write_text("these are words")
    assert reason(tmp_path / "a.png") == "a text file: not an image"


def test_resizing_is_antialiased_bilinear(tmp_path: Path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    image = one(saved(tmp_path / "a.png", Image.fromarray(stripes)), height=16, width=16)
    assert (image.width, image.height) == (64, 64)
    assert np.abs(image.pixels[:, :, 1:-1].astype(int) - 127).max() <= 1
    expected = Image.fromarray(stripes).resize((20, 9), Image.Resampling.BILINEAR)
    assert np.array_equal(one(tmp_path / "a.png", height=9, width=20).pixels.transpose(1, 2, 0), np.asarray(expected))


def test_a_large_jpeg_is_drafted_but_reported_whole(tmp_path: Path):
    large = PICTURE.resize((1200, 800), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = 6
    image = one(saved(tmp_path / "a.jpg", large), height=32, width=48)
    assert (image.width, image.height) == (1200, 800)
    assert np.abs(corners(image.pixels) - corners(QUARTERS.transpose(2, 0, 1))).max() <= 5
    turned = one(saved(tmp_path / "b.jpg", large, exif=exif), height=48, width=32)
    assert (turned.width, turned.height) == (800, 1200)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_exif_orientation(tmp_path: Path, orientation: int, ending: str):
    # How a camera stores an upright picture under each orientation, from the EXIF standard.
    stored = {
        1: QUARTERS,
        2: QUARTERS[:, ::-1],
        3: QUARTERS[::-1, ::-1],
        4: QUARTERS[::-1],
        5: QUARTERS.transpose(1, 0, 2),
        6: np.rot90(QUARTERS, 1),
        7: QUARTERS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(QUARTERS, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} | ({"quality": 95} if ending == "jpg" else {})
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(np.ascontiguousarray(stored)), **options)
    image = one(path)
    assert (image.width, image.height) == (48, 32)
    assert np.abs(corners(image.pixels) - corners(QUARTERS.transpose(2, 0, 1))).max() <= 12


def test_an_impossible_orientation_and_damaged_exif_are_ignored(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 77
    one(saved(tmp_path / "a.jpg", PICTURE, exif=exif))
    one(saved(tmp_path / "b.jpg", PICTURE, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x00garbage"))


GREY = np.array(PICTURE.convert("L"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I;16", "I", "F"])
def test_modes(tmp_path: Path, mode: str):
    """Every mode that a file can have comes out as the picture, as far as the mode can hold it."""
    expected = QUARTERS
    if mode == "1":
        image = PICTURE.convert("1", dither=Image.Dither.NONE)
        expected = np.repeat(np.array(image.convert("L"))[..., None], 3, 2)
    elif mode == "P":
        image = PICTURE.quantize(8)
    elif mode == "PA":
        image = PICTURE.quantize(8).convert("PA")
    elif mode == "LAB":
        from PIL import ImageCms

        image = ImageCms.profileToProfile(
            PICTURE, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    elif mode == "HSV":
        image = PICTURE.convert("HSV")
    elif mode in ("I;16", "I", "F"):
        expected = np.repeat(GREY[..., None], 3, 2)
        scale = {"I;16": 257, "I": 257, "F": 1 / 255}[mode]
        image = Image.fromarray(
            (GREY.astype(np.float64) * scale).round(6).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        )
    else:
        image = PICTURE.convert(mode)
        if mode in ("L", "LA"):
            expected = np.repeat(GREY[..., None], 3, 2)
    if mode in ("PA", "HSV"):
        from photoflux.data.images.colours import to_rgb

        pixels = np.asarray(to_rgb(image)).transpose(2, 0, 1)
    else:
        path = saved(tmp_path / f"a.{'png' if mode in ('1', 'L', 'LA', 'P', 'RGBA') else 'tif'}", image)
        with Image.open(path) as stored:
            assert stored.mode == mode
        pixels = one(path).pixels
    tolerance = {"YCbCr": 3, "HSV": 3, "LAB": 6}.get(mode, 1)
    assert np.abs(corners(pixels) - corners(expected.transpose(2, 0, 1))).max() <= tolerance


def test_16_bit_png_is_scaled_not_clipped(tmp_path: Path):
    ramp = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16)
    path = saved(tmp_path / "a.png", Image.fromarray(ramp))
    assert np.abs(one(path).pixels[0].astype(int) - np.rint(ramp / 257)).max() == 0


def test_transparency_is_laid_on_white(tmp_path: Path):
    image = Image.new("RGBA", (48, 32), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 24, 32))
    image.paste((0, 0, 0, 128), (24, 16, 48, 32))
    pixels = corners(one(saved(tmp_path / "a.png", image)).pixels)
    assert pixels.tolist() == [[0, 0, 255], [255, 255, 255], [0, 0, 255], [127, 127, 127]]
    palette = Image.new("P", (48, 32), 1)
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.paste(0, (0, 0, 24, 32))
    for name in ("p.png", "p.gif"):
        pixels = corners(one(saved(tmp_path / name, palette, transparency=1)).pixels)
        assert pixels.tolist() == [[9, 9, 9], [255, 255, 255], [9, 9, 9], [255, 255, 255]]
    grey = Image.fromarray(GREY)
    level = int(GREY[0, 0])
    assert corners(one(saved(tmp_path / "l.png", grey, transparency=level)).pixels)[0].tolist() == [255, 255, 255]


def test_one_channel(tmp_path: Path):
    image = one(saved(tmp_path / "a.png", PICTURE), channels=1)
    assert image.pixels.shape == (1, 32, 48)
    assert np.array_equal(image.pixels[0], GREY)


def test_animations_give_their_first_frame(tmp_path: Path):
    other = Image.new("RGB", PICTURE.size, "white")
    for name in ("a.gif", "a.webp", "a.png"):
        path = saved(tmp_path / name, PICTURE, save_all=True, append_images=[other, other])
        assert np.abs(corners(one(path).pixels) - corners(QUARTERS.transpose(2, 0, 1))).max() <= 12


def test_every_page_of_a_tiff_is_an_image(tmp_path: Path):
    white, large = Image.new("1", (20, 30), 1), Image.new("L", (100, 50), 7)
    path = saved(tmp_path / "scan.tif", PICTURE, save_all=True, append_images=[white, large])
    decoded = decode_file(path, Shape(3, 32, 48))
    assert decoded.rejected == []
    assert [(i.page, i.width, i.height) for i in decoded.images] == [(1, 48, 32), (2, 20, 30), (3, 100, 50)]
    assert np.array_equal(decoded.images[0].pixels.transpose(1, 2, 0), QUARTERS)
    assert decoded.images[1].pixels.min() == 255
    assert decoded.images[2].pixels.max() == 7
    assert len({image.sha256 for image in decoded.images}) == 3


def test_a_damaged_page_costs_only_itself(tmp_path: Path):
    noise = [Image.fromarray(np.random.default_rng(k).integers(0, 256, (40, 40, 3), dtype=np.uint8)) for k in range(3)]
    path = saved(tmp_path / "a.tif", noise[0], save_all=True, append_images=noise[1:], compression="tiff_deflate")
    with Image.open(path) as image:
        image.seek(1)
        offset, length = image.tag_v2[273][0], image.tag_v2[279][0]
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = bytes(length)
    path.write_bytes(data)
    decoded = decode_file(path, Shape(3, 40, 40))
    assert [image.page for image in decoded.images] == [1, 3]
    assert [page for page, _ in decoded.rejected] == [2]
    assert decoded.rejected[0][1].startswith("broken TIFF: ")


def test_thumbnails_within_a_tiff_and_pages_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.tif"
    frames = [Image.new("L", (9, 9), k) for k in range(4)]
    frames[1].encoderinfo = {"tiffinfo": {254: 1}}
    frames[0].save(path, save_all=True, append_images=frames[1:])
    decoded = decode_file(path, Shape(3, 8, 8))
    assert [image.page for image in decoded.images] == [1, 3, 4]
    assert decoded.rejected == [(2, "a reduced copy of another page")]
    monkeypatch.setattr(decoding, "MAX_PAGES", 3)
    decoded = decode_file(path, Shape(3, 8, 8))
    assert [image.page for image in decoded.images] == [1, 3]
    assert decoded.rejected[1] == (0, "has 4 pages, those after page 3 were left out")


def test_files_that_are_no_images(tmp_path: Path):
    for name, data, expected in [
        ("empty.jpg", b"", "an empty file (0 bytes)"),
        ("noise.raw", bytes(range(7, 256)), f"not a {FORMATS} file, and nothing else"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "broken JPEG: its header cannot be read"),
        ("a.bmp", b"BM is the start of a sentence", "broken BMP: "),
        ("a.tif", b"II*\x00\x08\x00\x00\x00", "broken TIFF: "),
    ]:
        (tmp_path / name).write_bytes(data)
        assert reason(tmp_path / name).startswith(expected), name
    assert reason(tmp_path) == "not a regular file"
    assert reason(tmp_path / "none") == "the file has gone"
    (tmp_path / "link.png").symlink_to("nowhere.png")
    assert reason(tmp_path / "link.png") == "a link to nothing"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        assert reason(tmp_path / "pipe.png") == "not a regular file"


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "webp", "tif", "bmp", "jp2", "avif"])
def test_truncated_files_have_a_reason_at_any_length(tmp_path: Path, ending: str):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    data = saved(tmp_path / f"whole.{ending}", noise).read_bytes()
    path = tmp_path / f"cut.{ending}"
    for share in (0.02, 0.2, 0.5, 0.8):
        path.write_bytes(data[: int(len(data) * share)])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert reason(path).startswith("broken "), share
        assert caught == []
        assert reason(path) == reason(path)
        assert " at 0x" not in reason(path)


def test_any_damage_gives_an_image_or_a_reason(tmp_path: Path):
    """Bytes overwritten anywhere: never an exception, never a warning."""
    rng = np.random.default_rng(0)
    for ending in ("jpg", "png", "gif", "webp", "tif", "bmp", "jp2", "avif"):
        data = saved(tmp_path / f"a.{ending}", PICTURE).read_bytes()
        for _ in range(25):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), 4).tolist():
                damaged[place] = int(rng.integers(0, 256))
            (tmp_path / "b").write_bytes(damaged)
            decoded = decode_file(tmp_path / "b", Shape(3, 8, 8))
            assert decoded.images or decoded.rejected


def test_a_decompression_bomb_is_refused_before_it_grows(tmp_path: Path):
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "PNG")
    data = buffer.getvalue()
    header = struct.pack(">II", 20_000, 10_001) + data[24:29]
    import zlib

    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "bomb.png").write_bytes(data[:16] + header + crc + data[33:])
    assert (
        reason(tmp_path / "bomb.png")
        == "has 20000 × 10001 pixels, the limit is 200 million: make it smaller, or cut it into parts"
    )
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None, "Pillow's own limit is put back"


def test_too_large_and_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = saved(tmp_path / "a.png", PICTURE)
    monkeypatch.setattr(opening, "MAX_BYTES", 10)
    assert "larger than" in reason(path)
    monkeypatch.undo()

    def denied(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert reason(path) == "cannot be read: Permission denied"


def test_equal_pictures_hash_alike_others_do_not(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC)
    first = one(saved(tmp_path / "a.png", smooth)).phash
    again = one(saved(tmp_path / "b.jpg", smooth.resize((200, 150)), quality=70)).phash
    other = one(saved(tmp_path / "c.png", smooth.rotate(90))).phash
    assert (first ^ again).bit_count() <= 2
    assert (first ^ other).bit_count() > 10


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "I;16", "CMYK"])
def test_large_images_are_reduced_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str):
    """Nearly what they would be otherwise: a mean of squares before the filter, which averages anyway."""
    noise = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((1703, 1301), Image.Resampling.BICUBIC)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    if "A" in mode:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    path = saved(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), image)
    whole = one(path, height=30, width=40)
    monkeypatch.setattr(decoding, "LARGE", 1_000_000)
    reduced = one(path, height=30, width=40)
    assert (reduced.width, reduced.height) == (1703, 1301)
    assert np.abs(reduced.pixels.astype(int) - whole.pixels).max() <= 3
    assert (reduced.phash ^ whole.phash).bit_count() <= 4
    with pytest.raises(decoding.TooLargeError):
        list(decoding.decode_parts(path, Shape(3, 30, 40), large=False))
