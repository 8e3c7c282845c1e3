"""Checks the arguments of a fit and makes the variant and its settings of them; a new setting is added here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photoflux.data.checks import check_seed, check_whole
from photoflux.errors import unknown_name
from photoflux.model.variants import BALANCES, Variant, check_learning_rate, variant

ON_NONFINITE = ("stop", "halve")


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
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int = 42
    balance: str = "none"
    on_nonfinite: str = "stop"

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values; `on_nonfinite` only where it is not the default."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if (name, value) != ("on_nonfinite", "stop")}


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
    return Settings(
        epochs=check_whole("`epochs`", variant.epochs if epochs is None else epochs, 1),
        batch_size=check_whole("`batch_size`", variant.batch_size if batch_size is None else batch_size, 1),
        learning_rate=check_learning_rate(variant.learning_rate if learning_rate is None else learning_rate),
        seed=check_seed(seed),
        balance=balance,
        on_nonfinite=on_nonfinite,
    )
