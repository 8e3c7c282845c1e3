"""Scales values of more than 8 bits to 8 bits: which value is black and which is white is decided here.

The rule, for the values of one image or page, from the least to the greatest:

- What the file declares holds: the bits of a value where they are fewer than 16, MinSampleValue and MaxSampleValue (or
  SMinSampleValue and SMaxSampleValue) of a TIFF, sBIT of a PNG. A declaration that the values overstep is ignored.
- Floating-point values within 0 to 1 are fractions.
- Floating-point values from 0 to less than 2 are fractions that overstep, as resizing leaves them: stretched as below.
- Others that are not negative and at most 65535 have the fewest of 8, 10, 12, 14 and 16 bits that hold the greatest.
  Unless those are the bits of the file, the image is noted: a really dark 16-bit image comes out lighter by this.
- All others are stretched, the least to black and the greatest to white, and noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

UNSIGNED, SIGNED, FLOAT = 1, 2, 3
_UNDEFINED = 4
_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339
# MinSampleValue and MaxSampleValue, and the same for values of any type.
_RANGES = ((280, 281), (340, 341))
_DEPTHS = (8, 10, 12, 14, 16)
_BAND = 1 << 20


class Samples(NamedTuple):
    """What a file says of its values.

    Attributes
    ----------
    bits, kind : int
        Bits of a value as it is stored; UNSIGNED, SIGNED or FLOAT.
    low, high : float, optional
        The values of black and white, where the file declares them.
    significant : int, optional
        sBIT of a PNG: the bits that the values had before they were stored in more.
    inverted : bool
        Whether white is zero, and Pillow has left it so.
    transparent : int, optional
        The value that is transparent.
    """

    bits: int
    kind: int = UNSIGNED
    low: float | None = None
    high: float | None = None
    significant: int | None = None
    inverted: bool = False
    transparent: int | None = None


class Levels(NamedTuple):
    """The values of black and white, and what is to be noted of how they were found."""

    black: float
    white: float
    note: str | None = None


def samples_of(image: Image.Image, significant: int | None = None) -> Samples:
    """Return what an open image's file says of its values; `significant` is the sBIT of a PNG."""
    tags: Any = getattr(image, "tag_v2", {})
    deep = image.mode.startswith(("I", "F"))
    usual = 32 if image.mode == "F" or (image.mode == "I" and image.format != "PNG") else 16 if deep else 8
    kind = int(_first(tags.get(_FORMAT), FLOAT if image.mode == "F" else UNSIGNED))
    kind = UNSIGNED if kind == _UNDEFINED else kind
    low = high = None
    for least, greatest in _RANGES:
        if greatest in tags:
            high = float(np.max(tags[greatest]))
            low = float(np.min(tags.get(least, 0)))
    transparent = image.info.get("transparency")
    return Samples(
        bits=int(_first(tags.get(_BITS), usual)),
        kind=kind,
        low=low,
        high=high,
        significant=significant,
        inverted=deep and _first(tags.get(_PHOTOMETRIC), 1) == 0,
        transparent=transparent if deep and isinstance(transparent, int) else None,
    )


def levels(least: float, greatest: float, samples: Samples) -> Levels:
    """Return which values are black and white, by the rule above, of values from the least to the greatest."""
    bits, kind = samples.bits, samples.kind
    low, high = samples.low, samples.high
    if low is not None and high is not None and low < high and low <= least and greatest <= high:
        return Levels(low, high)
    if kind == UNSIGNED and bits < 16:
        return Levels(0, (1 << bits) - 1)
    if kind == UNSIGNED and bits == 16 and samples.significant is not None:
        held = (1 << samples.significant) - 1
        return Levels(0, held if greatest <= held else 65535)
    if kind == FLOAT and least >= 0 and greatest <= 1:
        return Levels(0, 1)
    what = "floating-point" if kind == FLOAT else f"{bits}-bit" if kind == UNSIGNED else f"signed {bits}-bit"
    if least >= 0 and greatest <= 65535 and not (kind == FLOAT and greatest < 2):
        depth = next(depth for depth in _DEPTHS if greatest < 1 << depth or depth == _DEPTHS[-1])
        if (kind == UNSIGNED and depth == bits) or greatest == 0:
            return Levels(0, 65535)
        return Levels(
            0,
            (1 << depth) - 1,
            f"its {what} values end below {1 << depth}, so it was read as {depth}-bit; the file does not say",
        )
    white = greatest if greatest > least else least + 1
    return Levels(least, white, f"its {what} values were stretched, the least to black and the greatest to white")


def to_eight_bits(image: Image.Image, samples: Samples) -> tuple[Image.Image, str | None]:
    """Return an image of one channel (modes I, I;16, F, or L with signed values) in 8 bits, and what is to be noted."""
    least, greatest = _range(image, samples)
    black, white, note = levels(least, greatest, samples)
    result = Image.new("L", image.size)
    for top, values in _bands(image, samples):
        grey = scaled(values, black, white)
        if samples.inverted:
            grey = 255 - grey
        if samples.transparent is not None:
            grey[values == samples.transparent] = 255
        result.paste(Image.fromarray(grey), (0, top))
    return result, note


def white_of(high_bytes: Image.Image, samples: Samples) -> tuple[int, str | None]:
    """Return which value is white of 16-bit colours, given as an image of their high bytes, and what is to be noted."""
    extrema: Any = high_bytes.getextrema()
    greatest = max(high for _, high in extrema[: 4 if high_bytes.mode == "CMYK" else 3]) << 8
    # The low bytes are not known yet: 0 is anything up to 255.
    result = levels(0, greatest or 1, samples._replace(bits=16, low=0 if samples.high else None))
    return int(result.white), result.note


def from_bytes(high: Image.Image, low: Image.Image, white: int) -> Image.Image:
    """Return 16-bit values in 8 bits, given as two images: high bytes and low bytes.

    Alpha has all 16 bits unless no value of it is above white: then what is white is opaque too.
    """
    result = high.copy()
    extrema: Any = high.getextrema()
    dense = high.mode == "RGBA" and extrema[3][1] > white >> 8
    rows = max(1, _BAND // high.width)
    for top in range(0, high.height, rows):
        box = (0, top, high.width, min(top + rows, high.height))
        coarse, fine = np.asarray(high.crop(box)), np.asarray(low.crop(box))
        eight = scaled(coarse.astype(np.uint16) << 8 | fine, 0, white)
        if dense:
            eight[..., 3:] = coarse[..., 3:]
        result.paste(Image.fromarray(eight, high.mode), (0, top))
    return result


def scaled(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Return values in 8 bits, of the same shape: black is 0 and white 255, and what lies beyond them too."""
    result = np.rint((values.astype(np.float64) - black) * (255 / (white - black)))
    eight: np.ndarray = np.clip(np.nan_to_num(result, posinf=255, neginf=0), 0, 255).astype(np.uint8)
    return eight


def _bands(image: Image.Image, samples: Samples) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the values in bands of whole rows, each with its first row: copies of a large image would be large."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        values = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        if samples.kind == SIGNED and values.dtype == np.uint8:
            values = values.view(np.int8)
        elif samples.kind == UNSIGNED and values.dtype == np.int32:
            values = values.view(np.uint32)
        yield top, values


def _range(image: Image.Image, samples: Samples) -> tuple[float, float]:
    ranges = []
    for _, values in _bands(image, samples):
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if finite.size:
            ranges.append((float(finite.min()), float(finite.max())))
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else (0.0, 0.0)


def _first(value: Any, otherwise: int) -> Any:
    """Return a tag's first value, which Pillow gives bare where there is one."""
    if value is None or value == ():
        return otherwise
    return value[0] if isinstance(value, tuple) else value
