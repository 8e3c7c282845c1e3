"""The exceptions that PhotoFlux raises, all of one base class; a new kind of error is added here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class PhotoFluxError(Exception):
    """Base class: the message names the argument or file, what was expected, what was found, and what to do."""


class DataError(PhotoFluxError):
    """Images, labels, a source or a prepared dataset cannot be used as given."""


class SettingError(PhotoFluxError, ValueError):
    """An argument has a value that cannot be used."""


class EngineError(PhotoFluxError):
    """An engine is missing, or failed."""


class FluxError(EngineError):
    """The Flux engine cannot be used here.

    Parameters
    ----------
    message : str
        What was found, and its cause.
    kind : str
        One of `FLUX_PROBLEMS`. Only ``"no_julia"`` lets ``engine="auto"`` train with Keras instead.
    advice : str
        What to do; the text of the error ends with it.

    Attributes
    ----------
    kind, advice : str
        As given.
    """

    def __init__(self, message: str, kind: str = "package", advice: str = "") -> None:
        separator = "\n" if "\n" in message else " "
        super().__init__(f"{message}{separator}{advice}".strip())
        self.kind, self.advice = kind, advice


# Why Flux cannot be used, in the order in which things are needed.
FLUX_PROBLEMS = {
    "settings": "an environment variable or option names what is not there",
    "juliacall": "juliacall or PythonCall is missing, or they do not fit each other",
    "no_julia": "no Julia is on this machine, and none can be downloaded",
    "julia_version": "the Julia that is there does not run, or is of a version that does not fit",
    "network": "Julia is there, and its packages cannot be downloaded",
    "not_writable": "Julia's project or depot cannot be written",
    "thread": "Julia runs, but was started by another thread or process than the one that calls it",
    "package": "Julia starts, and PhotoFlux, Flux or another package does not load",
}


class DivergedError(EngineError):
    """The loss became NaN or infinite; the last good weights were kept.

    The message names the epoch, the batch and what to try.
    """


class RunError(PhotoFluxError):
    """A run folder or a weights file cannot be read or written."""


class BackboneError(PhotoFluxError):
    """A backbone, its weights or its runtime is missing, or is another than expected; the message says what to do."""


class ClusterError(PhotoFluxError):
    """A cluster cannot be reached or used, or has ended; the message says what to do."""


class ServingError(PhotoFluxError):
    """A service cannot be started, or has ended because its engine failed."""


def unknown_name(argument: str, value: object, known: Iterable[str], of: str = "") -> SettingError:
    """Return the error for a misspelt name.

    Parameters
    ----------
    argument : str
        The argument that took the name.
    value : object
        What was given.
    known : iterable of str
        The names that exist.
    of : str
        What the argument belongs to, such as " of a photo_cnn".

    Returns
    -------
    SettingError
        Its message lists the known names and proposes the nearest.

    Examples
    --------
    >>> print(unknown_name("engine", "fluxx", ["flux", "keras"]))
    `engine` must be one of flux, keras; received: 'fluxx'. Did you mean flux?
    """
    names = list(known)
    near = difflib.get_close_matches(str(value), names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return SettingError(f"`{argument}`{of} must be one of {', '.join(names)}; received: {value!r}.{hint}")


def side_by_side(rows: Sequence[tuple[str, str, bool]], found: str, expected: str) -> str:
    """Return two lists as a table for a terminal, a mark before each row whose sides do not agree.

    Parameters
    ----------
    rows : sequence of (str, str, bool)
        What was found, what was expected, ``""`` where there is nothing, and whether the two agree.
    found, expected : str
        The titles of the two columns.

    Examples
    --------
    >>> print(side_by_side([("a (3,)", "a (3,)", True), ("", "b (4,)", False)], "in the file", "expected"))
        in the file   expected
        a (3,)        a (3,)
      ≠ –             b (4,)
    """
    width = max(len(left) for left in (found, *(left for left, _, _ in rows)))
    lines = [f"    {found:<{width}}   {expected}"]
    for left, right, agree in rows:
        lines.append(f"  {' ' if agree else '≠'} {left or '–':<{width}}   {right or '–'}")
    return "\n".join(lines)
