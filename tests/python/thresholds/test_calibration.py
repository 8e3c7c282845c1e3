"""Temperature, reliability and the calibration error against formulas and counts written out."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import beta

from photoflux import DataError
from photoflux.reporting.i18n import translator
from photoflux.reporting.plots import calibration_curve, plot_calibration
from photoflux.runs.evaluation import data_loss
from photoflux.thresholds.calibration import Calibration, Reliability, calibrate, fit_temperature, reliability


def two_classes(images, temperature, seed=0):
    """Logits that are `temperature` times what they should be."""
    rng = np.random.default_rng(seed)
    right = rng.normal(0, 2, images)
    labels = (rng.random(images) < 1 / (1 + np.exp(-right))).astype(int)
    return (temperature * right)[:, None].astype(np.float32), labels


def many_classes(images, temperature, seed=0):
    rng = np.random.default_rng(seed)
    right = rng.normal(0, 2, (images, 4))
    # Gumbel's trick: the largest of logit + Gumbel noise is a draw from the softmax.
    labels = (right + rng.gumbel(size=right.shape)).argmax(axis=1)
    return (temperature * right).astype(np.float32), labels


@pytest.mark.parametrize("make", [two_classes, many_classes])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(make, temperature):
    logits, labels = make(20_000, temperature)
    found = fit_temperature(logits, labels)
    # The loss's second derivative by log T is the mean variance of the true logit under the model, 0.24 and 0.54 here,
    # so the standard error is 1.4 % and 1.0 % of T; 4 of the larger.
    assert found == pytest.approx(temperature, rel=0.057)
    z = logits.astype(float) / found
    if z.shape[1] == 1:
        z = np.concatenate([np.zeros_like(z), z], axis=1)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    # At the minimum the mean logit that the model expects is the mean logit of the true class. The logarithm of the
    # temperature is found to 1e-6, times that second derivative.
    slope = (p * z).sum(axis=1) - z[np.arange(len(z)), labels]
    assert abs(slope.mean()) < 2e-6
    for other in (0.97, 1.03):
        assert data_loss("cross_entropy", logits / (found * other), labels) > data_loss(
            "cross_entropy", logits / found, labels
        )


@pytest.mark.parametrize("make", [two_classes, many_classes])
def test_a_temperature_scales_with_the_logits(make):
    logits, labels = make(500, 1.0)
    # Its logarithm is found to 1e-6, and logits are float32.
    assert fit_temperature(3 * logits, labels) == pytest.approx(3 * fit_temperature(logits, labels), rel=1e-5)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([[2.0], [-1.0]], [1, 0]),  # all right: the colder the better
        ([[2.0], [-1.0]], [0, 1]),  # all wrong: the hotter the better
        ([[0.0], [0.0]], [0, 1]),  # every temperature is as good
        ([[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]], [0, 2]),
    ],
)
def test_a_temperature_that_validation_does_not_determine_is_none(logits, labels):
    found = calibrate({"validation": (np.array(logits, np.float32), np.array(labels))})
    assert found.temperature is None
    assert found.after == {}
    assert set(found.before) == {"validation"}


def test_no_images_have_no_temperature():
    with pytest.raises(DataError, match="needs validation images"):
        fit_temperature(np.empty((0, 1), np.float32), np.empty(0, int))


def test_the_curve_of_two_classes():
    logits, labels = two_classes(1000, 2.0)
    found = reliability(logits, labels)
    p = 1 / (1 + np.exp(-logits[:, 0].astype(float)))
    bins = np.array_split(np.argsort(p), 10)
    assert found.count == [100] * 10
    assert found.hits == [labels[rows].sum() for rows in bins]
    # Probabilities are float32: 6e-8 each.
    assert found.predicted == pytest.approx([p[rows].mean() for rows in bins], abs=1e-7)
    assert found.observed == pytest.approx([labels[rows].mean() for rows in bins])
    assert found.error == pytest.approx(np.mean([abs(labels[rows].mean() - p[rows].mean()) for rows in bins]), abs=1e-7)
    assert found.loss == pytest.approx(-np.mean(np.where(labels == 1, np.log(p), np.log(1 - p))), rel=1e-6)


def test_of_many_classes_the_largest_probability_counts():
    logits, labels = many_classes(1000, 2.0)
    found = reliability(logits, labels, bins=5)
    p = np.exp(logits.astype(float))
    p /= p.sum(axis=1, keepdims=True)
    right = p.argmax(axis=1) == labels
    bins = np.array_split(np.argsort(p.max(axis=1)), 5)
    assert found.hits == [right[rows].sum() for rows in bins]
    assert found.predicted == pytest.approx([p.max(axis=1)[rows].mean() for rows in bins], abs=1e-7)


def test_images_of_one_probability_share_a_bin():
    logits = np.array([[-1.0]] * 7 + [[0.0]] * 11 + [[1.0]] * 2, np.float32)
    found = reliability(logits, np.array([0, 1] * 10))
    assert found.count == [7, 11, 2]
    assert found.hits == [3, 6, 1]
    reordered = reliability(logits[::-1], np.array([0, 1] * 10)[::-1])
    assert (reordered.count, reordered.hits) == (found.count, found.hits)
    assert reordered.error == pytest.approx(found.error)
    assert reliability(logits[:1], np.array([1])).count == [1]


def test_the_temperature_improves_what_it_was_not_fitted_on():
    parts = {"validation": two_classes(2000, 3.0), "test": two_classes(4000, 3.0, seed=1)}
    found = calibrate(parts)
    assert set(found.before) == set(found.after) == {"validation", "test"}
    for part in parts:
        assert found.after[part].error < found.before[part].error / 2
        assert found.after[part].loss < found.before[part].loss
    # No order changes, so neither does any threshold.
    logits, _ = parts["test"]
    assert (np.argsort(logits[:, 0]) == np.argsort(logits[:, 0] / found.temperature)).all()


BEFORE = Reliability([10, 10], [2, 9], [0.1, 0.8], [0.2, 0.9], 0.1, 0.5)
AFTER = Reliability([10, 10], [2, 9], [0.2, 0.9], [0.2, 0.9], 0.0, 0.4)


def test_the_points_and_intervals_are_drawn():
    axes = calibration_curve({"validation": BEFORE, "test": AFTER}).axes[0]
    texts = {text.get_text() for text in axes.get_legend().get_texts()}
    assert texts == {"validation: calibration error 0.100", "test: calibration error 0.000", "perfect calibration"}
    points = axes.containers[0].lines[0]
    assert points.get_xydata() == pytest.approx(np.array([[0.1, 0.2], [0.8, 0.9]]))
    segments = axes.containers[0].lines[2][0].get_segments()
    # Clopper and Pearson's 95 % interval: 2.5 % on either side.
    expected = [(beta.ppf(0.025, hits, 11 - hits), beta.ppf(0.975, hits + 1, 10 - hits)) for hits in (2, 9)]
    assert [tuple(segment[:, 1]) for segment in segments] == [pytest.approx(row, abs=1e-9) for row in expected]
    french = calibration_curve({"test": BEFORE}, translator("fr")).axes[0]
    assert french.get_ylabel() == "fréquence observée"


def test_the_png_has_a_panel_for_the_temperature_if_there_is_one(monkeypatch, tmp_path):
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (saved.append(self), save(self, path)))
    plot_calibration(Calibration(1.5, {"test": BEFORE}, {"test": AFTER}), "title", tmp_path / "a.png")
    plot_calibration(Calibration(None, {"test": BEFORE}, {}), "title", tmp_path / "b.png")
    titles = [[axes.get_title() for axes in figure.axes] for figure in saved]
    assert titles == [["without temperature", "with temperature 1.5"], ["without temperature"]]
    assert (tmp_path / "a.png").stat().st_size > 1000
