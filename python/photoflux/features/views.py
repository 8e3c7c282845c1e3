"""Makes augmented views of an image: what is drawn, and from which numbers, is said here and nowhere else."""

from __future__ import annotations

import hashlib
import math

import numpy as np

DEGREES = 10.0  # of rotation, to either side
ZOOM = 1.15  # the most that is zoomed in, and out


def view_of(image: np.ndarray, seed: int, view: int) -> np.ndarray:
    """Return a view of an image: mirrored or not, turned by up to 10°, zoomed by up to 15 % in or out.

    What is drawn is fixed by the seed, the image's pixels and the number of the view, so that a view is the same
    wherever the image stands. Beyond its edges the image is continued by its mirror image.

    Parameters
    ----------
    image : numpy.ndarray
        uint8, (C, H, W), with C 1 or 3.
    seed, view : int
        0 or more each.

    Returns
    -------
    numpy.ndarray
        uint8, (C, H, W).
    """
    from PIL import Image

    pixels = np.ascontiguousarray(image)
    identity = int.from_bytes(hashlib.sha256(pixels.data).digest()[:8], "big")
    rng = np.random.default_rng((seed, view, identity))
    mirrored, angle = rng.random() < 0.5, math.radians(rng.uniform(-DEGREES, DEGREES))
    zoom = math.exp(rng.uniform(-math.log(ZOOM), math.log(ZOOM)))
    _, height, width = pixels.shape
    # So far beyond the image the corners of a frame reach that is turned and zoomed out the most.
    lean = math.sin(math.radians(DEGREES))
    above = math.ceil((height + width * lean) / 2 * ZOOM - height / 2) + 2
    beside = math.ceil((width + height * lean) / 2 * ZOOM - width / 2) + 2
    padded = np.pad(pixels, ((0, 0), (above, above), (beside, beside)), mode="reflect")
    # PIL wants the place in the old image of a place in the new one, each counted from the corner.
    across, down = (-1 if mirrored else 1) / zoom, 1 / zoom
    a, b = math.cos(angle) * across, -math.sin(angle) * down
    d, e = math.sin(angle) * across, math.cos(angle) * down
    x, y = width / 2, height / 2
    affine = (a, b, beside + x - a * x - b * y, d, e, above + y - d * x - e * y)
    plane = padded[0] if len(padded) == 1 else padded.transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(plane))
    found = np.asarray(picture.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC))
    return np.ascontiguousarray(found[None] if found.ndim == 2 else found.transpose(2, 0, 1))
