"""Checks of arguments that are alike in several places: sizes, seeds, whole and finite numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from photoflux.errors import SettingError

OnProgress = Callable[[int, int, str], None]
SMALLEST, LARGEST = 8, 4096
_FINITE = float(np.finfo(np.float32).max)  # engines compute in Float32


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
    """Return a seed as Python's own integer, or raise `SettingError`; any is good from 0 on, however large."""
    return check_whole("`seed`", seed, 0, "an integer")


def check_whole(what: str, value: object, least: int, expected: str = "a whole number") -> int:
    """Return a whole number as Python's own integer; `what` and `expected` are the message's words, as "`epochs`".

    Raises
    ------
    SettingError
        If it is no whole number, or below `least`; with what was received.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise SettingError(f"{what} must be {expected}, {least} or more; received: {value!r}.")
    return int(value)


def check_finite(what: str, value: object, expected: str, fits: Callable[[float], bool]) -> float:
    """Return a finite number that fits, rounded to Float32, as Python's own float; `expected` says what fits.

    Raises
    ------
    SettingError
        If it is no number, not finite, or does not fit; with what was received.
    """
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not abs(value) <= _FINITE or not fits(float(np.float32(value))):  # type: ignore[arg-type]
        raise SettingError(f"{what} must be {expected}; received: {value!r}.")
    return float(value)  # type: ignore[arg-type]
