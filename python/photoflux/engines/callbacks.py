"""Callbacks of a fit: what a user's objects are told of it, and may ask of it; a new moment is added here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from photoflux.errors import SettingError
from photoflux.model.history import EpochRow
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant, check_learning_rate

HOOKS = ("on_train_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end")


class RunningFit:
    """A fit as a callback sees it; `learning_rate` can be set, all else is read.

    A fit makes it: it is what the methods of a `Callback` are given.

    Parameters
    ----------
    variant : Variant
        The variant that is fitted.
    settings : Settings
        Its settings.
    history : list of EpochRow
        The rows so far, to which the fit adds.

    Attributes
    ----------
    epoch, epochs : int
        The epoch that is being trained, from 1, or has just ended; and the most there are.
    batch, batches : int
        How many batches of this epoch are done, and how many it has.
    loss, accuracy : float
        Means over the images of this epoch so far, of the loss with the penalty and of the correct predictions; NaN
        before its first batch.
    seconds : float
        How long the fit has taken; of one that was resumed with the parts before.
    variant : Variant
        The variant that is fitted.
    settings : Settings
        Its settings.
    """

    def __init__(self, variant: Variant, settings: Settings, history: list[EpochRow]) -> None:
        self.variant, self.settings = variant, settings
        self.epoch, self.epochs, self.batch, self.batches = 0, settings.epochs, 0, 0
        self.loss = self.accuracy = math.nan
        self.seconds = 0.0
        self._history, self._rate = history, settings.learning_rate
        self._new_rate, self._calling, self._asked = 0.0, "a callback", ""

    @property
    def history(self) -> list[EpochRow]:
        """A row for each epoch that is over."""
        return list(self._history)

    @property
    def learning_rate(self) -> float:
        """Adam's learning rate, as the last batch was trained with.

        What it is set to, a finite number above 0, holds until it is set again or is halved after a loss that is not
        finite, and a fit that is resumed has it. With a `schedule`, which sets it before each batch, a `SettingError`
        is raised.
        """
        return self._rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if self.settings.schedule != "constant":
            raise SettingError(
                f"`learning_rate` cannot be set in a fit with the schedule {self.settings.schedule!r}, which sets it "
                "before each batch. Leave one of the two out."
            )
        self._rate = self._new_rate = check_learning_rate(value)

    def stop(self) -> None:
        """End the fit after the running batch, or the epoch that has ended.

        An epoch that is ended after some of its batches is validated like any other; its row has the means over these.
        The run's ``ended`` is ``"stopped"``, and a note says which callback has asked for that.
        """
        self._asked = self._asked or self._calling


class Callback:
    """What a fit tells: a class of your own with some of these methods, each of which does nothing here.

    Any object that has one of them will do. An exception in one ends the fit, and reaches the caller of
    `photoflux.train`. What a callback keeps for itself is not in the checkpoints.

    Examples
    --------
    >>> class Rate(Callback):
    ...     def on_epoch_end(self, fit):
    ...         fit.learning_rate *= 0.9
    """

    def on_train_begin(self, fit: RunningFit) -> None:
        """Do something before the first batch; also of a fit that is resumed, whose learning rate stays as it was.

        Parameters
        ----------
        fit : RunningFit
            The fit.
        """

    def on_epoch_begin(self, fit: RunningFit) -> None:
        """Do something before the first batch of an epoch; one that is resumed within goes on without.

        Parameters
        ----------
        fit : RunningFit
            The fit.
        """

    def on_batch_end(self, fit: RunningFit) -> None:
        """Do something after a batch; Python is asked after each batch only where a callback has this method.

        Parameters
        ----------
        fit : RunningFit
            The fit.
        """

    def on_epoch_end(self, fit: RunningFit) -> None:
        """Do something when an epoch was validated, and its row is the last of ``fit.history``.

        Parameters
        ----------
        fit : RunningFit
            The fit.
        """

    def on_train_end(self, fit: RunningFit) -> None:
        """Do something when the fit has ended, also by Ctrl-C; not after an error.

        Parameters
        ----------
        fit : RunningFit
            The fit.
        """


@dataclass(frozen=True)
class Hooks:
    """What a fit calls, and when it ends.

    Attributes
    ----------
    callbacks : tuple
        Objects with some of the methods of `Callback`.
    max_time : float or None
        Seconds after which it ends; None: it has as long as it takes.
    """

    callbacks: tuple[Any, ...] = ()
    max_time: float | None = None


NO_HOOKS = Hooks()


def hooks_of(callbacks: Sequence[Any], max_time: float | None = None) -> Hooks:
    """Return what a fit calls.

    Raises
    ------
    SettingError
        If `callbacks` is no list of objects that have one of the methods.
    """
    if isinstance(callbacks, str | bytes) or not isinstance(callbacks, Sequence):
        raise SettingError(f"`callbacks` must be a list of callbacks; received: {callbacks!r}. Write [callback].")
    for callback in callbacks:
        if isinstance(callback, type):
            raise SettingError(
                f"`callbacks` must be a list of objects; received the class {callback.__name__}. Write "
                f"{callback.__name__}()."
            )
        if not any(callable(getattr(callback, hook, None)) for hook in HOOKS):
            raise SettingError(
                f"`callbacks` must be a list of objects with some of the methods {', '.join(HOOKS)}; received: "
                f"{callback!r}, which has none. See `photoflux.Callback`."
            )
    return Hooks(tuple(callbacks), max_time)


def check_not_given(engine: str, settings: Settings, hooks: Hooks) -> None:
    """Refuse what only the engine flux does.

    Raises
    ------
    SettingError
        If there are a schedule, callbacks or a time budget.
    """
    given = {"schedule": settings.schedule != "constant", "callbacks": hooks.callbacks, "max_time": hooks.max_time}
    names = [f"`{name}`" for name, value in given.items() if value]
    if names:
        raise SettingError(
            f"{' and '.join(names)} can be given to the engine flux only; this one is {engine}. Leave out "
            f"{'it' if len(names) == 1 else 'them'}, or install Julia (`photoflux doctor` says how)."
        )


class Caller:
    """Calls the callbacks of one fit.

    Parameters
    ----------
    callbacks : tuple
        Of `Hooks`.
    fit : RunningFit
        What they are given.

    Attributes
    ----------
    every_batch : bool
        Whether one of them has an ``on_batch_end`` of its own.
    """

    def __init__(self, callbacks: tuple[Any, ...], fit: RunningFit) -> None:
        self._fit = fit
        self._methods = {hook: [callback for callback in callbacks if _has(callback, hook)] for hook in HOOKS}
        self.every_batch = bool(self._methods["on_batch_end"])

    def call(
        self,
        hook: str,
        epoch: int,
        epochs: int,
        batch: int,
        batches: int,
        loss: float,
        accuracy: float,
        seconds: float,
        learning_rate: float,
    ) -> tuple[float, str]:
        """Return the learning rate to set, 0 if none, and the name of the callback that has asked for the end or ""."""
        fit = self._fit
        fit.epoch, fit.epochs, fit.batch, fit.batches = epoch, epochs, batch, batches
        fit.loss, fit.accuracy, fit.seconds = loss, accuracy, seconds
        fit._rate, fit._new_rate = learning_rate, 0.0
        for callback in self._methods[hook]:
            fit._calling = type(callback).__name__
            getattr(callback, hook)(fit)
        return fit._new_rate, fit._asked


def _has(callback: Any, hook: str) -> bool:
    """Say whether a callback does something at a moment."""
    method = getattr(callback, hook, None)
    return callable(method) and getattr(method, "__func__", None) is not getattr(Callback, hook)
