"""Checks the arguments of a fit and makes the variant and its settings of them; a new setting is added here."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photoflux.data.checks import check_seed, check_whole
from photoflux.errors import SettingError, unknown_name
from photoflux.model.variant import BALANCES, Variant, check_learning_rate
from photoflux.model.variants import variant

ON_NONFINITE = ("stop", "halve")
SCHEDULES = ("constant", "step", "cosine", "one_cycle")
OWN_SCHEDULE = "own"  # of a run of Julia's, with a function of the user's
# What is not written where it is the default, because there were runs before it.
_LATER = {"on_nonfinite": "stop", "schedule": "constant"}
_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


@dataclass(frozen=True)
class Settings:
    """How a variant is fitted.

    Attributes
    ----------
    epochs : int
        The maximum number of epochs, 1 or more.
    batch_size : int
        Batch size, 1 or more; the last batch of an epoch may be shorter.
    learning_rate : float
        Adam's learning rate, above 0.
    seed : int
        Fixes initial weights, batch order, dropout and augmentation.
    balance : str
        ``"none"``, ``"weights"`` (the data loss weights an image by N / (K · size of its class)) or ``"augment"``
        (every smaller class is topped up each epoch, to the size of the largest, with augmented copies).
    on_nonfinite : str
        What a loss that is NaN or infinite does: ``"stop"``, an error; or ``"halve"``: the fit goes on from the end of
        the last good epoch with half the learning rate and new moments of Adam, three times at most.
    schedule : str
        What the learning rate is multiplied with before each batch: ``"constant"``, ``"step"``, ``"cosine"`` or
        ``"one_cycle"``; of a run of Julia's also ``"own"``.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int = 42
    balance: str = "none"
    on_nonfinite: str = "stop"
    schedule: str = "constant"

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values; `on_nonfinite` and `schedule` only where they are not the default."""
        return {name: value for name, value in dataclasses.asdict(self).items() if _LATER.get(name) != value}


def chosen_variant(name: str | Path | Variant, l1: float | None, l2: float | None, loss: str | None) -> Variant:
    """Return the variant that `photoflux.train` was asked for.

    Raises
    ------
    SettingError
        If there is no such variant or loss, or a coefficient cannot be used.
    """
    chosen = variant(name).with_penalty(l1=l1, l2=l2)
    return chosen if loss is None else dataclasses.replace(chosen, loss=loss)


def settings_of(
    variant: Variant,
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    seed: int,
    balance: str | None,
    on_nonfinite: str = "stop",
    schedule: str = "constant",
) -> Settings:
    """Return the settings of a fit, the variant's own where None was given.

    Raises
    ------
    SettingError
        If a value cannot be used; the message names the argument, what was expected and what was received.
    """
    balance = variant.balance if balance is None else balance
    if balance not in BALANCES:
        raise unknown_name("balance", balance, BALANCES)
    if on_nonfinite not in ON_NONFINITE:
        raise unknown_name("on_nonfinite", on_nonfinite, ON_NONFINITE)
    if schedule not in SCHEDULES:
        raise unknown_name("schedule", schedule, SCHEDULES)
    return Settings(
        epochs=check_whole("`epochs`", variant.epochs if epochs is None else epochs, 1),
        batch_size=check_whole("`batch_size`", variant.batch_size if batch_size is None else batch_size, 1),
        learning_rate=check_learning_rate(variant.learning_rate if learning_rate is None else learning_rate),
        seed=check_seed(seed),
        balance=balance,
        on_nonfinite=on_nonfinite,
        schedule=schedule,
    )


def seconds_of(max_time: float | str | None) -> float | None:
    """Return a time budget in seconds: a number, or a text such as ``"90s"``, ``"30m"``, ``"2h"`` or ``"1h30m"``.

    Raises
    ------
    SettingError
        If it is no time, or not above 0.

    Examples
    --------
    >>> seconds_of("1h30m"), seconds_of("90"), seconds_of(0.5), seconds_of(None)
    (5400.0, 90.0, 0.5, None)
    """
    if max_time is None:
        return None
    if isinstance(max_time, str):
        found = _TIME.fullmatch(max_time.strip())
        parts = found.groups() if found else ()
        seconds = sum(float(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    else:
        seconds = float(max_time) if isinstance(max_time, int | float) and not isinstance(max_time, bool) else 0.0
    if not 0 < seconds < math.inf:
        raise SettingError(
            "`max_time` must be a time above 0, in seconds or as '90s', '30m', '2h' or '1h30m'; received: "
            f"{max_time!r}."
        )
    return seconds
