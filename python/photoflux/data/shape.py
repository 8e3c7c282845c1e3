"""The shape of images, channels, height and width, in the order of prepared datasets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
    """Of an image, or of every image of a dataset or model: 3 channels are RGB, 1 is grey.

    Examples
    --------
    >>> str(Shape(3, 180, 240))
    '180×240×3'
    """

    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, images: np.ndarray) -> Shape:
        """Return the shape of each image of an array (…, channels, height, width)."""
        return cls(*map(int, images.shape[-3:]))

    @property
    def hwc(self) -> tuple[int, int, int]:
        """Height, width and channels: the order of Keras and of users' arrays."""
        return self.height, self.width, self.channels

    def __str__(self) -> str:
        return "×".join(map(str, self.hwc))
