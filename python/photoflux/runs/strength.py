"""Chooses the L2 coefficient of a linear head by cross-validation on the training part."""

from __future__ import annotations

import warnings

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant

STRENGTHS = tuple(float(f"{10**exponent:.2g}") for exponent in np.arange(-4, 0.01, 0.5))
FOLDS = 5
MOST_IMAGES = 6000  # more take longer, and choose no better


def cross_validated(
    variant: Variant, features: PreparedDataset, prepared: PreparedDataset, settings: Settings
) -> tuple[Variant, str]:
    """Return a linear head with the L2 coefficient that cross-validation chooses, and what to say of it.

    Logistic regressions are fitted to four fifths of the training images and scored on the others by their mean
    cross-entropy, for each of `STRENGTHS`. The largest is taken whose mean over the folds is within one standard error
    of the lowest: of what is not told apart the simplest. Groups of images that the split keeps together are in one
    fold. The optimum of mean cross-entropy + λ·Σw² is scikit-learn's with C = 1 / (2·λ·N).

    Parameters
    ----------
    variant : Variant
        Returned as it is unless it is linear with an L2 penalty alone.
    features : PreparedDataset
        Its features dataset; augmented views are not used.
    prepared : PreparedDataset
        The images, whose groups are read.
    settings : Settings
        The seed draws the folds; with the balance ``"weights"`` the classes count alike.

    Returns
    -------
    Variant
        With the coefficient, or as given where no choice is possible.
    str
        The choice in words; empty where there was none to make.
    """
    own = strength_of(variant)
    if own is None:
        return variant, ""
    rng = np.random.default_rng([settings.seed, 1])
    chosen = prepared.indices("train")
    limited = len(chosen) > MOST_IMAGES
    if limited:
        chosen = np.sort(rng.choice(chosen, MOST_IMAGES, replace=False))
    labels = prepared.labels[chosen]
    folds = _folds(labels, np.array([row["group"] for row in prepared.files()])[chosen], settings.seed)
    if folds is None:
        return variant, f"L2 {own:g}: too few training images of a class to choose it by cross-validation."
    x = np.asarray(features.images[chosen, :, 0, 0])
    of_folds = np.array([_losses(x, labels, fold, settings.balance == "weights") for fold in folds])
    losses, errors = of_folds.mean(axis=0), of_folds.std(axis=0, ddof=1) / np.sqrt(len(folds))
    lowest = int(np.argmin(losses))
    chosen_at = int(np.flatnonzero(losses <= losses[lowest] + errors[lowest])[-1])
    best = STRENGTHS[chosen_at]
    note = (
        f"L2 {best:g}, chosen by {len(folds)}-fold cross-validation on {len(chosen)}{' of the' if limited else ''} "
        f"training images: the largest within one standard error, {errors[lowest]:.4f}, of the lowest cross-entropy "
        f"({losses[chosen_at]:.4f}; {STRENGTHS[lowest]:g} has {losses[lowest]:.4f})."
    )
    return variant.with_penalty(l2=best), note


def strength_of(variant: Variant) -> float | None:
    """Return the L2 coefficient of a head whose coefficient `cross_validated` chooses; None of any other variant."""
    output = variant.penalty.get("output", {})
    linear = variant.takes_features and not variant.hidden and output.keys() == {"l2"}
    return output["l2"] if linear else None


Fold = tuple[np.ndarray, np.ndarray]


def _folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> list[Fold] | None:
    """Return the positions to fit and to score of each fold; None where a class would be missing."""
    from sklearn.model_selection import StratifiedGroupKFold

    classes, counts = np.unique(labels, return_counts=True)
    of_class = [len(np.unique(groups[labels == label])) for label in classes]
    folds = min(FOLDS, int(counts.min()), min(of_class))
    if folds < 2 or len(classes) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes smaller than the number of folds
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
        found = [(fit, held) for fit, held in splitter.split(labels, labels, groups)]
    whole = all(len(np.unique(labels[fit])) == len(classes) and len(held) for fit, held in found)
    return found if whole else None


def _losses(x: np.ndarray, labels: np.ndarray, fold: Fold, balanced: bool) -> list[float]:
    """Return the mean cross-entropy on the held-out images of a fold for each of `STRENGTHS`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.utils.class_weight import compute_sample_weight

    fit, held = fold
    mean, deviation = x[fit].mean(axis=0, dtype=np.float64), x[fit].std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1
    scaled = ((x - mean) / deviation).astype(np.float32)
    weights = compute_sample_weight("balanced" if balanced else None, labels)
    model = LogisticRegression(max_iter=300, warm_start=True, tol=1e-5)
    losses = []
    # From the strongest, so that each starts near its end; a larger tolerance would leave it where it starts.
    for strength in reversed(STRENGTHS):
        model.set_params(C=1 / (2 * strength * len(fit)))
        model.fit(scaled[fit], labels[fit], sample_weight=weights[fit])
        p = model.predict_proba(scaled[held])
        losses.append(float(log_loss(labels[held], p, labels=model.classes_, sample_weight=weights[held])))
    return losses[::-1]
