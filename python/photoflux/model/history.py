"""The history of a fit: the row of an epoch and the progress after a batch; a new column is added here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EpochRow:
    """One line of ``history.csv``: what an epoch measured. Losses are means over images; ``total = loss + penalty``.

    The training columns are means over the epoch's batches while the weights change, with dropout; the validation
    columns are measured at the epoch's end with dropout off.
    """

    epoch: int
    seconds: float
    train_loss: float
    train_penalty: float
    train_total: float
    train_accuracy: float
    validation_loss: float
    validation_penalty: float
    validation_total: float
    validation_accuracy: float


@dataclass(frozen=True)
class BatchProgress:
    """The progress of a fit after a batch; ``loss`` is the mean total so far in this epoch, as is ``accuracy``."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    images: int
    loss: float
    accuracy: float


def overfitting_starts(history: Sequence[EpochRow]) -> float:
    """Return the first epoch after the lowest validation loss; NaN if the last epoch has the lowest.

    This uses the data loss without the penalty: a penalty that shrinks would hide that the loss rises.
    """
    losses = [row.validation_loss for row in history]
    lowest = int(np.argmin(losses))
    return float("nan") if lowest == len(losses) - 1 else float(history[lowest + 1].epoch)
