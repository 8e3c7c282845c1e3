"""Figures of a comparison: intervals by variant and part, and the validation losses of all fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from photoflux.comparison.intervals import Interval
from photoflux.comparison.measures import PARTS as TITLES
from photoflux.reporting.i18n import ENGLISH, Translator
from photoflux.reporting.styling import PARTS, figure, numbered, style, variant_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@style()
def intervals(rows: Mapping[str, Mapping[str, Interval]], tr: Translator, label: str) -> Figure:
    """Draw a mean and its interval for every variant and part, one row per variant; `label` is what is measured."""
    drawn = figure(7.2, 0.9 + 0.55 * len(rows))
    axes = drawn.subplots()
    parts = list(next(iter(rows.values())))
    for number, part in enumerate(parts):
        offset = 0.2 * (number - (len(parts) - 1) / 2)
        found = [row[part] for row in rows.values()]
        means = [interval.mean for interval in found]
        errors = [[i.mean - i.low for i in found], [i.high - i.mean for i in found]]
        places = [row + offset for row in range(len(rows))]
        look = PARTS[part]
        how: dict[str, Any] = {"fmt": look.marker, "color": look.colour, "capsize": 3, "markersize": 5}
        axes.errorbar(means, places, xerr=errors, **how, label=tr(TITLES[part]))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top, and as much space around each
    axes.set_xlabel(label)
    numbered(axes.xaxis, tr, percent=True)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return drawn


@style()
def histories(losses: Mapping[str, Sequence[Sequence[float]]], tr: Translator = ENGLISH) -> Figure:
    """Draw the total validation loss by epoch, one line per fit, one colour per variant.

    ``losses[variant]`` has, for each seed, the losses of the epochs.
    """
    from matplotlib.ticker import MaxNLocator

    drawn = figure(7.2, 4.2)
    axes = drawn.subplots()
    for name, fits in losses.items():
        look = variant_line(name).keywords
        for number, values in enumerate(fits):
            epochs = range(1, len(values) + 1)
            label = name if number == 0 else None
            axes.plot(epochs, values, **look, markersize=3, linewidth=1.2, alpha=0.85, label=label)
    axes.set_xlabel(tr("epoch"))
    axes.set_ylabel(tr("loss + penalty"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    everything = [value for fits in losses.values() for values in fits for value in values]
    if max(everything) > 10 * min(everything) > 0:
        axes.set_yscale("log")
    numbered(axes.yaxis, tr)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return drawn
