"""The rule by which a variant is chosen, and the sentences that explain the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from photoflux.comparison.intervals import Interval, standard_error
from photoflux.comparison.measures import VariantResult
from photoflux.model.variant import LOSSES, Variant
from photoflux.reporting.sentences import Sentence, regularisation

CRITERION = "balanced_accuracy"


@dataclass(frozen=True)
class Decision:
    """Which variant was chosen, on the validation part alone.

    Attributes
    ----------
    chosen, best, reference : int
        Positions of the variant chosen, of the one with the highest mean, and of the one that all are compared to.
    standard_error : float
        Of the best one's mean balanced accuracy over the seeds; with a single seed, over its resampled images.
    candidates : list of int
        Those whose mean is within one standard error of the best.
    """

    chosen: int
    best: int
    reference: int
    standard_error: float
    candidates: list[int]


def simplicity(variant: Variant) -> int:
    """Return how many regularisers a variant has: kinds of penalty, dropout, early stopping.

    Fewer is simpler. The variants of one architecture have the same weights, so nothing else tells them apart.
    """
    kinds = {kind for coefficients in variant.penalty.values() for kind, value in coefficients.items() if value}
    return len(kinds) + bool(variant.dropout) + (variant.patience is not None)


def decide(results: Sequence[VariantResult], sizes: Sequence[int], reference: int) -> Decision:
    """Choose by the one-standard-error rule: the simplest variant that is within one standard error of the best.

    (Breiman, Friedman, Olshen, Stone, Classification and Regression Trees, 1984, section 3.4.3.) Simpler is: fewer
    weights, of which `sizes` has each variant's number, then fewer regularisers (`simplicity`), then the higher mean.
    Only the validation part is used. `reference` is the position of the variant to which the others are compared.
    """
    intervals = [result.parts["validation"][CRITERION] for result in results]
    means = [interval.mean for interval in intervals]
    best = int(np.argmax(means))
    error = standard_error(results[best].per_seed["validation"])
    if np.isnan(error):
        # One seed: the interval is of resampled images, about two standard errors to either side.
        error = (intervals[best].high - intervals[best].low) / (2 * 1.96)
    candidates = [i for i, mean in enumerate(means) if mean >= means[best] - error]
    chosen = min(candidates, key=lambda i: (sizes[i], simplicity(results[i].variant), -means[i]))
    return Decision(chosen, best, reference, float(error), candidates)


def _difference(interval: Interval, other: str, part: str) -> Sentence:
    template = (
        "No difference from {other} was detected in balanced accuracy on the {part} part: "
        "{mean:+.3f}, interval {low:+.3f} to {high:+.3f}."
    )
    if interval.excludes_zero:
        template = (
            "It differs from {other} in balanced accuracy on the {part} part by {mean:+.3f}, "
            "interval {low:+.3f} to {high:+.3f}."
        )
    return template, {**vars(interval), "other": other, "part": part}


def sentences(
    decision: Decision,
    results: Sequence[VariantResult],
    sizes: Sequence[int],
    seeds: int,
    rate: float,
    threshold: float | None,
    strengths: Sequence[float] = (),
) -> list[Sentence]:
    """Return why the variant was chosen and what it scores on the test part, all from the numbers.

    Parameters
    ----------
    decision, results, sizes
        As `decide` has them.
    seeds : int
        How many there are.
    rate : float
        Adam's learning rate of the chosen variant's fits.
    threshold : float or None
        The score from which an image counts as the positive class, of the run to use; None for more than two classes.
    strengths : sequence of float
        The L2 coefficients of the chosen variant's fits, where cross-validation chose them.
    """
    chosen, best = results[decision.chosen], results[decision.best]
    reference = results[decision.reference].variant.name
    score, top = chosen.parts["validation"][CRITERION], best.parts["validation"][CRITERION]
    values = {
        "name": chosen.variant.name,
        "best": best.variant.name,
        "mean": score.mean,
        "top": top.mean,
        "error": decision.standard_error,
        "seeds": seeds,
        "n": len(decision.candidates),
        "of": len(results),
    }
    reasons: list[Sentence] = [("Chosen: {name}.", values)]
    trained = {"weights": sizes[decision.chosen], "loss": LOSSES[chosen.variant.loss], "rate": rate}
    reasons.append(("It has {weights:,} weights and is trained with {loss} and Adam at {rate:g}.", trained))
    reasons.append(("Its regularisation: {recipe}.", {"recipe": regularisation(chosen.variant)}))
    if strengths:
        listed = ", ".join(f"{strength:g}" for strength in strengths)
        reasons.append(("Cross-validation chose its L2 coefficient with each seed: {listed}.", {"listed": listed}))
    if threshold is not None:
        reasons.append(("An image counts as positive from a score of {threshold:.3f} on.", {"threshold": threshold}))
    template = "Its mean balanced accuracy on the validation part over {seeds} seeds, {mean:.3f}, is the highest."
    if decision.chosen != decision.best:
        template = (
            "{best} has the highest mean balanced accuracy on the validation part over {seeds} seeds, {top:.3f}; "
            "{name} has {mean:.3f}, within one standard error ({error:.3f}), and is simpler."
        )
    reasons.append((template, values))
    if len(decision.candidates) > 1:
        reasons.append(("{n} of {of} variants are within one standard error of the best.", values))
    if chosen.differences:
        reasons.append(_difference(chosen.differences["validation"][CRITERION], reference, "validation"))
    elif not any(row.differences["validation"][CRITERION].excludes_zero for row in results if row.differences):
        reasons.append(("No other variant differs from it detectably on the validation part.", values))
    for part, template in (
        ("test", "On the test part it has a balanced accuracy of {mean:.3f} ({low:.3f} to {high:.3f})."),
        ("holdout", "On the second folder it has a balanced accuracy of {mean:.3f} ({low:.3f} to {high:.3f})."),
    ):
        if part in chosen.parts:
            reasons.append((template, vars(chosen.parts[part][CRITERION])))
    return reasons + _second_folder(decision, results)


def _second_folder(decision: Decision, results: Sequence[VariantResult]) -> list[Sentence]:
    """Return what the second folder shows of the choice, in which it was not used."""
    chosen = results[decision.chosen]
    if "holdout" not in chosen.parts:
        return []
    loss = chosen.parts["test"][CRITERION].mean - chosen.parts["holdout"][CRITERION].mean
    ranked = max(results, key=lambda row: row.parts["holdout"][CRITERION].mean)
    reasons: list[Sentence] = [("That is {loss:+.3f} against the test part.", {"loss": -loss})]
    if ranked is not chosen:
        template = (
            "On the second folder {name} has the highest mean, {mean:.3f}: a choice for images from other sources is "
            "to be made there."
        )
        values = {"name": ranked.variant.name, "mean": ranked.parts["holdout"][CRITERION].mean}
        reasons.append((template, values))
    return reasons
