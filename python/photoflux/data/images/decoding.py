"""Decodes one image file to pixels, page by page, with a reason for each page or file that is left out."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from photoflux.data.images.colours import reduced_rgb, to_grey, to_rgb
from photoflux.data.images.depth import SIGNED, from_bytes, samples_of, to_eight_bits, white_of
from photoflux.data.images.formats import RefusedError, recognise
from photoflux.data.images.jpeg import complete_jpeg, is_cut
from photoflux.data.images.opening import Source, not_unpacked, open_first, opened, source_of
from photoflux.data.images.tiffs import more_kinds
from photoflux.data.shape import Shape

MAX_PIXELS = 200_000_000
# From here on one image takes the memory of many; a scan of A4 at 600 dots per inch has 35 million.
LARGE = 50_000_000
MAX_PAGES = 5000

_ORIENTATION = 0x0112
# Orientations from 5 on swap width and height.
_TURNED = 5
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SUBFILE_TYPE = 0x00FE
# Pillow's unpackers of the high bytes of 16-bit colours: in a file of the other byte order they give the low ones.
_OTHER_BYTES = {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}


class Decoded(NamedTuple):
    """An image: `page` counts from 1 in a file of several and is 0 in others; width and height are the original's."""

    page: int
    pixels: np.ndarray
    sha256: str
    phash: int
    width: int
    height: int


class DecodedFile(NamedTuple):
    """What a file held: its images, (page, reason) for what was left out, (page, note); page 0 is the whole file."""

    images: list[Decoded]
    rejected: list[tuple[int, str]]
    notes: list[tuple[int, str]]


class TooLargeError(Exception):
    """An image has more than `LARGE` pixels, and those were not wanted."""


def decode_file(path: str | Path, shape: Shape) -> DecodedFile:
    """Decode an image file, resized to a shape; a file that cannot be used gives the reason.

    The EXIF orientation is applied, values of more than 8 bits are scaled to 8 bits (the rule is in
    `photoflux.data.images.depth`), transparency is laid on white. Resizing is Pillow's bilinear filter, which
    averages over the area when it shrinks (antialiased) and ignores the aspect ratio. An image of more than `LARGE`
    pixels is first reduced by a whole factor, each pixel the mean of a square, to no less than four times the
    result's sides. Every page of a TIFF is an image; of animations the first frame is taken.

    Parameters
    ----------
    path : str or Path
        The file; it is only read.
    shape : Shape
        Of the result.

    Returns
    -------
    DecodedFile
        It never raises for a bad file.
    """
    result = DecodedFile([], [], [])
    for part in decode_parts(Path(path), shape):
        result.images.extend(part.images)
        result.rejected.extend(part.rejected)
        result.notes.extend(part.notes)
    return result


def decode_parts(path: Path, shape: Shape, *, large: bool = True) -> Generator[DecodedFile, None, None]:
    """Decode a file part by part, a page at a time, as `decode_file` does; the parts are the same each time.

    Raises
    ------
    TooLargeError
        Unless `large`, at an image of more than `LARGE` pixels; what came before it has been yielded.
    """
    kind = "file"
    try:
        with opened(path) as file:
            # Never around a `yield`: what it changes must not be seen by whoever takes the parts.
            with _quiet():
                kind = recognise(file)
                source = source_of(kind, file)
                image = open_first(source)
            with image:
                yield from _decode_pages(image, source, shape, large)
    except TooLargeError:
        raise
    # Pillow's readers raise almost anything for a damaged file, and one file must not end the work on the others.
    except Exception as error:
        yield left_out(0, _reason(kind, error))


def left_out(page: int, reason: str) -> DecodedFile:
    """Return the part of a file that says why a page, or with page 0 the file, is left out."""
    return DecodedFile([], [(page, reason)], [])


def _decode_pages(image: Image.Image, source: Source, shape: Shape, large: bool) -> Iterator[DecodedFile]:
    with _quiet():
        pages = getattr(image, "n_frames", 1) if source.kind == "TIFF" else 1
        only = _decode_page(image, source, 0, shape, large) if pages == 1 else None
    if only is not None:
        yield only
        return
    for page in range(1, min(pages, MAX_PAGES) + 1):
        try:
            with _quiet():
                _turn_to(image, page)
                if int(getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0)) & 1:
                    raise RefusedError("a reduced copy of another page")
                part = _decode_page(image, source, page, shape, large)
        except TooLargeError:
            raise
        except Exception as error:
            part = left_out(page, _reason(source.kind, error))
        yield part
    if pages > MAX_PAGES:
        yield left_out(0, f"has {pages} pages, those after page {MAX_PAGES} were left out")


def _turn_to(image: Image.Image, page: int) -> None:
    try:
        image.seek(page - 1)
    except SyntaxError as error:
        raise RefusedError(not_unpacked(getattr(image, "tag_v2", {}))) from error


def _decode_page(image: Image.Image, source: Source, page: int, shape: Shape, large: bool) -> DecodedFile:
    import imagehash

    if image.width * image.height > MAX_PIXELS:
        raise RefusedError(
            f"has {image.width} × {image.height} pixels, the limit is {MAX_PIXELS // 1_000_000} million: "
            "make it smaller, or cut it into parts"
        )
    drafted_from = None
    if source.kind == "JPEG":
        drafted_from = image.size
        _draft(image, shape)
    if not large and image.width * image.height > LARGE:
        raise TooLargeError
    # Pillow looks into it for the orientation while it loads the pixels.
    if not isinstance(image.info.get("xmp", b""), bytes):
        del image.info["xmp"]
    raw = _raw_mode(image)
    image = _loaded(image, source, shape)
    orientation = _orientation(image)
    original = drafted_from or image.size
    if orientation >= _TURNED:
        original = (original[1], original[0])
    _scale_transparency(image, source.bits)
    eight, note = _eight_bits(image, source, page, raw)
    if eight.width * eight.height > LARGE:
        eight = reduced_rgb(eight, 4 * shape.width, 4 * shape.height)
    upright = eight if orientation == 1 else eight.transpose(_TURNS[orientation])
    colour = to_rgb(upright)
    phash = int(str(imagehash.phash(colour)), 16)
    resized = colour.resize((shape.width, shape.height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized).transpose(2, 0, 1) if shape.channels == 3 else np.asarray(to_grey(resized))[None]
    digest = source.digest.copy()
    if page:
        digest.update(f"#{page}".encode())
    decoded = Decoded(page, np.ascontiguousarray(pixels), digest.hexdigest(), phash, *original)
    return DecodedFile([decoded], [], [(page, text) for text in (note, source.note) if text])


def _draft(image: Image.Image, shape: Shape) -> None:
    # The JPEG decoder shrinks by 2, 4 or 8 for free; twice the wanted size leaves the filter enough to average.
    side = 2 * max(shape.width, shape.height)
    image.draft(None, (side, side))


def _loaded(image: Image.Image, source: Source, shape: Shape) -> Image.Image:
    """Load the pixels; of a JPEG without its end marker if none of them is missing."""
    if source.kind != "JPEG":
        image.load()
        return image
    try:
        image.load()
        if is_cut(image, source.file):
            raise RefusedError("broken JPEG: pixels are missing before its end marker")
        return image
    except OSError:
        whole = complete_jpeg(source.file)
        if whole is None:
            raise
    again = Image.open(whole, formats=["JPEG"])
    _draft(again, shape)
    again.load()
    return again


def _eight_bits(image: Image.Image, source: Source, page: int, raw: str) -> tuple[Image.Image, str | None]:
    """Return the image with 8 bits a channel, and what is to be noted of how they were found."""
    samples = samples_of(image, source.significant)
    if image.mode.startswith(("I", "F")) or (image.mode == "L" and samples.kind == SIGNED):
        return to_eight_bits(image, samples)
    if not re.fullmatch(r"(RGB|RGBA|RGBX|CMYK);16[LBN]", raw):
        return image, None
    # Pillow has kept the high bytes of 16-bit colours: all there is to see where the values use all bits.
    white, note = white_of(image, samples)
    if white == 65535:
        return image, None
    with source.open() as again:
        if page:
            again.seek(page - 1)
        _set_raw_mode(again, raw[:-1] + _OTHER_BYTES[raw[-1]])
        again.load()
        # A black image has values of any depth.
        blank = not any(np.ravel(again.getextrema())) and not any(np.ravel(image.getextrema()))
        return from_bytes(image, again, white), None if blank else note


def _scale_transparency(image: Image.Image, bits: int) -> None:
    """Scale the value that a PNG names as transparent as Pillow has scaled the pixels: it leaves it as it is stored."""
    value = image.info.get("transparency")
    if image.mode == "L" and isinstance(value, int) and bits < 8:
        image.info["transparency"] = value * 255 // ((1 << bits) - 1)
    elif image.mode == "RGB" and isinstance(value, tuple) and bits == 16:
        image.info["transparency"] = tuple(part >> 8 for part in value)


def _raw_mode(image: Image.Image) -> str:
    tiles: Any = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    return str(args[0] if isinstance(args, tuple) else args)


def _set_raw_mode(image: Any, raw: str) -> None:
    tiles = []
    for tile in image.tile:
        args = (raw, *tile[3][1:]) if isinstance(tile[3], tuple) else raw
        tiles.append(tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args))
    image.tile = tiles


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8."""
    try:
        orientation = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # Damaged EXIF data: the pixels are good all the same.
        return 1
    return orientation if orientation in _TURNS else 1


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings and its own pixel limit: both become a reason or nothing, never a leak."""
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings(), more_kinds():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _reason(kind: str, error: Exception) -> str:
    if isinstance(error, RefusedError):
        return str(error)
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    # Addresses of objects would make two runs differ.
    text = re.sub(r"\s*<[^>]* at 0x[0-9a-fA-F]+>", "", " ".join(str(error).split()))
    return f"broken {kind}: {text or type(error).__name__}"
