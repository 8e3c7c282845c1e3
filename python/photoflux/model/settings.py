"""Checks the arguments of a fit and makes the variant and its settings of them; a new setting is added here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from photoflux.data.checks import check_seed
from photoflux.errors import SettingError, unknown_name
from photoflux.model.variants import LOSSES, Variant, variant

BALANCES = ("none", "weights", "augment")


@dataclass(frozen=True)
class Settings:
    """How a fit is run.

    Attributes
    ----------
    epochs : int
        The most epochs, 1 or more.
    batch_size : int
        Images a step, 1 or more; the last batch of an epoch may be shorter.
    learning_rate : float
        Adam's step size, above 0.
    seed : int
        Fixes initial weights, batch order, dropout and augmentation.
    balance : str
        ``"none"``, ``"weights"`` (the data loss weighs an image by N / (K · size of its class)) or ``"augment"``
        (every smaller class is topped up each epoch, to the size of the largest, with augmented copies).
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int = 42
    balance: str = "none"


def recipe_of(name: str | Variant, l1: float | None, l2: float | None, loss: str | None) -> Variant:
    """Return the variant that `photoflux.train` was asked for.

    Raises
    ------
    SettingError
        If there is no such variant or loss, or a coefficient cannot be used.
    """
    recipe = variant(name).with_penalty(l1=l1, l2=l2)
    if loss is None:
        return recipe
    if loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    return dataclasses.replace(recipe, loss=loss)


def settings_of(
    recipe: Variant, epochs: int | None, batch_size: int | None, learning_rate: float | None, seed: int, balance: str
) -> Settings:
    """Return the settings of a fit, the recipe's own where None was given.

    Raises
    ------
    SettingError
        If a value cannot be used; the message names the argument, what was expected and what was received.
    """

    def whole(name: str, value: Any, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise SettingError(f"`{name}` must be a whole number, {least} or more; received: {value!r}.")
        return int(value)

    rate = recipe.learning_rate if learning_rate is None else learning_rate
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not (np.isfinite(rate) and rate > 0):
        raise SettingError(f"`learning_rate` must be a finite number above 0; received: {learning_rate!r}.")
    if balance not in BALANCES:
        raise unknown_name("balance", balance, BALANCES)
    return Settings(
        epochs=whole("epochs", recipe.epochs if epochs is None else epochs, 1),
        batch_size=whole("batch_size", recipe.batch_size if batch_size is None else batch_size, 1),
        learning_rate=float(rate),
        seed=check_seed(seed),
        balance=balance,
    )
