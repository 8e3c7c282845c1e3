"""Shows progress: a rich bar in terminals and notebooks, plain lines elsewhere."""

from __future__ import annotations

import importlib.util
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from photoflux.data.litter import ignored_in_words
from photoflux.data.reasons import by_kind
from photoflux.model.history import BatchProgress, EpochRow
from photoflux.system import log
from photoflux.system.names import printable, shown
from photoflux.system.terminal import say

if TYPE_CHECKING:
    from photoflux.data.prepared import PreparedDataset

PATIENCE = 2.0  # seconds before a bar, or another plain line, is shown


def console() -> Console:
    """Return a console on stderr, so that stdout stays for results."""
    return _Console(stderr=True, highlight=False, soft_wrap=True)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Be quiet from now on; rich would end the process."""
        self.quiet = True


class Display:
    """Shows the progress of a preparation and a fit.

    Parameters
    ----------
    visible : bool
        False shows nothing.
    """

    def __init__(self, visible: bool = True) -> None:
        self._console = console()
        self._visible = visible
        # rich's bars in a notebook need ipywidgets; without them it would warn at every step.
        widgets = self._console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
        self._live = visible and (self._console.is_terminal or widgets)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._title = ""
        self._began = self._last = time.monotonic()
        self._images = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._close()

    def say(self, text: str) -> None:
        """Say what is done: to who listens to it with `logging`, else as a line, above a bar that is running."""
        if log.inform(text) or not self._visible:
            return
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.console.print(shown(text), markup=False)
        else:
            say(text)

    def step(self, done: float, total: int, what: str, detail: str = "", *, rated: str = "") -> None:
        """Show that `done` of `total` items are done; nothing is shown in the first two seconds.

        `detail` may change from call to call; another `what` starts a new bar. Part of an item moves the bar. What is
        counted, such as "images", is named by `rated` to show also how many are done in a second.
        """
        if not self._visible:
            return
        now = time.monotonic()
        if what != self._title:
            self._close()
            self._title, self._began, self._last = what, now, now
        if now - self._began < PATIENCE and self._bar is None:
            return
        if rated:
            rate = f"{done / max(now - self._began, 1e-3):.0f} {rated}/s"
            detail = f"{detail}  {rate}" if detail else rate
        if self._live:
            self._advance(f"{what}  {detail}" if detail else what, done, total)
        elif now - self._last >= 5 * PATIENCE or done == total:
            self._last = now
            say(f"{what}: {int(done)} of {total}{', ' if detail else ''}{detail}")
        if done == total:
            self._close()

    def batch(self, progress: BatchProgress) -> None:
        """Show the progress of a fit."""
        if not self._visible:
            return
        now = time.monotonic()
        title = f"epoch {progress.epoch}/{progress.epochs}"
        if title != self._title:
            self._close()
            self._title, self._began, self._last, self._images = title, now, now, 0
        self._images += progress.images
        rate = self._images / max(now - self._began, 1e-3) if progress.batch > 1 else 0.0
        figures = f"loss {progress.loss:.4f}  accuracy {progress.accuracy:.4f}"
        figures += f"  {rate:.0f} images/s" if rate else ""
        if self._live:
            self._advance(f"{title}  {figures}", progress.batch, progress.batches)
        elif now - self._last >= 15 * PATIENCE:
            self._last = now
            say(f"{title}  batch {progress.batch}/{progress.batches}  {figures}")

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """Print an epoch's line."""
        self._close()
        penalty = f"  penalty {row.train_penalty:.4f}" if row.train_penalty else ""
        self.say(
            f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}  {row.seconds:6.1f} s  train loss {row.train_loss:.4f}"
            f"{penalty}  accuracy {row.train_accuracy:.4f}  |  validation loss {row.validation_loss:.4f}"
            f"  accuracy {row.validation_accuracy:.4f}"
        )

    def _advance(self, text: str, done: float, total: int) -> None:
        try:
            self._show(text, done, total)
        except (OSError, ValueError):  # the terminal has gone, which is no reason to end the work
            self._live = False
            self._bar = self._task = None

    def _show(self, text: str, done: float, total: int) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(text, total=total)
        assert self._task is not None
        self._bar.update(self._task, description=text, completed=done, total=total)

    def _close(self) -> None:
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.stop()
        self._bar, self._task, self._title = None, None, ""


def announce(prepared: PreparedDataset, display: Display, shown: int = 5, *, warnings: bool = True) -> None:
    """Print the warnings of a dataset and its rejected files, by name or by kind."""
    ignored = ignored_in_words(prepared.meta.get("ignored"))
    if ignored is not None:
        display.say(ignored)
    for warning in prepared.warnings if warnings else ():
        log.note(warning)
    rejected = prepared.rejected
    if rejected:
        count = "1 file was" if len(rejected) == 1 else f"{len(rejected)} files were"
        # Each kind has a line, so that a broken image is seen among a hundred other files.
        few = [f"  {printable(file)}: {printable(reason)}" for file, reason in rejected]
        first = f"{count} left out, all listed in {printable(prepared.path / 'rejected.csv')}:"
        log.warn("\n".join([first, *(few if len(few) <= shown else by_kind(rejected))]))
