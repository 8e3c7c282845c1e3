"""The style of all figures: colours, fonts, lines, and their conversion to SVG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

from photoflux.reporting.i18n import ENGLISH, Translator

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's palette: distinguishable by colour-blind readers. Yellow is left out: too pale for a line on white.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#777777"
# Text and axes; becomes the page's own text colour where a figure is put into one.
TEXT = "#1A1A1B"
MARK = GREY
TRAIN, VALIDATION, TEST = BLUE, VERMILION, GREEN
FONT = "DejaVu Sans"
# A figure is drawn for a phone, where its text must not be too small, and grows by so much at most in a wide page.
SMALLEST, LARGEST = 0.75, 1.15


@dataclass(frozen=True)
class Line:
    """How a line is drawn, so that lines are distinguished without colour too.

    Attributes
    ----------
    colour : str
        ``#rrggbb``.
    dashes : str
        matplotlib's line style.
    marker : str
        matplotlib's marker.
    """

    colour: str
    dashes: str
    marker: str

    @property
    def keywords(self) -> dict[str, Any]:
        """What ``Axes.plot`` takes."""
        return {"color": self.colour, "linestyle": self.dashes, "marker": self.marker}


PARTS = {
    "train": Line(TRAIN, "-", "o"),
    "validation": Line(VALIDATION, "--", "s"),
    "test": Line(TEST, "-.", "^"),
    "holdout": Line(PURPLE, ":", "D"),
}
VARIANTS = {
    "baseline": Line(TEXT, "-", "o"),
    "dropout": Line(ORANGE, "--", "s"),
    "early_stopping": Line(SKY, "-.", "^"),
    "l1": Line(GREEN, "-", "D"),
    "l2": Line(BLUE, "--", "v"),
    "dropout_early_stopping": Line(VERMILION, "-.", "P"),
    "elastic_net": Line(PURPLE, "-", "X"),
    "mlp": Line(GREY, ":", "h"),
    "dense_l2": Line(BLUE, ":", "<"),
    "dense_dropout": Line(ORANGE, ":", ">"),
    "transfer": Line(TEXT, ":", "*"),
    "transfer_l1": Line(GREEN, ":", "d"),
    "transfer_elastic_net": Line(PURPLE, ":", "x"),
    "transfer_mlp": Line(VERMILION, ":", "p"),
}

_SETTINGS: Any = {
    "font.family": [FONT],
    "font.size": 10,
    "axes.titlesize": 11,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), TEXT),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.8,
    # A class may be called $x$.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "photoflux",
}


def variant_line(name: str) -> Line:
    """Return how a variant's line is drawn; the table's have their own, any other is grey."""
    return VARIANTS.get(name, Line(GREY, "-", "."))


@contextmanager
def style() -> Iterator[None]:
    """Give figures that are drawn inside, or in a function decorated with it, the common look.

    It starts from matplotlib's defaults and not from the user's matplotlibrc, which may ask for TeX, or for a font
    that is not there.
    """
    from matplotlib import rc_context, rcdefaults, rcParams

    with rc_context(), warnings.catch_warnings():
        rcdefaults()
        rcParams.update(_SETTINGS)
        # A class name may be in a script that the font lacks; a browser has others.
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font")
        yield


def figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches; call it, and draw, inside `style`."""
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def numbered(axis: Axis, tr: Translator = ENGLISH, *, percent: bool = False) -> None:
    """Write the numbers along an axis in a language's way; call it when all is drawn.

    They are written as percent where they are said to be shares, 0 to 1.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, ScalarFormatter

    if percent:
        axis.set_major_formatter(FuncFormatter(lambda value, _: tr.localised(f"{100 * value:g} %")))
        return
    if axis.get_scale() == "log":
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: tr.localised(f"{value:g}")))
        axis.set_minor_formatter(NullFormatter())
        return

    class Localised(ScalarFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return tr.localised(super().__call__(x, pos).replace("\N{MINUS SIGN}", "-"))

    axis.set_major_formatter(Localised(useOffset=False))


def svg_of(drawn: Figure) -> str:
    """Return a figure as an SVG element for a page: transparent, text as text, in the page's own text colour and font.

    It takes the width of what holds it, within bounds where its text is readable.
    """
    file = io.StringIO()
    with style():
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        drawn.savefig(file, format="svg", transparent=True, metadata=metadata)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(TEXT, "currentColor", text, flags=re.IGNORECASE)
    text = re.sub(rf"'{FONT}'(, *[^;\"]*)?(?=[;\"])", "system-ui, sans-serif", text)
    # Names in a figure must be unique on its page, and its style sheet would hold for all of the page.
    prefix = f"f{crc32(text.encode('utf-8', 'backslashreplace')):08x}-"
    text = re.sub(r'(<g) id="[^"]*"', r"\1", text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{prefix}", text)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, count=1, flags=re.DOTALL)
    head, _, rest = text.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    smallest, largest = (round(drawn.get_figwidth() * 96 * factor) for factor in (SMALLEST, LARGEST))
    look = f"width:100%;min-width:{smallest}px;max-width:{largest}px;height:auto;stroke-linejoin:round"
    return f'{head} style="{look}">{rest}'
