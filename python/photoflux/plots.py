"""The pictures: learning curves and confusion matrix of a run, agreement of two engines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photoflux.engines.base import EpochRow

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

# Okabe and Ito's blue and vermilion: told apart by colour-blind readers and in grey.
TRAIN, VALIDATION, MARK = "#0072B2", "#D55E00", "#555555"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def plot_curves(history: Sequence[EpochRow], ended: str, title: str, path: Path) -> None:
    """Draw accuracy and total loss, training and validation, by epoch; mark the best epoch and an early stop.

    Parameters
    ----------
    history : sequence of EpochRow
        One row or more. The best epoch is the one with the lowest total validation loss.
    ended : str
        How the fit ended; ``"early_stopping"`` is marked.
    title : str
        Above the two panels.
    path : Path
        Where the PNG goes.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _figure(10, 4.2)
    figure.suptitle(title)
    epochs = [row.epoch for row in history]
    best = min(history, key=lambda row: row.validation_total)
    marker = "o" if len(epochs) <= 30 else None
    penalised = any(row.train_penalty > 0 for row in history)
    panels = (("accuracy", "accuracy"), ("total", "loss + penalty" if penalised else "loss"))
    for axes, (column, label) in zip(figure.subplots(1, 2), panels, strict=True):
        for part, colour in (("train", TRAIN), ("validation", VALIDATION)):
            values = [getattr(row, f"{part}_{column}") for row in history]
            axes.plot(epochs, values, color=colour, marker=marker, markersize=3.5, label=part)
        height = getattr(best, f"validation_{column}")
        axes.plot([best.epoch], [height], "*", color=VALIDATION, markersize=14, markeredgecolor="white", zorder=3)
        axes.axvline(best.epoch, color=MARK, linewidth=0.9, linestyle=":", label=f"best epoch, {best.epoch}")
        if ended == "early_stopping":
            axes.axvline(epochs[-1], color=MARK, linewidth=0.9, linestyle="--", label=f"stopped at {epochs[-1]}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
        if column == "total" and max(row.train_total for row in history) > 20 * min(
            row.validation_total for row in history
        ):
            axes.set_yscale("log")
    figure.savefig(path)


def plot_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str], title: str, path: Path) -> None:
    """Draw a confusion matrix: rows are the true classes, columns what they were taken for, with counts and shares.

    Parameters
    ----------
    confusion : sequence of sequence of int
        ``confusion[i][j]``: images of class i taken for class j.
    classes : sequence of str
        Their names.
    title : str
        Above the matrix.
    path : Path
        Where the PNG goes.
    """
    import numpy as np

    counts: Any = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 1.6 + 0.75 * len(classes))
    figure = _figure(side + 0.8, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        colour = "white" if shares[i, j] > 0.55 else "black"
        axes.text(j, i, f"{count}\n{shares[i, j]:.0%}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(classes)), classes)
    if len(classes) > 3:
        axes.tick_params(axis="x", rotation=40)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    figure.savefig(path)


def plot_agreement(ours: np.ndarray, theirs: np.ndarray, tolerance: np.ndarray) -> str:
    """Draw the total loss in Flux and in Keras, and how far the two are apart on a log scale.

    Parameters
    ----------
    ours, theirs, tolerance : numpy.ndarray
        The loss before each step in either engine, and how far apart the two may be, all (steps,).

    Returns
    -------
    str
        An SVG element.
    """
    import io

    import numpy as np
    from matplotlib import rc_context

    steps = np.arange(1, len(ours) + 1)
    figure = _figure(10, 3.6)
    left, right = figure.subplots(1, 2)
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
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    file = io.StringIO()
    with rc_context({"svg.hashsalt": "photoflux", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    return text[text.index("<svg") :]
