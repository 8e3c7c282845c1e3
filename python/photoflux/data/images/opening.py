"""Opens an image file: size limits, the format by content, and metadata left out; limits are changed here."""

from __future__ import annotations

import contextlib
import hashlib
import io
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError

from photoflux.data.images.bigtiff import classic
from photoflux.data.images.formats import HEAD, RefusedError, in_words, known_format
from photoflux.data.images.items import hide_metadata
from photoflux.data.images.jpeg import strip_jpeg
from photoflux.data.images.jpeg2000 import codestream
from photoflux.data.images.libraries import library_for
from photoflux.data.images.members import MAX_BYTES, Member, open_member
from photoflux.data.images.png import strip_png
from photoflux.data.images.tiffs import directory, not_unpacked
from photoflux.data.images.webp import strip_webp

# Files up to this size are read at once, larger ones piece by piece.
_IN_MEMORY = 1 << 24


class Source(NamedTuple):
    """An open file: `open` opens it as an image each time it is called; `bits` are of a value as it is stored."""

    kind: str
    file: BinaryIO
    open: Callable[[], Image.Image]
    digest: hashlib._Hash
    bits: int = 8
    significant: int | None = None
    halvings: int = 0
    note: str | None = None


def begins_like_an_image(path: Path) -> bool:
    """Say whether a file begins as a file of one of the formats does; only `decode_file` shows whether it is intact."""
    try:
        # Opening a pipe would wait for a writer for ever.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return known_format(file.read(HEAD)) is not None
    except OSError:
        return False


@contextlib.contextmanager
def opened(path: Path | Member) -> Iterator[BinaryIO]:
    """Open a file or member of a bounded size for reading; raises `RefusedError` if it cannot be used."""
    if isinstance(path, Member):
        try:
            file = open_member(path)
        except OSError as error:
            raise RefusedError(f"its archive cannot be read: {error.strerror}") from error
        with file:
            yield file
        return
    try:
        status = path.stat()
        # Opening a pipe would wait for a writer for ever.
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError("not a regular file")
        if status.st_size > MAX_BYTES:
            raise RefusedError(f"larger than {MAX_BYTES >> 20} MiB")
        if status.st_size == 0:
            raise RefusedError("an empty file (0 bytes)")
        file = path.open("rb")
        if status.st_size <= _IN_MEMORY:
            with file:
                file = io.BytesIO(file.read())
    except FileNotFoundError as error:
        raise RefusedError("a link to nothing" if path.is_symlink() else "the file has gone") from error
    except OSError as error:
        raise RefusedError(f"cannot be read: {error.strerror}") from error
    with file:
        yield file


def source_of(kind: str, file: BinaryIO) -> Source:
    """Return an open file of a known format as images: its metadata is left out, its digest is of the whole file.

    Raises
    ------
    RefusedError
        If a library that its format needs is not installed.
    """
    library = library_for(kind)
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    stream, bits, significant, halvings, note = file, 8, None, 0, None
    if kind == "PNG":
        stream, bits, significant, note = strip_png(file)
    elif kind == "JPEG":
        stream = strip_jpeg(file)
    elif kind == "WEBP":
        stream = strip_webp(file)
    elif kind == "TIFF":
        stream = classic(file)
    elif kind == "JPEG2000":
        bits, halvings = codestream(file)
    elif kind in ("AVIF", "HEIF"):
        stream = hide_metadata(file)

    def image() -> Image.Image:
        stream.seek(0)
        if kind == "HEIF":
            # Without registering it, which would change what Pillow opens elsewhere.
            opened_by_library: Image.Image = library.HeifImageFile(stream)
            return opened_by_library
        return Image.open(stream, formats=[kind])

    return Source(kind, file, image, digest, bits, significant, halvings, note)


def open_first(source: Source) -> Image.Image:
    """Open a file's first image; raises `RefusedError` if Pillow does not know it."""
    try:
        return source.open()
    except UnidentifiedImageError as error:
        tags = directory(source.file) if source.kind == "TIFF" else {}
        if tags:
            raise RefusedError(not_unpacked(tags)) from error
        raise RefusedError(f"broken {in_words(source.kind)}: its header cannot be read") from error
