"""Calibration of probabilities: temperature scaling, reliability diagram and expected calibration error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from photoflux.errors import DataError
from photoflux.runs.evaluation import data_loss, probabilities

BINS = 10
COLDEST, HOTTEST = 0.01, 100.0


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities against observed frequencies, in bins of about equally many images.

    Of two classes the probability is that of class 1, and an image of class 1 is a hit; of more classes it is the
    largest one, and an image of that class is a hit.

    Attributes
    ----------
    count, hits : list of int
        Images of each bin, and the hits among them.
    predicted, observed : list of float
        Mean probability and observed frequency of each bin, 0 to 1.
    error : float
        Expected calibration error: the mean of ``|observed − predicted|`` over images. (Naeini, Cooper and
        Hauskrecht, AAAI 2015; with bins of equal count.) It is above 0 for a perfect model too, the more so the fewer
        the images.
    loss : float
        Mean cross-entropy.
    """

    count: list[int]
    hits: list[int]
    predicted: list[float]
    observed: list[float]
    error: float
    loss: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class Calibration:
    """A temperature fitted on validation, and the reliability of each part without and with it.

    Attributes
    ----------
    temperature : float or None
        What logits are divided by; None where validation does not determine one, see `fit_temperature`.
    before, after : dict of str to Reliability
        For each part; `after` is empty where there is no temperature.
    """

    temperature: float | None
    before: dict[str, Reliability]
    after: dict[str, Reliability]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return asdict(self)


def calibrate(parts: dict[str, tuple[np.ndarray, np.ndarray]], bins: int = BINS) -> Calibration:
    """Fit the temperature on the validation part, and measure every part without and with it.

    Parameters
    ----------
    parts : dict of str to (logits, labels)
        Logits (N, outputs) and labels from 0, (N,), of ``"validation"`` and any other part.
    bins : int
        How many, as in `reliability`.
    """
    temperature = fit_temperature(*parts["validation"])
    return Calibration(
        temperature,
        {part: reliability(logits, labels, bins) for part, (logits, labels) in parts.items()},
        {}
        if temperature is None
        else {part: reliability(logits / temperature, labels, bins) for part, (logits, labels) in parts.items()},
    )


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the temperature T for which ``logits / T`` has the least cross-entropy.

    The loss is convex in 1 / T, so it has one minimum. (Guo, Pleiss, Sun and Weinberger, On Calibration of Modern
    Neural Networks, 2017, section 4.2.) Of two classes no order of images, and so no threshold, depends on T.

    Parameters
    ----------
    logits : numpy.ndarray
        (N, outputs).
    labels : numpy.ndarray
        Integers from 0, (N,).

    Returns
    -------
    float or None
        0.01 to 100; None where the loss still falls at an end of that range: all images are classified correctly, so
        that no T is low enough, or the logits say nothing of the labels, so that none is high enough.

    Raises
    ------
    DataError
        If there are no images.
    """
    from scipy.optimize import minimize_scalar

    if not len(labels):
        raise DataError("A temperature needs validation images; there are none.")

    def loss(log_temperature: float) -> float:
        return data_loss("cross_entropy", logits.astype(np.float64) / np.exp(log_temperature), labels)

    ends = (float(np.log(COLDEST)), float(np.log(HOTTEST)))
    found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x)) if found.fun < min(map(loss, ends)) else None


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Compare predicted probabilities with observed frequencies.

    Parameters
    ----------
    logits : numpy.ndarray
        (N, outputs), N at least 1.
    labels : numpy.ndarray
        Integers from 0, (N,).
    bins : int
        The most bins. Images of one probability share a bin, so there may be fewer, and they may be of unequal size.
    """
    of_classes = probabilities(logits).astype(np.float64)
    chosen = np.ones(len(labels), int) if of_classes.shape[1] == 2 else of_classes.argmax(axis=1)
    predicted, true = of_classes[np.arange(len(labels)), chosen], labels == chosen
    edges = np.sort(predicted)[[len(labels) * i // bins for i in range(1, bins)]]
    _, bin_of = np.unique(np.searchsorted(edges, predicted, side="right"), return_inverse=True)
    count, hits = np.bincount(bin_of), np.bincount(bin_of, weights=true)
    means, observed = np.bincount(bin_of, weights=predicted) / count, hits / count
    return Reliability(
        count=count.tolist(),
        hits=hits.astype(int).tolist(),
        predicted=means.tolist(),
        observed=observed.tolist(),
        error=float(np.average(np.abs(observed - means), weights=count)),
        loss=data_loss("cross_entropy", logits, labels),
    )
