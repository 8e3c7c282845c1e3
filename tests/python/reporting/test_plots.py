"""The pictures: what is marked in them, read from the figure that is saved."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from photoflux import variants
from photoflux.model.history import EpochRow
from photoflux.reporting.i18n import translator
from photoflux.reporting.plots import confusion_matrix, curves, plot_confusion, plot_curves, ranking
from photoflux.reporting.styling import PARTS, TEXT, VARIANTS, figure, style, svg_of, variant_line


@pytest.fixture
def figures(monkeypatch):
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (saved.append(self), save(self, path)))
    return saved


def history(totals):
    return [EpochRow(i, 1.0, 0.5, 0.1, 0.6, 0.8, t - 0.1, 0.1, t, 0.7 + i / 100) for i, t in enumerate(totals, 1)]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_gap_the_best_epoch_and_an_early_stop_are_marked(figures, tmp_path):
    plot_curves(history([0.9, 0.5, 0.7, 0.8]), "early_stopping", "title", tmp_path / "c.png")
    for axes in figures[0].axes:
        assert legend(axes) == ["train", "validation", "gap", "best epoch: 2", "stopped at epoch 4"]
        assert axes.get_xlabel() == "epoch"
    assert [axes.get_ylabel() for axes in figures[0].axes] == ["accuracy", "loss + penalty"]
    shaded = figures[0].axes[1].collections[0].get_paths()[0].vertices
    assert (shaded[:, 1].min(), shaded[:, 1].max()) == (0.5, 0.9)
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size[0] > picture.size[1] > 300


def test_one_epoch_is_a_picture_too(figures, tmp_path):
    plot_curves(history([0.9]), "epochs", "title", tmp_path / "c.png")
    assert legend(figures[0].axes[0]) == ["train", "validation", "best epoch: 1"]


def test_the_confusion_matrix_shows_counts_and_shares(figures, tmp_path):
    plot_confusion([[3, 1], [0, 0]], ["not Photo", "Photo"], "title", tmp_path / "c.png")
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    assert texts == ["3\n75\u202f%", "1\n25\u202f%", "0\n0\u202f%", "0\n0\u202f%"]
    assert figures[0].axes[0].get_ylabel() == "true class"


@pytest.mark.parametrize("many", [2, 11, 20, 60])
def test_a_confusion_matrix_of_any_size_is_a_small_figure(many):
    names = [f"class {i} with a long name" for i in range(many)]
    drawn = confusion_matrix(np.arange(many * many).reshape(many, many).tolist(), names)
    # Of more than 5 classes, zeros are left out; there is one.
    assert len(drawn.axes[0].texts) == (4 if many == 2 else many * many - 1 if many <= 25 else 0)
    assert len(svg_of(drawn)) < 250_000


def test_thresholds_are_marked_where_they_lie():
    labels, scores = np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.6, 0.4, 0.7, 0.9])
    parts = {"validation": (labels, scores)}
    # From 0.5 on: 2 of 3 of class 1, 1 of 2 of class 0.
    roc = ranking("roc", parts, {"threshold 0.5": 0.5})
    place = next(line for line in roc.axes[0].lines if line.get_label() == "threshold 0.5")
    assert place.get_xydata().tolist() == [[1 / 2, 2 / 3]]
    # The area is the share of pairs in the right order: 5 of 6.
    assert legend(roc.axes[0])[0] == "validation: AUC 0.833"
    recall = ranking("precision_recall", parts, {"threshold 0.5": 0.5, "threshold 0.95": 0.95})
    marks = {line.get_label(): line.get_xydata().tolist() for line in recall.axes[0].lines}
    assert marks["threshold 0.5"] == [[2 / 3, 2 / 3]]
    assert marks["threshold 0.95"] == [[0, 1]]


def test_every_variant_has_a_line_of_its_own():
    assert list(VARIANTS) == list(variants())
    looks = [(line.colour, line.dashes) for line in VARIANTS.values()]
    assert len(set(looks)) == len(looks)
    photo = [VARIANTS[name] for name, variant in variants().items() if variant.architecture == "photo_cnn"]
    assert len({line.colour for line in photo}) == len({line.marker for line in photo}) == len(photo) == 7
    assert variant_line("mine") not in VARIANTS.values()
    assert len({line.colour for line in PARTS.values()}) == len(PARTS)


@pytest.mark.parametrize(("lang", "tick"), [("en", "0.5"), ("fr", "0,5")])
def test_a_figure_in_a_page_is_text_in_the_colour_of_the_page(lang, tick):
    svg, again = (svg_of(curves(history([0.9, 0.5, 0.7]), "epochs", "total", translator(lang))) for _ in range(2))
    assert svg == again
    assert "currentColor" in svg
    assert TEXT.lower() not in svg.lower()
    assert "DejaVu" not in svg
    assert "<style" not in svg
    assert re.search(rf">{re.escape(tick)}\d*</text>", svg)
    names = re.findall(r'\bid="([^"]*)"', svg)
    assert names and len(set(names)) == len(names)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', svg)) <= set(names)
    other = svg_of(curves(history([0.9, 0.6, 0.7]), "epochs", "total", translator(lang)))
    assert not set(names) & set(re.findall(r'\bid="([^"]*)"', other))


def test_names_are_text_whatever_is_in_them():
    names = ["$x$ <script>", "漢字", "a$b"]
    with style():
        empty = figure(2, 2)
    assert svg_of(empty).startswith("<svg")
    svg = svg_of(confusion_matrix([[1, 0, 0], [0, 1, 0], [0, 0, 1]], names))
    assert "$x$ &lt;script&gt;" in svg
    assert "漢字" in svg
