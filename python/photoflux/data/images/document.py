"""What a page of a file is to whoever reads it: a picture; limits on pixels, and what holds while one is read."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from PIL import Image

from photoflux.data.images.formats import RefusedError
from photoflux.data.images.tiffs import more_kinds

MAX_PIXELS = 200_000_000
# The size of what has no pixels of its own is said in these, in dots per inch.
DPI = 200

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's readers change is of the whole process, and a library of PDFs is for one thread at a time.
LOCK = threading.RLock()


class TooLargeError(Exception):
    """A picture has more pixels than were wanted."""


class Picture(NamedTuple):
    """A page with 8 bits a channel.

    Attributes
    ----------
    image : PIL.Image.Image
        Of any mode with 8 bits a channel, as it is stored: not turned.
    orientation : int
        By which it is turned upright, 1 (it is) to 8, as in EXIF.
    width, height : int
        Of the whole picture, upright, where the image was made smaller.
    notes : list of str
        What is to be noted of how it was read.
    """

    image: Image.Image
    orientation: int
    width: int
    height: int
    notes: list[str]

    def upright(self, image: Image.Image) -> Image.Image:
        """Return the image, or a reduced copy of it, turned as it is to be seen."""
        return image if self.orientation == 1 else image.transpose(_TURNS[self.orientation])


class Document(Protocol):
    """An open file: `kind` is its format, `digest` of all its bytes, `pages` their number."""

    kind: str
    digest: Any
    pages: int

    def picture(self, page: int, *, side: int | None, most: int | None, dpi: int = DPI) -> Picture:
        """Return a page, counted from 1, or with 0 the only one.

        Parameters
        ----------
        page : int
            Which.
        side : int or None
            The picture may be made smaller, but not below this many pixels a side; with None it is whole.
        most : int or None
            The most pixels that are wanted.
        dpi : int
            What has no pixels of its own has these to the inch, where it is whole.

        Raises
        ------
        RefusedError
            With the reason why it cannot be used.
        TooLargeError
            If it has more than the most.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close what was opened, but not the file."""


def check_pixels(width: int, height: int) -> None:
    """Raise `RefusedError` for a picture of more than `MAX_PIXELS` pixels."""
    if width * height > MAX_PIXELS:
        raise RefusedError(
            f"has {width} × {height} pixels, the limit is {MAX_PIXELS // 1_000_000} million: "
            "make it smaller, or cut it into parts"
        )


@contextlib.contextmanager
def quiet(kind: str = "") -> Iterator[None]:
    """Silence Pillow's warnings and its own pixel limit: both become a reason or nothing, never a leak.

    It reads files of a kind; of TIFF, more kinds of values than Pillow alone would open.
    """
    with LOCK, warnings.catch_warnings(), more_kinds() if kind == "TIFF" else contextlib.nullcontext():
        warnings.simplefilter("ignore")
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
