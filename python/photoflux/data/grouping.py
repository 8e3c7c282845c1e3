"""A CSV file that says which images belong together: pages of one book, photos of one camera, a whole source."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from photoflux.data.decoding import begins_like_an_image
from photoflux.data.duplicates import components, number_groups
from photoflux.errors import DataError, SettingError

COLUMNS = ("path", "group")
_SHOWN = 3
_PAGE = re.compile(r"#[0-9]+$")


class GroupTable(NamedTuple):
    """A file of groups as it was read: its (path, group) pairs, and the sha256 of its bytes."""

    file: Path
    rows: list[tuple[str, str]]
    sha256: str


def read_groups(file: str | Path) -> GroupTable:
    """Read a CSV file with the columns ``path`` and ``group``; others are ignored.

    Parameters
    ----------
    file : str or Path
        UTF-8, separated by commas. A path is relative to the source folder, with forward slashes, as in ``files.csv``.

    Raises
    ------
    SettingError
        If `file` is no path.
    DataError
        If the file cannot be read, lacks a column, or has a line without a path or a group.
    """
    if not isinstance(file, str | Path):
        raise SettingError(f"`groups` must be a CSV file with the columns path and group; received: {file!r}.")
    place = Path(file)
    try:
        data = place.read_bytes()
    except OSError as error:
        raise DataError(
            f"`groups` must be a CSV file with the columns path and group; {place} cannot be read: {error.strerror}."
        ) from error
    # As the names of files: they need not be UTF-8. A spreadsheet's byte order mark is no part of the first column.
    text = data.decode("utf-8-sig", errors="surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if any(header.count(name) != 1 for name in COLUMNS):
            raise DataError(
                f"{place} must have one column called path and one called group, separated by commas; "
                f"its first line is: {', '.join(header) or 'empty'}."
            )
        places = [header.index(name) for name in COLUMNS]
        for row in reader:
            if not row:
                continue
            cells = [row[at] if at < len(row) else "" for at in places]
            for name, cell in zip(COLUMNS, cells, strict=True):
                if not cell.strip():
                    raise DataError(f"Line {reader.line_num} of {place} has no {name}. Fill it in, or take it out.")
            rows.append((cells[0].replace(os.sep, "/").removeprefix("./"), cells[1].strip()))
    except csv.Error as error:
        raise DataError(f"{place} is no CSV file: line {reader.line_num}, {error}.") from error
    return GroupTable(place, rows, hashlib.sha256(data).hexdigest())


def match_groups(table: GroupTable, source: Path, files: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the group of each listed file of a folder, and a note if some of the listed files are not there.

    A page, ``scan.tif#2``, counts for its file, because the pages of a file stay together.

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
    known = set(files)
    for path, group in table.rows:
        file = path if path in known else _PAGE.sub("", path)
        if groups.setdefault(file, group) != group:
            raise DataError(
                f"{table.file} has {file} in two groups, {groups[file]!r} and {group!r}; expected one. "
                "Correct it, or give both the same name: the two groups are then one."
            )
    unlisted = [file for file in files if file not in groups and begins_like_an_image(source / file)]
    if unlisted:
        raise DataError(
            f"{len(unlisted)} of the images in {source} are not in {table.file}: {_first(unlisted)}. "
            "An image without a group might have others of its group on the other side of the split. List each, "
            "those that belong to no others in groups of their own; a path is relative to the folder, such as "
            f"{unlisted[0]}."
        )
    absent = [file for file in groups if file not in known]
    if not absent:
        return groups, []
    return groups, [f"{len(absent)} of the files in {table.file.name} are not in {source.name}: {_first(absent)}."]


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
    several = [_first(one, " + ") for one in members.values() if len(one) > 1]
    notes = [f"Near-duplicates in two groups or more make them one: {_first(several, '; ')}."] if several else []
    return number_groups(joined[codes]), notes


def _first(names: Iterable[str], between: str = ", ") -> str:
    names = list(names)
    return between.join([*names[:_SHOWN], *(["…"] if len(names) > _SHOWN else [])])
