"""Turns a page of an open file into a picture of 8 bits a channel; how a format's pages are had is decided here."""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from PIL import Image

from photoflux.data.images.colours import to_rgb
from photoflux.data.images.depth import SIGNED, from_bytes, samples_of, to_eight_bits, white_of
from photoflux.data.images.document import DPI, Document, Picture, TooLargeError, check_pixels, quiet
from photoflux.data.images.formats import RefusedError, in_words, recognise
from photoflux.data.images.jpeg import complete_jpeg, is_cut
from photoflux.data.images.jpeg2000 import reduce
from photoflux.data.images.libraries import library_for
from photoflux.data.images.members import Member
from photoflux.data.images.opening import Source, open_first, opened, source_of
from photoflux.data.images.pdf import Pdf
from photoflux.data.images.png import as_bytes, lacks_rows
from photoflux.data.images.samples import deep_planes, picture_of_samples, two_bytes_each
from photoflux.data.images.tiffs import AS_SAMPLES, not_unpacked, with_colours

_ORIENTATION = 0x0112
# Orientations from 5 on swap width and height.
TURNED = 5
_SUBFILE_TYPE, _PHOTOMETRIC = 0x00FE, 0x0106
# Pillow's unpackers of the high bytes of 16-bit colours: in a file of the other byte order they give the low ones.
_OTHER_BYTES = {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}


def document_of(kind: str, file: BinaryIO) -> Document:
    """Return an open file of a known format as its pages; to be called, as its methods, within `quiet`."""
    if kind == "PDF":
        return Pdf(file, library_for(kind))
    return _Frames(source_of(kind, file))


def read_page(source: Path | Member, page: int, *, dpi: int = DPI, side: int | None = None) -> Image.Image:
    """Return a page of a file: the whole picture in all its pixels, upright.

    Parameters
    ----------
    source : Path or Member
        The file, or the member of an archive; it is only read.
    page : int
        Which page, counted from 1; 0 of a file with a single one.
    dpi : int
        How many pixels to the inch a page is drawn with that has none of its own, a PDF's.
    side : int, optional
        The picture may be made smaller, where its format does that fast, but not below this many pixels a side.

    Returns
    -------
    PIL.Image.Image
        Of mode RGB, or L where it is grey; 8 bits a channel, transparency on white, no more than
        `document.MAX_PIXELS` pixels.

    Raises
    ------
    RefusedError
        With the reason why it cannot be read.
    """
    kind = "file"
    try:
        with opened(source) as file:
            with quiet():
                kind = recognise(file)
            with quiet(kind), document_of(kind, file) as document:
                if not 0 <= page <= document.pages:
                    raise RefusedError(f"has {document.pages} pages, and none with the number {page}")
                picture = document.picture(0 if document.pages == 1 else page or 1, side=side, most=None, dpi=dpi)
                image = picture.upright(picture.image)
                grey = image.mode in ("1", "L") and not image.has_transparency_data
                plain = image.convert("L") if grey else to_rgb(image)
                # The image of a file ends with it.
                return plain.copy() if plain is picture.image else plain
    except Exception as error:
        raise RefusedError(reason(kind, error)) from error


class _Frames:
    """The pages of a file that Pillow reads: every one of a TIFF, the first image of any other."""

    def __init__(self, source: Source) -> None:
        self.kind = source.kind
        self.digest = source.digest
        self._source = source
        self._image = open_first(source)
        self.pages = getattr(self._image, "n_frames", 1) if source.kind == "TIFF" else 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._image.close()

    def picture(self, page: int, *, side: int | None, most: int | None, dpi: int = DPI) -> Picture:
        image: Any = self._image
        source = self._source
        if page:
            _turn_to(image, page)
        check_pixels(image.width, image.height)
        drafted_from, halvings = None, 0
        if side is not None and source.kind in ("JPEG", "JPEG2000"):
            drafted_from = image.size
            halvings = _draft(image, source, side)
        if most is not None and image.width * image.height >> 2 * halvings > most:
            raise TooLargeError
        # Pillow looks into it for the orientation while it loads the pixels.
        if not isinstance(image.info.get("xmp", b""), bytes):
            del image.info["xmp"]
        raw = _raw_mode(image)
        if raw and (
            AS_SAMPLES.startswith(raw)
            or (source.kind == "TIFF" and (deep_planes(image.tag_v2) or two_bytes_each(image.tag_v2)))
        ):
            return _of_samples(image, source)
        try:
            image = _loaded(image, source, side)
        except OSError:
            if not halvings:
                raise
            # Some part of the picture has fewer sizes than its header says.
            self._image = open_first(source)
            return self.picture(page, side=None, most=most)
        orientation = orientation_of(image)
        width, height = drafted_from or image.size
        if orientation >= TURNED:
            width, height = height, width
        _scale_transparency(image, source.bits)
        eight, note = _eight_bits(image, source, page, raw)
        return Picture(eight, orientation, width, height, [text for text in (note, source.note) if text])


def _of_samples(image: Any, source: Source) -> Picture:
    tags = image.tag_v2
    samples = samples_of(image)._replace(inverted=tags.get(_PHOTOMETRIC) == 0)
    eight, note = picture_of_samples(source.file, tags, samples)
    orientation = orientation_of(image)
    width, height = eight.size if orientation < TURNED else eight.size[::-1]
    return Picture(eight, orientation, width, height, [note] if note else [])


def _turn_to(image: Image.Image, page: int) -> None:
    try:
        image.seek(page - 1)
    except SyntaxError as error:
        raise RefusedError(not_unpacked(getattr(image, "tag_v2", {}))) from error
    if int(getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0)) & 1:
        raise RefusedError("a reduced copy of another page")


def _draft(image: Image.Image, source: Source, side: int) -> int:
    """Let the decoder make a picture smaller, no side below a length; say how often it halves them while it loads."""
    if source.kind == "JPEG":
        image.draft(None, (side, side))
        return 0
    # Of more than 8 bits the greatest value counts, which a mean is not. What is halved stands half a pixel to the left
    # and above: with twice the length, an eighth of one of the result.
    return reduce(image, source.halvings, 2 * side) if source.bits <= 8 else 0


def _loaded(image: Image.Image, source: Source, side: int | None) -> Image.Image:
    """Load the pixels; of a JPEG without its end marker if none of them is missing."""
    if source.kind != "JPEG":
        image.load()
        if source.kind == "PNG" and lacks_rows(image, source.file):
            raise RefusedError("broken PNG: rows are missing at the end of its data")
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
    if side is not None:
        again.draft(None, (side, side))
    again.load()
    return again


def _eight_bits(image: Image.Image, source: Source, page: int, raw: str) -> tuple[Image.Image, str | None]:
    """Return the image with 8 bits a channel, and what is to be noted of how they were found."""
    samples = samples_of(image, source.significant)
    bits = image.info.get("bit_depth", 16) if source.kind == "HEIF" else source.bits
    if source.kind in ("JPEG2000", "HEIF") and bits < 16:
        # Their readers have moved the bits to the upper end of 16.
        samples = samples._replace(low=0, high=(1 << 16) - (1 << 16 - bits))
    if image.mode.startswith(("I", "F")) or (image.mode == "L" and samples.kind == SIGNED):
        return to_eight_bits(image, samples)
    if source.kind == "JPEG2000" and source.bits >= 16:
        return image, _dark(image)
    if image.mode == "P" and source.kind == "TIFF":
        return with_colours(image), None
    if not re.fullmatch(r"(RGB|RGBA|RGBa|RGBX|CMYK|LA);16[LBN]", raw):
        return image, None
    # Pillow has kept the high bytes of 16-bit colours: all there is to see where the values use all bits.
    white, note = white_of(image, samples)
    if white == 65535:
        return image, None
    if raw.startswith("LA"):
        with Image.open(as_bytes(source.file), formats=["PNG"]) as again:
            high, low, alpha, fine = again.split()
            coarse = Image.merge("RGBA", (high, high, high, alpha))
            return from_bytes(coarse, Image.merge("RGBA", (low, low, low, fine)), white), note
    if raw.startswith("RGBa"):
        return picture_of_samples(source.file, getattr(image, "tag_v2", {}), samples)
    with source.open() as again:
        if page:
            again.seek(page - 1)
        _set_raw_mode(again, raw[:-1] + _OTHER_BYTES[raw[-1]])
        again.load()
        # A black image has values of any depth.
        blank = not any(np.ravel(again.getextrema())) and not any(np.ravel(image.getextrema()))
        return from_bytes(image, again, white), None if blank else note


def _dark(image: Image.Image) -> str | None:
    """Say that 16-bit colours of which only the high bytes could be had do not use them: the others are lost."""
    extrema: Any = image.getextrema()
    if not 0 < max(high for _, high in extrema[:3]) < 64:
        return None
    return "its 16-bit colours end below 16384, and only their high 8 bits were read: it is dark, convert it to TIFF"


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


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8."""
    try:
        orientation = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # Damaged EXIF data: the pixels are good all the same.
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def reason(kind: str, error: Exception) -> str:
    """Return why a file of a kind cannot be used, in one line."""
    if isinstance(error, RefusedError):
        return str(error)
    if isinstance(error, MemoryError):
        return "needs more memory than there is for one image"
    # Addresses of objects would make two runs differ.
    text = re.sub(r"\s*<[^>]* at 0x[0-9a-fA-F]+>", "", " ".join(str(error).split()))
    return f"broken {in_words(kind)}: {text or type(error).__name__}"
