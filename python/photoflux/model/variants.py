"""The table of variants, read from the file that Julia reads too; a new property of a variant is added here."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.errors import SettingError, unknown_name

# Each with its name in a sentence.
LOSSES = {"cross_entropy": "cross-entropy", "squared_error": "squared error"}


def julia_package() -> Path:
    """Return the folder of the Julia package: inside the installed wheel, or the root of the repository."""
    here = Path(__file__).parents[1]
    shipped = here / "PhotoFlux.jl"
    return shipped if shipped.is_dir() else here.parents[1]


@dataclass(frozen=True)
class Variant:
    """A named recipe: architecture, penalty, dropout, early stopping, optimiser and loss.

    Attributes
    ----------
    name : str
        Its name in the table.
    architecture : str
        ``"photo_cnn"`` or ``"dense"``.
    hidden : tuple of int
        Units of the hidden Dense layers.
    penalty : mapping of str to mapping of str to float
        ``{"conv" | "hidden" | "output": {"l1": λ₁, "l2": λ₂}}``, Keras' convention λ₁·Σ|w| + λ₂·Σw² on kernels.
    dropout : mapping of str to float
        ``{"pool" | "hidden": rate}``.
    patience : int or None
        Epochs without a better total validation loss before the fit stops; None: no early stopping.
    epochs, batch_size, image_size : int
        Defaults of a fit.
    learning_rate : float
        Adam's step size.
    loss : str
        ``"cross_entropy"`` on logits, or ``"squared_error"``: 0.5·mean((softmax(z) − onehot)²).
    made_for : str
        The data for which its document made it.
    """

    name: str
    architecture: str
    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float
    image_size: int
    made_for: str
    penalty: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    dropout: Mapping[str, float] = field(default_factory=dict)
    patience: int | None = None
    loss: str = "cross_entropy"

    def with_penalty(self, *, l1: float | None = None, l2: float | None = None) -> Variant:
        """Return the variant with another L1 or L2 coefficient on every kernel that it penalises.

        Parameters
        ----------
        l1, l2 : float, optional
            The coefficients, 0 or more; None leaves the table's.

        Raises
        ------
        SettingError
            If a coefficient is negative or not finite, or the variant has no penalty.
        """
        given = {name: value for name, value in (("l1", l1), ("l2", l2)) if value is not None}
        for name, value in given.items():
            if not (np.isfinite(value) and value >= 0):
                raise SettingError(f"`{name}` must be a finite number, 0 or more; received: {value!r}.")
        if given and not self.penalty:
            raise SettingError(
                f"The variant {self.name!r} has no penalty, so `{next(iter(given))}` cannot be set. "
                f"Take one that has: {', '.join(v.name for v in variants().values() if v.penalty)}."
            )
        groups = {group: {**coefficients, **given} for group, coefficients in self.penalty.items()}
        return dataclasses.replace(self, penalty=groups)

    def as_dict(self) -> dict[str, Any]:
        """Return the variant as plain JSON-ready values."""
        return {**dataclasses.asdict(self), "hidden": list(self.hidden)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Variant:
        """Build a variant from what `as_dict` returned."""
        return cls(**{**values, "hidden": tuple(values["hidden"])})


@cache
def variants() -> Mapping[str, Variant]:
    """Return the table of variants: a mapping of name to `Variant`, in the order of ``julia/variants.toml``.

    Examples
    --------
    >>> variants()["l2"].penalty["conv"]
    {'l2': 0.01}
    """
    with (julia_package() / "julia" / "variants.toml").open("rb") as file:
        rows = tomllib.load(file)
    table = {}
    for name, row in rows.items():
        stopping = row.pop("early_stopping", None)
        row["hidden"] = tuple(row["hidden"])
        table[name] = Variant(name=name, patience=stopping and stopping["patience"], **row)
    return table


def variant(name: str | Variant) -> Variant:
    """Return the variant of that name; a `Variant` is returned as it is.

    Raises
    ------
    SettingError
        If there is none; the message proposes the nearest.
    """
    if isinstance(name, Variant):
        return name
    if name not in variants():
        raise unknown_name("variant", name, variants())
    return variants()[name]
