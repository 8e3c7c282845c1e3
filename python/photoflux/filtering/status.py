"""`photoflux status`: how far a filter job is, from its ledger, while it runs and after."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from photoflux.filtering.ledger import FAILED, STALE, Ledger
from photoflux.system import atomic
from photoflux.system.names import printable

# What a job says of itself while it works.
_PROGRESS = {
    "machine": str | None, "pid": int | None, "process": int | None, "updated": str | None, "rate": float | None,
    "files": int | None, "total": int | None, "seconds_left": float | None, "ended": bool | None,
}  # fmt: skip


@dataclass(frozen=True)
class Status:
    """How far a job is.

    Attributes
    ----------
    folder : str
        The job's folder.
    state : str
        ``"running"``, ``"complete"``, or ``"stopped"``: it goes on when it is started again.
    counts : dict of str to int
        Items of each decision.
    failed, stale : int
        Items that could not be read, and those to be scored again.
    files, total : int or None
        Files of the pile that are done in the walk, and all of them; None where it is not known yet.
    rate : float
        Items a second, over the last minute of work.
    seconds_left : float or None
        At this rate; None where it is not known.
    errors : dict of str to int
        How often each kind of reason was given.
    updated : str
        When the job last said how far it is, ISO 8601, UTC.
    shifts : list of dict
        In which respects the pile is unlike what the run was trained on.
    """

    folder: str
    state: str
    counts: dict[str, int]
    failed: int
    stale: int
    files: int
    total: int | None
    rate: float
    seconds_left: float | None
    errors: dict[str, int]
    updated: str
    shifts: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return asdict(self)

    def __str__(self) -> str:
        whole = "" if self.total is None else f" of {self.total}"
        lines = [f"{printable(self.folder)}: {self.state}, {self.files}{whole} files"]
        width = max((len(name) for name in self.counts), default=0)
        lines += [f"  {printable(name):<{width}}  {count:>9}" for name, count in sorted(self.counts.items())]
        if self.failed:
            lines.append(f"  {self.failed} could not be read:")
            lines += [f"    {count} × {printable(kind)}" for kind, count in self.errors.items()]
        if self.stale:
            lines.append(f"  {self.stale} are stale, and scored again when the job is started again")
        if self.state == "running":
            left = "" if self.seconds_left is None else f", about {_duration(self.seconds_left)} left"
            lines.append(f"  {self.rate:.1f} images a second{left}")
        lines += [f"  unlike the training images: {shift['text']}" for shift in self.shifts]
        return "\n".join(lines)


def status_of(folder: Path) -> Status:
    """Read how far a job is.

    Raises
    ------
    DataError
        If the folder is not that of a job.
    """
    ledger = Ledger(folder)
    try:
        progress = ledger.table("progress", _PROGRESS) or {}
        counts = ledger.counts()
        failed, stale = counts.pop(FAILED, 0), counts.pop(STALE, 0)
        alive = progress.get("machine") == atomic.machine() and atomic.is_alive(
            progress.get("pid") or 0, progress.get("process") or 0
        )
        ended = bool(progress.get("ended"))
        running = alive and not ended
        return Status(
            str(folder),
            "running" if running else "complete" if ended else "stopped",
            counts,
            failed,
            stale,
            progress.get("files") or 0,
            progress.get("total"),
            float(progress.get("rate") or 0.0),
            progress.get("seconds_left") if running else None,
            ledger.failures(),
            progress.get("updated") or "",
            ledger.shifts(),
        )
    finally:
        ledger.close()


def _duration(seconds: float) -> str:
    """Return a time as a person says it."""
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
