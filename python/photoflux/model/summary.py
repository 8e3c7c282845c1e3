"""`photoflux.summary`: layers, shapes, parameters, memory and multiply-adds of a variant."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from photoflux.data.checks import check_image_size, check_whole
from photoflux.data.shape import Shape
from photoflux.errors import SettingError
from photoflux.model.backbones import pretrained
from photoflux.model.layers import FLOAT, Layer, layers, outputs_of
from photoflux.model.variant import Variant
from photoflux.model.variants import variant as variant_of

# A weight, its gradient, and the two moments of Adam.
COPIES = 4
# Channels and classes of the data for which a variant was made, where they are not those of a folder of images.
_MADE_FOR = {"CIFAR-10": (3, 10), "28×28 images: MNIST, Fashion-MNIST": (1, 10)}
_FOLDER = (3, 2)


@dataclass(frozen=True)
class Summary:
    """What a variant is made of, for images of a size and a number of classes.

    Attributes
    ----------
    variant : Variant
        The variant.
    shape : Shape
        Of an image.
    classes, batch_size : int
        Number of classes, and batch size.
    layers : list of Layer
        First to last.
    """

    variant: Variant
    shape: Shape
    classes: int
    batch_size: int
    layers: list[Layer] = field(repr=False)

    @property
    def parameters(self) -> int:
        """All weights and biases that are trained."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def not_trained(self) -> int:
        """Numbers in weights files that are measured and not trained: means and deviations of a standardisation."""
        return sum(math.prod(size) for layer in self.layers for size in layer.statistics.values())

    @property
    def weights_bytes(self) -> int:
        """Size of the weights."""
        return FLOAT * self.parameters

    @property
    def activation_bytes(self) -> int:
        """Size of an image and of what every layer makes of it."""
        return FLOAT * math.prod(self.shape) + sum(layer.activation_bytes for layer in self.layers)

    @property
    def training_bytes(self) -> int:
        """What a training step needs at least: weights, gradient, Adam's two moments, and a batch's activations.

        An estimate: gradients of activations and the working memory of the convolutions come on top, and an engine may
        free or reuse what it no longer needs.
        """
        return COPIES * self.weights_bytes + self.batch_size * self.activation_bytes

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image's forward pass; a training step takes about three times as many."""
        return sum(layer.multiply_adds for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "variant": self.variant.name,
            "image": list(self.shape.hwc),
            "classes": self.classes,
            "batch_size": self.batch_size,
            "layers": [{name: getattr(layer, name) for name in LAYER_KEYS} for layer in self.layers],
            "parameters": self.parameters,
            **({"not_trained": self.not_trained} if self.not_trained else {}),
            "weights_bytes": self.weights_bytes,
            "activation_bytes": self.activation_bytes,
            "training_bytes": self.training_bytes,
            "multiply_adds": self.multiply_adds,
        }

    @property
    def heading(self) -> str:
        """What is summarised, in words."""
        outputs = "one output" if self.classes == 2 else f"{outputs_of(self.classes)} outputs"
        inputs = f"images of {self.shape} (H×W×C)"
        if self.variant.takes_features:
            inputs = f"the {self.shape.channels} features of {self.variant.backbone}"
        return f"{self.variant.name} on {inputs}, {self.classes} classes ({outputs})"

    @property
    def _spread(self) -> str:
        return "variances" if any(layer.part is not None for layer in self.layers) else "deviations"

    def totals(self) -> list[tuple[str, str]]:
        """Return the sums, each with what it is."""
        batch = f"{self.batch_size} images"
        return [
            ("parameters", f"{self.parameters:,}"),
            *([(f"not trained: means and {self._spread}", f"{self.not_trained:,}")] if self.not_trained else []),
            ("weights", bytes_text(self.weights_bytes)),
            ("activations per image", bytes_text(self.activation_bytes)),
            (f"training memory, batches of {batch}, at least", bytes_text(self.training_bytes)),
            ("multiply-adds per image", f"{self.multiply_adds:,}"),
        ]

    def __str__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        text = io.StringIO()
        console = Console(file=text, width=200, highlight=False, markup=False, color_system=None)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, title in enumerate(COLUMNS):
            table.add_column(title, justify="left" if number < TEXTS else "right")
        for layer in self.layers:
            table.add_row(*row_of(layer))
        console.print(self.heading)
        console.print(table)
        wide = max(len(name) for name, _ in self.totals())
        for name, value in self.totals():
            console.print(f"{name:<{wide}}  {value}")
        return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())


COLUMNS = ("layer", "kind", "settings", "output", "parameters", "multiply-adds", "activations")
TEXTS = 3
# What `Summary.as_dict` says of a layer.
LAYER_KEYS = (
    *("name", "kind", "shape", "parameters", "multiply_adds", "activation_bytes", "kernel", "relu", "penalty", "rate"),
)


def summary(
    variant: str | Path | Variant,
    image_size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    described: Callable[[Variant, Shape, int], Variant] = lambda variant, _shape, _classes: variant,
) -> Summary:
    """Return the summary of a variant, as `photoflux.summary` says; it raises what that does.

    `described` makes the network of a variant that has a file in place of it.
    """
    chosen = variant_of(variant)
    own_channels, own_classes = _MADE_FOR.get(chosen.made_for, _FOLDER)
    classes = own_classes if classes is None else classes
    if chosen.takes_features:
        given = [name for name, value in (("image_size", image_size), ("channels", channels)) if value is not None]
        if given:
            raise SettingError(f"`{given[0]}` says nothing of {chosen.name}, which takes features. Leave it out.")
        features = sum(pretrained(name).features for name in str(chosen.backbone).split("+"))
        shape = Shape(features, 1, 1)
        return summary_of(chosen, shape, check_whole("`classes`", classes, 2), chosen.batch_size)
    size = chosen.image_size if image_size is None else image_size
    channels = own_channels if channels is None else channels
    check_image_size(size)
    if isinstance(channels, bool) or channels not in (1, 3):
        raise SettingError(f"`channels` must be 1 (grey) or 3 (RGB); received: {channels!r}.")
    classes = check_whole("`classes`", classes, 2)
    shape = Shape(channels, int(size), int(size))
    return summary_of(described(chosen, shape, classes), shape, classes, chosen.batch_size)


def summary_of(variant: Variant, shape: Shape, classes: int, batch_size: int) -> Summary:
    """Return the summary of a variant on images of a shape."""
    return Summary(variant, shape, classes, batch_size, layers(variant, shape, classes))


def size_text(shape: tuple[int, ...]) -> str:
    """Return a shape as text, 180×180×3."""
    return "×".join(map(str, shape))


def bytes_text(number: int) -> str:
    """Return a number of bytes as text, in the unit that suits it."""
    size, unit = float(number), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


def penalty_text(penalty: Mapping[str, float]) -> str:
    """Return the coefficients of a penalty as text, L1 0.005 + L2 0.005."""
    return " + ".join(f"{name.upper()} {value:g}" for name, value in penalty.items() if value)


def row_of(layer: Layer) -> tuple[str, ...]:
    """Return a layer's row of the table, as texts."""
    settings = [size_text(layer.kernel[:2])] if layer.kind == "convolution" else []
    settings += [layer.part.details] if layer.part is not None and layer.part.details else []
    settings += ["ReLU"] if layer.relu else []
    settings += [penalty_text(layer.penalty)] if penalty_text(layer.penalty) else []
    settings += [f"{layer.rate:g} in training"] if layer.rate else []
    return (
        layer.name,
        layer.kind,
        ", ".join(settings),
        size_text(layer.shape),
        f"{layer.parameters:,}",
        f"{layer.multiply_adds:,}",
        bytes_text(layer.activation_bytes),
    )
