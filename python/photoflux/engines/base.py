"""The product's protocol of an engine, which Flux and Keras both implement; a new request is declared here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.errors import SettingError
from photoflux.model.history import BatchProgress, EpochRow
from photoflux.model.settings import Settings
from photoflux.model.variants import Variant


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


OnBatch = Callable[[BatchProgress], bool]
OnEpoch = Callable[[EpochRow], None]


class Model(Protocol):
    """A variant with its weights, loaded once for any number of predictions."""

    def logits(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        """Return the logits, float32 (N, outputs), of uint8 images (N, C, H, W), so many at a time, dropout off.

        Raises
        ------
        SettingError
            If the images are not those of the model's shape, or `batch_size` is below 1.
        """
        ...


class Engine(Protocol):
    """What fits, and loads what was fitted. mypy checks both engines against it where `get_engine` returns them."""

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

    def load(self, variant: Variant, weights: Path, shape: Shape, classes: int) -> Model:
        """Return the model of a weights file, for any number of predictions.

        Raises
        ------
        EngineError, RunError
            If the file cannot be read, or has weights of other shapes.
        """
        ...


def check_images(images: np.ndarray, dimensions: int, layout: str) -> None:
    """Raise a `SettingError` unless images are uint8 of so many dimensions."""
    if images.dtype != np.uint8 or images.ndim != dimensions:
        raise SettingError(f"`images` must be uint8 {layout}; received: {images.dtype} {images.shape}.")


def check_batch(images: np.ndarray, shape: Shape, batch_size: int) -> None:
    """Raise a `SettingError` unless a model of images of a shape can predict these."""
    check_images(images, 4, "(N, C, H, W)")
    if Shape.of(images) != shape:
        raise SettingError(f"`images` must be {shape} (H×W×C), as the model's; received: {Shape.of(images)}.")
    if batch_size < 1:
        raise SettingError(f"`batch_size` must be 1 or more; received: {batch_size!r}.")
