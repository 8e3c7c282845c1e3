"""The pictures: what is marked in them, read from the figure that is saved."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from PIL import Image

from photoflux.engines.base import EpochRow
from photoflux.plots import plot_confusion, plot_curves


@pytest.fixture
def figures(monkeypatch):
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (saved.append(self), save(self, path)))
    return saved


def history(totals):
    return [EpochRow(i, 1.0, 0.5, 0.1, 0.6, 0.8, t - 0.1, 0.1, t, 0.7 + i / 100) for i, t in enumerate(totals, 1)]


def test_the_best_epoch_and_an_early_stop_are_marked(figures, tmp_path):
    plot_curves(history([0.9, 0.5, 0.7, 0.8]), "early_stopping", "title", tmp_path / "c.png")
    for axes in figures[0].axes:
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["train", "validation", "best epoch, 2", "stopped at 4"]
        assert axes.get_xlabel() == "epoch"
    assert [axes.get_ylabel() for axes in figures[0].axes] == ["accuracy", "loss + penalty"]
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size[0] > picture.size[1] > 300


def test_one_epoch_is_a_picture_too(figures, tmp_path):
    plot_curves(history([0.9]), "epochs", "title", tmp_path / "c.png")
    labels = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert labels == ["train", "validation", "best epoch, 1"]


def test_the_confusion_matrix_shows_counts_and_shares(figures, tmp_path):
    plot_confusion([[3, 1], [0, 0]], ["not Photo", "Photo"], "title", tmp_path / "c.png")
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    assert texts == ["3\n75%", "1\n25%", "0\n0%", "0\n0%"]
    assert figures[0].axes[0].get_ylabel() == "true class"
