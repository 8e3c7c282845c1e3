"""Finds equal images in folders of different classes, and reports them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from photoflux.system.names import printable

NAME = "conflicts.csv"
COLUMNS = ("path", "folder", "sha256")
_SHOWN = 2


class Conflict(NamedTuple):
    """An image of which an equal one is in another class folder."""

    path: str
    folder: str
    sha256: str


def find_conflicts(images: Sequence[tuple[str, str, str]]) -> list[Conflict]:
    """Return the images, (path, folder, sha256), that are equal to one in another folder, equal ones together."""
    folders: dict[str, set[str]] = {}
    for _, folder, sha256 in images:
        folders.setdefault(sha256, set()).add(folder)
    found = [Conflict(*image) for image in images if len(folders[image[2]]) > 1]
    first: dict[str, str] = {}
    for conflict in found:
        first.setdefault(conflict.sha256, conflict.path)
    return sorted(found, key=lambda conflict: (first[conflict.sha256], conflict.path))


def conflicts_in_words(conflicts: Sequence[Conflict]) -> list[str]:
    """Return a note, if there are conflicts, with the first of them path by path."""
    if not conflicts:
        return []
    together: dict[str, list[str]] = {}
    for conflict in conflicts:
        together.setdefault(conflict.sha256, []).append(printable(conflict.path))
    shown = "; ".join(" = ".join(paths) for paths in list(together.values())[:_SHOWN])
    more = "; …" if len(together) > _SHOWN else ""
    return [
        f"{len(together)} image{' is' if len(together) == 1 else 's are'} in two class folders or more "
        f"({shown}{more}): no model can classify both correctly. All are listed in {NAME}."
    ]
