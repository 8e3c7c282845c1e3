"""The list of layers of a variant: weights, summary, Keras models, figure and tolerances are made from it alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from photoflux.data.shape import Shape
from photoflux.errors import SettingError
from photoflux.model.architectures import ARCHITECTURES, NETWORK
from photoflux.model.networks import Part, measured, parts_of, trained
from photoflux.model.variant import Variant

KERNEL, WINDOW = 3, 2
STATISTICS = ("mean", "deviation")
FLOAT = 4  # bytes of a Float32


@dataclass(frozen=True)
class Layer:
    """A layer, for one image.

    Attributes
    ----------
    name : str
        Its name in Flux' ``Chain``, in Keras' model and, where it has weights, in weights files.
    kind : str
        ``"rescaling"``, ``"standardisation"``, ``"convolution"``, ``"max pooling"``, ``"dropout"``, ``"flatten"`` or
        ``"dense"``; of a network of a user's own Flux's name of it.
    shape : tuple of int
        Of its output: (height, width, channels), or (units,).
    kernel : tuple of int
        The shape of its kernel in Keras' layout, (height, width, in, out) or (in, out); empty where it has none. With
        a kernel comes a bias, (out,). Of a network of a user's own as it is stored, (out, in, height, width).
    relu : bool
        Whether ReLU follows.
    group : str
        What a variant calls its kernel or its dropout rate, such as ``"conv"``; empty where it has neither.
    penalty : mapping of str to float
        ``{"l1": λ₁, "l2": λ₂}`` on its kernel, as in `Variant`; empty where there is none.
    rate : float
        The share of its inputs that a ``"dropout"`` layer sets to 0 in training; 0 for others.
    zeros : bool
        Whether its kernel starts at zero and not at Glorot-uniform numbers: of a linear head on features. Few images
        span few directions, and in the others drawn numbers would stay as noise.
    part : Part or None
        What a network of a user's own has here.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    relu: bool = False
    group: str = ""
    penalty: Mapping[str, float] = field(default_factory=dict)
    rate: float = 0.0
    zeros: bool = False
    part: Part | None = None

    @property
    def bias(self) -> tuple[int, ...]:
        """The shape of its bias; empty where it has none."""
        return self.kernel[-1:]

    @property
    def statistics(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of what it subtracts from and divides its input by: measured, not trained."""
        if self.part is not None:
            return measured(self.part.arrays)
        return dict.fromkeys(STATISTICS, self.shape[-1:]) if self.kind == "standardisation" else {}

    @property
    def stored(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each array that weights files have of it."""
        if self.part is not None:
            return dict(self.part.arrays)
        return self.statistics or ({"kernel": self.kernel, "bias": self.bias} if self.kernel else {})

    @property
    def terms(self) -> int:
        """The products and the bias that are summed for one number of its output; 0 without weights."""
        return math.prod(self.kernel[:-1]) + 1 if self.kernel else 0

    @property
    def places(self) -> int:
        """How often its kernel is applied to an image: once for each place of a convolution's output."""
        return math.prod(self.shape[:-1])

    @property
    def parameters(self) -> int:
        """Entries of its kernel and bias, or of all its arrays which are trained."""
        if self.part is not None:
            return trained(self.part.arrays)
        return math.prod(self.kernel) + math.prod(self.bias) if self.kernel else 0

    @property
    def multiply_adds(self) -> int:
        """Multiplications by an entry of the kernel, each followed by an addition, in one pass forward.

        Those with the zeros of the padding count. The bias, ReLU, rescaling, standardisation and pooling have none.
        """
        return self.places * math.prod(self.kernel) if self.kernel else 0

    @property
    def activation_bytes(self) -> int:
        """Of its output; 0 for ``"flatten"``, which gives the same numbers another shape."""
        return 0 if self.kind == "flatten" else FLOAT * math.prod(self.shape)


def outputs_of(classes: int) -> int:
    """Return the width of the output layer: one logit tells two classes apart, more classes have one each."""
    return 1 if classes == 2 else classes


def layers(variant: Variant, shape: Shape, classes: int) -> list[Layer]:
    """Return the layers of a variant on images of a shape, first to last; a dropout layer only where it drops.

    Raises
    ------
    SettingError
        If the variant takes features, (features, 1, 1), and the shape is that of images.

    Examples
    --------
    >>> from photoflux.model.variants import variant
    >>> [(layer.name, layer.shape) for layer in layers(variant("dense_l2"), Shape(1, 28, 28), 10)]
    [('rescale', (28, 28, 1)), ('flatten', (784,)), ('dense1', (128,)), ('output', (10,))]
    """
    if variant.takes_features and shape[1:] != (1, 1):
        raise SettingError(
            f"The variant {variant.name} takes the features of a backbone, not images of {shape} (H×W×C). "
            "Give a features dataset, (N, features, 1, 1)."
        )
    if variant.architecture == NETWORK:
        return _of_network(variant)
    found: list[Layer] = []

    def add(name: str, kind: str, size: tuple[int, ...], kernel: tuple[int, ...] = (), group: str = "") -> None:
        penalty = variant.penalty.get(group, {}) if kernel else {}
        found.append(Layer(name, kind, size, kernel, bool(kernel) and name != "output", group, penalty))

    def add_dropout(name: str, group: str) -> None:
        if rate := variant.dropout.get(group):
            found.append(Layer(name, "dropout", found[-1].shape, group=group, rate=rate))

    for block in ARCHITECTURES[variant.architecture]:
        height, width, channels = found[-1].shape if found else shape.hwc
        if block.kind == "convolution":
            kernel = (KERNEL, KERNEL, channels, block.filters)
            add(block.name, block.kind, (height, width, block.filters), kernel, block.group)
        elif block.kind == "max pooling":
            add(block.name, block.kind, (height // WINDOW, width // WINDOW, channels))
        elif block.kind == "dropout":
            add_dropout(block.name, block.group)
        else:
            add(block.name, block.kind, (height, width, channels))
    features = math.prod(found[-1].shape)
    add("flatten", "flatten", (features,))
    for number, units in enumerate(variant.hidden, 1):
        add(f"dense{number}", "dense", (units,), (features, units), "hidden")
        add_dropout(f"dense{number}_dropout", "hidden")
        features = units
    units = outputs_of(classes)
    add("output", "dense", (units,), (features, units), "output")
    if variant.takes_features and not variant.hidden:
        found[-1] = replace(found[-1], zeros=True)
    return found


def _of_network(variant: Variant) -> list[Layer]:
    penalty = variant.penalty.get("kernels", {})
    return [
        Layer(part.name, part.kind, part.output, kernel, penalty=penalty if kernel else {}, part=part)
        for part in parts_of(variant.chain or {})
        for kernel in (part.arrays.get("kernel", ()),)
    ]


def penalty_of(layers: Iterable[Layer], weights: Mapping[str, np.ndarray]) -> float:
    """Return the penalty λ₁·Σ|w| + λ₂·Σw² of named weights (``"conv1.kernel"``, …), summed in float64."""
    total = 0.0
    for layer in layers:
        if layer.penalty:
            w = np.asarray(weights[f"{layer.name}.kernel"], dtype=np.float64)
            total += layer.penalty.get("l1", 0.0) * float(np.abs(w).sum())
            total += layer.penalty.get("l2", 0.0) * float(np.square(w).sum())
    return total
