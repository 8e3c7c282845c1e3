"""What is shown of a ledger, in which order, and the labels that it is given; another order is added here."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photoflux.errors import DataError
from photoflux.filtering.decision import UNCERTAIN
from photoflux.filtering.job import JOB
from photoflux.filtering.ledger import Ledger
from photoflux.reviewing.pictures import Origin
from photoflux.system.kinds import check_range, check_table
from photoflux.system.names import printable

# What `Sitting.items` reads of each.
_TEXT, _NUMBER = str | None, int | None
_KINDS = (int, int, bytes, bytes, float, str, _TEXT, _NUMBER, _NUMBER)
# Items that the page is given at once; those that have no label come first.
MOST = 10_000
_JOINED = (
    "items JOIN sources ON items.source = sources.id "
    "LEFT JOIN labels ON labels.source = items.source AND labels.page = items.page AND labels.sha256 = items.sha256"
)


@dataclass(frozen=True)
class Wanted:
    """Which items are shown.

    Attributes
    ----------
    heading : str
        What they are, in words.
    where : str
        The condition in SQL, with `values` for its question marks.
    order : str
        By what they are sorted, ascending, in SQL.
    values : tuple
        See `where`.
    classes : tuple of str
        The negative class and the positive one.
    labelled_before : bool
        Whether the decision of an item is the label that it has in a dataset.
    """

    heading: str
    where: str
    order: str
    values: tuple[Any, ...]
    classes: tuple[str, str]
    labelled_before: bool


def decision_of_job(ledger: Ledger) -> dict[str, Any]:
    """Return the ``threshold``, the ``negative`` and the ``positive`` class that the job in a ledger decides by.

    Raises
    ------
    DataError
        If no job has begun, or the ledger is not as a job writes it.
    """
    values = (ledger.table("job", JOB) or {}).get("decision")
    if values is None:
        raise DataError(f"The job in {printable(ledger.folder)} has not begun. Start it again with `photoflux filter`.")
    try:
        check_table(values, {"threshold": float, "negative": str, "positive": str}, "decision")
        check_range(values["threshold"], 0, 1, "threshold")
    except (TypeError, ValueError) as error:
        raise DataError(f"The ledger {printable(ledger.path)} is not as PhotoFlux writes it: {error}.") from error
    return dict(values)


def of_job(ledger: Ledger, decision: str, everything: bool) -> Wanted:
    """Return the items of a filter job with a decision, or all, those nearest to the threshold first."""
    values = decision_of_job(ledger)
    heading = "Uncertain images" if decision == UNCERTAIN else f"Images that are “{decision}”"
    return Wanted(
        "All images" if everything else heading,
        "state = 'done'" if everything else "state = 'done' AND decision = ?",
        f"abs(score - {float(values['threshold'])!r})",
        () if everything else (decision,),
        (values["negative"], values["positive"]),
        False,
    )


def of_run(classes: list[str], everything: bool) -> Wanted:
    """Return the images of a run's data on which it is wrong, or all, those with the largest data loss first.

    Either loss falls as the probability of the image's own class grows, so that gives the order.
    """
    negative, positive = classes
    wrong = "" if everything else " AND (decision = ?) <> (score >= 0.5)"
    own = "CASE WHEN decision = '{}' THEN score ELSE 1 - score END".format(positive.replace("'", "''"))
    return Wanted(
        "Validation and test images, the least expected labels first" if everything else "Likely label errors",
        f"state = 'done'{wrong}",
        own,
        () if everything else (positive,),
        (negative, positive),
        True,
    )


class Sitting:
    """The items of one review; its methods may be called in any thread.

    Parameters
    ----------
    folder : Path
        Of the job or run.
    ledger : Ledger
        Open for writing.
    wanted : Wanted
        What is shown.
    """

    def __init__(self, folder: Path, ledger: Ledger, wanted: Wanted) -> None:
        self.folder, self.wanted = folder, wanted
        self._ledger, self._lock = ledger, threading.Lock()

    def counts(self) -> tuple[int, int]:
        """Return how many items there are to be shown, and how many of them have a label."""
        with self._lock:
            query = f"SELECT count(*), count(labels.label) FROM {_JOINED} WHERE {self.wanted.where}"
            ((found, labelled),) = self._ledger.rows(query, self.wanted.values)
        return found, labelled

    def labels(self) -> dict[str, int]:
        """Return how many labels there are of each class, of all items."""
        with self._lock:
            query = f"SELECT labels.label, count(*) FROM {_JOINED} WHERE labels.label IS NOT NULL GROUP BY 1"
            return {name: count for name, count in self._ledger.rows(query) if isinstance(name, str)}

    def items(self) -> list[dict[str, Any]]:
        """Return the items that the page shows, `MOST` at most: numbers, names, scores and labels."""
        wanted = self.wanted
        query = (
            "SELECT items.source, items.page, path, member, score, decision, labels.label, width, height "
            f"FROM {_JOINED} WHERE {wanted.where} "
            f"ORDER BY labels.label IS NOT NULL, {wanted.order}, items.source, items.page LIMIT {MOST}"
        )
        with self._lock:
            # Sorted anew: the labels decide only which of too many are given.
            query = f"SELECT * FROM ({query}) ORDER BY {wanted.order}, source, page"
            rows = list(self._ledger.rows(query, wanted.values))
        # SQLite takes anything in any column.
        rows = [row for row in rows if all(map(isinstance, row, _KINDS))]
        return [_shown(*row, before=wanted.labelled_before) for row in rows]

    def label(self, source: int, page: int, label: str | None) -> bool:
        """Keep the label of an item at once, or take it away; say whether there is such an item."""
        with self._lock:
            return self._ledger.label(source, page, label)

    def origin(self, source: int, page: int) -> Origin | None:
        """Return where the picture of an item is; None if there is no such item among those that are shown."""
        query = (
            f"SELECT path, member, nth, place, items.sha256 FROM {_JOINED} "
            f"WHERE {self.wanted.where} AND items.source = ? AND items.page = ?"
        )
        with self._lock:
            rows = list(self._ledger.rows(query, (*self.wanted.values, source, page)))
        for path, member, nth, place, sha256 in rows:
            if place is not None:
                # What the job has put there is the item itself, of a document or an archive too.
                return Origin(str(self._ledger.inside(place)), "", 0, 0, str(sha256))
            return Origin(os.fsdecode(path), os.fsdecode(member), int(nth), page, str(sha256))
        return None


def _shown(
    source: int,
    page: int,
    path: bytes,
    member: bytes,
    score: float,
    decision: str,
    label: str | None,
    width: int | None,
    height: int | None,
    *,
    before: bool,
) -> dict[str, Any]:
    whole = printable(os.fsdecode(path))
    inner = printable(os.fsdecode(member))
    place = f"{whole} › {inner}" if inner else whole
    name = (inner or whole).rpartition("/")[2] or whole
    return {
        "source": source,
        "page": page,
        "name": f"{name}, page {page}" if page else name,
        "place": f"{place}, page {page}" if page else place,
        "score": score,
        "before": decision if before else None,
        "label": label,
        "size": f"{width} × {height}" if width and height else "",
    }
