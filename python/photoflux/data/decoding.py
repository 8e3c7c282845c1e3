"""One image file to pixels: an allow-list of formats, recognised by content, and a reason for each file left out."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import stat
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from photoflux.data.colours import to_grey, to_rgb

FORMATS = "JPEG, PNG, WebP, TIFF, BMP or GIF"
MAX_PIXELS = 200_000_000
# From here on one image takes the memory of many; a scan of A4 at 600 dots per inch has 35 million.
LARGE = 50_000_000
MAX_BYTES = 1 << 30
MAX_PAGES = 5000

_SIGNATURES = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("TIFF", re.compile(rb"II[*+]\x00|MM\x00[*+]")),
    ("BMP", re.compile(rb"BM")),
    ("GIF", re.compile(rb"GIF8[79]a")),
)
# As long as the longest signature.
_HEAD = 12
_ORIENTATION = 0x0112
# Orientations from 5 on swap width and height.
_TURNED, _LAST = 5, 8
_SUBFILE_TYPE = 0x00FE


class Shape(NamedTuple):
    """Of the images to make: 3 channels are RGB, 1 is grey."""

    height: int
    width: int
    channels: int


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


class _Rejected(Exception):
    """Carries the reason."""


def decode_file(path: str | Path, *, height: int, width: int, channels: int = 3) -> DecodedFile:
    """Decode an image file, resized to (channels, height, width); a file that cannot be used gives the reason.

    The EXIF orientation is applied, 16-bit grey is scaled to 8 bits, transparency is laid on white. Resizing is
    Pillow's bilinear filter, which averages over the area when it shrinks (antialiased) and ignores the aspect ratio.
    Every page of a TIFF is an image; of animations the first frame is taken.

    Parameters
    ----------
    path : str or Path
        The file; it is only read.
    height, width : int
        Size of the result.
    channels : int
        3 (RGB) or 1 (grey).

    Returns
    -------
    DecodedFile
        It never raises for a bad file.
    """
    result = DecodedFile([], [], [])
    for part in decode_parts(Path(path), Shape(height, width, channels)):
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
        data = _read(path)
        kind = _kind(data)
        with _quiet():
            image = Image.open(io.BytesIO(data), formats=[kind])
        with image:
            yield from _decode_pages(image, kind, hashlib.sha256(data), shape, large)
    except TooLargeError:
        raise
    except _Rejected as rejected:
        yield _left_out(0, str(rejected))
    except UnidentifiedImageError:
        yield _left_out(0, f"broken {kind}: its header cannot be read")
    # Pillow's readers raise almost anything for a damaged file, and one file must not end the work on the others.
    except Exception as error:
        yield _left_out(0, _broken(kind, error))


def begins_like_an_image(path: Path) -> bool:
    """Say whether a file begins as a file of one of the formats does; only `decode_file` says whether it is whole."""
    try:
        # Opening a pipe would wait for a writer for ever.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            _kind(file.read(_HEAD))
    except (OSError, _Rejected):
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        # Opening a pipe would wait for a writer for ever.
        if not stat.S_ISREG(status.st_mode):
            raise _Rejected("not a regular file")
        if status.st_size > MAX_BYTES:
            raise _Rejected(f"larger than {MAX_BYTES >> 20} MiB")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise _Rejected("a link to nothing" if path.is_symlink() else "the file has gone") from error
    except OSError as error:
        raise _Rejected(f"cannot be read: {error.strerror}") from error
    if not data:
        raise _Rejected("an empty file (0 bytes)")
    return data


def _kind(data: bytes) -> str:
    for kind, signature in _SIGNATURES:
        if signature.match(data):
            return kind
    raise _Rejected(f"not a {FORMATS} image")


def _left_out(page: int, reason: str) -> DecodedFile:
    return DecodedFile([], [(page, reason)], [])


def _decode_pages(
    image: Image.Image, kind: str, digest: hashlib._Hash, shape: Shape, large: bool
) -> Iterator[DecodedFile]:
    # Never around a `yield`: what it changes must not be seen by whoever takes the parts.
    with _quiet():
        pages = getattr(image, "n_frames", 1) if kind == "TIFF" else 1
        only = DecodedFile([_decode_page(image, 0, digest.hexdigest(), shape, large)], [], []) if pages == 1 else None
    if only is not None:
        yield only
        return
    for page in range(1, min(pages, MAX_PAGES) + 1):
        try:
            page_digest = digest.copy()
            page_digest.update(f"#{page}".encode())
            with _quiet():
                image.seek(page - 1)
                if int(getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0)) & 1:
                    raise _Rejected("a reduced copy of another page")
                part = DecodedFile([_decode_page(image, page, page_digest.hexdigest(), shape, large)], [], [])
        except TooLargeError:
            raise
        except _Rejected as rejected:
            part = _left_out(page, str(rejected))
        except Exception as error:
            part = _left_out(page, _broken(kind, error))
        yield part
    if pages > MAX_PAGES:
        yield _left_out(0, f"has {pages} pages, those after page {MAX_PAGES} were left out")


def _decode_page(image: Image.Image, page: int, sha256: str, shape: Shape, large: bool) -> Decoded:
    import imagehash

    if image.width * image.height > MAX_PIXELS:
        raise _Rejected(f"has {image.width} × {image.height} pixels, the limit is {MAX_PIXELS // 1_000_000} million")
    drafted_from = None
    if image.format in ("JPEG", "MPO"):
        # The JPEG decoder shrinks by 2, 4 or 8 for free; twice the wanted size leaves the filter enough to average.
        side = 2 * max(shape.width, shape.height)
        drafted_from = image.size
        image.draft(None, (side, side))
    if not large and image.width * image.height > LARGE:
        raise TooLargeError
    image.load()
    orientation = _orientation(image)
    upright = image if orientation == 1 else ImageOps.exif_transpose(image)
    original = drafted_from or upright.size
    if drafted_from and orientation >= _TURNED:
        original = (original[1], original[0])
    colour = to_rgb(upright)
    phash = int(str(imagehash.phash(colour)), 16)
    resized = colour.resize((shape.width, shape.height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized).transpose(2, 0, 1) if shape.channels == 3 else np.asarray(to_grey(resized))[None]
    return Decoded(page, np.ascontiguousarray(pixels), sha256, phash, *original)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; Pillow turns a TIFF while loading it and says 1 then."""
    try:
        orientation = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # Damaged EXIF data: the pixels are good all the same.
        return 1
    return orientation if 1 <= orientation <= _LAST else 1


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings and its own pixel limit: both become a reason or nothing, never a leak."""
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _broken(kind: str, error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    # Addresses of objects would make two runs differ.
    text = re.sub(r"\s*<[^>]* at 0x[0-9a-fA-F]+>", "", " ".join(str(error).split()))
    return f"broken {kind}: {text or type(error).__name__}"
