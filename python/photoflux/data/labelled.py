"""Reads the labels that a review has kept in the folder of a filter job or of a run; their files are named here."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from photoflux.errors import DataError
from photoflux.system.names import printable

# Of a filter job's folder, and of a run's; `photoflux.filtering.ledger` makes and writes both.
LEDGER, LABELS = "ledger.sqlite", "labels.sqlite"


class Labelled(NamedTuple):
    """An image with the class that a person says it is.

    Attributes
    ----------
    path, member : str
        The file, absolute, and the member of it if it is an archive, else empty; of an image that is only in a prepared
        dataset, the dataset's folder.
    nth : int
        Of members with the same name.
    page : int
        From 1 in a source of several, else 0.
    sha256 : str
        Of the image that the person has seen, as in ``files.csv``.
    label : str
        The class.
    """

    path: str
    member: str
    nth: int
    page: int
    sha256: str
    label: str

    @property
    def name(self) -> str:
        """What it is called in the tables of a dataset."""
        whole = f"{self.path}/{self.member}" if self.member else self.path
        return f"{whole}#{self.page}" if self.page else whole


def read_labels(folders: Sequence[Path]) -> list[Labelled]:
    """Return the labels in the folders of filter jobs and runs, sorted by file, member and page.

    Raises
    ------
    DataError
        If a folder is neither, its labels cannot be read, or there are none in it.
    """
    found: set[Labelled] = set()
    for folder in folders:
        there = [folder / name for name in (LEDGER, LABELS) if (folder / name).is_file()]
        if not there and not (folder / "run.json").is_file():
            raise DataError(
                f"{printable(folder)} has no labels: it has neither {LEDGER} nor {LABELS}. Give the folder of a "
                "`photoflux filter` or of a run, whose images were labelled with `photoflux review`."
            )
        labels = [label for path in there for label in _labels_in(path)]
        if not labels:
            raise DataError(
                f"No image of {printable(folder)} is labelled. Label some with `photoflux review {printable(folder)}`."
            )
        found.update(labels)
    return sorted(found)


def _labels_in(path: Path) -> list[Labelled]:
    query = "SELECT path, member, nth, page, sha256, label FROM labels JOIN sources ON source = id"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=60)) as base:
            base.execute("PRAGMA trusted_schema=OFF")
            return [_labelled(row) for row in base.execute(query)]
    except (sqlite3.Error, UnicodeDecodeError, TypeError) as error:
        raise DataError(f"The labels in {printable(path)} cannot be read: {error}.") from error


def _labelled(row: tuple[Any, ...]) -> Labelled:
    # SQLite takes anything in any column.
    if not all(map(isinstance, row, (bytes, bytes, int, int, str, str))):
        raise TypeError(f"one is {str(row)[:200]}")
    place, member, *rest = row
    return Labelled(os.fsdecode(place), os.fsdecode(member), *rest)
