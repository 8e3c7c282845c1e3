"""Values that a file from somebody else may have where others are expected."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

ODD: list[Any] = [
    None, True, 0, -1, 1 << 70, 1.5, 1e308, float("nan"), float("inf"), "", "x", "a\nb", "../../x", "<script>",
    "\ud800", [], [None], ["a"], [[1]], {}, {"a": 1}, {"images": "<b>"},
]  # fmt: skip
NOT_JSON = [
    "", "null", "[]", "{", "{}", '{"format": 1}', "[" * 100_000, '{"a":' * 100_000, "\ufeff{}", "NaN", "\x00" * 100,
    '{"format": 1, "format": 2}', '{"format": ' + "9" * 5000 + "}",
]  # fmt: skip


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within a value."""
    if above:
        yield above
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*above, key))


def changed(values: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at a place."""
    values = copy.deepcopy(values)
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = new
    return values
