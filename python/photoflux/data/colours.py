"""Every colour mode that Pillow reads, to 8-bit RGB or grey."""

from __future__ import annotations

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image in RGB: 16-bit grey scaled to 8 bits, transparency laid on white, palettes and CMYK resolved.

    32-bit integer and float grey have no fixed range: values within 0 to 1 (float) count as fractions, within 0 to
    255 as they are, within 0 to 65535 as 16-bit, others are stretched from the least to the greatest.
    Colour profiles are not applied.
    """
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.mode.startswith(("I", "F")):
        image = _deep_grey(image)
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        white.alpha_composite(coloured)
        return white.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def to_grey(image: Image.Image) -> Image.Image:
    """Return an RGB image in 8-bit grey (ITU-R 601 luma)."""
    return image.convert("L")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return converted


def _deep_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray(_rounded(values.astype(np.float32) / 257))
    values = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and image.mode == "F":
        return Image.fromarray(_rounded(values * 255))
    if low >= 0 and high <= 255:
        return Image.fromarray(_rounded(values))
    if low >= 0 and high <= 65535:
        return Image.fromarray(_rounded(values / 257))
    return Image.fromarray(_rounded((values - low) * (255 / (high - low) if high > low else 0)))


def _rounded(values: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
