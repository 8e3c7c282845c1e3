"""The measures of one fit, and of a variant over its seeds; a new measure is added here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from photoflux.comparison.intervals import Bootstrap, Images, Interval
from photoflux.model.variant import Variant
from photoflux.runs.evaluation import decisions, image_losses

PRECISION = 0.95
# The parts that a comparison may have, and what a report calls them.
PARTS = {"validation": "validation", "test": "test", "holdout": "second folder"}
# With an interval over images and seeds, and with one over seeds alone.
OF_IMAGES = ("loss", "accuracy", "balanced_accuracy")
OF_SEEDS = ("gap", "best_epoch", "overfits_from", "seconds", "nonzero")


@dataclass(frozen=True, eq=False)
class Measured:
    """One fit, measured.

    Attributes
    ----------
    images : dict of str to Images
        For each part that there is: ``"validation"``, ``"test"``, ``"holdout"``.
    numbers : dict of str to float
        ``gap``: accuracy on the training part minus accuracy on the validation part, both without dropout;
        ``best_epoch``: lowest total validation loss; ``overfits_from``: `overfitting_starts`; ``seconds``;
        ``nonzero``: how many weights are not 0.
    recall : dict of str to float
        For each part the largest recall of the positive class at a precision of 0.95 or more; NaN where no score
        reaches it, empty for more than two classes.
    """

    images: dict[str, Images]
    numbers: dict[str, float]
    recall: dict[str, float]


@dataclass(frozen=True, eq=False)
class VariantResult:
    """A variant over its seeds.

    Attributes
    ----------
    variant : Variant
        The variant.
    parts : dict of str to dict of str to Interval
        ``parts[part][measure]``, the measures ``loss``, ``accuracy``, ``balanced_accuracy`` and, of two classes,
        ``recall_at_precision``.
    differences : dict of str to dict of str to Interval
        The differences from the reference, paired by seed and image; empty for the reference itself.
    numbers : dict of str to Interval
        `Measured.numbers` over the seeds.
    per_seed : dict of str to list of float
        The balanced accuracy of each seed, for each part.
    """

    variant: Variant
    parts: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]
    numbers: dict[str, Interval]
    per_seed: dict[str, list[float]]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "variant": self.variant.as_dict(),
            "parts": {part: _plain(row) for part, row in self.parts.items()},
            "differences": {part: _plain(row) for part, row in self.differences.items()},
            "numbers": _plain(self.numbers),
            "per_seed": self.per_seed,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VariantResult:
        """Build a result from what `as_dict` returned."""

        def intervals(row: dict[str, Any]) -> dict[str, Interval]:
            return {name: Interval.from_dict(interval) for name, interval in row.items()}

        return cls(
            variant=Variant.from_dict(values["variant"]),
            parts={part: intervals(row) for part, row in values["parts"].items()},
            differences={part: intervals(row) for part, row in values["differences"].items()},
            numbers=intervals(values["numbers"]),
            per_seed=values["per_seed"],
        )


def _plain(row: dict[str, Interval]) -> dict[str, Any]:
    return {name: interval.as_dict() for name, interval in row.items()}


def images_of(variant: Variant, logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Images:
    """Return what logits (N, outputs) say of images: classified correctly or not, and the data loss of each."""
    return Images(labels, groups, decisions(logits) == labels, image_losses(variant.loss, logits, labels))


def recall_at_precision(logits: np.ndarray, labels: np.ndarray, precision: float = PRECISION) -> float:
    """Return the largest recall of label 1 at a precision of `precision` or more; NaN if no score reaches it.

    NaN too if there is no image of label 1.
    """
    from sklearn.metrics import precision_recall_curve

    if not np.any(labels == 1):
        return float("nan")
    precisions, recalls, _ = precision_recall_curve(labels, logits[:, 0])
    # The last point is (1, 0) by definition and stands for no threshold.
    reached = recalls[:-1][precisions[:-1] >= precision]
    return float(reached.max()) if len(reached) else float("nan")


def results_of(
    variants: Sequence[Variant], measured: Sequence[Sequence[Measured]], reference: int, parts: Sequence[str]
) -> list[VariantResult]:
    """Return every variant's means and intervals on some parts, from ``measured[variant][seed]``.

    `reference` is the position of the variant from which the differences of the others are taken.
    """
    bootstrap = Bootstrap(len(measured[0]))
    seeds = range(len(measured[0]))
    # redrawn[part][seed][variant][measure]
    redrawn = {
        part: [bootstrap.replicates([fits[seed].images[part] for fits in measured], seed) for seed in seeds]
        for part in parts
    }
    rows = []
    for position, variant in enumerate(variants):
        fits = measured[position]
        means: dict[str, dict[str, Interval]] = {}
        differences: dict[str, dict[str, Interval]] = {}
        for part in parts:
            own = [seed[position] for seed in redrawn[part]]
            means[part] = {name: bootstrap.of_images([seed[name] for seed in own]) for name in OF_IMAGES}
            if all(part in fit.recall for fit in fits):
                means[part]["recall_at_precision"] = bootstrap.of_seeds([fit.recall[part] for fit in fits])
            if position != reference:
                others = [seed[reference] for seed in redrawn[part]]
                differences[part] = {
                    name: bootstrap.of_images([a[name] - b[name] for a, b in zip(own, others, strict=True)])
                    for name in OF_IMAGES
                }
        numbers = {name: bootstrap.of_seeds([fit.numbers[name] for fit in fits]) for name in OF_SEEDS}
        per_seed = {part: [seed[position]["balanced_accuracy"].mean for seed in redrawn[part]] for part in parts}
        rows.append(VariantResult(variant, means, differences, numbers, per_seed))
    return rows
