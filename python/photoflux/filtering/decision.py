"""What a score of a filter job means, and what a job has done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.system.names import printable

PHOTOS, UNCERTAIN = "photos", "uncertain"


@dataclass(frozen=True)
class Decision:
    """From which scores on an image is what.

    Attributes
    ----------
    threshold : float
        The score from which an image is of the positive class.
    low, high : float
        Scores from `low` to below `high` are uncertain; both are the threshold where none is.
    negative, positive : str
        The classes.
    why : str
        Where the threshold is from, in words.
    """

    threshold: float
    low: float
    high: float
    negative: str
    positive: str
    why: str

    def of(self, score: float) -> str:
        """Return the decision for a score."""
        # Rounded as the scores are: one that equals the threshold is taken.
        if np.float32(self.low) <= np.float32(score) < np.float32(self.high):
            return UNCERTAIN
        return self.positive if np.float32(score) >= np.float32(self.high) else self.negative

    def folder(self, decision: str) -> str | None:
        """Return the folder of the pictures of a decision; None where they stay where they are."""
        return {self.positive: PHOTOS, UNCERTAIN: UNCERTAIN}.get(decision)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Filtered:
    """What a job has done.

    Attributes
    ----------
    path : Path
        Its folder.
    complete : bool
        Whether all of the pile is done.
    counts : dict of str to int
        Items of each decision, and as ``"failed"`` and ``"stale"`` of these states.
    failures : dict of str to int
        How often each kind of reason was given.
    decision : Decision
        From which score on an image is what.
    notes : list of str
        What is to be known of the results.
    shifts : list of dict
        In which respects the pile is unlike what the run was trained on (`photoflux.runs.shift.Shift`).
    """

    path: Path
    complete: bool
    counts: dict[str, int]
    failures: dict[str, int]
    decision: Decision
    notes: list[str]
    shifts: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return dict(vars(self)) | {"path": str(self.path), "decision": self.decision.as_dict()}

    def __str__(self) -> str:
        decided = {name: count for name, count in self.counts.items() if name not in ("failed", "stale")}
        width = max((len(name) for name in decided), default=0)
        lines = [f"{printable(self.path)}: {sum(decided.values())} images, {self.decision.why}"]
        lines += [f"  {printable(name):<{width}}  {count:>9}" for name, count in sorted(decided.items())]
        if "failed" in self.counts:
            lines.append(f"  {self.counts['failed']} could not be read:")
            lines += [f"    {count} × {printable(kind)}" for kind, count in self.failures.items()]
        if "stale" in self.counts:
            lines.append(f"  {self.counts['stale']} were scored by another model and are not in the pile any more")
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])
