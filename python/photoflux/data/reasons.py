"""Counts rejected files by reason, for messages and for the error when nothing can be prepared."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from photoflux.data.cache import cache_folder
from photoflux.data.layouts import IMAGE_SUFFIXES
from photoflux.data.writer import UnwritableError, write_rejected
from photoflux.errors import DataError
from photoflux.system import atomic
from photoflux.system.names import file_stem, printable

_KINDS = 6
_NAMED = 20


@contextmanager
def explaining(source: Path, rejected: list[tuple[str, str]]) -> Iterator[None]:
    """Add to a refusal in the block which files of the source were left out until then, and why.

    All of them are written to a CSV file in the cache, which the message names; the source is only read.

    Parameters
    ----------
    source : Path
        The folder that is prepared.
    rejected : list of (str, str)
        Files with their reasons; may grow in the block.

    Raises
    ------
    DataError
        The refusal.
    """
    try:
        yield
    except UnwritableError:
        raise
    except DataError as error:
        if not rejected:
            raise
        raise type(error)(f"{error}\n{_told(source, sorted(rejected))}") from error


def _told(source: Path, rejected: Sequence[tuple[str, str]]) -> str:
    count = f"{len(rejected)} {'was' if len(rejected) == 1 else 'were'} left out"
    try:
        path = _list_of(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing_file(path) as temporary:
            write_rejected(temporary, rejected)
    except (OSError, DataError):
        # What cannot be written is shown.
        lines = [f"  {printable(name)}: {reason}" for name, reason in rejected[:_NAMED]]
        more = [f"  … and {len(rejected) - _NAMED} more"] if len(rejected) > _NAMED else []
        return "\n".join([f"{count} (no list of them can be written, set PHOTOFLUX_CACHE to a folder):", *lines, *more])
    return "\n".join([f"{count}, all listed in {path}:", *by_kind(rejected)])


def by_kind(rejected: Sequence[tuple[str, str]]) -> list[str]:
    """Return a line for each kind of reason, images first and then the most frequent, with its count and an example.

    Examples
    --------
    >>> by_kind([("a.png", "an empty file (0 bytes)"), ("b.jpg", "broken JPEG: cut"), ("c.jpg", "broken JPEG: odd")])
    ['  2 × broken JPEG, such as b.jpg (broken JPEG: cut)', '  1 × an empty file (0 bytes), such as a.png']
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, reason in rejected:
        kinds.setdefault(re.sub(r"\d+", "#", reason.partition(": ")[0]), []).append((name, reason))
    lines = []
    # What cannot be read of the images is what a user wants to know; documents among them are not.
    ordered = sorted(kinds.values(), key=lambda rows: (not any(map(_named_as_image, rows)), -len(rows)))
    for rows in ordered[:_KINDS]:
        name, reason = rows[0]
        same = all(other == reason for _, other in rows)
        kind = reason if same else reason.partition(": ")[0]
        example = printable(name) if same else f"{printable(name)} ({printable(reason)})"
        lines.append(f"  {len(rows)} × {printable(kind)}, such as {example}")
    rest = sum(len(rows) for rows in ordered[_KINDS:])
    return lines + ([f"  {rest} for other reasons"] if rest else [])


def _named_as_image(row: tuple[str, str]) -> bool:
    return PurePosixPath(row[0].partition("#")[0]).suffix.lower() in IMAGE_SUFFIXES


def _list_of(source: Path) -> Path:
    """Return the file for the files of a source that were left out; the next refusal replaces it."""
    place = os.path.realpath(source)
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:12]
    return cache_folder() / "rejected" / f"{file_stem(Path(place).name)}-{digest}.csv"
