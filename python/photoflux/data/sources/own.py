"""Keeps the sources of images that users register by a name; how they are found is set here."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, NamedTuple

from photoflux.errors import DataError, SettingError
from photoflux.system.names import reason

if TYPE_CHECKING:  # it imports Pillow
    from photoflux.data.prepared_writer import PreparedWriter

GROUP = "photoflux.sources"  # of entry points
TAKEN = ("demo", "cifar10")
# One letter before a colon is a drive of Windows.
_NAME = re.compile(r"[a-z][a-z0-9_-]+")

Read = Callable[[str, "PreparedWriter"], None]
State = Callable[[str], object]


class OwnSource(NamedTuple):
    """A registered source, `read` and `state` as `register_source` took them, and what stood after its name."""

    name: str
    read: Read
    state: State | None
    argument: str = ""


_registered: dict[str, OwnSource] = {}


def register_source(name: str, *, state: State | None = None) -> Callable[[Read], Read]:
    """Register a function that reads images, so that `prepare`, `train` and the others take ``"name:argument"``.

    The function is called with the text after the colon, ``""`` if there is none, and a `PreparedWriter`, to which it
    adds its images; it does not call `finish`. Labels are names, or integers from 0. A package makes its source known
    to the command line too by an entry point of the group ``photoflux.sources``: ``name = "package.module:function"``.

    Parameters
    ----------
    name : str
        Two or more small letters, digits, ``-`` and ``_``, a letter first; not ``"demo"`` or ``"cifar10"``. A source of
        that name is replaced.
    state : callable, optional
        Is given the argument, and returns what changes when the images do, such as a version or the times of files: the
        prepared dataset is then kept in the cache, and used again while that prints the same. None: the images are
        read anew each time.

    Returns
    -------
    callable
        A decorator, which leaves the function as it is.

    Raises
    ------
    SettingError
        If the name cannot be used.

    Examples
    --------
    >>> @register_source("shades")
    ... def shades(argument, writer):
    ...     for number in range(20):
    ...         writer.add(np.full((8, 8), 12 * number, np.uint8), "light" if number > 9 else "dark")
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in TAKEN:
        raise SettingError(
            "`name` must be two or more small letters, digits, - and _, a letter first, and not "
            f"{' or '.join(TAKEN)}; received: {name!r}."
        )

    def register(read: Read) -> Read:
        _registered[name] = OwnSource(name, read, state)
        return read

    return register


def own_source(source: object) -> OwnSource | None:
    """Return the registered source of that name, with its argument; None if there is none.

    Raises
    ------
    DataError
        If an installed package names it, and it cannot be loaded.
    """
    name, _, argument = source.partition(":") if isinstance(source, str) else ("", "", "")
    if name not in _registered and _NAME.fullmatch(name) and name in _installed():
        _load(name, _installed()[name])
    found = _registered.get(name)
    return None if found is None else found._replace(argument=argument)


def own_names() -> list[str]:
    """Return the names of the registered sources, sorted."""
    return sorted({*_registered, *_installed()})


@cache
def _installed() -> dict[str, EntryPoint]:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    return {name: entry for name, entry in found.items() if _NAME.fullmatch(name) and name not in TAKEN}


def _load(name: str, entry: EntryPoint) -> None:
    try:
        read = entry.load()
        if not callable(read):
            raise TypeError(f"{entry.value} is no function")
    # Another package's code raises what it likes.
    except Exception as error:
        raise DataError(
            f"The source {name} cannot be loaded from {entry.value}: {reason(error)}. Repair or remove the package "
            f"that names it as an entry point of the group {GROUP}."
        ) from error
    # Its module may have registered it itself, with a state.
    _registered.setdefault(name, OwnSource(name, read, None))
