"""Names of class folders: finds names that look like one class written in two ways."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

from photoflux.system.names import class_name, quoted


def notes_on_names(folders: Iterable[str]) -> list[str]:
    """Return a note for folders that are one class although their bytes differ, and for classes that look like one.

    Parameters
    ----------
    folders : iterable of str
        The names of the class folders, as they are on the disk.

    Examples
    --------
    >>> notes_on_names(["Photo", "Text", "photos"])
    ["The class folders 'Photo' and 'photos' are two classes. If they are one, move their images into one folder."]
    """
    notes = []
    for name, same in _grouped(folders, class_name).items():
        if len(same) > 1:
            notes.append(
                f"{len(same)} class folders are called {quoted(name)}, in two forms of Unicode that look alike: "
                "they are read as one class."
            )
    names = {class_name(folder) for folder in folders}
    blank = [quoted(name) for name in sorted(names) if name != name.strip()]
    if blank:
        notes.append(f"A class folder has a blank at an end of its name, and so has the class: {', '.join(blank)}.")
    for alike in _grouped(names, _essence).values():
        if len(alike) > 1:
            *first, last = map(quoted, alike)
            number = "two" if len(alike) == 2 else str(len(alike))
            notes.append(
                f"The class folders {', '.join(first)} and {last} are {number} classes. If they are one, move their "
                "images into one folder."
            )
    return notes


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(key(name), []).append(name)
    return groups


def _essence(name: str) -> str:
    """Return a name without what people do not mean: case, blanks, hyphens, and the plural's s of a longer word."""
    text = re.sub(r"[\s_.-]+", "", unicodedata.normalize("NFKC", name).casefold())
    return (text[:-1] if len(text) > 3 and text.endswith("s") else text) or name
