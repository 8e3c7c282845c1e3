"""Promises: exact counts, refusals with their numbers, and simulations that show how often a promise is kept."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from scipy.stats import beta, binom, norm

from photoflux import DataError, SettingError
from photoflux.thresholds import choice
from photoflux.thresholds.choice import (
    MISTAKES,
    check,
    images_needed,
    measure,
    precision_starts,
    precision_threshold,
    recall_rank,
    recall_threshold,
    share,
)

SIMULATIONS = 2500


def four_sigma(probability: float) -> float:
    """Four standard deviations of a share of SIMULATIONS: further off once in 16,000 tests."""
    return 4 * math.sqrt(probability * (1 - probability) / SIMULATIONS)


# Counts


@pytest.mark.parametrize(("hits", "of"), [(0, 20), (7, 20), (19, 20), (20, 20), (1, 1)])
def test_bounds_are_clopper_and_pearsons(hits, of):
    found = share(hits, of, 0.95)
    # The tail of the binomial is that of a beta distribution.
    low = 0.0 if hits == 0 else beta.ppf(0.05, hits, of - hits + 1)
    high = 1.0 if hits == of else beta.ppf(0.95, hits + 1, of - hits)
    assert (found.value, found.low, found.high) == pytest.approx((hits / of, low, high), abs=1e-9)


def test_no_images_have_no_share():
    assert share(0, 0, 0.95).value is None


def test_a_score_equal_to_the_threshold_is_taken():
    scores = np.array([0.1, 0.5, 0.5, 0.9], np.float32)
    found = measure(scores, np.array([1, 0, 1, 1]), float(np.float32(0.5)), 0.95)
    assert (found.images, found.positives, found.taken) == (4, 3, 3)
    assert (found.recall.hits, found.recall.of, found.precision.hits, found.precision.of) == (2, 3, 2, 3)
    nothing = measure(scores, np.array([1, 0, 1, 1]), 0.95, 0.95)
    assert (nothing.taken, nothing.precision.value, nothing.recall.value) == (0, None, 0.0)


@pytest.mark.parametrize(
    ("value", "confidence", "needed"),
    [(0.99, 0.95, 299), (0.95, 0.95, 59), (0.9, 0.95, 29), (0.5, 0.75, 2), (0.01, 0.6, 1), (0.999, 0.99, 4603)],
)
def test_how_many_images_are_needed(value, confidence, needed):
    assert images_needed(value, confidence) == needed
    assert 1 - value**needed >= confidence
    assert needed == 1 or 1 - value ** (needed - 1) < confidence


@pytest.mark.parametrize("value", [0, 1, -0.5, 1.5, float("nan"), "0.9", True])
def test_a_promise_of_nothing_or_all_is_refused(value):
    with pytest.raises(SettingError, match="`recall` must be above 0 and below 1; received"):
        check("recall", value, 0.95)


@pytest.mark.parametrize("confidence", [0.5, 1, 95])
def test_a_confidence_of_half_or_all_is_refused(confidence):
    with pytest.raises(SettingError, match=r"`confidence` must be above 0\.5 and below 1"):
        check("precision", 0.9, confidence)


# Recall


def test_the_rank_is_the_largest_that_keeps_the_promise():
    for positives in (298, 299, 300, 473, 474, 1000, 5000):
        rank = recall_rank(positives, 0.99, 0.95)
        kept = [sum(binom.pmf(range(k), positives, 0.01)) <= 0.05 for k in range(1, rank + 2)]
        assert kept == [True] * rank + [False]
        # With rank − 1 of the class below the threshold, the one-sided bound of Clopper and Pearson is just above.
        if rank:
            assert (
                share(positives - rank + 1, positives, 0.95).low >= 0.99 > share(positives - rank, positives, 0.95).low
            )


def test_too_few_of_the_class_are_refused_with_the_number():
    scores, labels = np.linspace(0, 1, 600, dtype=np.float32), np.arange(600) % 2
    with pytest.raises(DataError, match=r"at least 299 .* of the class, 600 .* in all.*; there are 298\..*is 0\.989"):
        recall_threshold(scores[:597], labels[:597], 0.99, 0.95)
    assert recall_threshold(scores, labels, 0.99, 0.95) == scores[1]
    with pytest.raises(DataError, match="at least 29 validation images of the class; there are 0"):
        recall_threshold(scores, np.zeros(600, int), 0.9, 0.95)
    # What the message says can be promised is promised.
    assert recall_rank(298, 0.989, 0.95) == 1


def test_the_recall_is_kept_as_often_as_claimed():
    rng, positives, mean, recall, confidence = np.random.default_rng(0), 150, 1.5, 0.95, 0.9
    labels = np.array([1] * positives + [0] * 50)
    kept, with_ties = 0, 0
    for _ in range(SIMULATIONS):
        scores = rng.normal(size=200) + mean * labels
        kept += norm.sf(recall_threshold(scores, labels, recall, confidence) - mean) >= recall
        # Rounded down, scores are at least the threshold from its own value on.
        coarse = recall_threshold(np.floor(2 * scores) / 2, labels, recall, confidence)
        with_ties += norm.sf(coarse - mean) >= recall
    exact = binom.sf(recall_rank(positives, recall, confidence) - 1, positives, 1 - recall)
    assert exact >= confidence > binom.sf(recall_rank(positives, recall, confidence), positives, 1 - recall)
    assert abs(kept / SIMULATIONS - exact) < four_sigma(exact)
    assert with_ties / SIMULATIONS > exact - four_sigma(exact)


# Precision


def test_too_few_images_are_refused_with_the_number():
    scores = np.linspace(0, 1, 60, dtype=np.float32)
    with pytest.raises(
        DataError, match=r"at least 60 validation images \(59 predicted and all correct.*; there are 59\."
    ):
        precision_threshold(scores[1:], np.ones(59, int), 0.95, 0.95)
    assert precision_threshold(scores, np.ones(60, int), 0.95, 0.95) == 0
    labels = (scores > 0).astype(int)
    assert binom.sf(58, 60, 0.95) > 0.05  # 59 of 60 is not enough
    with pytest.raises(DataError, match="cannot be guaranteed"):
        precision_threshold(scores, labels, 0.95, 0.95)


@pytest.mark.parametrize(
    ("images", "precision", "walks"), [(40, 0.95, 1), (600, 0.95, 2), (1500, 0.9, 3), (4000, 0.9, 4), (20_000, 0.99, 3)]
)
def test_a_walk_starts_where_it_can_just_pass(images, precision, walks):
    starts, level = precision_starts(images, precision, 0.95)
    assert len(starts) == walks
    assert level == pytest.approx(0.05 / walks)
    for start, mistakes in zip(starts, MISTAKES, strict=False):
        # With m mistakes of k: P(Bin(k, 1 − P) ≤ m).
        assert binom.cdf(mistakes, start, 1 - precision) <= level < binom.cdf(mistakes, start - 1, 1 - precision)
    assert walks == 1 or starts[-1] <= images / 3


def test_a_walk_ends_where_the_test_fails_first():
    labels = np.array([1] * 80 + [0] * 3 + [1] * 117)
    scores = np.linspace(1, 0, 200)
    (start,), level = precision_starts(160, 0.95, 0.95)
    found = precision_threshold(scores[:160], labels[:160], 0.95, 0.95)
    p = [binom.sf(labels[:k].sum() - 1, k, 0.95) for k in range(start, 161)]
    failed = next(k for k, value in enumerate(p, start) if value > level)
    assert 80 < failed < 84
    assert found == scores[failed - 2]
    # Further down it would have passed again: 3 mistakes of 157 are few enough.
    assert p[-1] <= level


def test_mistakes_at_the_very_top_end_one_walk_but_not_all():
    labels = np.array([0] + [1] * 400 + [0] * 200)
    scores = np.linspace(1, 0, 601)
    taken = (scores >= precision_threshold(scores, labels, 0.95, 0.95)).sum()
    assert binom.sf(400 - 1, taken, 0.95) <= precision_starts(601, 0.95, 0.95)[1]
    assert 401 < taken < 420


def test_equal_scores_are_taken_together_or_not_at_all():
    scores = np.array([0.9] * 60 + [0.1] * 15)
    assert precision_threshold(scores, np.ones(75, int), 0.9, 0.95) == 0.1
    labels = np.array([1] * 60 + [0] * 15)
    assert precision_threshold(scores, labels, 0.9, 0.95) == 0.9
    # In the order of the file the mistake would be the last of its equals, and the walk would pass before it.
    labels[59] = 0
    assert binom.sf(58, 60, 0.9) <= 0.05
    with pytest.raises(DataError, match="cannot be guaranteed"):
        precision_threshold(scores, labels, 0.9, 0.95)


def test_the_order_of_the_images_does_not_matter():
    rng = np.random.default_rng(3)
    scores = np.round(rng.random(500), 2)
    labels = ((scores > 0.4) & (rng.random(500) < 0.97)).astype(int)
    found = {
        (
            precision_threshold(scores[order], labels[order], 0.9, 0.9),
            recall_threshold(scores[order], labels[order], 0.9, 0.9),
        )
        for order in (np.arange(500), rng.permutation(500), rng.permutation(500))
    }
    assert len(found) == 1


def test_as_many_images_as_the_refusal_says_would_do():
    scores = np.linspace(1, 0, 200)
    labels = np.array([1] * 30 + [0] + [1] * 9 + [0] * 160)
    with pytest.raises(DataError, match=r"from these 200 validation images; about (\d+)") as refusal:
        precision_threshold(scores, labels, 0.95, 0.95)
    times = math.ceil(int(re.search(r"about (\d+)", str(refusal.value)).group(1)) / 200)
    assert 2 <= times <= 10
    again = precision_threshold(np.linspace(1, 0, 200 * times), np.repeat(labels, times), 0.95, 0.95)
    assert again > scores[40]


def test_a_model_that_is_never_so_precise_is_told_so():
    labels = np.arange(300) % 2
    with pytest.raises(DataError, match=r"more images alone would hardly help: of the 60 .* 30 are correct \(50\.0%\)"):
        precision_threshold(np.linspace(1, 0, 300), labels, 0.95, 0.95)


# How often the promise is kept: scores are uniform, and `of_class(s)` is constant between `edges`, so that the true
# precision above a threshold is a sum.
EDGES = np.array([0, 0.3, 0.6, 0.9, 0.97, 1])
WORLDS = {
    "just below the promise everywhere": (0.8999, 0.8999, 0.8999, 0.8999, 0.8999),
    "just below, then far": (0.0, 0.0, 0.8999, 0.8999, 0.8999),
    "right at the top, wrong below": (0.02, 0.2, 0.9, 0.99, 1.0),
    "worst at the very top": (0.05, 0.2, 0.97, 0.97, 0.85),
    "falls, rises and falls": (0.1, 0.97, 0.7, 0.99, 0.95),
}
PRECISION, CONFIDENCE, IMAGES = 0.9, 0.9, 400


def true_precision(threshold, of_class):
    widths = np.clip(EDGES[1:] - np.maximum(EDGES[:-1], threshold), 0, None)
    return float(np.average(of_class, weights=widths))


def validation_sets(of_class, how, seed=0):
    """Yield scores and labels: drawn at random, with as many of the class as there are on average, or with ties."""
    rng = np.random.default_rng(seed)
    of_class = np.asarray(of_class)
    mean = float(np.average(of_class, weights=np.diff(EDGES)))
    for _ in range(SIMULATIONS):
        if how == "stratified":
            scores, labels = np.empty(0), np.empty(0, int)
            for label, count in ((1, round(mean * IMAGES)), (0, IMAGES - round(mean * IMAGES))):
                more = rng.random(40 * IMAGES)
                more = more[(rng.random(len(more)) < of_class[np.digitize(more, EDGES) - 1]) == label][:count]
                scores, labels = np.append(scores, more), np.append(labels, np.full(len(more), label))
        else:
            scores = rng.random(IMAGES)
            labels = (rng.random(IMAGES) < of_class[np.digitize(scores, EDGES) - 1]).astype(int)
        yield (np.floor(50 * scores) / 50 if how == "ties" else scores), labels


@pytest.mark.parametrize("how", ["independent", "ties", "stratified"])
@pytest.mark.parametrize("world", WORLDS)
def test_the_precision_is_kept_as_often_as_claimed(world, how, monkeypatch):
    monkeypatch.setattr(choice, "_outlook", lambda *_: "")  # takes most of the time, and only words a refusal
    of_class = WORLDS[world]
    given = broken = 0
    for scores, labels in validation_sets(of_class, how):
        try:
            threshold = precision_threshold(scores, labels, PRECISION, CONFIDENCE)
        except DataError:
            continue
        given += 1
        broken += true_precision(threshold, of_class) < PRECISION
    assert broken / SIMULATIONS <= 1 - CONFIDENCE + four_sigma(1 - CONFIDENCE)
    if "just below" not in world:
        assert given > 0.25 * SIMULATIONS  # a promise that is always refused is never broken


def test_the_simulation_finds_a_rule_that_looks_at_every_threshold():
    """The lowest score whose own bound is good enough breaks the promise more often: that is what the walks avoid."""
    of_class = WORLDS["just below the promise everywhere"]
    broken = 0
    for _, labels in validation_sets(of_class, "independent"):
        k = np.arange(1, IMAGES + 1)  # the scores say nothing here, so any order is theirs
        broken += (binom.sf(np.cumsum(labels) - 1, k, PRECISION) <= 1 - CONFIDENCE).any()
    assert broken / SIMULATIONS > 2 * (1 - CONFIDENCE)
