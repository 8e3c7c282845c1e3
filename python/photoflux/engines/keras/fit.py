"""The training loop of the Keras engine, with early stopping and interruption. Worker process only."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.engines.base import Checkpoints
from photoflux.engines.keras.checkpoints import Keeper, description_of
from photoflux.engines.keras.epochs import Epochs
from photoflux.engines.keras.models import build_model, get_weights, measured
from photoflux.engines.keras.state import FitState, Means, early_stopping
from photoflux.engines.keras.steps import Steps
from photoflux.errors import DataError, DivergedError, EngineError
from photoflux.model.history import BatchProgress
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.model.weights import metadata_of, read_weights_of, write_weights
from photoflux.system.names import first_few, printable

MOST_HALVINGS = 3
IMAGES_SHOWN = 3  # of a batch, in an error


class NotFinite(Exception):
    """A loss became NaN or infinite."""

    def __init__(self, total: float, where: str, batch: int) -> None:
        super().__init__(where)
        self.total, self.where, self.batch = total, where, batch


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
    on_note: Callable[[str], None]
    checkpoints: Checkpoints | None

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
        first = self._first_weights()
        self.model = build_model(self.variant, self.shape, self.classes, weights=first)
        self.steps = Steps(self.model, self.variant, self.classes, self.settings.learning_rate)
        self.epochs = Epochs(self.prepared, self.settings)
        patience = self.variant.patience
        stopping = None if patience is None else early_stopping(self.model, patience)
        self.state = FitState(self.model, self.steps.optimizer, self.epochs.seeds, stopping)
        fit = description_of(self.variant, self.settings, self.prepared, None if self.initial is None else first)
        self.keeper = Keeper(self.checkpoints, fit, self._note)

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
        state = self.state
        self._resume()
        while state.ended is None:
            try:
                train = self._train_epoch()
                validation = None if train is None else self._validate()
                if train is None or validation is None:
                    break
            except NotFinite as error:
                self._lower_rate(error)
                continue
            state.end_epoch(train, validation, self.settings.epochs)
            self.on_epoch(state.history[-1])
            if self.keeper.is_due(state.size, True):
                self._keep()
        if state.ended is None:
            state.ended = "interrupted"
            if self.keeper.wanted:
                self._keep()
        kept_epoch, stopping = len(state.history), state.stopping
        if stopping is not None and stopping.best_weights is not None:
            # Keras 3 does this in `on_train_end`, also when the epochs ran out; Keras 2 did it on an early stop only.
            self.model.set_weights(stopping.best_weights)
            kept_epoch = stopping.best_epoch + 1
        self._write(get_weights(self.model))
        return {"kept_epoch": kept_epoch, "ended": state.ended}

    def _resume(self) -> None:
        found = self.keeper.found()
        if found is None:
            return
        try:
            self.state.restore(found.state, found.arrays)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
            raise EngineError(
                f"The checkpoint {found.path} is not as a fit writes it ({str(error)[:200]}). Remove its folder to "
                "begin again."
            ) from error
        for note in self.state.notes:
            self.on_note(note)
        if found.damaged:
            self._note(f"The fit went on from the checkpoint {found.path.name}, because {' and '.join(found.damaged)}.")
        for row in self.state.history:
            self.on_epoch(row)

    def _note(self, note: str) -> None:
        self.state.notes.append(note)
        self.on_note(note)

    def _keep(self, *, only: bool = False) -> None:
        self.keeper.write(self.state.values(), self.state.arrays(), only=only)

    def _train_epoch(self) -> tuple[float, float, float, float] | None:
        state, means = self.state, self.state.means
        for images, labels, factors in self.epochs.epoch(state.epoch, state.batch):
            total = means.add(self.steps.train(images, labels, factors), len(labels))
            state.batch += 1
            if not math.isfinite(total):
                raise NotFinite(total, f"in epoch {state.epoch}, batch {state.batch}", state.batch)
            if self.on_batch is not None:
                of = (state.epoch, self.settings.epochs, state.batch, self.epochs.batches, len(labels))
                self.on_batch(asdict(BatchProgress(*of, *means.values()[2:])))
            if self.stopped():
                return None
            if state.batch < self.epochs.batches and self.keeper.is_due(state.size, False):
                self._keep()
        return means.values()

    def _validate(self) -> tuple[float, float, float, float] | None:
        means, size = Means(), self.settings.batch_size
        for start in range(0, len(self.validation), size):
            batch = self.validation[start : start + size]
            images, labels = self.prepared.images[batch], np.asarray(self.prepared.labels[batch])
            total = means.add(self.steps.evaluate(images, labels), len(batch))
            if not math.isfinite(total):
                raise NotFinite(total, f"in the validation of epoch {self.state.epoch}", self.epochs.batches)
            if self.stopped():
                return None
        return means.values()

    def _write(self, weights: dict[str, np.ndarray]) -> None:
        write_weights(self.weights, weights, metadata_of(self.variant, self.shape, self.classes))

    def _lower_rate(self, error: NotFinite) -> None:
        """Begin the epoch again with half the learning rate.

        Raises
        ------
        DivergedError
            If the settings do not say so, or it was done often enough.
        """
        state, before = self.state, self.state.rate
        done = len(state.history)
        if self.settings.on_nonfinite != "halve" or state.halvings == MOST_HALVINGS:
            self._diverged(error)
        state.halve()
        place = f"the end of epoch {done}" if done else "the start"
        self._note(
            f"The loss became {error.total} {error.where}: the fit went on from {place} with the learning rate "
            f"{state.rate:g} in place of {before:g} ({state.halvings} of {MOST_HALVINGS} times)."
        )
        if self.keeper.wanted:
            self._keep(only=True)

    def _diverged(self, error: NotFinite) -> NoReturn:
        state, source = self.state, error.batch
        weights = get_weights(self.model)
        if source > 1 and not all(np.isfinite(value).all() for value in weights.values()):
            source -= 1  # its step has made them so; none was made for this batch
        self._write(state.good)
        kept = f"epoch {len(state.history)}" if state.history else "the initial ones"
        chosen, files = self.epochs.images_of(state.epoch, source), self.prepared.files()
        names = first_few((printable(files[image]["path"]) for image in chosen), IMAGES_SHOWN)
        raise DivergedError(
            f"The loss became {error.total} {error.where}. In batch {source}: {names} ({len(chosen)} in all). "
            f"The largest weights: {largest_weights(weights)}. Lower `learning_rate` (it is {state.rate:g}) "
            f"or the penalty; the last good weights ({kept}) are in {self.weights}."
        )


def largest_weights(weights: Mapping[str, np.ndarray], most: int = 3) -> str:
    """Return of each array the weight that is largest or not finite, the largest first, in words."""
    found = []
    for name, values in weights.items():
        sizes = np.where(np.isfinite(values), np.abs(values), np.inf).ravel()
        found.append((float(sizes.max()), f"{name} {values.ravel()[sizes.argmax()]:.6g}"))
    return ", ".join(text for _, text in sorted(found, key=lambda pair: -pair[0])[:most])


def seed_of_32_bits(seed: int) -> int:
    """Return the seed of initial weights and dropout: Keras takes 32 bits, so of a larger one they depend on all bits.

    What else a fit draws comes from NumPy's generators, which take all bits themselves.
    """
    return seed if seed < 2**32 else int(np.random.SeedSequence(seed).generate_state(1)[0])
