"""Measures an image in a few numbers by which piles are compared; a number for another respect is added here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SIZES = ("size", "shape")  # from the file's own width and height
PIXELS = ("colour", "brightness", "sharpness")


def looks_of(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the respects of images that their pixels tell, each (N,) float32.

    ``colour`` is Hasler's and Süsstrunk's colourfulness: the spread of the differences red − green and yellow − blue,
    plus 0.3 times the distance of their means from grey; 0 of a grey image, 100 of a very colourful one.
    ``brightness`` is the mean grey value, 0 to 255. ``sharpness`` is log2(1 + s) where s, in grey values, is the
    standard deviation of the Laplacian (the four neighbours' sum less four times the pixel).

    Parameters
    ----------
    images : numpy.ndarray
        uint8, (N, C, H, W), RGB or grey, as the model is given them.
    """
    return dict(zip(PIXELS, np.array([_look(image) for image in images], np.float32).reshape(-1, 3).T, strict=True))


def _look(image: np.ndarray) -> tuple[float, float, float]:
    if len(image) == 1:
        grey, colour = image[0].astype(np.float32), 0.0
    else:
        red, green, blue = image.astype(np.float32)
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        one, other = red - green, 0.5 * (red + green) - blue
        spread = np.hypot(one.std(), other.std())
        colour = float(spread + 0.3 * np.hypot(one.mean(), other.mean()))
    inner = grey[1:-1, 1:-1]
    edges = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return colour, float(grey.mean()), float(np.log2(1 + edges.std()))


def dimensions_of(sizes: Sequence[tuple[int, int]] | np.ndarray) -> dict[str, np.ndarray]:
    """Return ``size`` and ``shape`` of originals of so many pixels in width and height, each (N,) float32.

    ``size`` is log2 of the megapixels, ``shape`` log2 of height / width.
    """
    width, height = np.asarray(sizes, np.float64).reshape(-1, 2).T
    return {
        "size": np.log2(width * height / 1e6).astype(np.float32),
        "shape": np.log2(height / width).astype(np.float32),
    }


def margins_of(logits: np.ndarray) -> np.ndarray:
    """Return how certain a model is of its class, (N,) float32: the log-odds of it against the next, 0 or more.

    Parameters
    ----------
    logits : numpy.ndarray
        (N, outputs); one output is the log-odds of the second of two classes.
    """
    ordered: np.ndarray = np.sort(logits.astype(np.float32), axis=1)
    margins: np.ndarray = np.abs(ordered[:, 0]) if logits.shape[1] == 1 else ordered[:, -1] - ordered[:, -2]
    return margins
