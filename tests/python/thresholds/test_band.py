"""The band of uncertain scores: the confidence interval of the threshold that a promise would need."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binom

from photoflux.errors import DataError
from photoflux.thresholds.band import uncertain_band
from photoflux.thresholds.choice import precision_threshold, recall_threshold


def drawn(seed: int, positives: int = 400, negatives: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two classes, those of the class drawn from Beta(5, 2)."""
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.beta(5, 2, positives), rng.beta(2, 5, negatives)]).astype(np.float32)
    return scores, np.repeat([1, 0], [positives, negatives])


def test_the_lower_end_is_the_threshold_of_a_recall():
    scores, labels = drawn(0)
    low, high = uncertain_band("recall", scores, labels, 0.95, 0.9)
    assert low == recall_threshold(scores, labels, 0.95, 0.9)
    assert low < high


def test_the_ends_are_the_order_statistics_of_the_binomial_distribution():
    scores, labels = drawn(1)
    n, recall, confidence = 400, 0.95, 0.9
    low, high = uncertain_band("recall", scores, labels, recall, confidence)
    ordered = np.sort(scores[labels == 1])
    # Of the k-th smallest of n P(recall >= R) = P(Bin(n, 1 - R) >= k) and P(recall <= R) = P(Bin(n, 1 - R) <= k - 1).
    lower = max(k for k in range(1, n + 1) if binom.sf(k - 1, n, 1 - recall) >= confidence)
    upper = min(k for k in range(1, n + 1) if binom.cdf(k - 1, n, 1 - recall) >= confidence)
    assert (low, high) == (ordered[lower - 1], ordered[upper - 1])


def test_each_end_fails_as_seldom_as_is_said():
    """The score that keeps exactly R of Beta(5, 2) is known: below low, or above high, in 10 % of the draws at most."""
    exact, tries = beta.ppf(0.05, 5, 2), 600
    bands = [uncertain_band("recall", *drawn(seed, 400, 1), 0.95, 0.9) for seed in range(tries)]
    # Of 600 draws with 10 %: 60, and more than 80 in less than 1 of 200 series.
    assert sum(low > exact for low, _ in bands) <= 80
    assert sum(high < exact for _, high in bands) <= 80
    # And it is no wider than it must be: the exact score is in it in 80 % or a little more.
    assert sum(low <= exact <= high for low, high in bands) < 0.9 * tries


def test_a_precision_has_its_threshold_at_the_upper_end():
    scores, labels = drawn(2)
    low, high = uncertain_band("precision", scores, labels, 0.9, 0.9)
    assert high == precision_threshold(scores, labels, 0.9, 0.9)
    taken = scores >= low
    assert (labels[taken] == 1).mean() >= 0.9, "what is above the lower end has the precision by its count"
    lower = np.unique(scores[scores < low])[::-1][:50]
    assert all((labels[scores >= score] == 1).mean() < 0.9 for score in lower)
    assert low < high


def test_too_few_images_are_named():
    scores, labels = drawn(3, 10, 10)
    with pytest.raises(DataError, match="needs at least 59 validation images"):
        uncertain_band("recall", scores, labels, 0.95, 0.95)


def test_all_of_few_scores():
    """Where even the largest score may be too low, all scores from the threshold on are uncertain."""
    labels = np.ones(60, int)
    scores = np.linspace(0.2, 0.9, 60).astype(np.float32)
    low, high = uncertain_band("recall", scores, labels, 0.02, 0.999)
    assert low <= scores[-1] < high
