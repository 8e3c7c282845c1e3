"""What a user is told of an exception of Julia; a new kind of exception gets its message here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from photoflux.data.prepared import PreparedDataset
from photoflux.engines.flux import bridge
from photoflux.errors import DivergedError, EngineError, RunError
from photoflux.system.names import printable


@contextmanager
def translated(julia: Any, weights: Path | None = None, prepared: PreparedDataset | None = None) -> Iterator[None]:
    """Turn Julia's exceptions into ours, so that a user sees the message and no Julia stack trace."""
    import juliacall

    bridge.check_caller()
    try:
        yield
    except juliacall.JuliaError as error:
        exception = error.exception
        if julia.isa(exception, julia.InterruptException):
            raise KeyboardInterrupt from None
        message = str(julia.sprint(julia.showerror, exception))
        if julia.isa(exception, julia.PhotoFlux.DivergedError):
            if prepared is not None:
                message = _with_files(julia, exception, prepared)
            raise DivergedError(f"{message} They are in {weights}.") from None
        if prepared is not None and weights is not None and _is_of_writing(julia, exception):
            why = message.rpartition(": ")[2]
            raise RunError(f"{weights.parent} cannot be written: {why}. Free space or choose another folder.") from None
        user_errors = (julia.ArgumentError, julia.DimensionMismatch, julia.SystemError)
        if any(julia.isa(exception, kind) for kind in user_errors):
            raise EngineError(message.partition(": ")[2] or message) from None
        raise EngineError(f"Julia failed: {message}") from error


def _is_of_writing(julia: Any, exception: Any) -> bool:
    """Say whether an exception is the system's answer to Julia's `replace_file`."""
    if julia.isa(exception, julia.Base.IOError):
        return str(exception.msg).startswith("rename to ")
    if not julia.isa(exception, julia.SystemError):
        return False
    prefix = str(exception.prefix)
    return prefix in ("write", "flush", "fsync") or (prefix.startswith("opening file ") and prefix.endswith('.tmp"'))


def _with_files(julia: Any, diverged: Any, prepared: PreparedDataset) -> str:
    """Return what Julia says of a fit that diverged, with the first files of its batch in place of their numbers."""
    files = prepared.files()
    numbers = str(julia.PhotoFlux.engine_diverged_images(diverged)).split()
    names = "\n".join(printable(files[int(number) - 1]["path"]) for number in numbers)
    return str(julia.PhotoFlux.engine_diverged_text(diverged, names))
