"""JPEGs with and without their end marker, and with metadata of every kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photoflux.data.images.decoding import DecodedFile, decode_file
from photoflux.data.shape import Shape

SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize(
    (160, 120), Image.Resampling.BICUBIC
)
OPTIONS = {
    "baseline": {"quality": 75},
    "fine": {"quality": 98, "subsampling": 0},
    "progressive": {"quality": 85, "progressive": True},
    "restarts": {"quality": 80, "restart_marker_blocks": 3},
    "optimised": {"quality": 60, "optimize": True},
}
# Two bytes or more of data that says nothing are no error where they are a comment.
APP = {
    "a comment": b"\xff\xfe\x00\x0bcomment..",
    "a damaged EXIF": b"\xff\xe1\x00\x14Exif\0\0II*\0\xff\xff\xff\xff\0\0",
    "a damaged XMP": b"\xff\xe1\x00\x24http://ns.adobe.com/xap/1.0/\0<x:x",
    "a damaged colour profile": b"\xff\xe2\x00\x12ICC_PROFILE\0\x05\x01\xff\xff",
    "a damaged list of images": b"\xff\xe2\x00\x10MPF\0II*\0\xff\xff\xff\x7f\0\0",
    "a short JFIF": b"\xff\xe0\x00\x07JFIF\0",
    "a short Adobe": b"\xff\xee\x00\x07Adobe",
    "a damaged Photoshop segment": b"\xff\xed\x00\x1ePhotoshop 3.0\x008BIM\x04\x04\xff\xff\xff\xff\xff\xff",
    "a thousand large segments": (b"\xff\xe5\xff\xff" + b"x" * 65533) * 1000,
    "fill bytes": b"\xff\xff\xff\xff\xff\xfe\x00\x04ab",
}


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def decode(folder: Path, data: bytes) -> DecodedFile:
    (folder / "a.jpg").write_bytes(data)
    return decode_file(folder / "a.jpg", Shape(3, 40, 60))


@pytest.mark.parametrize(
    ("mode", "options"), [*(("RGB", options) for options in OPTIONS), ("L", "restarts"), ("CMYK", "progressive")]
)
def test_a_missing_end_marker_costs_nothing_missing_pixels_the_image(tmp_path: Path, mode: str, options: str):
    data = jpeg(SMOOTH.convert(mode), **OPTIONS[options])
    whole = decode(tmp_path, data).images[0].pixels
    for end in (b"", b"\xff"):
        decoded = decode(tmp_path, data[:-2] + end)
        assert decoded.rejected == []
        assert np.array_equal(decoded.images[0].pixels, whole)
    # Every place where the last bytes can end, and some before.
    for cut in [*range(3, 20), *range(21, 1000, 71)]:
        decoded = decode(tmp_path, data[:-cut])
        if decoded.images:
            # What was cut made no difference to any pixel.
            assert np.array_equal(decoded.images[0].pixels, whole), cut
            assert cut < 6
        else:
            assert decoded.rejected[0][1].startswith("broken JPEG: "), cut


@pytest.mark.parametrize("options", ["baseline", "restarts", "progressive"])
def test_an_end_marker_before_the_end_hides_nothing(tmp_path: Path, options: str):
    """Programs that repair files put one behind what they have."""
    data = jpeg(SMOOTH, **OPTIONS[options])
    for share in (0.4, 0.6, 0.8):
        decoded = decode(tmp_path, data[: int(len(data) * share)] + b"\xff\xd9")
        assert decoded.images == [], share
        assert decoded.rejected[0][1].startswith("broken JPEG: "), share


def test_a_grey_corner_is_no_sign_of_a_cut(tmp_path: Path):
    picture = SMOOTH.copy()
    picture.paste((128, 128, 128), (100, 60, 160, 120))
    for options in OPTIONS.values():
        assert decode(tmp_path, jpeg(picture, **options)).rejected == []


def test_what_follows_the_end_is_ignored(tmp_path: Path):
    data = jpeg(SMOOTH)
    whole = decode(tmp_path, data).images[0].pixels
    for more in (b"\0" * 5000, b"words " * 1000, data, bytes(range(256)) * 9):
        decoded = decode(tmp_path, data + more)
        assert np.array_equal(decoded.images[0].pixels, whole)


@pytest.mark.parametrize("name", APP)
def test_metadata_costs_no_pixels(tmp_path: Path, name: str):
    data = jpeg(SMOOTH)
    whole = decode(tmp_path, data).images[0].pixels
    decoded = decode(tmp_path, data[:2] + APP[name] + data[2:])
    assert decoded.rejected == decoded.notes == []
    assert np.array_equal(decoded.images[0].pixels, whole)


@pytest.mark.parametrize("space", ["Adobe RGB", "CMYK", "no JFIF"])
def test_what_says_the_colours_is_kept(tmp_path: Path, space: str):
    """The transform of an Adobe segment decides whether three channels are RGB or YCbCr."""
    if space == "Adobe RGB":
        data = jpeg(SMOOTH, quality=95, keep_rgb=True, subsampling=0)
    else:
        data = jpeg(SMOOTH.convert("CMYK") if space == "CMYK" else SMOOTH, quality=95, subsampling=0)
        if space == "no JFIF":
            data = data[:2] + data[20:]
    expected = np.asarray(SMOOTH.resize((60, 40), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(decode(tmp_path, data).images[0].pixels.astype(int) - expected).mean() < 3


def test_the_orientation_of_an_xmp_packet_counts(tmp_path: Path):
    packet = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = jpeg(SMOOTH)
    turned = data[:2] + b"\xff\xe1" + (len(packet) + 2).to_bytes(2, "big") + packet + data[2:]
    image = decode(tmp_path, turned).images[0]
    assert (image.width, image.height) == (120, 160)
