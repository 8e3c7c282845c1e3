"""The scores within which a threshold may lie: what is close to it is uncertain."""

from __future__ import annotations

import numpy as np

from photoflux.thresholds.choice import precision_threshold, recall_rank, recall_threshold


def uncertain_band(
    promise: str, scores: np.ndarray, labels: np.ndarray, value: float, confidence: float
) -> tuple[float, float]:
    """Return the band [low, high) of uncertain scores around the threshold of a promise.

    For a recall R the threshold is the lower end: the score above which R of the class are, with the confidence. The
    upper end is the score above which R or less of it are, with the same confidence: the order statistic on the other
    side. The two are the distribution-free confidence interval of the (1 − R)-quantile of the scores of the class, so
    the score that would keep exactly R lies within it with a confidence of 2·confidence − 1. (Conover, Practical
    Nonparametric Statistics, 1999, section 3.2.)

    For a precision P the threshold is the upper end, and the lower one is the lowest score above which the images of
    the validation part have P or more: what is between would pass by its count, and is not shown to.

    Parameters
    ----------
    promise : str
        ``"recall"`` or ``"precision"``.
    scores, labels : numpy.ndarray
        Of the validation images, (N,): the probability of class 1, and 0 or 1.
    value, confidence : float
        What is promised.

    Returns
    -------
    (float, float)
        Low and high. The threshold is low for a recall, and high for a precision.

    Raises
    ------
    DataError
        If there are too few images for the promise.
    """
    if promise == "recall":
        low = recall_threshold(scores, labels, value, confidence)
        of_class = np.sort(scores[labels == 1])
        # Of the k-th smallest P(true recall ≤ R) = P(Bin(n, 1 − R) < k) = P(Bin(n, R) ≥ n − k + 1): counted from the
        # other end, the largest rank is that of the recall 1 − R.
        n = len(of_class)
        above = recall_rank(n, 1 - value, confidence)
        high = float(of_class[n - above]) if above else float(np.nextafter(of_class[-1], np.inf))
        return low, max(low, high)
    high = precision_threshold(scores, labels, value, confidence)
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(labels[order] == 1) / np.arange(1, len(order) + 1)
    # Of equal scores the last counts: a threshold takes all of them.
    ends = np.append(scores[order][1:] != scores[order][:-1], True)
    enough = np.flatnonzero(ends & (right >= value))
    low = float(scores[order][enough[-1]]) if len(enough) else high
    return min(low, high), high
