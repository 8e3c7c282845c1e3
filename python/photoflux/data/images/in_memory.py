"""Takes an image that is in memory, of Pillow or an array, as a picture; what is taken is set here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from photoflux.data.images.depth import samples_of, to_eight_bits
from photoflux.data.images.document import Picture, check_pixels
from photoflux.data.images.pages import TURNED, orientation_of
from photoflux.data.sources.arrays import as_array, check_image
from photoflux.errors import DataError
from photoflux.system.names import printable, quoted, reason


class UndecodableError(Exception):
    """Pillow cannot decode an image, for the reason that it says."""


def picture_of(image: Any, name: str) -> Picture:
    """Return an image of Pillow, or an array uint8 (H, W) or (H, W, C), as a picture with 8 bits a channel.

    Parameters
    ----------
    image : PIL.Image.Image or array
        Values of more than 8 bits are scaled as `photoflux.data.images.depth` says.
    name : str
        What messages call it.

    Raises
    ------
    DataError
        If it is no such image.
    UndecodableError
        If Pillow cannot decode it.
    """
    if isinstance(image, Image.Image):
        return _decoded(image)
    if isinstance(image, str | bytes | Path):
        raise DataError(
            f"{quoted(name)} must be a Pillow image or a uint8 array; received {type(image).__name__}. Open a file "
            "with PIL.Image.open."
        )
    pixels = check_image(name, as_array(printable(name), image))
    eight = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
    return Picture(eight, 1, eight.width, eight.height, [])


def is_grey(image: Image.Image) -> bool:
    """Say whether an image has no colours."""
    return image.mode in ("1", "L", "LA", "La")


def _decoded(image: Image.Image) -> Picture:
    try:
        check_pixels(*image.size)
        image.load()
        eight, note = to_eight_bits(image, samples_of(image)) if image.mode.startswith(("I", "F")) else (image, None)
        turn = orientation_of(image)
    # Pillow raises almost anything for a damaged file, and one must not end the work on the others.
    except Exception as error:
        raise UndecodableError(reason(error)) from error
    width, height = eight.size if turn < TURNED else eight.size[::-1]
    return Picture(eight, turn, width, height, [] if note is None else [note])
