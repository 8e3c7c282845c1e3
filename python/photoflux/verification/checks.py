"""A check and its comparisons: compares two arrays with a tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Part:
    """One comparison of two arrays.

    Attributes
    ----------
    name : str
        What was compared, such as ``conv1.kernel``.
    absolute : float
        Largest difference; infinite where one of the two is NaN or has another shape.
    relative : float
        The same, as a share of the largest magnitude in the reference.
    tolerance : float
        Largest difference that is allowed where it was found.
    passed : bool
        Whether no element differs by more than it may.
    """

    name: str
    absolute: float
    relative: float
    tolerance: float
    passed: bool

    @property
    def share(self) -> float:
        """How much of its tolerance the difference uses up; infinite where nothing may differ and something does."""
        return 0.0 if self.absolute == 0 else self.absolute / self.tolerance if self.tolerance else float("inf")


@dataclass(frozen=True)
class Check:
    """A row of a proof.

    Attributes
    ----------
    name : str
        What is checked.
    why : str
        Where the tolerance comes from.
    parts : list of Part
        In the order of the computation.
    """

    name: str
    why: str
    parts: list[Part]

    @property
    def passed(self) -> bool:
        """Whether every part did."""
        return all(part.passed for part in self.parts)

    @property
    def shown(self) -> Part:
        """The part that a table shows: the first that failed, else the one nearest to its tolerance."""
        failed = [part for part in self.parts if not part.passed]
        return failed[0] if failed else max(self.parts, key=lambda part: part.share)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        parts = [
            {**vars(part), "absolute": _finite(part.absolute), "relative": _finite(part.relative)}
            for part in self.parts
        ]
        return {"check": self.name, "passed": self.passed, "why": self.why, "parts": parts}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def compare(name: str, ours: Any, theirs: Any, tolerance: Any) -> Part:
    """Compare two arrays element by element.

    Parameters
    ----------
    name : str
        What they are.
    ours, theirs : array_like
        Of the engine and of the reference.
    tolerance : float or array_like
        How far an element may differ; one for all, or one each.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape:
        return Part(f"{name} (shapes {a.shape} and {b.shape})", float("inf"), float("inf"), 0.0, False)
    allowed = np.broadcast_to(np.asarray(tolerance, np.float64), a.shape)
    difference = np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), np.inf)
    if not difference.size:
        return Part(name, 0.0, 0.0, float(np.max(tolerance)), True)
    excess = difference - allowed
    # Shown is the element that exceeds its tolerance most, or comes nearest to it.
    at = np.unravel_index(np.argmax(excess), a.shape)
    largest = float(difference[at]) if excess[at] > 0 else float(difference.max())
    magnitude = float(np.abs(b).max())
    relative = largest / magnitude if magnitude else (0.0 if largest == 0 else float("inf"))
    where = allowed[at] if excess[at] > 0 else allowed[np.unravel_index(np.argmax(difference), a.shape)]
    return Part(name, largest, relative, float(where), bool(excess[at] <= 0))
