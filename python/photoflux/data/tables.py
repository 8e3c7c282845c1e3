"""Reads CSV files as people write them: detects encoding and delimiter."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from photoflux.errors import DataError
from photoflux.system.names import printable

SEPARATORS = ",;\t|"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DOCUMENTS = ((b"PK\x03\x04", "an Excel or OpenDocument file"), (b"\xd0\xcf\x11\xe0", "an Excel file"))


class Row(NamedTuple):
    """A line's number, and its cells in the order of the columns asked for."""

    line: int
    cells: tuple[str, ...]


def read_table(data: bytes, place: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Read columns of a table; others are ignored.

    Parameters
    ----------
    data : bytes
        UTF-8 (bytes that are not are kept as Python keeps them in names of files), or UTF-16 or UTF-32.
    place : Path
        Its file, for messages.
    columns : sequence of str
        The columns to read, in any case; separated by commas, semicolons, tabs or bars.

    Raises
    ------
    DataError
        If it is no such table or lacks a column.
    """
    name = printable(place)
    lines = io.StringIO(_text(data, name), newline="")
    first, before = _first_line(lines)
    given = first.strip().lower()
    if given.startswith("sep=") and given[4:] in SEPARATORS:  # Excel's own way to name what separates
        first, more = _first_line(lines)
        before += 1 + more
    between = max(SEPARATORS, key=lambda mark: len(set(columns).intersection(_header(first, mark))))
    rest = io.StringIO(first + lines.read(), newline="")
    reader = csv.reader(rest, delimiter=between, strict=True)
    try:
        header = _header(first, between)
        shown = ", ".join(printable(first.strip()).split(between)) or "empty"
        if any(header.count(column) != 1 for column in columns):
            raise DataError(
                f"{name} must have one column called {' and one called '.join(columns)}, separated by commas, "
                f"semicolons or tabs; its first line is: {shown}."
            )
        next(reader)
        places = [header.index(column) for column in columns]
        for row in reader:
            # Spreadsheets leave rows of empty cells behind.
            if any(cell.strip() for cell in row):
                yield Row(before + reader.line_num, tuple(row[at] if at < len(row) else "" for at in places))
    except csv.Error as error:
        raise DataError(f"{name} is not a CSV file: line {before + reader.line_num}, {error}.") from error


def _first_line(lines: io.StringIO) -> tuple[str, int]:
    """Return the next line that is not blank, or nothing, and how many come before it."""
    blank = 0
    for line in lines:
        if line.strip(SEPARATORS + " \r\n"):
            return line, blank
        blank += 1
    return "", blank


def _text(data: bytes, name: str) -> str:
    for mark, what in _DOCUMENTS:
        if data.startswith(mark):
            raise DataError(f"{name} is {what}, expected text. Save it as CSV (UTF-8) and give that file.")
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:4]:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    if encoding in (None, "utf-8-sig"):
        # As the names of files: they need not be UTF-8.
        text = data.decode("utf-8-sig", errors="surrogateescape")
    else:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            raise DataError(f"{name} begins as {encoding.upper()} text and is not. Save it as CSV (UTF-8).") from error
    if "\0" in text:
        raise DataError(f"{name} is not text: it has null characters. Expected a CSV file.")
    return text


def _header(line: str, between: str) -> list[str]:
    try:
        return [cell.strip().lower() for cell in next(csv.reader([line], delimiter=between, strict=True), [])]
    except csv.Error:
        return []
