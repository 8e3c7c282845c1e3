"""Checks of arguments that all sources of images share, such as image size and seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from photoflux.errors import SettingError

OnProgress = Callable[[int, int, str], None]
SMALLEST, LARGEST = 8, 4096


def check_image_size(image_size: object) -> None:
    """Refuse an image size that is not an integer from 8 to 4096.

    Raises
    ------
    SettingError
        With what was received.
    """
    whole = isinstance(image_size, int | np.integer) and not isinstance(image_size, bool)
    if not whole or not SMALLEST <= image_size <= LARGEST:  # type: ignore[operator]
        raise SettingError(
            f"`image_size` must be an integer from {SMALLEST} to {LARGEST} (pixels a side); received: {image_size!r}."
        )


def check_seed(seed: object) -> int:
    """Return a seed as Python's own integer; any is good from 0 on, however large.

    Raises
    ------
    SettingError
        If it is no integer, or below 0; with what was received.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise SettingError(f"`seed` must be an integer, 0 or more; received: {seed!r}.")
    return int(seed)
