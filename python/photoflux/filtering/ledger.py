"""The ledger: an SQLite database with a row for each item of the pile; its tables are changed here."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from types import NoneType
from typing import Any, NamedTuple

from photoflux.data.labelled import LABELS as LABELS
from photoflux.data.labelled import LEDGER
from photoflux.errors import DataError
from photoflux.system import atomic
from photoflux.system.kinds import check_kind, check_table
from photoflux.system.names import composed, printable

# Of a run's folder, `LABELS` has the same tables, of the images whose labels are reviewed.
NAME = LEDGER
FORMAT = 1
# The states of an item.
DONE, FAILED, STALE = "done", "failed", "stale"
# What to do about what SQLite says.
_ADVICE = {
    "full": "Free space and start the job again: it goes on where it stopped.",
    "disk I/O": "Free space and start the job again: it goes on where it stopped.",
    "readonly": "See to the permissions of the file and its folder.",
    "locked": "Another process has been writing it for a minute; wait until it is done, and try again.",
}
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sources (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL,           -- as the system has it, absolute
    member BLOB NOT NULL,         -- of an archive, else empty
    nth INTEGER NOT NULL,         -- of members with the same name
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,    -- of the file
    complete INTEGER NOT NULL,    -- whether all its items are here
    UNIQUE (path, member, nth)
);
CREATE TABLE IF NOT EXISTS items (
    source INTEGER NOT NULL REFERENCES sources,
    page INTEGER NOT NULL,        -- from 1 in a source of several, else 0
    state TEXT NOT NULL,          -- done, failed, or stale: scored by another model, or of a file that has changed
    sha256 TEXT NOT NULL,
    model TEXT NOT NULL,          -- the fingerprint of what scored it
    width INTEGER, height INTEGER,
    score REAL,
    decision TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    error TEXT NOT NULL,
    place TEXT,                   -- where its picture is, in the job's folder
    folded TEXT UNIQUE,           -- the same, as a system sees it that knows no capitals
    PRIMARY KEY (source, page)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS states ON items (state, decision);
CREATE TABLE IF NOT EXISTS labels (
    source INTEGER NOT NULL,
    page INTEGER NOT NULL,
    label TEXT NOT NULL,          -- a class, as a person says
    sha256 TEXT NOT NULL,         -- of the item that was seen
    labelled TEXT NOT NULL,       -- when, ISO 8601, UTC
    PRIMARY KEY (source, page)
) WITHOUT ROWID;
"""


# The types of a `Row`; SQLite takes anything in any column.
_NUMBER, _TEXT = (int, NoneType), (str, NoneType)
_RESULT: tuple[Any, ...] = (bytes, bytes, int, str, _NUMBER, _NUMBER, (float, NoneType), str, str, str, _TEXT)


class SourceKey(NamedTuple):
    """What a source of the pile is known by: its file, the member of it, and which of those of the same name."""

    path: str
    member: str = ""
    nth: int = 0

    def blobs(self) -> tuple[bytes, bytes, int]:
        """Return it as the ledger has it: names as the system's bytes."""
        return os.fsencode(self.path), os.fsencode(self.member), self.nth


class Item(NamedTuple):
    """An item as it is to be recorded; what is not known of one that failed is None."""

    page: int
    state: str
    sha256: str
    width: int | None
    height: int | None
    score: float | None
    decision: str
    error: str
    place: str | None


class Row(NamedTuple):
    """An item as it is in the results; see the columns of the tables."""

    path: str
    member: str
    page: int
    sha256: str
    width: int | None
    height: int | None
    score: float | None
    decision: str
    error: str
    state: str
    place: str | None


class Ledger:
    """An open ledger. One thread of one process writes items; others may read it and write labels meanwhile.

    Parameters
    ----------
    folder : Path
        The job's folder.
    writes : bool
        Whether it is to be written: made, where there is none.
    name : str
        Of its file.

    Raises
    ------
    DataError
        If there is none, or it cannot be opened, read or written.
    """

    def __init__(self, folder: Path, *, writes: bool = False, name: str = NAME) -> None:
        self.path, self.folder, self._writes = folder / name, folder, writes
        if not writes and not self.path.is_file():
            raise DataError(f"{printable(folder)} has no {name}: it is not the folder of a `photoflux filter`.")
        with self._told():
            if writes and not self.path.is_file():
                self._make()
            place = f"{self.path.resolve().as_uri()}?mode={'rw' if writes else 'ro'}"
            # Not atomic: SQLite keeps its file whole by a log of its own.
            self._base = sqlite3.connect(place, uri=True, timeout=60, isolation_level=None, check_same_thread=False)
            # It may have come from somebody else: what it defines must not run, and PhotoFlux defines tables only.
            self._base.execute("PRAGMA trusted_schema=OFF")
            others = self._base.execute(
                "SELECT name FROM sqlite_master WHERE type NOT IN ('table', 'index')"
            ).fetchall()
            if others:
                raise self._strange(f"it has {', '.join(str(name)[:100] for (name,) in others[:3])}")
            if writes:
                # Of a power cut the last moments may be lost, and are done again; the rest stays whole.
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute("PRAGMA synchronous=NORMAL")
        known = self.meta("format", FORMAT)
        if known != FORMAT:
            raise DataError(f"{printable(self.path)} has format {known!r}; this PhotoFlux reads {FORMAT}.")
        if writes:
            self.keep(format=FORMAT)

    def _make(self) -> None:
        """Make it under another name, so that whoever reads it finds its tables."""
        temporary = atomic.sibling(self.path)
        try:
            with closing(sqlite3.connect(temporary)) as base:
                base.executescript(_TABLES)
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def close(self) -> None:
        """Close it; if nobody else has it open, all is in the one file then, which can be read anywhere."""
        with contextlib.suppress(sqlite3.Error):
            if self._writes:
                self._base.execute("PRAGMA busy_timeout=0")
                self._base.execute("PRAGMA journal_mode=DELETE")
        with contextlib.suppress(sqlite3.Error):
            self._base.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say what went wrong with the database in words."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where a damaged name is in SQLite's message
            text = str(error)
            advice = next(
                (advice for words, advice in _ADVICE.items() if words in text),
                "If it is damaged, delete it and start the job again from the beginning.",
            )
            raise DataError(f"The ledger {printable(self.path)} cannot be used: {text}. {advice}") from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Have all that is written in the block written at once, or nothing of it."""
        with self._told():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    def rows(self, query: str, values: Iterable[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Return the rows of a query, one after another."""
        with self._told(), closing(self._base.execute(query, tuple(values))) as found:
            yield from found

    def change(self, statement: str, values: Iterable[Any] = ()) -> int:
        """Change rows and return how many."""
        with self._told():
            return self._base.execute(statement, tuple(values)).rowcount

    def meta(self, key: str, otherwise: Any = None) -> Any:
        """Return what is kept of the job under a key."""
        for (value,) in self.rows("SELECT value FROM meta WHERE key = ?", (key,)):
            try:
                return json.loads(value)
            except (ValueError, TypeError, RecursionError) as error:
                raise self._strange(f"its {key} is no JSON ({str(error)[:200]})") from error
        return otherwise

    def table(self, key: str, kinds: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the table that is kept of the job under a key, if there is one, whose values are of these types.

        Raises
        ------
        DataError
            If it is none, or one of them is of another.
        """
        values: dict[str, Any] | None = self.meta(key)
        try:
            check_kind(values, dict[str, Any] | None, key)
            check_table(values, kinds, key)
        except TypeError as error:
            raise self._strange(str(error)) from error
        return values

    def shifts(self) -> list[dict[str, Any]]:
        """Return in which respects the pile is unlike what the run was trained on, each with its ``text``."""
        values = self.meta("shifts") or []
        try:
            check_kind(values, list[dict[str, Any]], "shifts")
            for shift in values:
                check_kind(shift.get("text"), str, "text")
        except TypeError as error:
            raise self._strange(str(error)) from error
        return list(values)

    def inside(self, place: object) -> Path:
        """Return the file of a place that the ledger names.

        Raises
        ------
        DataError
            If it leads out of the job's folder: what is there is removed and replaced.
        """
        path = PureWindowsPath(place) if isinstance(place, str) else None
        if path is None or path.anchor or ".." in path.parts or not path.parts:
            raise self._strange(f"the picture {str(place)[:200]!r} is not in its folder")
        return self.folder / str(place)

    def _strange(self, found: str) -> DataError:
        return DataError(
            f"The ledger {printable(self.path)} is not as PhotoFlux writes it: {printable(found)}. Use one that you "
            "know, or start the job in another folder."
        )

    def keep(self, **values: Any) -> None:
        """Keep values of the job, ready for JSON."""
        for key, value in values.items():
            self.change("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def is_done(self, key: SourceKey, size: int, mtime_ns: int) -> bool:
        """Say whether all items of a source are here, and it is as it was then."""
        query = "SELECT size, mtime_ns FROM sources WHERE path = ? AND member = ? AND nth = ? AND complete"
        with self._told():
            known: tuple[int, int] | None = self._base.execute(query, key.blobs()).fetchone()
        return known == (size, mtime_ns)

    def source(self, key: SourceKey, size: int, mtime_ns: int, *, whole: bool = False) -> tuple[int, bool]:
        """Return the number of a source, and whether it is new; what is here of one that has changed becomes stale.

        A new one of which the `whole` is recorded in this transaction is complete, without `complete`.

        In a transaction, as all that is done for each item: its errors are told there.
        """
        execute, blobs = self._base.execute, key.blobs()
        values = (*blobs, size, mtime_ns, whole)
        made = execute("INSERT INTO sources VALUES (NULL, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", values)
        if made.rowcount == 1:
            assert made.lastrowid is not None
            return made.lastrowid, True
        query = "SELECT id, size, mtime_ns FROM sources WHERE path = ? AND member = ? AND nth = ?"
        number, *known = execute(query, blobs).fetchone()
        if known != [size, mtime_ns]:
            execute("UPDATE items SET state = ? WHERE source = ?", (STALE, number))
        execute("UPDATE sources SET size = ?, mtime_ns = ?, complete = 0 WHERE id = ?", (size, mtime_ns, number))
        return int(number), False

    def record(self, source: int, items: Iterable[Item], model: str) -> None:
        """Write items of a source, in place of what was known of them."""
        for item in items:
            self._base.execute(
                "INSERT INTO items VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1, ?10, ?11, ?12) "
                "ON CONFLICT DO UPDATE SET "
                "state = ?3, sha256 = ?4, model = ?5, width = ?6, height = ?7, score = ?8, decision = ?9, "
                "attempts = attempts + 1, error = ?10, place = ?11, folded = ?12",
                (source, *item[:3], model, *item[3:], _folded(item.place)),
            )

    def complete(self, source: int) -> None:
        """Note that all items of a source are here."""
        self._base.execute("UPDATE sources SET complete = 1 WHERE id = ?", (source,))

    def forget_others(self, source: int, pages: Iterable[int]) -> list[str]:
        """Delete the items of a source of all pages but these; return where the pictures of them are."""
        there, execute = set(pages), self._base.execute
        rows = execute("SELECT page, place FROM items WHERE source = ?", (source,)).fetchall()
        gone = [(page, place) for page, place in rows if page not in there]
        for page, _ in gone:
            execute("DELETE FROM items WHERE source = ? AND page = ?", (source, page))
        return [str(place) for _, place in gone if place is not None]

    def places_of(self, source: int) -> dict[int, str]:
        """Return where the pictures of a source's items are, by page."""
        query = "SELECT page, place FROM items WHERE source = ? AND place IS NOT NULL"
        return {page: str(place) for page, place in self._base.execute(query, (source,))}

    def is_taken(self, place: str) -> bool:
        """Say whether the picture of another item is at a place, or at one that some systems take for the same."""
        return self._base.execute("SELECT 1 FROM items WHERE folded = ?", (_folded(place),)).fetchone() is not None

    def decided_otherwise(self, decide: Callable[[float], str]) -> list[tuple[int, int, str, str | None]]:
        """Return source, page, new decision and place of the items that are decided otherwise now."""
        with self._told():
            self._base.create_function("decide", 1, decide, deterministic=True)
        query = (
            "SELECT source, page, decide(score), place FROM items WHERE state = 'done' AND decide(score) <> decision"
        )
        return [(source, page, decision, place) for source, page, decision, place in self.rows(query)]

    def move(self, source: int, page: int, decision: str) -> None:
        """Note that an item is decided otherwise and has no picture."""
        self.change(
            "UPDATE items SET decision = ?, place = NULL, folded = NULL WHERE source = ? AND page = ?",
            (decision, source, page),
        )

    def mark_stale(self, where: str, values: Iterable[Any] = ()) -> None:
        """Mark the items of a condition as stale, so that they are scored again when they are met."""
        self.change(f"UPDATE items SET state = 'stale' WHERE {where}", values)

    def open_stale(self) -> None:
        """Have the sources of stale items read again, and the archives that they are in."""
        self.change("UPDATE sources SET complete = 0 WHERE id IN (SELECT source FROM items WHERE state = 'stale')")
        self.change(
            "UPDATE sources SET complete = 0 WHERE member = x'' AND path IN "
            "(SELECT path FROM sources WHERE NOT complete AND member <> x'')"
        )

    def label(self, source: int, page: int, label: str | None) -> bool:
        """Note what a person says that an item is, in place of an earlier label; None takes that away.

        This is one short write, for which the job in the same ledger waits, or it for the job.

        Returns
        -------
        bool
            Whether there is such an item.
        """
        if label is None:
            self.change("DELETE FROM labels WHERE source = ? AND page = ?", (source, page))
            return any(self.rows("SELECT 1 FROM items WHERE source = ? AND page = ?", (source, page)))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        statement = (
            "INSERT OR REPLACE INTO labels (source, page, label, sha256, labelled) "
            "SELECT source, page, ?, sha256, ? FROM items WHERE source = ? AND page = ?"
        )
        return self.change(statement, (label, now, source, page)) == 1

    def failures(self) -> dict[str, int]:
        """Return how often each kind of reason was given: what is before its first colon."""
        query = (
            "SELECT substr(error, 1, instr(error || ': ', ': ') - 1) AS kind, count(*) FROM items "
            "WHERE state = 'failed' GROUP BY kind ORDER BY 2 DESC, 1"
        )
        return self._by_word(query)

    def results(self) -> Iterator[Row]:
        """Return all items, sorted by path, member and page."""
        query = (
            "SELECT path, member, page, sha256, width, height, score, decision, error, state, place "
            "FROM sources JOIN items ON source = id ORDER BY path, member, nth, page"
        )
        for row in self.rows(query):
            if not all(isinstance(value, kinds) for value, kinds in zip(row, _RESULT, strict=True)):
                raise self._strange(f"a row of its items is {str(row)[:300]}")
            path, member, *rest = row
            yield Row(os.fsdecode(path), os.fsdecode(member), *rest)

    def counts(self) -> dict[str, int]:
        """Return how many items there are of each decision, and as ``failed`` and ``stale`` of these states."""
        query = "SELECT CASE state WHEN 'done' THEN decision ELSE state END AS what, count(*) FROM items GROUP BY what"
        return self._by_word(query)

    def _by_word(self, query: str) -> dict[str, int]:
        found = dict(self.rows(query))
        if not all(isinstance(word, str) for word in found):
            raise self._strange(f"its decisions or errors are {str(list(found))[:300]}")
        return found


def _folded(place: str | None) -> str | None:
    return None if place is None else composed(place).casefold()
