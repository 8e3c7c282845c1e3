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
from photoflux.engines.keras.models import build_model, get_weights, measured
from photoflux.engines.keras.steps import Measured, Steps
from photoflux.errors import DataError, DivergedError
from photoflux.model.history import BatchProgress, EpochRow
from photoflux.model.settings import Settings
from photoflux.model.variants import Variant
from photoflux.model.weights import metadata_of, read_weights_of, write_weights


class Means:
    """Means over the images seen so far of what steps measured."""

    def __init__(self) -> None:
        self._images = 0
        self._sums = np.zeros(3)  # of data loss, penalty and correct predictions

    def add(self, measured: Measured, images: int) -> float:
        """Take a step's measures in; return its total loss."""
        loss, penalty = float(measured.loss), float(measured.penalty)
        self._images += images
        self._sums += (loss * images, penalty * images, int(measured.correct))
        return loss + penalty

    def values(self) -> tuple[float, float, float, float]:
        """Return the mean data loss, the mean penalty, their sum, and the share of images classified correctly."""
        loss, penalty, accuracy = (self._sums / self._images).tolist()
        return loss, penalty, loss + penalty, accuracy


@dataclass
class KerasFit:
    """One fit: of what, from and to which weights, and whom to tell; `on_batch` is None where nobody listens."""

    variant: Variant
    prepared: PreparedDataset
    settings: Settings
    weights: Path
    initial: Path | None
    stopped: Callable[[], bool]
    on_epoch: Callable[[dict[str, Any]], None]
    on_batch: Callable[[dict[str, Any]], None] | None

    def __post_init__(self) -> None:
        self.classes, self.shape = len(self.prepared.classes), self.prepared.shape
        self.validation = self.prepared.indices("validation")
        if not len(self.validation):
            raise DataError(
                f"The prepared dataset {self.prepared.path} has no validation images. Prepare it again from more "
                "images."
            )
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed_of_32_bits(self.settings.seed))
        self.model = build_model(self.variant, self.shape, self.classes, weights=self._first_weights())
        self.steps = Steps(self.model, self.variant, self.classes, self.settings.learning_rate)
        self.epochs = Epochs(self.prepared, self.settings)
        self.good = get_weights(self.model)
        self.good_epoch = 0

    def _first_weights(self) -> dict[str, np.ndarray]:
        """Return what the fit starts from and is not drawn: given weights, or what the features are standardised by."""
        if self.initial is not None:
            return read_weights_of(self.initial, self.variant, self.shape, self.classes)
        if not self.variant.takes_features:
            return {}
        values = measured(self.prepared.images[self.prepared.indices("train")])
        return {f"standardise.{kind}": value for kind, value in values.items()}

    def run(self) -> dict[str, Any]:
        """Fit, write the weights file, and return which epoch it holds and why the fit ended."""
        patience = self.variant.patience
        stopping = None if patience is None else early_stopping(self.model, patience)
        ended = "epochs"
        for epoch in range(1, self.settings.epochs + 1):
            start = time.perf_counter()
            train = self._train_epoch(epoch)
            if train is None:
                ended = "interrupted"
                break
            validation = self._validate(epoch)
            self.good, self.good_epoch = get_weights(self.model), epoch
            self.on_epoch(asdict(EpochRow(epoch, time.perf_counter() - start, *train, *validation)))
            if stopping is not None:
                stopping.on_epoch_end(epoch - 1, {"val_loss": validation[2]})
                if self.model.stop_training and epoch < self.settings.epochs:
                    ended = "early_stopping"
                    break
        kept_epoch = self.good_epoch
        if stopping is not None and stopping.best_weights is not None:
            # Keras 3 does this in `on_train_end`, also when the epochs ran out; Keras 2 did it on an early stop only.
            self.model.set_weights(stopping.best_weights)
            kept_epoch = stopping.best_epoch + 1
        self._write(get_weights(self.model))
        return {"kept_epoch": kept_epoch, "ended": ended}

    def _train_epoch(self, epoch: int) -> tuple[float, float, float, float] | None:
        means = Means()
        for batch, (images, labels, factors) in enumerate(self.epochs.epoch(epoch), 1):
            total = means.add(self.steps.train(images, labels, factors), len(labels))
            if not math.isfinite(total):
                self._diverged(total, f"in epoch {epoch}, batch {batch}")
            if self.on_batch is not None:
                of = (epoch, self.settings.epochs, batch, self.epochs.batches, len(labels))
                self.on_batch(asdict(BatchProgress(*of, *means.values()[2:])))
            if self.stopped():
                return None
        return means.values()

    def _validate(self, epoch: int) -> tuple[float, float, float, float]:
        means, size = Means(), self.settings.batch_size
        for start in range(0, len(self.validation), size):
            batch = self.validation[start : start + size]
            images, labels = self.prepared.images[batch], np.asarray(self.prepared.labels[batch])
            total = means.add(self.steps.evaluate(images, labels), len(batch))
            if not math.isfinite(total):
                self._diverged(total, f"in the validation of epoch {epoch}")
        return means.values()

    def _write(self, weights: dict[str, np.ndarray]) -> None:
        write_weights(self.weights, weights, metadata_of(self.variant, self.shape, self.classes))

    def _diverged(self, total: float, where: str) -> None:
        self._write(self.good)
        which = f"epoch {self.good_epoch}" if self.good_epoch else "the initial ones"
        raise DivergedError(
            f"The loss became {total} {where}. Lower `learning_rate` (it is {self.settings.learning_rate:g}) "
            f"or the penalty; the last good weights ({which}) are in {self.weights}."
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
