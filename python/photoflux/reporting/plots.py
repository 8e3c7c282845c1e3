"""Figures of a report: learning curves, confusion matrix, ROC, precision and recall, calibration, agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photoflux.model.history import EpochRow
from photoflux.reporting.i18n import ENGLISH, Translator
from photoflux.reporting.styling import BLUE, MARK, PARTS, TRAIN, VALIDATION, figure, numbered, style, svg_of
from photoflux.system.atomic import writing_file
from photoflux.system.names import printable
from photoflux.thresholds.calibration import Calibration, Reliability
from photoflux.thresholds.choice import share

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The darkest cell of a confusion matrix: text reads on it in a light page and in a dark one.
DARKEST = 0.6
# Up to so many classes a cell has count and share, and the count alone up to so many.
FEW, MANY = 5, 25


def plot_curves(history: Sequence[EpochRow], ended: str, title: str, path: Path) -> None:
    """Draw accuracy and total loss by epoch side by side, as `curves` draws each, into the PNG file `path`."""
    with style():
        drawn = figure(10, 4.2)
        drawn.suptitle(printable(title))
        for axes, column in zip(drawn.subplots(1, 2), ("accuracy", "total"), strict=True):
            _curve_panel(axes, history, ended, column, ENGLISH)
        _save(drawn, path)


def _save(drawn: Figure, path: Path) -> None:
    with writing_file(path, suffix=path.suffix) as temporary:
        drawn.savefig(temporary)


@style()
def curves(
    history: Sequence[EpochRow],
    ended: str,
    column: str,
    tr: Translator = ENGLISH,
    size: tuple[float, float] = (4.6, 3.3),
) -> Figure:
    """Draw one column of training and validation by epoch: the gap shaded, best epoch and early stop marked.

    Parameters
    ----------
    history : sequence of EpochRow
        One row or more. The best epoch is the one with the lowest total validation loss.
    ended : str
        How the fit ended; ``"early_stopping"`` is marked.
    column : str
        ``"accuracy"`` or ``"total"``.
    tr : Translator
        The language.
    size : tuple of float
        Width and height in inches.
    """
    drawn = figure(*size)
    _curve_panel(drawn.subplots(), history, ended, column, tr)
    return drawn


def _curve_panel(axes: Axes, history: Sequence[EpochRow], ended: str, column: str, tr: Translator) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [row.epoch for row in history]
    best = min(history, key=lambda row: row.validation_total)
    values = {part: [getattr(row, f"{part}_{column}") for row in history] for part in ("train", "validation")}
    for part, heights in values.items():
        look = PARTS[part].keywords | ({} if len(epochs) <= 30 else {"marker": None})
        axes.plot(epochs, heights, **look, markersize=3.5, label=tr(part))
    if len(epochs) > 1:
        train, validation = values.values()
        axes.fill_between(epochs, train, validation, color=MARK, alpha=0.22, linewidth=0, label=tr("gap"))
    height = getattr(best, f"validation_{column}")
    axes.plot([best.epoch], [height], "*", color=VALIDATION, markersize=14, markeredgecolor="white", zorder=3)
    label = tr.sentence("best epoch: {n}", n=best.epoch)
    axes.axvline(best.epoch, color=MARK, linewidth=1.1, linestyle=":", label=label)
    if ended == "early_stopping":
        label = tr.sentence("stopped at epoch {n}", n=epochs[-1])
        axes.axvline(epochs[-1], color=MARK, linewidth=1.1, linestyle="--", label=label)
    axes.set_xlabel(tr("epoch"))
    penalised = any(row.train_penalty > 0 for row in history)
    axes.set_ylabel(tr("accuracy" if column == "accuracy" else "loss + penalty" if penalised else "loss"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if column == "total" and max(row.train_total for row in history) > 20 * min(
        row.validation_total for row in history
    ):
        axes.set_yscale("log")
    numbered(axes.yaxis, tr, percent=column == "accuracy")
    axes.legend()


def plot_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str], title: str, path: Path) -> None:
    """Draw a confusion matrix as `confusion_matrix` does, into the PNG file `path`."""
    with style():
        drawn = confusion_matrix(confusion, classes)
        drawn.axes[0].set_title(printable(title))
        _save(drawn, path)


@style()
def confusion_matrix(confusion: Sequence[Sequence[int]], classes: Sequence[str], tr: Translator = ENGLISH) -> Figure:
    """Draw a confusion matrix: rows are the true classes, columns the predicted ones.

    The stronger the colour of a cell, the larger its share of the true class, on a square root scale that shows small
    ones. Cells have count and share; of more than 5 classes the count, where it is not 0; of more than 25 neither.
    ``confusion[i][j]`` is how many images of class i are predicted as class j.
    """
    import numpy as np
    from matplotlib.colors import to_rgb

    counts: Any = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    many = len(classes)
    side = max(3.2, 1.6 + 0.75 * many) if many <= FEW else min(1.4 + 0.46 * many, 9.5)
    drawn = figure(side + 0.8, side)
    axes = drawn.subplots()
    cells = np.concatenate(
        [np.broadcast_to(to_rgb(BLUE), (*shares.shape, 3)), DARKEST * np.sqrt(shares)[..., None]], axis=2
    )
    axes.pcolormesh(cells, rasterized=many > MANY)
    axes.grid(visible=False)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    for (i, j), count in np.ndenumerate(counts) if many <= MANY else ():
        text = tr.number(int(count), ",")
        if many <= FEW:
            text = f"{text}\n{tr.percent(shares[i, j], 0)}"
        if count or many <= FEW:
            axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=9 if many <= FEW else 8)
    names = [shortened(name) for name in classes]
    places, size = np.arange(many) + 0.5, 9 if many <= MANY else 5
    axes.set_xticks(places, names, size=size)
    if many > 3 and max(map(len, names)) > 3:
        axes.tick_params(axis="x", rotation=40 if many <= FEW else 90)
    axes.set_yticks(places, names, size=size)
    axes.set_xlabel(tr("predicted class"))
    axes.set_ylabel(tr("true class"))
    return drawn


def shortened(name: str, most: int = 24) -> str:
    """Return a name that fits beside an axis, as one line of valid Unicode."""
    name = printable(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"


@style()
def ranking(
    kind: str,
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    thresholds: Mapping[str, float],
    tr: Translator = ENGLISH,
) -> Figure:
    """Draw how well scores put one of two classes before the other, the points of given thresholds marked.

    Parameters
    ----------
    kind : str
        ``"roc"`` (recall against the share of the others predicted as the class) or ``"precision_recall"``.
    parts : mapping of str to (labels, scores)
        For each part labels 0 and 1, both present, (N,), and the scores of class 1, 0 to 1, (N,).
    thresholds : mapping of str to float
        Scores from which an image counts as class 1, by the name that the legend gives them.
    tr : Translator
        The language.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    drawn = figure(4.6, 3.9)
    axes = drawn.subplots()
    for part, (labels, scores) in parts.items():
        if kind == "roc":
            x, y, _ = roc_curve(labels, scores)
            template, area = "{part}: AUC {area:.3f}", roc_auc_score(labels, scores)
        else:
            y, x, _ = precision_recall_curve(labels, scores)
            template, area = "{part}: average precision {area:.3f}", average_precision_score(labels, scores)
        # Between two thresholds the precision is not on the line between the two points.
        look = PARTS[part].keywords | {"marker": None, "drawstyle": "default" if kind == "roc" else "steps-post"}
        axes.plot(x, y, **look, label=tr.sentence(template, part=tr(part), area=area))
    for (name, threshold), mark in zip(thresholds.items(), ("o", "D", "s", "v"), strict=False):
        for part, (labels, scores) in parts.items():
            place = _point(kind, labels, scores, threshold)
            label = name if part == next(iter(parts)) else None
            colour = PARTS[part].colour
            axes.plot(*place, mark, color=colour, markersize=8, markeredgecolor="white", label=label, zorder=3)
    if kind == "roc":
        axes.plot([0, 1], [0, 1], color=MARK, linewidth=1, linestyle=":", label=tr("chance level"))
    else:
        labels = next(iter(parts.values()))[0]
        axes.axhline(float(labels.mean()), color=MARK, linewidth=1, linestyle=":", label=tr("chance level"))
    titles = ("false positive rate", "recall (true positive rate)") if kind == "roc" else ("recall", "precision")
    _of_shares(axes, *titles, tr)
    axes.legend(loc="lower right" if kind == "roc" else "lower left")
    return drawn


def _of_shares(axes: Axes, xlabel: str, ylabel: str, tr: Translator) -> None:
    """Name both axes, and let them go from 0 to 100 %."""
    axes.set(xlabel=tr(xlabel), ylabel=tr(ylabel), xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        numbered(axis, tr, percent=True)


def _point(kind: str, labels: np.ndarray, scores: np.ndarray, threshold: float) -> tuple[float, float]:
    predicted, positive = scores >= threshold, labels == 1
    recall = float(predicted[positive].mean())
    if kind == "roc":
        return float(predicted[~positive].mean()), recall
    return recall, float(positive[predicted].mean()) if predicted.any() else 1.0


def plot_calibration(calibration: Calibration, title: str, path: Path) -> None:
    """Draw the reliability of every part, as `calibration_curve` does, into the PNG file `path`.

    One panel is without the temperature and, where there is one, another with it.
    """
    panels = {"without temperature": calibration.before}
    if calibration.temperature is not None:
        panels[f"with temperature {calibration.temperature:.3g}"] = calibration.after
    with style():
        drawn = figure(4.6 * len(panels), 4.2)
        drawn.suptitle(printable(title))
        for axes, (name, parts) in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            _reliability_panel(axes, parts, ENGLISH)
            axes.set_title(name)
        _save(drawn, path)


@style()
def calibration_curve(parts: Mapping[str, Reliability], tr: Translator = ENGLISH) -> Figure:
    """Draw the observed frequency against the predicted probability, a point per bin, with exact 95 % intervals.

    `parts` is `Calibration.before` or `Calibration.after`.
    """
    drawn = figure(4.6, 3.9)
    _reliability_panel(drawn.subplots(), parts, tr)
    return drawn


def _reliability_panel(axes: Axes, parts: Mapping[str, Reliability], tr: Translator) -> None:
    for part, found in parts.items():
        bounds = [share(hits, count, 0.975) for hits, count in zip(found.hits, found.count, strict=True)]
        below = [row - (bound.low or 0.0) for row, bound in zip(found.observed, bounds, strict=True)]
        above = [(bound.high or 0.0) - row for row, bound in zip(found.observed, bounds, strict=True)]
        label = tr.sentence("{part}: calibration error {error:.3f}", part=tr(part), error=found.error)
        look = PARTS[part].keywords | {"markersize": 4.5, "elinewidth": 0.9, "label": label}
        axes.errorbar(found.predicted, found.observed, yerr=[below, above], **look)
    axes.plot([0, 1], [0, 1], color=MARK, linewidth=1, linestyle=":", label=tr("perfect calibration"))
    _of_shares(axes, "mean predicted probability", "observed frequency", tr)
    axes.legend(loc="upper left")


@style()
def plot_agreement(ours: np.ndarray, theirs: np.ndarray, tolerance: np.ndarray) -> str:
    """Draw the total loss in Flux and in Keras, and how far the two are apart on a log scale, as an SVG element.

    Given are the loss before each step in either engine, and how far apart the two may be, all (steps,).
    """
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    steps = np.arange(1, len(ours) + 1)
    drawn = figure(10, 3.6)
    left, right = drawn.subplots(1, 2)
    left.plot(steps, theirs, color=VALIDATION, linewidth=4, alpha=0.45, label="Keras")
    left.plot(steps, ours, color=TRAIN, linewidth=1.3, label="Flux")
    left.set_ylabel("loss + penalty before the step")
    right.plot(steps, tolerance, color=MARK, linestyle="--", linewidth=1, label="tolerance")
    # What is bit-equal has no place on a log scale.
    apart = np.abs(ours - theirs)
    right.plot(steps, np.where(apart > 0, apart, np.nan), ".", color=TRAIN, label="difference")
    right.set_yscale("log")
    right.set_ylabel("difference")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    numbered(right.yaxis)
    return svg_of(drawn)
