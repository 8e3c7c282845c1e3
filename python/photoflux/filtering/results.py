"""Writes the results of a job from its ledger: the columns of ``results.csv`` and ``results.parquet`` are set here."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from photoflux.filtering.ledger import STALE, Ledger, Row
from photoflux.system import atomic
from photoflux.system.names import printable

COLUMNS = ("path", "member", "page", "sha256", "width", "height", "score", "decision", "error")
_ROWS = 20_000
_STALE = "stale: its file has changed or gone, or it was scored by another model, and it was not met since"


def write_results(folder: Path, ledger: Ledger) -> list[str]:
    r"""Write ``results.csv`` and, where pyarrow is installed, ``results.parquet``; return their names.

    The rows are sorted by path, member and page. Bytes of names that are not UTF-8 are as they are in the CSV file, and
    ``\xNN`` in the other, which cannot have them.
    """
    with (
        atomic.writing_file(folder / "results.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in ledger.results():
            writer.writerow(["" if value is None else value for value in _cells(row)])
    if importlib.util.find_spec("pyarrow") is None:
        return ["results.csv"]
    _write_parquet(folder / "results.parquet", ledger)
    return ["results.csv", "results.parquet"]


def _cells(row: Row) -> tuple[Any, ...]:
    if row.state == STALE:
        return (row.path, row.member, row.page, row.sha256, row.width, row.height, None, "", _STALE)
    return row[: len(COLUMNS)]


def _write_parquet(path: Path, ledger: Ledger) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    text, whole = pa.string(), pa.int32()
    kinds = (text, text, whole, text, whole, whole, pa.float32(), text, text)
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    # A path that is no UTF-8, or looks like an address, is not what pyarrow takes.
    with (
        atomic.writing_file(path) as temporary,
        temporary.open("wb") as file,
        parquet.ParquetWriter(file, schema) as writer,
    ):
        for rows in _chunks(_cells(row) for row in ledger.results()):
            columns = [list(column) for column in zip(*rows, strict=True)]
            columns[:2] = [[printable(name) for name in column] for column in columns[:2]]
            arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _chunks(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    rows = iter(rows)
    while chunk := list(islice(rows, _ROWS)):
        yield chunk
