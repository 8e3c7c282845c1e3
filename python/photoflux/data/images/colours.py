"""Converts every 8-bit colour mode of Pillow to RGB or grey; a new mode is handled here."""

from __future__ import annotations

from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image in RGB: transparency laid on white, palettes and CMYK resolved; no colour profile is applied."""
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        white.alpha_composite(coloured)
        return white.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def to_grey(image: Image.Image) -> Image.Image:
    """Return an RGB image in 8-bit grey (ITU-R 601 luma)."""
    return image.convert("L")


def reduced_rgb(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return an image in RGB, reduced by a whole factor to no less than a width and height.

    It is converted and averaged in bands, so that no second image of its size is made.
    """
    factor = max(1, min(image.width // width, image.height // height))
    result = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = factor * max(1, (1 << 20) // (image.width * factor))
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        result.paste(to_rgb(band).reduce(factor), (0, top // factor))
    # The last squares are cut off where the factor does not divide the sides: the picture must not be stretched for it.
    exact = (image.width / factor, image.height / factor)
    if exact == result.size:
        return result
    return result.resize((int(exact[0]), int(exact[1])), Image.Resampling.BILINEAR, box=(0, 0, *exact))


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return converted
