"""`photoflux.summary`: the layers of a variant, their shapes, parameters, memory and multiply-adds."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from photoflux.data.checks import check_image_size
from photoflux.errors import SettingError
from photoflux.model.variants import Variant
from photoflux.model.variants import variant as variant_of
from photoflux.model.weights import expected_shapes, outputs_of

FLOAT = 4
# A weight, its gradient, and the two moments of Adam.
COPIES = 4
# Channels and classes of the data for which a variant was made, where they are not those of a folder of images.
_MADE_FOR = {"CIFAR-10": (3, 10), "28×28 images: MNIST, Fashion-MNIST": (1, 10)}
_FOLDER = (3, 2)


@dataclass(frozen=True)
class Layer:
    """A layer, for one image; all of its numbers are ``Float32``.

    Attributes
    ----------
    name : str
        Its name in Flux' ``Chain``, in Keras' model and, where it has weights, in weights files.
    kind : str
        ``"rescaling"``, ``"convolution"``, ``"max pooling"``, ``"dropout"``, ``"flatten"`` or ``"dense"``.
    shape : tuple of int
        Of its output: (height, width, channels), or (units,).
    parameters : int
        Entries of its kernel and bias.
    multiply_adds : int
        Multiplications by an entry of the kernel, each followed by an addition, in one pass forward; those with the
        zeros of the padding count. The bias, ReLU, rescaling and pooling have none.
    activation_bytes : int
        Of its output; 0 for ``"flatten"``, which gives the same numbers another shape.
    kernel : tuple of int
        The shape of its kernel in Keras' layout; empty where it has none.
    relu : bool
        Whether ReLU follows.
    penalty : mapping of str to float
        ``{"l1": λ₁, "l2": λ₂}`` on its kernel, as in `Variant`; empty where there is none.
    rate : float
        The share of its inputs that a ``"dropout"`` layer sets to 0 in training; 0 for others.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int = 0
    multiply_adds: int = 0
    activation_bytes: int = 0
    kernel: tuple[int, ...] = ()
    relu: bool = False
    penalty: Mapping[str, float] = field(default_factory=dict)
    rate: float = 0.0


@dataclass(frozen=True)
class Summary:
    """What a variant is made of, for images of a size and a number of classes.

    Attributes
    ----------
    variant : Variant
        The recipe.
    image : tuple of int
        (height, width, channels) of an image.
    classes, batch_size : int
        Number of classes, and images a training step.
    layers : list of Layer
        First to last.
    """

    variant: Variant
    image: tuple[int, int, int]
    classes: int
    batch_size: int
    layers: list[Layer] = field(repr=False)

    @property
    def parameters(self) -> int:
        """All weights and biases; all of them are trained."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def weights_bytes(self) -> int:
        """Size of the weights."""
        return FLOAT * self.parameters

    @property
    def activation_bytes(self) -> int:
        """Size of an image and of what every layer makes of it."""
        return FLOAT * math.prod(self.image) + sum(layer.activation_bytes for layer in self.layers)

    @property
    def training_bytes(self) -> int:
        """What a training step needs at least: weights, gradient, Adam's two moments, and a batch's activations.

        An estimate: gradients of activations and the working memory of the convolutions come on top, and an engine may
        free or reuse what it no longer needs.
        """
        return COPIES * self.weights_bytes + self.batch_size * self.activation_bytes

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of an image's way forward; a training step takes about three times as many."""
        return sum(layer.multiply_adds for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "variant": self.variant.name,
            "image": list(self.image),
            "classes": self.classes,
            "batch_size": self.batch_size,
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "parameters": self.parameters,
            "weights_bytes": self.weights_bytes,
            "activation_bytes": self.activation_bytes,
            "training_bytes": self.training_bytes,
            "multiply_adds": self.multiply_adds,
        }

    @property
    def heading(self) -> str:
        """What is summarised, in words."""
        size = size_text(self.image)
        outputs = "one output" if self.classes == 2 else f"{outputs_of(self.classes)} outputs"
        return f"{self.variant.name} on images of {size} (H×W×C), {self.classes} classes ({outputs})"

    def totals(self) -> list[tuple[str, str]]:
        """Return the sums, each with what it is."""
        batch = f"{self.batch_size} images"
        return [
            ("parameters", f"{self.parameters:,}"),
            ("weights", bytes_text(self.weights_bytes)),
            ("activations, an image", bytes_text(self.activation_bytes)),
            (f"training memory, batches of {batch}, at least", bytes_text(self.training_bytes)),
            ("multiply-adds, an image", f"{self.multiply_adds:,}"),
        ]

    def __str__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        text = io.StringIO()
        console = Console(file=text, width=200, highlight=False, color_system=None)
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


def summary(
    variant: str | Variant, image_size: int | None = None, channels: int | None = None, classes: int | None = None
) -> Summary:
    """Return the summary of a variant, as `photoflux.summary` says; it raises what that does."""
    chosen = variant_of(variant)
    own_channels, own_classes = _MADE_FOR.get(chosen.made_for, _FOLDER)
    size = chosen.image_size if image_size is None else image_size
    channels = own_channels if channels is None else channels
    classes = own_classes if classes is None else classes
    check_image_size(size)
    if isinstance(channels, bool) or channels not in (1, 3):
        raise SettingError(f"`channels` must be 1 (grey) or 3 (RGB); received: {channels!r}.")
    if isinstance(classes, bool) or not isinstance(classes, int | np.integer) or classes < 2:
        raise SettingError(f"`classes` must be a whole number, 2 or more; received: {classes!r}.")
    return summary_of(chosen, (int(size), int(size), channels), int(classes), chosen.batch_size)


def summary_of(recipe: Variant, image: tuple[int, int, int], classes: int, batch_size: int) -> Summary:
    """Return the summary of a variant on images of (height, width, channels)."""
    height, width, channels = image
    weights = expected_shapes(recipe, channels, height, width, classes)
    layers: list[Layer] = []
    shape: tuple[int, ...] = image

    def add(name: str, kind: str, **values: Any) -> None:
        layers.append(Layer(name, kind, shape, **{"activation_bytes": FLOAT * math.prod(shape), **values}))

    def add_weighted(name: str, kind: str, group: str) -> None:
        kernel, bias = weights[f"{name}.kernel"], weights[f"{name}.bias"]
        places = math.prod(shape[:-1])
        add(
            name,
            kind,
            parameters=math.prod(kernel) + math.prod(bias),
            multiply_adds=places * math.prod(kernel),
            kernel=kernel,
            relu=name != "output",
            penalty=dict(recipe.penalty.get(group, {})),
        )

    def add_dropout(name: str, group: str) -> None:
        if recipe.dropout.get(group):
            add(name, "dropout", rate=recipe.dropout[group])

    add("rescale", "rescaling")
    names = [name.removesuffix(".kernel") for name in weights if name.endswith(".kernel")]
    for name in names:
        units = weights[f"{name}.bias"]
        if name.startswith("conv"):
            shape = (*shape[:2], *units)
            add_weighted(name, "convolution", "conv")
            if name == "conv1":
                shape = (shape[0] // 2, shape[1] // 2, shape[2])
                add("pool", "max pooling")
                add_dropout("pool_dropout", "pool")
            continue
        if len(shape) > 1:
            shape = (math.prod(shape),)
            add("flatten", "flatten", activation_bytes=0)
        assert weights[f"{name}.kernel"][0] == shape[0], f"the layers and the table of shapes disagree at {name}"
        shape = units
        add_weighted(name, "dense", "output" if name == "output" else "hidden")
        if name != "output":
            add_dropout(f"{name}_dropout", "hidden")
    return Summary(recipe, image, classes, batch_size, layers)


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
