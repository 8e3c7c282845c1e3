"""Finds equal images in folders of different classes, and reports them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from photoflux.system.names import first_few, printable

NAME = "conflicts.csv"
_SHOWN = 2


class Conflict(NamedTuple):
    """An image of which an equal one is in another class folder."""

    path: str
    folder: str
    sha256: str


def find_conflicts(images: Sequence[tuple[str, str, str]]) -> list[Conflict]:
    """Return the images, (path, folder, sha256), that are equal to one in another folder, equal ones together."""
    equal: dict[str, list[Conflict]] = {}
    for image in images:
        equal.setdefault(image[2], []).append(Conflict(*image))
    mixed = [group for group in equal.values() if len({conflict.folder for conflict in group}) > 1]
    return [conflict for group in sorted(mixed, key=lambda group: group[0].path) for conflict in sorted(group)]


def conflicts_in_words(conflicts: Sequence[Conflict]) -> list[str]:
    """Return a note, if there are conflicts, with the first of them path by path."""
    if not conflicts:
        return []
    together = [list(group) for _, group in groupby(conflicts, key=lambda conflict: conflict.sha256)]
    shown = first_few((" = ".join(printable(one.path) for one in group) for group in together), _SHOWN, "; ")
    return [
        f"{len(together)} image{' is' if len(together) == 1 else 's are'} in two class folders or more "
        f"({shown}): no model can classify both correctly. All are listed in {NAME}."
    ]
