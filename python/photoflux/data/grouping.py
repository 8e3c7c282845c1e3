"""Reads ``groups.csv``, which names images that must stay on one side of the split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from photoflux.data.duplicates import components, number_groups
from photoflux.data.images.opening import begins_like_an_image
from photoflux.data.paths import PathMatcher
from photoflux.data.tables import read_table
from photoflux.errors import DataError, SettingError
from photoflux.system.names import composed, first_few, printable, quoted, user_path

COLUMNS = ("path", "group")


class GroupTable(NamedTuple):
    """A file of groups as it was read: its (path, group) pairs, and the sha256 of its bytes."""

    file: Path
    rows: list[tuple[str, str]]
    sha256: str


def read_groups(file: str | Path) -> GroupTable:
    """Read a table with the columns ``path`` and ``group``; others are ignored.

    Parameters
    ----------
    file : str or Path
        Text, in UTF-8 or UTF-16, separated by commas, semicolons or tabs. A path is relative to the source folder, as
        in ``files.csv``; `match_groups` says what else is understood.

    Raises
    ------
    SettingError
        If `file` is no path.
    DataError
        If the file cannot be read, lacks a column, or has a line without a path or a group.
    """
    if not isinstance(file, str | Path):
        raise SettingError(f"`groups` must be a CSV file with the columns path and group; received: {file!r}.")
    place = user_path(file)
    try:
        data = place.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"`groups` must be a CSV file with the columns path and group; {printable(place)} cannot be read: {reason}."
        ) from error
    rows = []
    for line, cells in read_table(data, place, COLUMNS):
        for name, cell in zip(COLUMNS, cells, strict=True):
            if not cell.strip():
                raise DataError(f"Line {line} of {printable(place)} has no {name}. Fill it in, or remove the line.")
        rows.append((cells[0].replace(os.sep, "/").removeprefix("./"), composed(cells[1].strip())))
    return GroupTable(place, rows, hashlib.sha256(data).hexdigest())


def match_groups(table: GroupTable, source: Path, files: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the group of each listed file of a folder, and a note if some of the listed files are not there.

    A page, ``scan.tif#2``, counts for its file, because the pages of a file stay together. Paths are compared in
    Unicode's composed form. Backslashes, the folder's own name or its whole path in front of a path, an absolute path
    to another copy of the folder, and Windows' encoding are understood where the path as it is written is not there.

    Parameters
    ----------
    table : GroupTable
        What `read_groups` returned.
    source : Path
        The folder.
    files : sequence of str
        The files in it, relative to it.

    Raises
    ------
    DataError
        If an image of the folder has no group or a file has two: it might be on both sides of the split.
    """
    groups: dict[str, str] = {}
    meant = PathMatcher(source, files)
    absent: dict[str, None] = {}
    for path, group in table.rows:
        found = meant.files(path)
        if not found:
            absent[path] = None
        for file in found:
            if groups.setdefault(file, group) != group:
                raise DataError(
                    f"{printable(table.file)} has {printable(file)} in two groups, {quoted(groups[file])} and "
                    f"{quoted(group)}; expected one. Correct it, or give both the same name: the two groups are then "
                    "one."
                )
    unlisted = [file for file in files if file not in groups and begins_like_an_image(source / file)]
    if unlisted:
        where = f" The table lists {printable(next(iter(absent)))}, which is not there." if absent else ""
        raise DataError(
            f"{len(unlisted)} of the images in {printable(source)} are not in {printable(table.file)}: "
            f"{first_few(map(printable, unlisted))}. An image without a group might have others of its group on the "
            "other side of the split. List each, those that belong to no others in groups of their own; a path is "
            f"relative to the folder, such as {printable(unlisted[0])}.{where}"
        )
    if not absent:
        return groups, []
    return groups, [
        f"{len(absent)} of the files in {printable(table.file.name)} are not in {printable(source.name)}: "
        f"{first_few(map(printable, absent))}."
    ]


def join_groups(duplicates: np.ndarray, given: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return groups that keep both near-duplicates and the given groups together, and a note of what that joined.

    Parameters
    ----------
    duplicates : numpy.ndarray
        Integer near-duplicate group of each image, from 0.
    given : sequence of str
        The name of each image's group.

    Returns
    -------
    groups : numpy.ndarray
        int64, numbered from 0 in the order of the first image.
    notes : list of str
        One, if near-duplicates join groups.
    """
    names, codes = np.unique(np.asarray(given, dtype=object), return_inverse=True)
    joined = components(len(names) + int(duplicates.max()) + 1, codes, len(names) + duplicates)
    members: dict[int, list[str]] = {}
    for name, component in zip(names, joined, strict=False):
        members.setdefault(int(component), []).append(repr(str(name)))
    several = [first_few(map(printable, one), between=" + ") for one in members.values() if len(one) > 1]
    note = f"Near-duplicates in two groups or more make them one: {first_few(several, between='; ')}."
    return number_groups(joined[codes]), [note] if several else []
