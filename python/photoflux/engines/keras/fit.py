"""The training loop of the Keras engine, with early stopping and interruption. Worker process only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.engines.keras.epochs import Epochs
from photoflux.engines.keras.models import build_model, get_weights, set_weights
from photoflux.engines.keras.steps import Measured, Steps
from photoflux.errors import DataError, DivergedError
from photoflux.model.history import BatchProgress, EpochRow
from photoflux.model.settings import Settings
from photoflux.model.variants import Variant
from photoflux.model.weights import metadata_of, read_weights_of, write_weights


@dataclass
class Means:
    """Means over the images seen so far of what steps measured."""

    images: int = 0
    loss_sum: float = 0.0
    penalty_sum: float = 0.0
    correct: int = 0

    def add(self, measured: Measured, images: int) -> float:
        """Take a step's measures in; return its total loss."""
        loss, penalty = float(measured.loss), float(measured.penalty)
        self.images += images
        self.loss_sum += loss * images
        self.penalty_sum += penalty * images
        self.correct += int(measured.correct)
        return loss + penalty

    @property
    def loss(self) -> float:
        """Mean data loss."""
        return self.loss_sum / self.images

    @property
    def penalty(self) -> float:
        """Mean penalty."""
        return self.penalty_sum / self.images

    @property
    def total(self) -> float:
        """Mean data loss + penalty."""
        return self.loss + self.penalty

    @property
    def accuracy(self) -> float:
        """Share of images classified correctly."""
        return self.correct / self.images


@dataclass(frozen=True)
class FitRequest:
    """What to fit, from and to which weights, and whom to tell; `on_batch` is None where nobody listens."""

    variant: Variant
    prepared: PreparedDataset
    settings: Settings
    weights: Path
    initial: Path | None
    stopped: Callable[[], bool]
    on_epoch: Callable[[dict[str, Any]], None]
    on_batch: Callable[[dict[str, Any]], None] | None


class KerasFit:
    """One fit of a variant."""

    def __init__(self, request: FitRequest) -> None:
        prepared, settings = request.prepared, request.settings
        self.request = request
        self.classes = len(prepared.classes)
        self.shape = prepared.shape
        self.validation = prepared.indices("validation")
        if not len(self.validation):
            raise DataError(
                f"The prepared dataset {prepared.path} has no validation images. Prepare it again from more images."
            )
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed_of_32_bits(settings.seed))
        self.model = build_model(request.variant, self.shape, self.classes)
        if request.initial is not None:
            set_weights(self.model, read_weights_of(request.initial, request.variant, self.shape, self.classes))
        self.steps = Steps(self.model, request.variant, self.classes, settings.learning_rate)
        self.epochs = Epochs(prepared, settings)
        self.good = get_weights(self.model)
        self.good_epoch = 0

    def run(self) -> dict[str, Any]:
        """Fit, write the weights file, and return which epoch it holds and why the fit ended."""
        request = self.request
        stopping = None
        if request.variant.patience is not None:
            stopping = early_stopping(self.model, request.variant.patience)
        ended = "epochs"
        for epoch in range(1, request.settings.epochs + 1):
            start = time.perf_counter()
            train = self._train_epoch(epoch)
            if train is None:
                ended = "interrupted"
                break
            validation = self._validate(epoch)
            self.good, self.good_epoch = get_weights(self.model), epoch
            request.on_epoch(asdict(_row(epoch, time.perf_counter() - start, train, validation)))
            if stopping is not None:
                stopping.on_epoch_end(epoch - 1, {"val_loss": validation.total})
                if self.model.stop_training and epoch < request.settings.epochs:
                    ended = "early_stopping"
                    break
        kept_epoch = self.good_epoch
        if stopping is not None and stopping.best_weights is not None:
            # Keras 3 does this in `on_train_end`, also when the epochs ran out; Keras 2 did it on an early stop only.
            self.model.set_weights(stopping.best_weights)
            kept_epoch = stopping.best_epoch + 1
        self._write(get_weights(self.model))
        return {"kept_epoch": kept_epoch, "ended": ended}

    def _train_epoch(self, epoch: int) -> Means | None:
        request, settings = self.request, self.request.settings
        means = Means()
        for batch, (images, labels, factors) in enumerate(self.epochs.epoch(epoch), 1):
            total = means.add(self.steps.train(images, labels, factors), len(labels))
            if not math.isfinite(total):
                self._diverged(total, f"in epoch {epoch}, batch {batch}")
            if request.on_batch is not None:
                progress = BatchProgress(
                    epoch, settings.epochs, batch, self.epochs.batches, len(labels), means.total, means.accuracy
                )
                request.on_batch(asdict(progress))
            if request.stopped():
                return None
        return means

    def _validate(self, epoch: int) -> Means:
        prepared, size = self.request.prepared, self.request.settings.batch_size
        means = Means()
        for start in range(0, len(self.validation), size):
            batch = self.validation[start : start + size]
            total = means.add(
                self.steps.evaluate(prepared.images[batch], np.asarray(prepared.labels[batch])), len(batch)
            )
            if not math.isfinite(total):
                self._diverged(total, f"in the validation of epoch {epoch}")
        return means

    def _write(self, weights: dict[str, np.ndarray]) -> None:
        metadata = metadata_of(self.request.variant, self.shape, self.classes)
        write_weights(self.request.weights, weights, metadata)

    def _diverged(self, total: float, where: str) -> None:
        self._write(self.good)
        which = f"epoch {self.good_epoch}" if self.good_epoch else "the initial ones"
        raise DivergedError(
            f"The loss became {total} {where}. Lower `learning_rate` (it is {self.request.settings.learning_rate:g}) "
            f"or the penalty; the last good weights ({which}) are in {self.request.weights}."
        )


def seed_of_32_bits(seed: int) -> int:
    """Return the seed of initial weights and dropout: Keras takes 32 bits, so of a larger one they depend on all bits.

    What else a fit draws comes from NumPy's generators, which take all bits themselves.
    """
    return seed if seed < 2**32 else int(np.random.SeedSequence(seed).generate_state(1)[0])


def early_stopping(model: keras.Model, patience: int) -> keras.callbacks.EarlyStopping:
    """Return Keras' own callback, begun: a lower total validation loss resets the wait, an equal one does not."""
    callback = keras.callbacks.EarlyStopping("val_loss", mode="min", patience=patience, restore_best_weights=True)
    callback.set_model(model)
    callback.on_train_begin()
    model.stop_training = False
    return callback


def _row(epoch: int, seconds: float, train: Means, validation: Means) -> EpochRow:
    return EpochRow(
        epoch,
        seconds,
        *(train.loss, train.penalty, train.total, train.accuracy),
        *(validation.loss, validation.penalty, validation.total, validation.accuracy),
    )
