"""`photoflux.threshold`: chooses a run's operating point on the validation part and measures it on test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from photoflux.errors import DataError, RunError, SettingError
from photoflux.runs.dataset import dataset_of
from photoflux.runs.evaluation import probabilities
from photoflux.runs.folder import amend
from photoflux.runs.progress import Display
from photoflux.runs.run import Run
from photoflux.runs.seen import scored_positions, seen_by
from photoflux.system.names import printable
from photoflux.thresholds.calibration import Calibration, calibrate
from photoflux.thresholds.choice import Measured, Share, check, measure, precision_threshold, recall_threshold


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, what it guarantees, and its cost.

    Attributes
    ----------
    run : Run
        The run, with the threshold in it.
    positive : str
        The class that is predicted at the threshold or above.
    score : float
        The threshold: a `float32` probability of that class, 0 to 1, predicted as it at this score or above.
    promise : str
        ``"recall"`` or ``"precision"``.
    value, confidence : float
        The true recall or precision is `value` or more, with this confidence.
    measured : dict of str to Measured
        What it does on ``"validation"``, on which it was chosen, and on ``"test"``, where there are such images. Each
        bound of the test part holds with the confidence by itself; on the validation part only the
        guaranteed bound holds, as the threshold was chosen there.
    calibration : Calibration
        The calibration of the probabilities on each part.
    notes : list of str
        Why new images may differ from the validation images.
    """

    run: Run
    positive: str
    score: float
    promise: str
    value: float
    confidence: float
    measured: dict[str, Measured]
    calibration: Calibration
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "run": str(self.run.path),
            "positive": self.positive,
            "score": self.score,
            "promise": self.promise,
            "value": self.value,
            "confidence": self.confidence,
            **{part: measured.as_dict() for part, measured in self.measured.items()},
            "calibration": self.calibration.as_dict(),
            "notes": self.notes,
        }

    def __str__(self) -> str:
        # As a float32, the shortest number that names it.
        lines = [
            f"Run {printable(self.run.path)}: “{self.positive}” from a score of {np.float32(self.score)!s} on",
            f"Guarantee: {self.promise} {self.value:g} or more, with confidence {self.confidence:g}, for images like "
            "those of the validation part",
        ]
        for part, found in self.measured.items():
            lines.append(
                f"  {part:<10}  {found.images} images, {found.positives} of them {self.positive}; {found.taken} "
                f"predicted ({found.taken / found.images:.1%})"
            )
            lines += [
                f"    {name:<9} {_words(row)}"
                for name, row in (("recall", found.recall), ("precision", found.precision))
            ]
        lines.append(f"Calibration: {_calibration(self.calibration)}; see calibration.png")
        lines.append(
            f"`photoflux predict` applies it; `photoflux report {printable(self.run.path)}` adds it to the report"
        )
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])


def choose(
    run: Run, recall: float | None, precision: float | None, confidence: float, display: Display
) -> OperatingPoint:
    """Choose the threshold that keeps a recall or a precision, as `photoflux.threshold` says; keep it in the run."""
    if (recall is None) == (precision is None):
        given = "neither" if recall is None else "both"
        raise SettingError(f"Give one of `recall` and `precision`; received {given}.")
    promise, value = ("precision", precision) if recall is None else ("recall", recall)
    assert value is not None
    check(promise, value, confidence)
    if len(run.classes) != 2:
        raise SettingError(
            f"A threshold belongs to two classes; the run {run.path} has {len(run.classes)}: {', '.join(run.classes)}. "
            "Train one with `positive`, which makes one class against the others."
        )
    parts = scored_parts(run, display)
    scores = {part: probabilities(logits)[:, 1] for part, (logits, _) in parts.items()}
    rule = recall_threshold if promise == "recall" else precision_threshold
    score = rule(scores["validation"], parts["validation"][1], value, confidence)
    measured = {part: measure(scores[part], labels, score, confidence) for part, (_, labels) in parts.items()}
    calibration = calibrate(parts)
    chosen: dict[str, Any] = {
        "score": score,
        "positive": run.classes[1],
        "promise": promise,
        "value": float(value),
        "confidence": float(confidence),
    }
    kept = {
        **chosen,
        "validation": measured["validation"].as_dict(),
        "test": measured["test"].as_dict() if "test" in measured else None,
        "chosen": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    run = amend(run, threshold=kept, temperature=calibration.temperature)
    return OperatingPoint(run=run, **chosen, measured=measured, calibration=calibration, notes=_notes(run))


def scored_parts(run: Run, display: Display) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the logits (N, outputs) and labels (N,) of ``"validation"`` and, if it has images, of ``"test"``.

    Raises
    ------
    DataError
        If the run's prepared dataset is gone or is another, or has no validation images.
    RunError
        If the run has no logits that are its own.
    """
    if run.data.path is None and run.data.made_from is None:
        raise DataError(
            f"The run {run.path} does not say where its prepared dataset is. Train it with `photoflux train`."
        )
    prepared = dataset_of(run, display)
    if not len(prepared.indices("validation")):
        raise DataError(f"The dataset {prepared.path} has no validation images, so no threshold can be chosen.")
    if not len(scored_positions(run, prepared, "validation")):
        raise DataError(
            f"The initial weights of {run.path} had seen all validation images, so no threshold can be chosen on them."
        )
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for part in ("validation", "test"):
        labels = np.asarray(prepared.labels[scored_positions(run, prepared, part)])
        if len(labels):
            logits = run.logits(part)
            # Julia writes no metrics, and leaves the logits of an earlier run in its folder.
            if part not in run.metrics.by_part() or len(logits) != len(labels) or not np.isfinite(logits).all():
                raise RunError(
                    f"The logits of the {part} part in {run.path} are not those of this run and its dataset, or not "
                    "finite. Train it again with `photoflux train`."
                )
            parts[part] = logits, labels
    return parts


def _notes(run: Run) -> list[str]:
    """Return why new images may do worse than those of the validation part did."""
    notes = []
    if run.variant.patience is not None:
        notes.append(
            "the epoch was chosen on the validation part, so scores on it are too optimistic; see the test part."
        )
    if run.ended == "adopted":
        notes.append("the model was imported: if it was trained on validation images, the guarantee does not hold.")
    elif run.initial is not None and seen_by(run).unknown:
        notes.append(
            "the initial weights came from elsewhere: if they were trained on validation images, the guarantee does "
            "not hold."
        )
    if run.data.groups:
        notes.append("images of a group are alike, so there are fewer independent ones than were counted.")
    return notes


def _words(row: Share) -> str:
    if row.value is None:
        return "no images"
    return f"{row.value:.3f} ({row.hits} of {row.of}; at least {row.low:.3f}, at most {row.high:.3f})"


def _calibration(found: Calibration) -> str:
    after = {part: f" → {row.error:.3f}" for part, row in found.after.items()}
    errors = ", ".join(f"{row.error:.3f}{after.get(part, '')} on {part}" for part, row in found.before.items())
    if found.temperature is None:
        return f"error {errors}; validation does not determine a temperature"
    return f"error {errors} with temperature {found.temperature:.3g}"
