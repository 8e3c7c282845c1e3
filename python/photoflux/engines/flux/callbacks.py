"""What Julia calls during a fit; what becomes of an exception in a callback is changed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from photoflux.engines.base import Fit, OnBatch, OnEpoch, OnNote
from photoflux.engines.callbacks import Caller, Hooks, RunningFit
from photoflux.model.history import BatchProgress, EpochRow
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.system.signals import asked


class Callbacks:
    """What Julia calls during a fit; an exception of a callback ends it, and is raised when Julia has returned."""

    def __init__(
        self,
        on_batch: OnBatch | None,
        on_epoch: OnEpoch | None,
        on_note: OnNote | None,
        on_images: Callable[[int, int], bool] | None = None,
        *,
        hooks: Hooks,
        variant: Variant,
        settings: Settings,
    ) -> None:
        self._on_batch, self._on_epoch, self._on_note, self._on_images = on_batch, on_epoch, on_note, on_images
        self._history: list[EpochRow] = []
        self._caller = Caller(hooks.callbacks, RunningFit(variant, settings, self._history))
        self.has_hooks, self.every_batch = bool(hooks.callbacks), self._caller.every_batch
        self._raised: BaseException | None = None

    def batch(self, *values: Any) -> bool:
        """Return whether the fit is to end."""
        return self._told(self._on_batch, lambda: (BatchProgress(*values),))

    def epoch(self, *values: Any) -> None:
        """Keep a row of the history."""
        self._history.append(EpochRow(*values))
        self._told(self._on_epoch, lambda: (self._history[-1],))

    def note(self, note: str) -> None:
        """Take a note of the run."""
        self._told(self._on_note, lambda: (note,))

    def hook(self, *values: Any) -> tuple[float, str]:
        """Call the user's own callbacks; see `Caller.call`."""
        answer = 0.0, ""

        def call() -> None:
            nonlocal answer
            answer = self._caller.call(*values)

        self._told(call, tuple)
        return answer

    def images(self, done: int, total: int) -> bool:
        """Return whether fine-tuning is to end before its first batch."""
        return self._told(self._on_images, lambda: (done, total))

    def stopped(self) -> bool:
        """Return whether the fit is to end in a validation."""
        return self._told(asked, tuple)

    def _told(self, whom: Callable[..., Any] | None, what: Callable[[], tuple[Any, ...]]) -> bool:
        if self._raised is not None:
            return True
        try:
            return whom is not None and bool(whom(*what()))
        except BaseException as error:
            self._raised = error
            return True

    def fit(self, kept_epoch: int, ended: str) -> Fit:
        """Return the fit, or raise what a callback has raised; a Ctrl-C has ended the fit, and that is all."""
        if self._raised is not None and not isinstance(self._raised, KeyboardInterrupt):
            raise self._raised
        return Fit(self._history, kept_epoch, ended)  # type: ignore[arg-type]
