"""Decodes one image file to pixels, page by page, with a reason for each page or file that is left out."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from photoflux.data.images.colours import reduced_rgb, to_grey, to_rgb
from photoflux.data.images.document import Document, Picture, quiet
from photoflux.data.images.document import TooLargeError as TooLargeError
from photoflux.data.images.formats import recognise
from photoflux.data.images.members import Member
from photoflux.data.images.opening import opened
from photoflux.data.images.pages import document_of, reason
from photoflux.data.shape import Shape

# From here on one image takes the memory of many; a scan of A4 at 600 dots per inch has 35 million.
LARGE = 50_000_000
MAX_PAGES = 5000


class Decoded(NamedTuple):
    """An image: `page` counts from 1 in a file of several and is 0 in others; width and height are the original's.

    `phash` is the perceptual hash, 0 where it was not asked for.
    """

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


def decode_parts(
    path: Path | Member, shape: Shape, *, large: bool = True, hashed: bool = True
) -> Generator[DecodedFile, None, None]:
    """Decode a file or a member of an archive part by part, a page at a time, as `decode_file` does.

    The parts are the same each time. Without `hashed` there are no perceptual hashes, which find duplicates and take
    time.

    Raises
    ------
    TooLargeError
        Unless `large`, at an image of more than `LARGE` pixels; what came before it has been yielded.
    """
    kind = "file"
    try:
        with opened(path) as file:
            # Never around a `yield`: what it changes must not be seen by whoever takes the parts.
            with quiet():
                kind = recognise(file)
            with quiet(kind):
                document = document_of(kind, file)
            with document:
                yield from _decode_pages(document, shape, large, hashed)
    except TooLargeError:
        raise
    # The readers raise almost anything for a damaged file, and one file must not end the work on the others.
    except Exception as error:
        yield left_out(0, reason(kind, error))


def left_out(page: int, why: str) -> DecodedFile:
    """Return the part of a file that says why a page, or with page 0 the file, is left out."""
    return DecodedFile([], [(page, why)], [])


def _decode_pages(document: Document, shape: Shape, large: bool, hashed: bool) -> Iterator[DecodedFile]:
    if document.pages == 1:
        with quiet(document.kind):
            only = _decode_page(document, 0, shape, large, hashed)
        yield only
        return
    for page in range(1, min(document.pages, MAX_PAGES) + 1):
        try:
            with quiet(document.kind):
                part = _decode_page(document, page, shape, large, hashed)
        except TooLargeError:
            raise
        except Exception as error:
            part = left_out(page, reason(document.kind, error))
        yield part
    if document.pages > MAX_PAGES:
        yield left_out(0, f"has {document.pages} pages, those after page {MAX_PAGES} were left out")


def _decode_page(document: Document, page: int, shape: Shape, large: bool, hashed: bool) -> DecodedFile:
    # Twice the wanted size leaves the filter enough to average.
    side = 2 * max(shape.width, shape.height)
    picture = document.picture(page, side=side, most=None if large else LARGE)
    colour = upright_rgb(picture, shape)
    phash = perceptual_hash(colour) if hashed else 0
    digest = document.digest.copy()
    if page:
        digest.update(f"#{page}".encode())
    pixels = resized(colour, shape)
    decoded = Decoded(page, pixels, digest.hexdigest(), phash, picture.width, picture.height)
    return DecodedFile([decoded], [], [(page, note) for note in picture.notes])


def upright_rgb(picture: Picture, shape: Shape) -> Image.Image:
    """Return a picture upright and in RGB, reduced as `decode_file` says if it is large for the shape it is for."""
    eight = picture.image
    if eight.width * eight.height > LARGE:
        eight = reduced_rgb(eight, 4 * shape.width, 4 * shape.height)
    return to_rgb(picture.upright(eight))


def resized(colour: Image.Image, shape: Shape) -> np.ndarray:
    """Return an RGB image resized to a shape, uint8 (C, H, W)."""
    image = colour.resize((shape.width, shape.height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image).transpose(2, 0, 1) if shape.channels == 3 else np.asarray(to_grey(image))[None]
    return np.ascontiguousarray(pixels)


def perceptual_hash(image: Image.Image) -> int:
    """Return the 64 bits of an image's perceptual hash: nearly equal images differ in few of them."""
    import imagehash

    return int(str(imagehash.phash(image)), 16)
