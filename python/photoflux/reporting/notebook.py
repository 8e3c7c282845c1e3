"""What a notebook shows of a run, a summary and an operating point; attached to their classes here, above them."""

from __future__ import annotations

from dataclasses import replace
from html import escape

from photoflux.model.summary import COLUMNS, TEXTS, Summary, row_of
from photoflux.reporting import tables
from photoflux.reporting.i18n import ENGLISH
from photoflux.reporting.page import Table, notebook_html
from photoflux.reporting.run_page import architecture, curves
from photoflux.runs.run import Run
from photoflux.thresholds.operating_point import OperatingPoint


def attach() -> None:
    """Give the classes the method that notebooks call."""
    for kind, html in ((Run, run_html), (Summary, summary_html), (OperatingPoint, operating_point_html)):
        setattr(kind, "_repr_html_", html)  # noqa: B010 (mypy does not know the attribute)


def run_html(run: Run) -> str:
    """Return the table of a run's parts and small learning curves."""
    drawings = [replace(drawing, title="") for drawing in curves(run, ENGLISH, (3.6, 2.7))]
    return notebook_html(str(run).splitlines()[0], [tables.parts(run, ENGLISH)], drawings=drawings)


def operating_point_html(found: OperatingPoint) -> str:
    """Return an operating point as a block of text."""
    return f"<pre>{escape(str(found))}</pre>"


def summary_html(summary: Summary) -> str:
    """Return a summary as a table, its totals and the figure of the architecture."""
    table = Table(COLUMNS, [row_of(layer) for layer in summary.layers], range(TEXTS, len(COLUMNS)))
    return notebook_html(summary.heading, [table], facts=summary.totals(), drawings=[architecture(summary, ENGLISH)])
