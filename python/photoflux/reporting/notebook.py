"""What a notebook shows of our objects; attached to their classes here, where pages are made."""

from __future__ import annotations

from html import escape

from photoflux.model.summary import COLUMNS, TEXTS, Summary, row_of
from photoflux.reporting.architecture import architecture_svg
from photoflux.reporting.run_page import run_html
from photoflux.runs.run import Run
from photoflux.thresholds.operating_point import OperatingPoint


def attach() -> None:
    """Give the classes the method that notebooks call."""
    for kind, html in ((Run, run_html), (Summary, summary_html), (OperatingPoint, operating_point_html)):
        setattr(kind, "_repr_html_", html)  # noqa: B010 (mypy does not know the attribute)


def operating_point_html(found: OperatingPoint) -> str:
    """Return an operating point as a block of text."""
    return f"<pre>{escape(str(found))}</pre>"


def summary_html(summary: Summary) -> str:
    """Return a summary as a table, its totals and the figure of the architecture."""

    def cells(tag: str, texts: tuple[str, ...]) -> str:
        right = ' style="text-align:right"'
        return "".join(
            f"<{tag}{right if number >= TEXTS else ''}>{escape(text)}</{tag}>" for number, text in enumerate(texts)
        )

    rows = "".join(f"<tr>{cells('td', row_of(layer))}</tr>" for layer in summary.layers)
    sums = "".join(f"<li>{escape(name)}: {escape(value)}</li>" for name, value in summary.totals())
    return (
        f"<p>{escape(summary.heading)}</p><table><thead><tr>{cells('th', COLUMNS)}</tr></thead>"
        f"<tbody>{rows}</tbody></table><ul>{sums}</ul>{architecture_svg(summary)}"
    )
