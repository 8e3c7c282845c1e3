"""Draws the pages of a PDF with pdfium, at the size that is needed, on white."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
from types import TracebackType
from typing import Any, BinaryIO, Self

from PIL import Image

from photoflux.data.images import document
from photoflux.data.images.document import DPI, LOCK, Picture, TooLargeError
from photoflux.data.images.formats import RefusedError

# PDF's own units of length.
_UNITS_PER_INCH = 72
_WHITE = ((255, 255),) * 3
# How many images of a page that comes out white are looked at, and how deep they may lie within others.
_MOST_IMAGES, _DEPTH = 16, 4
# What pdfium says of a document that it does not open.
_BROKEN = "broken PDF: it cannot be opened, or has no pages"
_PASSWORD, _SECURITY = 4, 5


class Pdf:
    """The pages of a PDF, as `document.Document` has it; only one is held at a time.

    Parameters
    ----------
    file : file
        The PDF.
    library : module
        `pypdfium2`.

    Raises
    ------
    RefusedError
        If it cannot be opened, with the reason.
    """

    kind = "PDF"

    def __init__(self, file: BinaryIO, library: Any) -> None:
        # What it says of forms that it does not draw would go to stderr.
        logging.getLogger("pypdfium2").addHandler(logging.NullHandler())
        self._library = library
        file.seek(0)
        self.digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
        file.seek(0)
        try:
            self._pdf = library.PdfDocument(file.getvalue() if isinstance(file, io.BytesIO) else file)
        except library.PdfiumError as error:
            raise RefusedError(_why(error)) from error
        with contextlib.suppress(library.PdfiumError):
            self._pdf.init_forms()
        self.pages = len(self._pdf)
        if not self.pages:
            self._pdf.close()
            raise RefusedError(_BROKEN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with LOCK:
            self._pdf.close()

    def picture(self, page: int, *, side: int | None, most: int | None, dpi: int = DPI) -> Picture:
        """Draw a page; its width and height are those at `document.DPI`, or at `dpi` where it is whole."""
        try:
            loaded = self._pdf.get_page(max(page, 1) - 1)
        except self._library.PdfiumError as error:
            raise RefusedError("broken PDF: the page cannot be read") from error
        try:
            width, height = loaded.get_size()
            if not (math.isfinite(width * height) and width > 0 and height > 0):
                raise RefusedError(f"broken PDF: a page of {width} × {height} units")
            scale = _bounded(dpi / _UNITS_PER_INCH, width, height)
            size = math.ceil(width * scale), math.ceil(height * scale)
            if side is not None:
                scale = _bounded(side / min(width, height), width, height)
                if most is not None and math.ceil(width * scale) * math.ceil(height * scale) > most:
                    raise TooLargeError
            image = _drawn(loaded, scale)
            if image.getextrema() == _WHITE:
                self._check_images(loaded)
            return Picture(image, 1, *size, [])
        finally:
            loaded.close()

    def _check_images(self, page: Any) -> None:
        """Raise for a page that is white because an image on it is damaged, which pdfium leaves out in silence."""
        images = page.get_objects(filter=[self._library.raw.FPDF_PAGEOBJ_IMAGE], max_depth=_DEPTH)
        for _, image in zip(range(_MOST_IMAGES), images, strict=False):
            try:
                image.get_bitmap().close()
            except self._library.PdfiumError as error:
                raise RefusedError("broken PDF: an image on the page cannot be decoded") from error


def _drawn(page: Any, scale: float) -> Image.Image:
    bitmap = page.render(scale=scale, fill_color=(255, 255, 255, 255), rev_byteorder=True, may_draw_forms=True)
    try:
        image: Image.Image = bitmap.to_pil()
        return image
    finally:
        bitmap.close()


def _bounded(scale: float, width: float, height: float) -> float:
    """Return the scale, or the greatest with which a page has no more than `document.MAX_PIXELS` pixels."""
    scale = min(scale, math.sqrt(document.MAX_PIXELS / (width * height)))
    while math.ceil(width * scale) * math.ceil(height * scale) > document.MAX_PIXELS:
        scale *= 0.999
    return scale


def _why(error: Any) -> str:
    code = getattr(error, "err_code", None)
    if code == _PASSWORD:
        return "a PDF document that is locked with a password: save it without one, or export its pages as PNG or TIFF"
    if code == _SECURITY:
        return "a PDF document that is encrypted in a way that is not read: export its pages as PNG or TIFF"
    return _BROKEN
