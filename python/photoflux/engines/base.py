"""The product's protocol of an engine, which Flux and Keras both implement; a new request is declared here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.engines.callbacks import NO_HOOKS, Hooks
from photoflux.errors import SettingError
from photoflux.model.history import BatchProgress, EpochRow
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant


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
        ``"epochs"``, ``"early_stopping"``, ``"stopped"`` (by a callback or `Hooks.max_time`) or ``"interrupted"``.
    """

    history: list[EpochRow]
    kept_epoch: int
    ended: Literal["epochs", "early_stopping", "stopped", "interrupted"]


OnBatch = Callable[[BatchProgress], bool]
OnEpoch = Callable[[EpochRow], None]
OnNote = Callable[[str], None]


@dataclass(frozen=True)
class Checkpoints:
    """Where a fit keeps what it goes on from after it was ended.

    One is written after each epoch, and within one when the last was `minutes` ago; but not where all of them would
    take more than 2 % of the fit's time, as measured. The last two are kept, and one more is written when a fit is
    interrupted. The caller removes them when the run is in its place.

    Attributes
    ----------
    folder : Path
        Is made with the first.
    resume : bool
        Whether the fit goes on from the newest one in it that can be read; a fit that was not ended gives the same
        bytes.
    minutes : float
        0 or more; 0: after each batch, whatever that takes.
    """

    folder: Path
    resume: bool = False
    minutes: float = 10.0


class Model(Protocol):
    """A variant with its weights, loaded once for any number of predictions."""

    def logits(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        """Return the logits, float32 (N, outputs), of uint8 images (N, C, H, W), so many at a time, dropout off.

        A model of a variant that takes features is given these instead: float32 (N, features, 1, 1).

        Raises
        ------
        SettingError
            If the images are not those of the model's shape, or `batch_size` is below 1.
        """
        ...


@runtime_checkable
class SharesCores(Protocol):
    """A model that can leave cores to processes that decode; its numbers do not depend on it.

    Attributes
    ----------
    threads : int
        How many compute at most; 0: one for each core.
    """

    threads: int


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
        on_note: OnNote | None = None,
        checkpoints: Checkpoints | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> Fit:
        """Fit a variant to the training part and write the kept weights to the file `weights`.

        A variant that takes features is fitted to a dataset of these. They are standardised by mean and deviation of
        the training part, measured before the first step, or by those of `initial`.

        The fit starts from the weights in the file `initial`, which must fit; None: from those that the seed gives.
        Adam's moments start at zero either way.

        `on_batch` is called after every batch; when it returns True the fit ends there with the weights of that
        moment. Early stopping and "best weights restored" follow the variant's patience.

        `on_epoch` gets each row of the history, of a fit that is resumed first those that there are; `on_note` gets
        what a user should know of the fit. Without `checkpoints` none are written. What `hooks` ask for ends the fit
        too: after the epoch in which it is, which is cut there, validated, and has its row.

        Raises
        ------
        EngineError
            If there are checkpoints of an unfinished fit that is not to be resumed; or it is, and there are none that
            can be read, or they are of a fit with other settings, of which a table shows the difference.
        SettingError
            If the dataset holds images and the variant takes features, or the other way round, `balance` asks for
            augmented copies of features, or a feature is NaN or infinite; or the engine has no schedules or hooks.
        DivergedError
            If the loss becomes NaN or infinite, and `settings` say to stop or the learning rate was halved three
            times; `weights` then holds the last good ones.
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


def check_features(features: np.ndarray, dimensions: int, layout: str) -> None:
    """Raise a `SettingError` unless features are finite, float32, of so many dimensions, the last two of size 1."""
    if features.dtype != np.float32 or features.ndim != dimensions or features.shape[-2:] != (1, 1):
        raise SettingError(
            f"`images` must be a backbone's features, float32 {layout}; received: {features.dtype} {features.shape}."
        )
    if not np.isfinite(features).all():
        raise SettingError("`images` must be finite features; there are some that are NaN or infinite.")


def check_inputs(images: np.ndarray, variant: Variant, outer: str = "N") -> None:
    """Raise a `SettingError` unless these are what a variant takes, images or features, behind dimensions `outer`."""
    dimensions = 4 + outer.count(",")
    if variant.takes_features:
        check_features(images, dimensions, f"({outer}, features, 1, 1)")
    else:
        check_images(images, dimensions, f"({outer}, C, H, W)")


def check_batch(images: np.ndarray, variant: Variant, shape: Shape, batch_size: int) -> None:
    """Raise a `SettingError` unless a variant's model of images of a shape can predict these."""
    check_inputs(images, variant)
    _check_shape(images, shape)
    check_batch_size(batch_size)


def check_images_of(images: np.ndarray, shape: Shape) -> None:
    """Raise a `SettingError` unless images are uint8 (N, C, H, W) of a shape."""
    check_images(images, 4, "(N, C, H, W)")
    _check_shape(images, shape)


def _check_shape(images: np.ndarray, shape: Shape) -> None:
    if Shape.of(images) != shape:
        raise SettingError(f"`images` must be {shape} (H×W×C), as the model's; received: {Shape.of(images)}.")


def check_batch_size(batch_size: int) -> None:
    """Raise a `SettingError` unless a batch has images."""
    if batch_size < 1:
        raise SettingError(f"`batch_size` must be 1 or more; received: {batch_size!r}.")


def check_dataset(variant: Variant, prepared: PreparedDataset, balance: str) -> None:
    """Raise a `SettingError` unless a variant can be fitted to a dataset with this `balance`."""
    features = prepared.features is not None
    if variant.takes_features and not features:
        raise SettingError(
            f"The variant {variant.name} is fitted to a backbone's features, and {prepared.path} holds images. "
            "Give its features dataset."
        )
    if features and not variant.takes_features:
        raise SettingError(
            f"The variant {variant.name} is fitted to images, and {prepared.path} holds a backbone's features. "
            "Give the prepared dataset of the images, or a transfer variant."
        )
    if features and balance == "augment":
        raise SettingError(
            "`balance` cannot be 'augment' on features: there are no images to change. Make the features with `views`, "
            "changed copies of the training images, or take 'weights'."
        )
    if features and not all(np.isfinite(prepared.images[at : at + 4096]).all() for at in range(0, len(prepared), 4096)):
        raise SettingError(f"{prepared.path} has features that are NaN or infinite. Delete it, and make them again.")
