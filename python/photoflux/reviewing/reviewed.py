"""What a review needs and leaves: the libraries that must be there, and the counts of its labels."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photoflux.errors import ServingError
from photoflux.system.names import printable


@dataclass(frozen=True)
class Reviewed:
    """What a review leaves.

    Attributes
    ----------
    path : Path
        The folder of the job or run.
    found, labelled : int
        How many images were to be shown, and how many of them have a label.
    labels : dict of str to int
        How many labels of each class there are in the folder, those of earlier reviews too.
    """

    path: Path
    found: int
    labelled: int
    labels: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return dict(vars(self)) | {"path": str(self.path)}

    def __str__(self) -> str:
        place = printable(self.path)
        if not self.found:
            return f"{place}: there are no such images to label."
        counts = ", ".join(f"{count} × {name}" for name, count in sorted(self.labels.items()))
        text = f"{place}: {self.labelled} of {self.found} images are labelled"
        if not counts:
            return f"{text}."
        return f"{text}; in all {counts}. `photoflux train … --add-labels {place}` uses the labels."


def need_libraries() -> None:
    """Raise a `ServingError` unless the libraries of the extra ``review`` are installed."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ServingError(
            f"A review needs {', '.join(missing)}, not installed here. Install with: pip install 'photoflux[review]'."
        )
