"""Draws the architecture of a variant: one block per layer with shape, parameters, penalty and dropout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from photoflux.model.layers import Layer
from photoflux.model.summary import Summary, penalty_text, size_text
from photoflux.reporting.i18n import ENGLISH, Translator
from photoflux.reporting.styling import BLUE, GREEN, GREY, ORANGE, PURPLE, TEXT, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "input": GREY,
    "rescaling": GREY,
    "standardisation": GREY,
    "convolution": BLUE,
    "max pooling": GREEN,
    "dropout": PURPLE,
    "flatten": GREY,
    "dense": ORANGE,
}
_KINDS = {
    "rescaling": "divide by 255",
    "standardisation": "mean 0, deviation 1",
    "max pooling": "max pooling 2×2",
    "flatten": "reshape to a vector",
    "dense": "dense layer",
}
# More layers of a network of a user's own are not drawn.
MOST = 40
# Inches: the figure's width, its column of blocks, from one layer to the next, and around it all.
WIDTH, BLOCKS, PITCH, MARGIN = 5.2, 1.6, 0.56, 0.1
# A block's thickness and the depth of its upper face grow with the logarithms of its channels and its height.
_FLAT, _THICK, _DEEP = 0.07, 0.033, 0.016
_LEAN = 0.9


@style()
def draw_architecture(summary: Summary, tr: Translator = ENGLISH) -> Figure:
    """Draw the layers from top to bottom, each as a block with its name, kind, output shape and parameters.

    A block's width, depth and thickness grow with the logarithms of width, height and channels of the output, or its
    width with that of the units. A thick outline marks a kernel with a penalty, hatching marks dropout. The figure is
    5.2 inches wide; on white where it is saved, transparent in a page.
    """
    layers = summary.layers
    if len(layers) > MOST:
        layers = [*layers[: MOST // 2], *layers[-MOST // 2 :]]
    rows = [Layer("", "input", summary.shape.hwc), *layers]
    height = PITCH * len(rows) + 0.7
    drawn = figure(WIDTH, height)
    drawn.set_layout_engine("none")
    axes = drawn.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    scale = (BLOCKS - 2 * MARGIN) / max(_extent(_across(layer)) for layer in rows)
    above = None
    for number, layer in enumerate(rows):
        middle = MARGIN + PITCH * (number + 0.5)
        top, bottom = _block(axes, layer, middle, scale)
        if above is not None:
            axes.annotate(
                "",
                (BLOCKS / 2, top - 0.01),
                (BLOCKS / 2, above + 0.01),
                arrowprops={"arrowstyle": "-|>,head_width=0.12,head_length=0.2", "color": GREY, "linewidth": 1},
            )
        above = bottom
        axes.text(BLOCKS + MARGIN, middle - 0.025, _title(layer, tr), va="bottom", fontsize=10)
        axes.text(BLOCKS + MARGIN, middle + 0.02, _details(layer, tr), va="top", fontsize=8.5, alpha=0.8)
    sums = {"n": summary.parameters, "adds": summary.multiply_adds}
    lines = [tr.sentence("{n} parameters; {adds} multiply-adds per image", **sums)]
    if len(layers) < len(summary.layers):
        lines.append(tr.sentence("the first and last {n} of {all} layers", n=MOST // 2, all=len(summary.layers)))
    if any(penalty_text(layer.penalty) for layer in rows):
        lines.append(tr("thick outline: a penalty on the kernel"))
    axes.text(MARGIN, height - 0.5, "\n".join(lines), va="top", fontsize=9, linespacing=1.4)
    return drawn


def _across(layer: Layer) -> int:
    return layer.shape[1] if len(layer.shape) > 2 else layer.shape[0]


def _extent(number: int) -> float:
    return 1 + math.log2(number)


def _block(axes: Axes, layer: Layer, middle: float, scale: float) -> tuple[float, float]:
    """Draw a layer's block; return where it begins and ends, from top to bottom."""
    from matplotlib.patches import Polygon

    volume = len(layer.shape) > 2
    width = scale * _extent(_across(layer))
    depth = _DEEP * _extent(layer.shape[0]) if volume else 0.0
    thick = _FLAT + (_THICK * math.log2(layer.shape[2]) if volume else 0.05)
    left, top = (BLOCKS - width - _LEAN * depth) / 2, middle - (depth + thick) / 2
    right, lean, front, bottom = left + width, _LEAN * depth, top + depth, top + depth + thick
    look: dict[str, Any] = {
        "facecolor": _colour(layer),
        "edgecolor": TEXT if penalty_text(layer.penalty) else _colour(layer),
        "linewidth": 1.8 if penalty_text(layer.penalty) else 0.8,
        "joinstyle": "round",
    }
    faces = [([(left, front), (right, front), (right, bottom), (left, bottom)], 0.75)]
    if volume:
        faces.append(([(left, front), (left + lean, top), (right + lean, top), (right, front)], 0.3))
        faces.append(([(right, front), (right + lean, top), (right + lean, bottom - depth), (right, bottom)], 0.5))
    for corners, alpha in faces:
        if layer.kind.lower() == "dropout":
            axes.add_patch(Polygon(corners, **look | {"facecolor": "none", "hatch": "/////"}))
            alpha /= 3
        axes.add_patch(Polygon(corners, **look | {"facecolor": (look["facecolor"], alpha)}))
    return top, bottom


def _colour(layer: Layer) -> str:
    """Return the colour of a layer's kind; of Flux's names, of the first kind that they contain."""
    if layer.part is None:
        return COLOURS[layer.kind]
    families = {"conv": BLUE, "cross": BLUE, "pool": GREEN, "drop": PURPLE, "dense": ORANGE}
    return next((colour for part, colour in families.items() if part in layer.kind.lower()), GREY)


def _title(layer: Layer, tr: Translator) -> str:
    if layer.part is not None:
        details = f" {layer.part.details}" if layer.part.details else ""
        return tr.sentence("{name}: {what}", name=layer.name, what=f"{layer.kind}{details}")
    if layer.kind == "input":
        return tr("features") if layer.shape[:2] == (1, 1) else tr("images")
    if layer.kind == "convolution":
        what = tr.sentence("convolution {size}", size=size_text(layer.kernel[:2]))
    elif layer.kind == "dropout":
        what = tr.sentence("dropout {rate:g} in training", rate=layer.rate)
    else:
        what = tr(_KINDS[layer.kind])
    return tr.sentence("{name}: {what}", name=layer.name, what=f"{what}, ReLU" if layer.relu else what)


def _details(layer: Layer, tr: Translator) -> str:
    parts = ["×".join(tr.number(side, ",") for side in layer.shape)]
    if layer.parameters:
        parts.append(tr.sentence("{n} parameters", n=layer.parameters))
    if penalty_text(layer.penalty):
        parts.append(tr.localised(penalty_text(layer.penalty)))
    return " · ".join(parts)
