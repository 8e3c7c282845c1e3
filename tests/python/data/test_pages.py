"""A page as a whole picture: upright, in all its pixels, or with a reason."""

from __future__ import annotations

import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photoflux.data.images import document
from photoflux.data.images.decoding import decode_file
from photoflux.data.images.document import quiet
from photoflux.data.images.formats import RefusedError
from photoflux.data.images.pages import read_page
from photoflux.data.shape import Shape

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
PICTURE = Image.fromarray(NOISE)


def test_a_picture_has_all_its_pixels_and_stands_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    PICTURE.save(tmp_path / "a.png", exif=exif)
    image = read_page(tmp_path / "a.png", 0)
    assert image.mode == "RGB"
    # Orientation 6 is turned clockwise to be seen.
    assert np.array_equal(np.asarray(image), np.rot90(NOISE, -1))


def test_a_jpeg_is_not_made_smaller(tmp_path: Path):
    large = PICTURE.resize((1200, 800))
    large.save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as same:
        assert np.array_equal(np.asarray(read_page(tmp_path / "a.jpg", 0)), np.asarray(same))


def test_grey_stays_grey_and_transparency_is_white(tmp_path: Path):
    values = np.linspace(0, 65535, 2400).reshape(40, 60).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    image = read_page(tmp_path / "deep.png", 0)
    assert image.mode == "L"
    # 255 / 65535 = 1 / 257.
    assert np.array_equal(np.asarray(image), np.rint(values / 257))
    Image.fromarray(NOISE[..., 0] > 128).save(tmp_path / "two.png")
    assert read_page(tmp_path / "two.png", 0).mode == "L"
    clear = PICTURE.convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    assert np.asarray(read_page(tmp_path / "clear.png", 0)).min() == 255


def test_pages_of_a_tiff(tmp_path: Path):
    others = [Image.new("L", (7, 5), 9), Image.new("CMYK", (4, 4), (0, 0, 0, 0))]
    others[0].encoderinfo = {"tiffinfo": {254: 1}}
    PICTURE.save(tmp_path / "a.tif", save_all=True, append_images=others)
    assert np.array_equal(np.asarray(read_page(tmp_path / "a.tif", 1)), NOISE)
    assert np.array_equal(np.asarray(read_page(tmp_path / "a.tif", 0)), NOISE)
    assert np.asarray(read_page(tmp_path / "a.tif", 3)).tolist() == np.full((4, 4, 3), 255).tolist()
    with pytest.raises(RefusedError, match="a reduced copy of another page"):
        read_page(tmp_path / "a.tif", 2)
    for page in (4, -1):
        with pytest.raises(RefusedError, match=rf"has 3 pages, and none with the number {page}"):
            read_page(tmp_path / "a.tif", page)


def test_what_cannot_be_read_has_the_reason_that_decoding_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.png").write_bytes(b"no image")
    PICTURE.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    PICTURE.save(tmp_path / "large.png")
    monkeypatch.setattr(document, "MAX_PIXELS", 60 * 40)
    assert read_page(tmp_path / "large.png", 0).size == (60, 40)
    monkeypatch.setattr(document, "MAX_PIXELS", 60 * 40 - 1)
    for name in ("a.png", "cut.png", "large.png", "none.png"):
        ((_, expected),) = decode_file(tmp_path / name, Shape(3, 8, 8)).rejected
        with pytest.raises(RefusedError) as caught:
            read_page(tmp_path / name, 0)
        assert str(caught.value) == expected


def test_threads_leave_pillow_as_it_was(tmp_path: Path):
    """What is changed for reading is of the process: two threads at once must not keep each other's changes."""
    before, interval = Image.MAX_IMAGE_PIXELS, sys.getswitchinterval()
    assert before is not None
    inside = threading.Barrier(2)

    def work() -> None:
        inside.wait()
        for _ in range(300):
            with quiet():
                assert Image.MAX_IMAGE_PIXELS is None
                warnings.warn("not heard", stacklevel=1)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert before == Image.MAX_IMAGE_PIXELS
