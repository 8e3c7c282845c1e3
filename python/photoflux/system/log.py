"""What the package says as a library goes to the logger "photoflux"; its levels, and who shows it, are set here.

A warning is what a user should know: a note, a file that was left out, that another process is waited for. What is
being done is of the level INFO. Nothing is configured for a program that uses the package: Python itself shows warnings
on stderr where a program does not say otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from photoflux.system.names import shown
from photoflux.system.terminal import say

NAME = "photoflux"
_logger = logging.getLogger(NAME)


def warn(text: str) -> None:
    """Say what a user should know, whether progress is shown or not."""
    # Where stderr is closed, `logging` itself fails when it says there what has failed.
    with suppress(OSError, ValueError):
        _logger.warning("%s", shown(text))


def note(text: str) -> None:
    """Say what a user should know of data, a run or a score."""
    warn(f"Note: {text}")


def inform(text: str) -> bool:
    """Say what is being done, if somebody listens; return whether somebody does."""
    if not _logger.isEnabledFor(logging.INFO):
        return False
    with suppress(OSError, ValueError):
        _logger.info("%s", shown(text))
    return True


class _Lines(logging.Handler):
    """Prints the text alone, on what is stderr at that time."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextmanager
def on_stderr() -> Iterator[None]:
    """Show all that is said as lines on stderr, and nowhere else: for the command line."""
    handler, before = _Lines(), (_logger.level, _logger.propagate)
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
    try:
        yield
    finally:
        _logger.removeHandler(handler)
        _logger.setLevel(before[0])
        _logger.propagate = before[1]
