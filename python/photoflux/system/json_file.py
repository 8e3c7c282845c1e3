"""Reads a JSON file that anybody may have written: what such a file may be, before its values are looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# More than any file that PhotoFlux writes.
MOST_BYTES = 64 << 20


def read_object(path: Path) -> dict[str, Any]:
    """Return the values of a JSON file by name, as they stand in it: of whatever type, and NaN and infinity too.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is larger than `MOST_BYTES`, is not UTF-8, not JSON or no object, has a name twice in one object, or
        objects within objects without end.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES} bytes")
    return parse_object(data.decode("utf-8"))


def parse_object(text: str) -> dict[str, Any]:
    """Return the values of a JSON object by name; it raises the `ValueError` of `read_object`."""
    try:
        values = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it has objects within objects without end") from error
    if not isinstance(values, dict):
        raise ValueError(f"it must be a JSON object, found {type(values).__name__}")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {twice[:100]!r} twice in one object")
    return values
