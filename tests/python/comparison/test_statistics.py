"""Intervals, measures and the choice of a comparison, against formulas and brute force."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import norm, t

from photoflux import variant
from photoflux.comparison.decision import decide, sentences, simplicity
from photoflux.comparison.intervals import REPLICATES, Bootstrap, Images, Interval, standard_error
from photoflux.comparison.measures import (
    Measured,
    VariantResult,
    images_of,
    recall_at_precision,
    results_of,
)
from photoflux.model.history import EpochRow, overfitting_starts
from photoflux.reporting.sentences import text_of
from photoflux.runs.evaluation import score

NUMBERS = {"gap": 0.1, "best_epoch": 2.0, "overfits_from": float("nan"), "seconds": 1.0, "nonzero": 9.0}


def images(right: np.ndarray, labels: np.ndarray | None = None, groups: np.ndarray | None = None) -> Images:
    n = len(right)
    labels = np.arange(n) % 2 if labels is None else labels
    return Images(labels, np.arange(n) if groups is None else groups, right, np.where(right, 0.1, 2.0))


def test_an_interval_over_images_is_as_wide_as_the_binomial_says():
    right = np.arange(500) % 5 > 0
    bootstrap = Bootstrap(1)
    found = bootstrap.of_images([bootstrap.replicates([images(right)], 0)[0]["accuracy"]])
    assert found.mean == 0.8
    width = 1.96 * np.sqrt(0.8 * 0.2 / 500)
    # The quantiles of 10,000 replicates are off by some 2 % of the width, and the binomial goes in steps of 1/500.
    assert found.low == pytest.approx(0.8 - width, abs=0.05 * width + 1 / 500)
    assert found.high == pytest.approx(0.8 + width, abs=0.05 * width + 1 / 500)


def test_images_of_a_group_count_once():
    right = np.arange(500) % 5 > 0
    bootstrap = Bootstrap(1)
    alone = bootstrap.of_images([bootstrap.replicates([images(right)], 0)[0]["accuracy"]])
    four = images(np.repeat(right, 4), groups=np.repeat(np.arange(500), 4))
    assert bootstrap.of_images([bootstrap.replicates([four], 0)[0]["accuracy"]]) == alone


def test_balanced_accuracy_and_loss_are_those_of_the_metrics():
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(200, 3)).astype(np.float32), np.repeat([0, 1, 1, 2], 50)
    metrics = score(variant("baseline"), logits, labels, 3, 0.0)
    of = images_of(variant("baseline"), logits, labels, np.arange(200))
    bootstrap = Bootstrap(1)
    for name, found in bootstrap.replicates([of], 0)[0].items():
        assert found.mean == pytest.approx(getattr(metrics, name), rel=1e-12)
        assert found.replicates.shape == (REPLICATES,)
        assert np.mean(found.replicates) == pytest.approx(found.mean, rel=0.01)


def test_what_two_variants_do_alike_cancels():
    rng = np.random.default_rng(1)
    seeds = [rng.random(300) < 0.8 for _ in range(3)]
    worse = [right & (np.arange(300) != 7) for right in seeds]
    measured = [
        [Measured({"validation": images(right)}, NUMBERS, {}) for right in rows] for rows in (seeds, seeds, worse)
    ]
    recipes = [variant(name) for name in ("baseline", "l2", "l1")]
    rows = results_of(recipes, measured, 0, ("validation",))
    assert rows[0].differences == {}
    assert rows[1].differences["validation"]["accuracy"] == Interval(0.0, 0.0, 0.0)
    difference = rows[2].differences["validation"]["accuracy"]
    assert difference.mean == pytest.approx(-np.mean([right[7] for right in seeds]) / 300, rel=1e-9)
    # One image of 300 differs, which a replicate draws Poisson(1) times, 8 at most in 10,000: far less than the spread
    # of either accuracy.
    assert difference.high - difference.low <= 8 / 300
    own = rows[2].parts["validation"]["accuracy"]
    assert own.high - own.low > 0.05
    assert np.isnan(rows[0].numbers["overfits_from"].mean)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_over_seeds_covers_as_often_as_it_says(seeds):
    rng = np.random.default_rng(seeds)
    bootstrap = Bootstrap(seeds)
    trials = 1000
    found = [bootstrap.of_seeds(rng.normal(size=seeds)) for _ in range(trials)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in found])
    # No interval can reach beyond the smallest and largest seed, which enclose the mean with 1 − 2^(1−n).
    most = 1 - 2.0 ** (1 - seeds)
    assert covered <= most + 4 * np.sqrt(most * (1 - most) / trials)
    # The expansion is made for the normal distribution and brings 95 % to within a few points where that is possible;
    # the plain percentile interval covers 0.75 (n = 3), 0.85 (5) and 0.90 (10).
    assert covered >= min(0.95, most) - 0.035


def test_the_levels_are_those_of_the_formula():
    spread = np.sqrt(5 / 4) * t.ppf(0.025, 4)
    assert Bootstrap(5)._tails[0] == pytest.approx(norm.cdf(spread), rel=1e-12)
    assert Bootstrap(1)._tails == (pytest.approx(0.025), pytest.approx(0.975))


def test_a_number_that_some_seeds_do_not_have():
    bootstrap = Bootstrap(3)
    some = bootstrap.of_seeds([4.0, float("nan"), 6.0])
    assert some.mean == 5 and np.isnan(some.low)
    assert some.as_dict() == {"mean": 5.0, "low": None, "high": None}
    assert np.isnan(bootstrap.of_seeds([float("nan")] * 3).mean)


def result(name: str, scores: list[float], difference: float = 0.0) -> VariantResult:
    row = Interval(float(np.mean(scores)), min(scores), max(scores))
    gap = (
        {}
        if name == "baseline"
        else {"validation": {"balanced_accuracy": Interval(difference, difference - 0.01, difference + 0.01)}}
    )
    return VariantResult(variant(name), {"validation": {"balanced_accuracy": row}}, gap, {}, {"validation": scores})


def test_the_simplest_within_one_standard_error_is_chosen():
    best = [0.80, 0.84, 0.88]  # mean 0.84, standard error 0.04/√3 = 0.0231
    rows = [
        result("baseline", [0.80, 0.81, 0.82]),  # 0.81: too low
        result("elastic_net", best, 0.03),
        result("dropout", [0.81, 0.82, 0.83], 0.01),  # 0.82: within
        result("l2", [0.82, 0.82, 0.83], 0.013),  # 0.823: within, as simple, higher
        result("dropout_early_stopping", [0.83, 0.83, 0.84], 0.02),
    ]
    sizes = [100] * 5
    found = decide(rows, sizes, 0)
    assert found.standard_error == pytest.approx(0.04 / np.sqrt(3))
    assert found.best == 1
    assert found.candidates == [1, 2, 3, 4]
    assert rows[found.chosen].variant.name == "l2"
    text = " ".join(map(text_of, sentences(found, rows, sizes, 3, 0.001, 0.5)))
    assert "Chosen: l2." in text and "within one standard error (0.023)" in text and "0.840" in text
    assert "It differs from baseline in balanced accuracy on the validation part by +0.013" in text
    # Fewer weights come before fewer ingredients.
    assert rows[decide(rows, [100, 50, 100, 100, 100], 0).chosen].variant.name == "elastic_net"
    # Within nothing of the best, the best.
    alone = [dataclasses.replace(row, per_seed={"validation": [0.84, 0.84, 0.84]}) for row in rows]
    assert decide(alone, sizes, 0).chosen == 1


def test_no_difference_is_an_answer():
    rows = [result("baseline", [0.7, 0.8, 0.9]), result("l2", [0.71, 0.8, 0.9], 0.003)]
    found = decide(rows, [1, 1], 0)
    assert rows[found.chosen].variant.name == "baseline"
    text = " ".join(map(text_of, sentences(found, rows, [1, 1], 3, 0.001, 0.5)))
    assert "No other variant differs from it detectably" in text
    only = decide(rows[1:], [1], 0)
    assert "No difference from" not in " ".join(a for a, _ in sentences(only, rows[1:], [1], 3, 0.001, 0.5)[:3])


def test_simplicity_counts_ingredients():
    counts = {name: simplicity(variant(name)) for name in ("baseline", "l1", "elastic_net", "dropout_early_stopping")}
    assert counts == {"baseline": 0, "l1": 1, "elastic_net": 2, "dropout_early_stopping": 2}


def test_recall_at_a_precision_by_brute_force():
    rng = np.random.default_rng(5)
    labels = (rng.random(200) < 0.3).astype(int)
    logits = (rng.normal(size=200) + 1.5 * labels).astype(np.float32)[:, None]
    best = 0.0
    for threshold in logits[:, 0]:
        taken = logits[:, 0] >= threshold
        if labels[taken].mean() >= 0.9:
            best = max(best, labels[taken].sum() / labels.sum())
    assert recall_at_precision(logits, labels, 0.9) == pytest.approx(best, rel=1e-12)
    assert np.isnan(recall_at_precision(-logits, labels, 0.999))


def test_where_overfitting_starts():
    def rows(*losses: float) -> list[EpochRow]:
        # The penalty falls all the while, so that the total does not show it.
        return [EpochRow(i, 1, 0, 0, 0, 0, loss, 9 / i, loss + 9 / i, 0) for i, loss in enumerate(losses, 1)]

    assert overfitting_starts(rows(0.5, 0.4, 0.45, 0.6)) == 3
    assert np.isnan(overfitting_starts(rows(0.5, 0.4, 0.3)))


def test_the_standard_error_is_the_textbooks():
    assert standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx(np.sqrt((2.25 + 0.25) * 2 / 3 / 4))
    assert np.isnan(standard_error([1.0]))
