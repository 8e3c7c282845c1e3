"""Losses, probabilities and scores against formulas and counts written out."""

from __future__ import annotations

import numpy as np
import pytest

from photoflux.model.variants import variant
from photoflux.runs.evaluation import data_loss, decisions, probabilities, score

BINARY = np.array([[-2.0], [0.5], [3.0], [0.0]], np.float32)
MANY = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 4.0]], np.float32)


def test_probabilities():
    p = probabilities(BINARY)
    # Computed in float64, rounded once to float32.
    np.testing.assert_allclose(p[:, 1], 1 / (1 + np.exp(-BINARY[:, 0].astype(float))), rtol=1e-7)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    e = np.exp(MANY.astype(float))
    np.testing.assert_allclose(probabilities(MANY), e / e.sum(axis=1, keepdims=True), rtol=1e-7)
    assert probabilities(np.array([[1000.0, 0.0]], np.float32)).tolist() == [[1.0, 0.0]]


def test_decisions():
    assert decisions(BINARY).tolist() == [0, 1, 1, 0]
    assert decisions(MANY).tolist() == [1, 2]


def test_cross_entropy():
    labels = np.array([0, 1, 0, 1])
    p = 1 / (1 + np.exp(-BINARY[:, 0].astype(float)))
    expected = -np.mean(np.where(labels == 1, np.log(p), np.log(1 - p)))
    assert data_loss("cross_entropy", BINARY, labels) == pytest.approx(expected, rel=1e-12)
    e = np.exp(MANY.astype(float))
    q = e / e.sum(axis=1, keepdims=True)
    assert data_loss("cross_entropy", MANY, np.array([0, 2])) == pytest.approx(
        -(np.log(q[0, 0]) + np.log(q[1, 2])) / 2, rel=1e-12
    )
    assert data_loss("cross_entropy", np.array([[500.0], [-800.0]], np.float32), np.array([0, 1])) == 650.0


def test_squared_error():
    e = np.exp(MANY.astype(float))
    q = e / e.sum(axis=1, keepdims=True)
    onehot = np.eye(3)[[0, 2]]
    assert data_loss("squared_error", MANY, np.array([0, 2])) == pytest.approx(0.5 * np.mean((q - onehot) ** 2))
    p = 1 / (1 + np.exp(-BINARY[:, 0].astype(float)))
    expected = 0.5 * np.mean((p - np.array([0, 1, 0, 1])) ** 2)
    assert data_loss("squared_error", BINARY, np.array([0, 1, 0, 1])) == pytest.approx(expected)


def test_score_counts_what_a_person_counts():
    labels = np.array([0, 1, 0, 1])
    metrics = score(variant("l2"), BINARY, labels, 2, 0.25, ["Text", "Photo", "Sketch", "Photo"])
    # Taken for: 0, 1, 1, 0.
    assert metrics.confusion == [[1, 1], [1, 1]]
    assert (metrics.accuracy, metrics.balanced_accuracy, metrics.images) == (0.5, 0.5, 4)
    assert metrics.precision == metrics.recall == [0.5, 0.5]
    assert metrics.folders == {
        "Photo": {"images": 2, "accuracy": 0.5},
        "Sketch": {"images": 1, "accuracy": 0.0},
        "Text": {"images": 1, "accuracy": 1.0},
    }
    assert metrics.total == metrics.loss + 0.25


def test_always_the_larger_class_has_balanced_accuracy_one_half():
    metrics = score(variant("l2"), np.full((10, 1), -1.0, np.float32), np.array([0] * 8 + [1] * 2), 2, 0.0)
    assert metrics.accuracy == 0.8
    assert metrics.balanced_accuracy == 0.5
    assert metrics.precision == [0.8, 0.0]
