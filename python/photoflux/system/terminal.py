"""Prints results to stdout and messages to stderr, where either may be closed or missing."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import IO

from photoflux.errors import PhotoFluxError
from photoflux.system.names import shown


def say(text: str) -> None:
    """Print a line for the user on stderr; that it cannot be shown is no reason to fail."""
    if sys.stderr is not None:  # `print` would take None for stdout
        with contextlib.suppress(OSError, ValueError):
            print(shown(text), file=sys.stderr, flush=True)


def result(text: str) -> None:
    """Print a result on stdout; who has closed it, as ``head`` does, does not want it.

    Raises
    ------
    PhotoFluxError
        If it is open and cannot be written, as to a file on a full disk.
    """
    stream = sys.stdout
    if stream is None or stream.closed:
        return
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        _silence(stream)
        if error.errno not in (errno.EPIPE, errno.EBADF, errno.EINVAL):  # Windows says EINVAL of a closed pipe
            raise PhotoFluxError(
                f"The result cannot be written to standard output: {error.strerror or error}. Free space, or send it "
                "elsewhere."
            ) from error


def release() -> None:
    """Flush both streams at the end of a command; what cannot be written must not change its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except ValueError:
                pass  # closed
            except OSError:
                _silence(stream)


def _silence(stream: IO[str]) -> None:
    """Send what is still in a stream's buffer to the null device."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, stream.fileno())
        finally:
            os.close(null)
