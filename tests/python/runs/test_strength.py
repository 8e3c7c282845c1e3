"""The L2 coefficient of a linear head: each is fitted to its end, and the largest that is not told apart is taken."""

from __future__ import annotations

import numpy as np
import pytest

from photoflux.runs import strength
from photoflux.runs.strength import STRENGTHS


def drawn(images: int, features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features that say a little of the labels, many of them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    x = rng.normal(0, 1, (images, features)) + 0.3 * (labels[:, None] - 0.5) * (np.arange(features) < 20)
    return x.astype(np.float32), labels


def test_every_strength_is_fitted_to_its_end():
    from scipy.optimize import minimize

    x, y = drawn(80, 120)
    fold = np.arange(60), np.arange(60, 80)
    found = strength._losses(x, y, fold, balanced=False)
    mean, deviation = x[:60].mean(axis=0, dtype=np.float64), x[:60].std(axis=0, dtype=np.float64)
    z, signs = (x - mean) / deviation, 2 * y - 1
    for coefficient, loss in zip(STRENGTHS, found, strict=True):

        def total(w, coefficient=coefficient):
            margins = signs[:60] * (z[:60] @ w[:-1] + w[-1])
            slopes = -signs[:60] / (1 + np.exp(margins)) / 60
            gradient = np.append(z[:60].T @ slopes + 2 * coefficient * w[:-1], slopes.sum())
            return np.logaddexp(0, -margins).mean() + coefficient * np.square(w[:-1]).sum(), gradient

        w = minimize(total, np.zeros(121), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "gtol": 1e-9}).x
        expected = np.logaddexp(0, -signs[60:] * (z[60:] @ w[:-1] + w[-1])).mean()
        # scikit-learn stops at a gradient of 1e-5, and has the features in Float32.
        assert loss == pytest.approx(expected, rel=0.02), coefficient


def test_the_strongest_within_one_standard_error_is_taken(monkeypatch, tmp_path):
    from dataclasses import dataclass, field

    from photoflux.model.settings import settings_of
    from photoflux.model.variants import variant

    x, y = drawn(40, 5)

    @dataclass
    class Images:
        labels: np.ndarray = field(default_factory=lambda: y)
        images: np.ndarray = field(default_factory=lambda: x[:, :, None, None])

        def indices(self, part):
            return np.arange(40)

        def files(self):
            return [{"group": str(number)} for number in range(40)]

    # The lowest mean is the third; its standard error, 0.1, reaches to the sixth and not to the seventh.
    means = np.array([0.50, 0.40, 0.30, 0.32, 0.34, 0.39, 0.41, 0.60, 0.90])
    spread = iter(np.array([-1, -1, 0, 1, 1]) * 0.1 * np.sqrt(5))
    monkeypatch.setattr(strength, "_losses", lambda *_: list(means + next(spread)))
    v = variant("transfer")
    found, note = strength.cross_validated(v, Images(), Images(), settings_of(v, None, None, None, 1, None))
    assert found.penalty["output"]["l2"] == STRENGTHS[5]
    assert "the largest within one standard error, 0.1000, of the lowest cross-entropy (0.3900;" in note
