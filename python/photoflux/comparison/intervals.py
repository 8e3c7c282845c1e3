"""Bootstrap intervals of means over seeds, paired across variants; the statistics are changed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

REPLICATES = 10_000
LEVEL = 0.95
# Numbers drawn at a time; bounds the memory of large parts.
CHUNK = 20_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with the bounds of its interval; NaN where there is none.

    Attributes
    ----------
    mean : float
        Over the seeds.
    low, high : float
        The 95 % interval.
    """

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, float | None]:
        """Return plain JSON-ready values; None for NaN."""
        return {name: None if np.isnan(value) else float(value) for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, float | None]) -> Interval:
        """Build an interval from what `as_dict` returned."""
        return cls(**{name: float("nan") if value is None else float(value) for name, value in values.items()})


@dataclass(frozen=True, eq=False)
class Images:
    """What a variant's fits of one seed say of the images of a part.

    Attributes
    ----------
    labels : numpy.ndarray
        (N,), from 0.
    groups : numpy.ndarray
        (N,), integers; images of a group (near duplicates, pages of a file) are drawn together.
    right : numpy.ndarray
        (N,) bool: classified correctly.
    loss : numpy.ndarray
        (N,): the data loss of each image.
    """

    labels: np.ndarray
    groups: np.ndarray
    right: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True, eq=False)
class Redrawn:
    """A measure of the images of one seed, and of every replicate's resampled images, (REPLICATES,)."""

    mean: float
    replicates: np.ndarray

    def __sub__(self, other: Redrawn) -> Redrawn:
        return Redrawn(self.mean - other.mean, self.replicates - other.replicates)


class Bootstrap:
    """Resamples seeds, and groups of images within each seed, alike for every variant, so that differences are paired.

    The interval is the percentile interval of the replicates' means, its levels widened for few seeds: α/2 becomes
    Φ(−√(n/(n−1))·t), t the α/2 quantile of Student's distribution with n − 1 degrees of freedom. (Hesterberg, What
    Teachers Should Know About the Bootstrap, 2015, section 3.4, "expanded percentile interval".) A seed that is drawn
    twice in a replicate has its images resampled alike, which makes the interval wider. One seed says nothing of the
    spread between seeds: then only images are resampled, at the plain levels.

    Parameters
    ----------
    seeds : int
        How many.
    seed : int
        Fixes the draws.
    """

    def __init__(self, seeds: int, seed: int = 0) -> None:
        from scipy.stats import norm, t

        self._seed, self._n = seed, seeds
        rng = np.random.default_rng([seed, 0])
        # How often each seed is drawn in each replicate, as a share: a mean over drawn seeds is a product with it.
        drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=REPLICATES)
        self._shares = drawn / seeds
        tail = (1 - LEVEL) / 2
        if seeds > 1:
            tail = float(norm.cdf(np.sqrt(seeds / (seeds - 1)) * t.ppf(tail, seeds - 1)))
        self._tails = (tail, 1 - tail)

    def replicates(self, fits: Sequence[Images], number: int) -> list[dict[str, Redrawn]]:
        """Return every measure of the images of one seed, for each variant, with those of every replicate.

        Parameters
        ----------
        fits : sequence of Images
            Of each variant, the same images of one part.
        number : int
            Which seed, from 0: fixes the draw of the groups.

        Returns
        -------
        list of dict of str to Redrawn
            For each variant its ``loss``, ``accuracy`` and ``balanced_accuracy``.
        """
        _, group_of = np.unique(fits[0].groups, return_inverse=True)
        labels = fits[0].labels
        member = (labels == np.unique(labels)[:, None]).astype(np.float64)
        # Per group: how many images of each class, and for each variant the right ones of each class and the losses.
        columns = [*member, *(row for fit in fits for row in (*(member * fit.right), fit.loss))]
        sums = np.stack([np.bincount(group_of, weights=row) for row in columns], axis=1)
        groups = len(sums)
        rng, step = np.random.default_rng([self._seed, 1, number]), max(1, CHUNK // groups)
        drawn = [
            rng.multinomial(groups, np.full(groups, 1 / groups), size=min(step, REPLICATES - start)).astype(np.float64)
            @ sums
            for start in range(0, REPLICATES, step)
        ]
        whole, classes = np.concatenate([sums.sum(axis=0)[None], *drawn]), len(member)
        counts, found = whole[:, :classes], []
        for position in range(len(fits)):
            start = classes + position * (classes + 1)
            right, loss = whole[:, start : start + classes], whole[:, start + classes]
            with np.errstate(invalid="ignore"):  # a class of which nothing was drawn does not count
                balanced = np.nanmean(right / counts, axis=1)
            images = counts.sum(axis=1)
            values = {"loss": loss / images, "accuracy": right.sum(axis=1) / images, "balanced_accuracy": balanced}
            found.append({name: Redrawn(float(value[0]), value[1:]) for name, value in values.items()})
        return found

    def of_images(self, per_seed: Sequence[Redrawn]) -> Interval:
        """Return mean and interval of a measure that `replicates` gave for each seed, or of its differences."""
        spread = np.einsum("bs,sb->b", self._shares, np.stack([row.replicates for row in per_seed]))
        mean = float(np.mean([row.mean for row in per_seed]))
        return Interval(mean, *map(float, np.quantile(spread, self._tails)))

    def of_seeds(self, values: Sequence[float]) -> Interval:
        """Return mean and interval of one number per seed.

        NaN values are left out of the mean; with one, or with a single seed, there are no bounds.
        """
        array = np.asarray(values, dtype=np.float64)
        there = array[~np.isnan(array)]
        mean = float(there.mean()) if len(there) else float("nan")
        if self._n == 1 or len(there) < self._n:
            return Interval(mean, float("nan"), float("nan"))
        return Interval(mean, *map(float, np.quantile(self._shares @ array, self._tails)))


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of one number per seed, s/√n; NaN of a single one."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
