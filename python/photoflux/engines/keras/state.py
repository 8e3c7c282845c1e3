"""Where a Keras fit stands between two batches: all that it needs to go on. Worker process only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from photoflux.engines.keras.checkpoints import Arrays, from_bits, to_bits
from photoflux.engines.keras.models import get_weights, named_variables
from photoflux.engines.keras.steps import Measured, moments_of
from photoflux.model.history import EpochRow


class Means:
    """Means over the images seen so far of what steps measured."""

    def __init__(self) -> None:
        self.images = 0
        self.sums = np.zeros(3)  # of data loss, penalty and correct predictions

    def add(self, measured: Measured, images: int) -> float:
        """Take a step's measures in; return its total loss."""
        loss, penalty = float(measured.loss), float(measured.penalty)
        self.images += images
        self.sums += (loss * images, penalty * images, int(measured.correct))
        return loss + penalty

    def values(self) -> tuple[float, float, float, float]:
        """Return the mean data loss, the mean penalty, their sum, and the share of images classified correctly."""
        loss, penalty, accuracy = (self.sums / self.images).tolist()
        return loss, penalty, loss + penalty, accuracy


class FitState:
    """The state of a fit: `epoch` is the one that is being trained, and `batch` of its batches are done.

    Parameters
    ----------
    model : keras.Model
        What is fitted.
    optimizer : keras.optimizers.Adam
        What fits it.
    seeds : sequence of keras.Variable
        The states of the generators that change images; those of dropout are the model's.
    stopping : keras.callbacks.EarlyStopping or None
        What ends it early.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Adam,
        seeds: Sequence[Any],
        stopping: keras.callbacks.EarlyStopping | None,
    ) -> None:
        dropping = [layer.seed_generator.state for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
        self._model, self._optimizer, self._seeds = model, optimizer, [*seeds, *dropping]
        self.stopping = stopping
        self.epoch, self.batch, self.means = 1, 0, Means()
        self.began = time.perf_counter()
        self.rate, self.halvings = float(optimizer.learning_rate.numpy()), 0
        self.ended: str | None = None
        self.history: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.good = get_weights(model)
        self.size = sum(value.nbytes for value in self.good.values())

    def end_epoch(self, train: Sequence[float], validation: Sequence[float], epochs: int) -> None:
        """Take an epoch's means into the history; the fit has ended after the last, and where early stopping says."""
        row = EpochRow(self.epoch, time.perf_counter() - self.began, *train, *validation)
        self.history.append(asdict(row))
        self.good = get_weights(self._model)
        if self.stopping is not None:
            self.stopping.on_epoch_end(self.epoch - 1, {"val_loss": row.validation_total})
        if self.epoch == epochs:
            self.ended = "epochs"
        elif self.stopping is not None and self._model.stop_training:
            self.ended = "early_stopping"
        self._begin(self.epoch + 1)

    def _begin(self, epoch: int) -> None:
        self.epoch, self.batch, self.means, self.began = epoch, 0, Means(), time.perf_counter()

    def halve(self) -> None:
        """Begin the epoch again at the last good weights, with half the learning rate and new moments of Adam."""
        self._assign("", self.good)
        for moments in moments_of(self._optimizer):
            for moment in moments:
                moment.assign(np.zeros(moment.shape, np.float32))
        self._optimizer.iterations.assign(0)
        self.rate, self.halvings = self.rate / 2, self.halvings + 1
        self._optimizer.learning_rate.assign(self.rate)
        self._begin(self.epoch)

    def arrays(self) -> Arrays:
        """Return weights, moments, and the last good and the best weights where they are not others of these."""
        variables = named_variables(self._model)
        found = {f"w.{name}": np.array(variable) for name, variable in variables.items()}
        for name, (m, v) in zip(variables, moments_of(self._optimizer), strict=True):
            found |= {f"m.{name}": np.array(m), f"v.{name}": np.array(v)}
        if self.batch:
            found |= {f"good.{name}": self.good[name] for name in variables}
        if self._best_is_apart():
            assert self.stopping is not None
            best = self._named(self.stopping.best_weights)
            found |= {f"best.{name}": best[name] for name in variables}
        return found

    def _best_is_apart(self) -> bool:
        stopping = self.stopping
        return stopping is not None and stopping.best_weights is not None and stopping.best_epoch + 1 < self.epoch - 1

    def _named(self, weights: Sequence[np.ndarray]) -> Arrays:
        """Return weights in the order of the model's under their names."""
        places = {id(variable): number for number, variable in enumerate(self._model.weights)}
        return {name: np.array(weights[places[id(v)]]) for name, v in named_variables(self._model).items()}

    def values(self) -> dict[str, Any]:
        """Return all but the arrays, JSON-ready; floats by their bits."""
        stopping, loss_penalty_hits = self.stopping, self.means.sums.tolist()
        has_best = stopping is not None and stopping.best_weights is not None
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "images": self.means.images,
            "sums": [to_bits(value) for value in loss_penalty_hits],
            "seconds": to_bits(time.perf_counter() - self.began),
            "seeds": [[int(word) for word in np.array(seed)] for seed in self._seeds],
            "steps": int(self._optimizer.iterations.numpy()),
            "learning_rate": to_bits(self.rate),
            "halvings": self.halvings,
            "ended": None if self.ended == "interrupted" else self.ended,
            "history": [[to_bits(float(value)) for value in list(row.values())[1:]] for row in self.history],
            "best": {"epoch": stopping.best_epoch, "wait": stopping.wait, "total": to_bits(stopping.best)}
            if has_best and stopping is not None
            else None,
            "notes": self.notes,
        }

    def restore(self, values: dict[str, Any], arrays: Arrays) -> None:
        """Put a fit that has just begun into the state that `values` and `arrays` gave."""
        names = list(named_variables(self._model))
        self.epoch, self.batch = values["epoch"], values["batch"]
        self.means.images = values["images"]
        self.means.sums[:] = [from_bits(text) for text in values["sums"]]
        self.began = time.perf_counter() - from_bits(values["seconds"])
        self.rate, self.halvings, self.ended = from_bits(values["learning_rate"]), values["halvings"], values["ended"]
        rows = [[from_bits(text) for text in row] for row in values["history"]]
        self.history = [asdict(EpochRow(number, *row)) for number, row in enumerate(rows, 1)]
        self.notes += values["notes"]
        good = {name: arrays[f"good.{name}" if self.batch else f"w.{name}"] for name in names}
        self.good |= good
        if values["best"] is not None and self.stopping is not None:
            self.stopping.best, self.stopping.wait = from_bits(values["best"]["total"]), values["best"]["wait"]
            self.stopping.best_epoch = values["best"]["epoch"]
            apart = any(name.startswith("best.") for name in arrays)
            self._assign("", {name: arrays[f"best.{name}"] for name in names} if apart else good)
            self.stopping.best_weights = self._model.get_weights()
        self._assign("w.", arrays)
        for name, (m, v) in zip(names, moments_of(self._optimizer), strict=True):
            m.assign(arrays[f"m.{name}"])
            v.assign(arrays[f"v.{name}"])
        self._optimizer.iterations.assign(values["steps"])
        self._optimizer.learning_rate.assign(self.rate)
        for seed, words in zip(self._seeds, values["seeds"], strict=True):
            seed.assign(np.array(words, np.uint32))

    def _assign(self, kind: str, arrays: Arrays) -> None:
        for name, variable in named_variables(self._model).items():
            variable.assign(arrays[kind + name])


def early_stopping(model: keras.Model, patience: int) -> keras.callbacks.EarlyStopping:
    """Return Keras' own callback, begun: a lower total validation loss resets the wait, an equal one does not."""
    callback = keras.callbacks.EarlyStopping("val_loss", mode="min", patience=patience, restore_best_weights=True)
    callback.set_model(model)
    callback.on_train_begin()
    model.stop_training = False
    return callback
