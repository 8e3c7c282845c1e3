"""What an engine is: the small protocol that the Flux product and the Keras reference both follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.errors import SettingError
from photoflux.variants import Variant

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


@dataclass(frozen=True)
class EpochRow:
    """One line of ``history.csv``: what an epoch measured. Losses are means over images; ``total = loss + penalty``.

    The training columns are means over the epoch's batches while the weights move and dropout is on; the validation
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
    """Where a fit stands after a batch; ``loss`` is the mean total so far in this epoch, as is ``accuracy``."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    images: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Fit:
    """What a fit returns, beside the weights file that it wrote.

    Attributes
    ----------
    history : list of EpochRow
        A row per finished epoch.
    kept_epoch : int
        The epoch (from 1) whose weights are in the file; 0 if none was finished.
    ended : str
        ``"epochs"``, ``"early_stopping"`` or ``"interrupted"``.
    """

    history: list[EpochRow]
    kept_epoch: int
    ended: Literal["epochs", "early_stopping", "interrupted"]


@dataclass(frozen=True)
class TraceRequest:
    """Some steps to run from given weights on given batches, so that two engines can be compared number by number.

    Attributes
    ----------
    variant : Variant
        Architecture, penalty and loss.
    weights : Path
        The initial weights, a safetensors file in Keras layout.
    images : numpy.ndarray
        uint8, (steps, batch, channels, height, width).
    labels : numpy.ndarray
        int32, (steps, batch), from 0.
    classes : int
        Number of classes; 2 means one output and binary cross-entropy.
    learning_rate : float
        Adam's step size.
    masks : mapping of str to numpy.ndarray
        For each dropout layer (``pool_dropout``, ``dense1_dropout``, …) the float32 factors that its input is
        multiplied by, Keras layout, (steps, batch, …features). Empty: dropout is off.
    """

    variant: Variant
    weights: Path
    images: np.ndarray
    labels: np.ndarray
    classes: int
    learning_rate: float
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Augmentation:
    """One drawn transformation of an image: flips, then rotation, then zoom, about its centre.

    Attributes
    ----------
    flip_x, flip_y : bool
        Mirrored left to right, top to bottom.
    angle : float
        Radians; a positive angle turns the image counter-clockwise.
    zoom : float
        Factor on coordinates: above 1 zooms out, below 1 zooms in.
    """

    flip_x: bool = False
    flip_y: bool = False
    angle: float = 0.0
    zoom: float = 1.0


OnBatch = Callable[[BatchProgress], bool]
OnEpoch = Callable[[EpochRow], None]


class Engine(Protocol):
    """What fits and predicts."""

    name: str

    def versions(self) -> dict[str, str]:
        """Return the versions of what computes, for ``run.json``."""
        ...

    def fit(
        self,
        variant: Variant,
        prepared: PreparedDataset,
        settings: Settings,
        weights: Path,
        *,
        initial: Path | None = None,
        on_batch: OnBatch | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> Fit:
        """Fit a variant to the training part and write the kept weights to the file `weights`.

        The fit starts from the weights in the file `initial`, which must fit; None: from those that the seed gives.
        Adam's moments start at zero either way.

        `on_batch` is called after every batch; when it returns True the fit ends there with the weights of that
        moment. Early stopping and "best weights restored" follow the variant's patience.

        Raises
        ------
        DivergedError
            If the loss becomes NaN or infinite; `weights` then holds the last good ones.
        """
        ...

    def logits(
        self, variant: Variant, weights: Path, images: np.ndarray, classes: int, *, batch_size: int = 32
    ) -> np.ndarray:
        """Return the logits, float32 (N, outputs), of uint8 images (N, C, H, W), dropout off."""
        ...

    def trace(self, request: TraceRequest) -> dict[str, np.ndarray]:
        """Run the steps of a `TraceRequest` and return every number of them.

        Returns
        -------
        dict of str to numpy.ndarray
            Of the first batch, before any step: ``activation/LAYER``, what each layer but ``flatten`` gives, (batch,
            height, width, channels) or (batch, units), and ``logits`` (batch, outputs). ``loss``, ``penalty``,
            ``total`` (steps,), each before its step. And for each weight NAME, Keras layout: ``initial/NAME``, as the
            engine's model holds it; ``gradient/NAME`` of the first step's total; ``first/NAME``, ``moment1/NAME`` and
            ``moment2/NAME``, the weight and Adam's moments after one step; ``final/NAME``, after the last.
        """
        ...

    def stopping(self, totals: Sequence[float], patience: int) -> tuple[int, int]:
        """Return after which epoch early stopping ends a fit with these validation totals, and the best epoch."""
        ...

    def augmented(self, images: np.ndarray, drawn: Sequence[Augmentation]) -> np.ndarray:
        """Return uint8 images (N, C, H, W) transformed, one `Augmentation` each, as float32."""
        ...

    def pixels(self, prepared: PreparedDataset, chosen: np.ndarray) -> np.ndarray:
        """Return images of a prepared dataset as a fit sees them, float32 (N, C, H, W), 0 to 255."""
        ...


def check_images(images: np.ndarray, dimensions: int, layout: str) -> None:
    """Raise a `SettingError` unless images are uint8 of so many dimensions."""
    if images.dtype != np.uint8 or images.ndim != dimensions:
        raise SettingError(f"`images` must be uint8 {layout}; received: {images.dtype} {images.shape}.")
