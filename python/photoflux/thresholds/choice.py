"""Chooses the threshold that guarantees a recall or a precision, by exact confidence bounds."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from photoflux.errors import DataError, SettingError

# How many mistakes each walk of `precision_threshold` may have seen where it starts.
MISTAKES = (0, 3, 15, 63)
# `precision_threshold` foretells no more than so many images, from no fewer than so many high scores.
MOST_FORESEEN, LEAST_SEEN = 1_000_000, 10


@dataclass(frozen=True)
class Share:
    """A share of images, with the exact bounds of Clopper and Pearson.

    Attributes
    ----------
    hits, of : int
        How many, of how many.
    value : float or None
        ``hits / of``, 0 to 1; None of no images.
    low, high : float or None
        Each holds with the confidence asked for, by itself; None of no images.
    """

    hits: int
    of: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Measured:
    """What a threshold does on the images of one part.

    Attributes
    ----------
    images, positives, taken : int
        All images, those of the class, and those whose score is the threshold or more.
    recall, precision : Share
        The true positives among the images of the class, and among the predicted images.
    """

    images: int
    positives: int
    taken: int
    recall: Share
    precision: Share

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return asdict(self)


def share(hits: int, of: int, confidence: float) -> Share:
    """Return a share with its bounds.

    Either bound fails with a probability of at most ``1 − confidence``, where the images are drawn independently of
    what they are counted for. (Clopper and Pearson, Biometrika 26, 1934.)
    """
    from scipy.stats import binomtest

    if of == 0:
        return Share(0, 0, None, None, None)
    bounds = binomtest(hits, of).proportion_ci(2 * confidence - 1, method="exact")
    return Share(hits, of, hits / of, float(bounds.low), float(bounds.high))


def measure(scores: np.ndarray, labels: np.ndarray, threshold: float, confidence: float) -> Measured:
    """Count what a threshold does.

    Parameters
    ----------
    scores : numpy.ndarray
        The probability of class 1 of each image, (N,), 0 to 1.
    labels : numpy.ndarray
        0 or 1, (N,).
    threshold : float
        An image is predicted as the class if its score is this or more.
    confidence : float
        Of each bound, above 0.5 and below 1.
    """
    taken, positive = scores >= threshold, labels == 1
    hits, positives, all_taken = int((taken & positive).sum()), int(positive.sum()), int(taken.sum())
    return Measured(
        images=len(labels),
        positives=positives,
        taken=all_taken,
        recall=share(hits, positives, confidence),
        precision=share(hits, all_taken, confidence),
    )


def check(promise: str, value: float, confidence: float) -> None:
    """Refuse a guarantee that no threshold can keep or break.

    Raises
    ------
    SettingError
        If `value` is not between 0 and 1, or `confidence` not between 0.5 and 1.
    """
    for name, number, least in ((promise, value, 0.0), ("confidence", confidence, 0.5)):
        if isinstance(number, bool) or not isinstance(number, int | float) or not least < number < 1:
            raise SettingError(f"`{name}` must be above {least:g} and below 1; received: {number!r}.")


def images_needed(value: float, confidence: float) -> int:
    """Return the smallest n with ``1 − valueⁿ ≥ confidence``.

    For recall: fewer images of the class than this can guarantee nothing. For precision: fewer predicted images, even
    if all are correct, can guarantee nothing.

    Examples
    --------
    >>> images_needed(0.99, 0.95)
    299
    """
    n = max(1, math.ceil(math.log1p(-confidence) / math.log(value)))
    # The quotient is rounded, and may miss the whole number by one.
    while 1 - value**n < confidence:
        n += 1
    while n > 1 and 1 - value ** (n - 1) >= confidence:
        n -= 1
    return n


def recall_rank(positives: int, recall: float, confidence: float) -> int:
    """Return the largest k for which the k-th smallest of the scores of the class keeps the guarantee; 0 if none does.

    Let x₍₁₎ ≤ … ≤ x₍ₙ₎ be the scores of n images drawn from the class, and F their distribution. The true recall of
    the threshold x₍ₖ₎ is P(score ≥ x₍ₖ₎) ≥ 1 − F(x₍ₖ₎). For a continuous F, F(x₍ₖ₎) is distributed as the k-th
    smallest of n uniform numbers, which is at most u if k or more of them are. So, whatever F is,

        P(true recall ≥ R) = P(Bin(n, 1 − R) ≥ k),

    and ties only raise it. The choice of the threshold from the data is part of this; a Clopper–Pearson bound at a
    threshold chosen by looking would not be. (Wilks, Determination of sample sizes for setting tolerance limits,
    Annals of Mathematical Statistics 12, 1941.)
    """
    from scipy.stats import binom

    k = np.arange(1, positives + 1)
    # P(Bin(n, 1 − R) ≥ k) = P(Bin(n, R) ≤ n − k), which falls with k.
    return int((binom.cdf(positives - k, positives, recall) >= confidence).sum())


def recall_threshold(scores: np.ndarray, labels: np.ndarray, recall: float, confidence: float) -> float:
    """Return the highest threshold whose true recall is `recall` or more, with a confidence; see `recall_rank`.

    Parameters
    ----------
    scores, labels : numpy.ndarray
        As in `measure`.
    recall, confidence : float
        The value to guarantee, as `check` takes it.

    Raises
    ------
    DataError
        If there are too few images of the class; the message says how many would do.
    """
    of_class = np.sort(scores[labels == 1])
    rank = recall_rank(len(of_class), recall, confidence)
    if rank == 0:
        needed, there = images_needed(recall, confidence), len(of_class)
        in_all = f", {math.ceil(needed * len(labels) / there)} validation images in all at this mix" if there else ""
        reach = math.floor(1000 * (1 - confidence) ** (1 / there)) / 1000 if there else 0.0
        less = f" With {there} the most that can be guaranteed is {reach:g}." if reach else ""
        raise DataError(
            f"A recall of {recall:g} with confidence {confidence:g} needs at least {needed} validation images of the "
            f"class{in_all}; there are {there}.{less} Prepare more images, or ask for less."
        )
    return float(of_class[rank - 1])


def precision_threshold(scores: np.ndarray, labels: np.ndarray, precision: float, confidence: float) -> float:
    """Return the lowest threshold that is shown to have a true precision of `precision` or more, with a confidence.

    Order the images by score, highest first. For each k the hypothesis "the precision above the score of image k + 1 is
    below P" is tested with the exact binomial test on the k images above it, of which r are right:
    p(k) = P(Bin(k, P) ≥ r). A walk starts at a fixed k, goes down while p(k) ≤ its level, and stops at the first
    failure: fixed-sequence testing, as in Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei, 2021,
    arXiv:2110.01052). There are several walks, from `precision_starts`, which share the 1 − confidence alike
    (Bonferroni): a single one, from the first k that can pass at all, ends at once if one of the very highest scores
    is a mistake. Starts and levels follow from the number of images alone.

    Why a walk keeps its level, though its thresholds are scores of the data. Let q(t) be the true precision above the
    score t, continuous in t, and cut the scores at every t with q(t) = P. Each of the cells has a precision of exactly
    P, so, given how many images are in each, those above a cut are right like k independent draws with P. Call t bad
    if q(t) < P. If the walk starts in a bad cell, the images above its start are full cells and a piece of one whose
    precision is below P: it passes there with a probability of at most its level. If it starts in a good cell, let y
    be that cell's lower end: to get below y it must pass with exactly the images above y, again at most its level. So,
    but for that probability, every t from the start to the last k that passed is good. Precision need not fall with
    the score.

    Equal scores: a mistake is put before what is right, which can only end a walk earlier than an order without regard
    to the labels would; and only a threshold that has no equal score below it, and that lies below a walk's start, is
    returned, so that it is among the points shown to be good.

    Parameters
    ----------
    scores, labels : numpy.ndarray
        As in `measure`.
    precision, confidence : float
        The value to guarantee, as `check` takes it.

    Raises
    ------
    DataError
        If there are too few images, or none of the walks passes; the message says about how many would do.
    """
    order = np.lexsort((labels, -scores))
    sorted_scores, right = scores[order], np.cumsum(labels[order])
    images, needed = len(scores), images_needed(precision, confidence)
    if images <= needed:
        raise DataError(
            f"A precision of {precision:g} with confidence {confidence:g} needs at least {needed + 1} validation "
            f"images ({needed} predicted and all correct, and one that marks where they end); there are {images}. "
            "Prepare more images, or ask for less."
        )
    last_of_equals = np.append(sorted_scores[:-1] > sorted_scores[1:], True)
    taken = _lowest_passed(right, last_of_equals, precision, confidence)
    if taken == 0:
        raise DataError(_outlook(right, needed, precision, confidence))
    return float(sorted_scores[taken - 1])


@cache
def precision_starts(images: int, precision: float, confidence: float) -> tuple[tuple[int, ...], float]:
    """Return how many images are above each start of a walk, and the level of every walk.

    A walk starts at the smallest k that passes with 0, 3, 15 or 63 mistakes. As many walks are made as start within
    the first third of the images, and one in any case.
    """
    from scipy.stats import binom

    def passes(k: int, mistakes: int, level: float) -> bool:
        return bool(binom.sf(k - mistakes - 1, k, precision) <= level)

    def start(mistakes: int, level: float) -> int:
        high = mistakes + 1
        while not passes(high, mistakes, level):
            high *= 2
        return bisect_left(range(high), True, lo=mistakes + 1, key=lambda k: passes(k, mistakes, level))

    for walks in range(len(MISTAKES), 0, -1):
        level = (1 - confidence) / walks
        starts = tuple(start(mistakes, level) for mistakes in MISTAKES[:walks])
        if starts[-1] <= images / 3:
            break
    return starts, level


def _lowest_passed(right: np.ndarray, usable: np.ndarray, precision: float, confidence: float) -> int:
    """Return the largest usable number of images taken that a walk reached, 0 if there is none.

    Of the first k images ``right[k − 1]`` are right, and ``usable[k − 1]``: they can be taken without the next.
    """
    from scipy.stats import binom

    starts, level = precision_starts(len(right), precision, confidence)
    passes = binom.sf(right - 1, np.arange(1, len(right) + 1), precision) <= level
    reached = 0
    for start in starts:
        failures = np.flatnonzero(~passes[start - 1 :])
        end = start - 1 + (int(failures[0]) if len(failures) else len(passes[start - 1 :]))
        # The start itself is where the score of the next image is; a threshold above that was not tested.
        reached = max(reached, start + int(np.flatnonzero(usable[start:end])[-1]) + 1 if usable[start:end].any() else 0)
    return reached


def _outlook(right: np.ndarray, needed: int, precision: float, confidence: float) -> str:
    """Return the refusal: about how many images would do if more of them scored like these, or that none would."""
    images = len(right)
    count = np.arange(images + 1)
    for factor in 1.25 ** np.arange(1, 21):
        more = math.ceil(factor * images)
        if more > MOST_FORESEEN:
            break
        # The same curve of right against taken, stretched.
        stretched = np.floor(factor * np.interp(np.arange(1, more + 1) / factor, count, np.append(0, right)) + 1e-9)
        if _lowest_passed(stretched, np.ones(more, bool), precision, confidence) >= LEAST_SEEN * factor:
            digits = 10 ** max(0, len(str(more)) - 2)
            about = f"about {math.ceil(more / digits) * digits} validation images would do if they score like these"
            return (
                f"A precision of {precision:g} with confidence {confidence:g} cannot be guaranteed from these {images} "
                f"validation images; {about}. Prepare more images, or ask for less."
            )
    best = int(np.argmax(right[needed - 1 :] / count[needed:])) + needed
    return (
        f"A precision of {precision:g} with confidence {confidence:g} cannot be guaranteed, and more images alone "
        f"would hardly help: of the {best} highest scores {right[best - 1]} are correct "
        f"({right[best - 1] / best:.1%}), and no threshold that selects {needed} or more does better. Ask for "
        "less, or train a better model."
    )
