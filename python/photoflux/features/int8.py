"""A network of the table in 8 bits: how its numbers are rounded, and what is measured on the training images for it.

Weights have a scale for each channel and are symmetric about 0; activations have one for each layer, by the least and
greatest number that the training images gave there; a ReLU6 is the end of its layer's range. The stem and the first
block stay in Float32, for a third less error at 3 % of the time (efficientnet-lite2), and so does the mean over height
and width. All sums are exact integers: weights are signed, which is faster, only where that adds without saturation.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from photoflux.errors import BackboneError
from photoflux.features.folding import Folded
from photoflux.features.graph import FEATURES, PIXELS, Builder, layers_of, ranges_graph_of
from photoflux.features.network import Network, PretrainedNetwork, with_channels
from photoflux.features.runtime import session_of

if TYPE_CHECKING:
    import onnx
    import onnxruntime

Ranges = Mapping[str, tuple[float, float]]
GRAPH = "1"  # counts changes of what is written here: it is part of the fingerprint


def measured(folded: Folded, batches: Iterable[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Return the least and greatest number of each layer over images, by the layer's name, computed in Float32.

    Parameters
    ----------
    folded : Folded
        The network.
    batches : iterable of numpy.ndarray
        uint8, (n, C, H, W), at least one.
    """
    session = session_of(ranges_graph_of(folded).SerializeToString())
    names = [output.name for output in session.get_outputs()]
    found = np.array([session.run(names, {PIXELS: with_channels(batch)}) for batch in batches], np.float32)
    least, greatest = found[:, 0::2].min(axis=0), found[:, 1::2].max(axis=0)
    # 0 is always among the numbers: it is what padding is.
    limits = zip(np.minimum(least, 0).tolist(), np.maximum(greatest, 0).tolist(), strict=True)
    every = dict(zip(layers_of(folded.blocks), limits, strict=True))
    return {name: every[name] for name in rounded_layers(folded)}


def rounded_layers(folded: Folded) -> list[str]:
    """Return the names of the layers whose outputs are rounded: the first block's last one, and all after it."""
    last = "block1.add" if folded.blocks[0].residual else "block1.project"
    names = layers_of(folded.blocks)
    return names[names.index(last) :]


class Int8Network(Network):
    """A network of the table whose weights and activations are rounded to 8 bits.

    Parameters
    ----------
    network : PretrainedNetwork
        The network in Float32.
    ranges : mapping of str to (float, float)
        What `measured` gave: with them it is the same network on any machine.

    Raises
    ------
    BackboneError
        If the ranges are not those of this network's layers.
    """

    def __init__(self, network: PretrainedNetwork, ranges: Ranges) -> None:
        self._folded = network.folded
        self.name, self.features, self.image_size = network.name, network.features, network.image_size
        if list(ranges) != rounded_layers(self._folded) or not all(
            np.isfinite((low, high)).all() and low <= 0 <= high for low, high in ranges.values()
        ):
            raise BackboneError(
                f"The ranges of the 8-bit {self.name} are not those of its layers. Take another copy of the run, or "
                "train again."
            )
        self.ranges = {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
        parts = [network.fingerprint, GRAPH, list(self.ranges.values())]
        self.fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return session_of(int8_graph_of(self._folded, self.ranges).SerializeToString())

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the features, float32 (N, F), of a batch, uint8 (N, 3, H, W)."""
        (features,) = self._session.run([FEATURES], {PIXELS: np.ascontiguousarray(images)})
        return np.asarray(features)

    def model(self) -> onnx.ModelProto:
        """Return its graph; see `Network.model`."""
        return int8_graph_of(self._folded, self.ranges)

    def as_dict(self) -> dict[str, Any]:
        """Return its name, fingerprint and ranges."""
        ranges = {name: list(limits) for name, limits in self.ranges.items()}
        return {"name": self.name, "fingerprint": self.fingerprint, "ranges": ranges}


@cache
def signed_is_exact() -> bool:
    """Say whether this CPU is known to add unsigned times signed 8-bit products exactly: ARM's, and x86 with VNNI."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def int8_graph_of(folded: Folded, ranges: Ranges, signed: bool | None = None) -> onnx.ModelProto:
    """Return the graph of a network in 8 bits; input and output are those of `photoflux.features.graph.graph_of`.

    Parameters
    ----------
    folded : Folded
        The network.
    ranges : mapping of str to (float, float)
        Of each layer.
    signed : bool, optional
        Whether weights are written signed, by default as `signed_is_exact` says; the weights are the same integers.
    """
    graph = _Int8(folded, ranges, signed_is_exact() if signed is None else signed)
    builder = graph.builder
    first = builder.block(1, folded.blocks[0], builder.beginning(folded))
    last = rounded_layers(folded)[0]
    x = builder.add("QuantizeLinear", [first, *graph.rounding(last)], "rounded"), last
    for number, block in enumerate(folded.blocks[1:], 2):
        name, entered = f"block{number}", x
        if block.expand:
            x = graph.convolution(f"{name}.expand", *x)
        x = graph.convolution(f"{name}.depthwise", *x, stride=block.stride)
        x = graph.convolution(f"{name}.project", *x)
        if block.residual:
            x = graph.addition(f"{name}.add", x, entered)
    output, _ = graph.convolution("top", *x)
    numbers = builder.add("DequantizeLinear", [output, *graph.rounding("top")], "numbers")
    builder.add("Flatten", [builder.add("GlobalAveragePool", [numbers], "pool")], "flatten", FEATURES, axis=1)
    return builder.model({FEATURES: ["images", folded.features]}, {"name": folded.name})


class _Int8:
    """Adds layers in 8 bits to a graph; an activation goes by its tensor and the layer whose range it has."""

    def __init__(self, folded: Folded, ranges: Ranges, signed: bool) -> None:
        self._signed = signed
        self.builder = Builder(folded.weights)
        self._folded = folded
        self._rounding: dict[str, tuple[float, int]] = {}
        for name, (low, high) in ranges.items():
            step = float(np.float32((high - low) / 255)) or 1.0
            self._rounding[name] = (step, round(-low / step))

    def rounding(self, layer: str) -> list[str]:
        """Return the constants with which a layer's output is rounded: the step, and the number that means 0."""
        step, zero = self._rounding[layer]
        return [
            self.builder.constant(f"{layer}.step", np.float32(step)),
            self.builder.constant(f"{layer}.zero", np.uint8(zero)),
        ]

    def convolution(self, name: str, x: str, origin: str, *, stride: int = 1) -> tuple[str, str]:
        """Add a convolution; a ReLU6 after it is the end of its range, which begins at 0."""
        builder, kernel = self.builder, self.builder.kernel(name).astype(np.float64)
        steps = np.abs(kernel).max(axis=(1, 2, 3)) / 127
        steps[steps == 0] = 1.0
        rounded = np.rint(kernel / steps[:, None, None, None])
        zero = np.int8(0) if self._signed else np.uint8(128)
        bias = np.rint(self._folded.weights[f"{name}.bias"] / (steps * self._rounding[origin][0]))
        weights = [
            builder.constant(f"{name}.kernel", (rounded + zero).astype(zero.dtype)),
            builder.constant(f"{name}.kernel.steps", steps.astype(np.float32)),
            builder.constant(f"{name}.kernel.zeros", np.full(len(steps), zero)),
        ]
        limit = 2**31 - 1
        inputs = [x, *self.rounding(origin), *weights, *self.rounding(name)]
        inputs.append(builder.constant(f"{name}.bias", np.clip(bias, -limit, limit).astype(np.int32)))
        return builder.add("QLinearConv", inputs, name, **builder.geometry(name, stride)), name

    def addition(self, name: str, one: tuple[str, str], other: tuple[str, str]) -> tuple[str, str]:
        """Add a residual addition."""
        parts = [part for x, origin in (one, other) for part in (x, *self.rounding(origin))]
        return self.builder.add("QLinearAdd", [*parts, *self.rounding(name)], name, domain="com.microsoft"), name
