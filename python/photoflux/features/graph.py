"""Writes a backbone's network as an ONNX graph: pixels in, features out, any number of images of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from photoflux.features.folding import Block, Folded
from photoflux.features.runtime import need

if TYPE_CHECKING:
    import onnx

# Read by every ONNX Runtime that the extra admits; a newer onnx would write a newer one.
OPSET, IR_VERSION = 17, 8
GRAPH = "1"  # counts changes of what is written here: a graph in the cache of another count is written again
PIXELS, FEATURES = "pixels", "features"


def graph_of(folded: Folded) -> onnx.ModelProto:
    """Return a network's graph.

    Its input ``pixels`` is uint8, (N, 3, H, W), 0 to 255, RGB; its output ``features`` is float32, (N, F). The names
    of the nodes are those of the layers in the weights file.

    Parameters
    ----------
    folded : Folded
        The weights, with what they mean.

    Raises
    ------
    BackboneError
        If the package onnx is not installed.
    """
    builder, x = _layers(folded)
    x = builder.add("GlobalAveragePool", [x], "pool")
    builder.add("Flatten", [x], "flatten", FEATURES, axis=1)
    metadata = {"name": folded.name, "fingerprint": folded.fingerprint, "graph": GRAPH}
    return builder.model({FEATURES: ["images", folded.features]}, metadata)


def ranges_graph_of(folded: Folded) -> onnx.ModelProto:
    """Return the graph that gives, for each layer and residual addition by name, its least and greatest number.

    Its outputs are ``NAME.least`` and ``NAME.greatest`` over all images of a batch.
    """
    builder, _ = _layers(folded)
    outputs: dict[str, list[str | int]] = {}
    for name in layers_of(folded.blocks):
        for kind, node in (("least", "ReduceMin"), ("greatest", "ReduceMax")):
            relu6 = f"{name}.relu6.output"
            x = relu6 if relu6 in builder.outputs else f"{name}.output"
            outputs[builder.add(node, [x], f"{name}.{kind}.node", f"{name}.{kind}", keepdims=0)] = []
    return builder.model(outputs, {"name": folded.name})


def layers_of(blocks: Sequence[Block]) -> list[str]:
    """Return the names of the convolutions and residual additions of a network, in its order."""
    names = ["stem"]
    for number, block in enumerate(blocks, 1):
        parts = ("expand", "depthwise", "project", "add")
        left_out = {part for part, there in (("expand", block.expand), ("add", block.residual)) if not there}
        names += [f"block{number}.{part}" for part in parts if part not in left_out]
    return [*names, "top"]


def _layers(folded: Folded) -> tuple[Builder, str]:
    """Return a graph up to the last convolution, and the name of its output."""
    builder = Builder(folded.weights)
    x = builder.beginning(folded)
    for number, block in enumerate(folded.blocks, 1):
        x = builder.block(number, block, x)
    return builder, builder.convolution("top", x, relu6=True)


class Builder:
    """Collects the nodes and constants of a graph.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
        A network's, in Keras' layouts.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        need("onnx")
        import onnx

        self._onnx = onnx
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self.outputs: set[str] = set()

    def add(self, kind: str, inputs: list[str], name: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = output or f"{name}.output"
        self.outputs.add(output)
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], name, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        """Add a constant of the value's type, once for each name, and return its name."""
        if name not in self._constants:
            self._constants[name] = self._onnx.numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def geometry(self, name: str, stride: int) -> dict[str, Any]:
        """Return the attributes of a layer's convolution: its size, groups and padding."""
        kernel = self._weights[f"{name}.kernel"]
        size, groups = len(kernel), kernel.shape[2] if name.endswith("depthwise") else 1
        same = {"auto_pad": "SAME_UPPER"} if size > 1 else {}
        return {"kernel_shape": [size, size], "strides": [stride, stride], "group": groups, **same}

    def kernel(self, name: str) -> np.ndarray:
        """Return a layer's kernel in ONNX' layout, (out, in, h, w)."""
        # Keras has (h, w, in, out), and (h, w, out, 1) of a depthwise convolution.
        axes = (2, 3, 0, 1) if name.endswith("depthwise") else (3, 2, 0, 1)
        return self._weights[f"{name}.kernel"].transpose(axes)

    def convolution(self, name: str, x: str, *, stride: int = 1, relu6: bool = False) -> str:
        """Add a convolution with its bias, and ReLU6 where it has one."""
        inputs = [x, self.constant(f"{name}.kernel", self.kernel(name)), f"{name}.bias"]
        self.constant(f"{name}.bias", self._weights[f"{name}.bias"])
        x = self.add("Conv", inputs, name, **self.geometry(name, stride))
        if not relu6:
            return x
        limits = [self.constant("zero", np.float32(0)), self.constant("six", np.float32(6))]
        return self.add("Clip", [x, *limits], f"{name}.relu6")

    def beginning(self, folded: Folded) -> str:
        """Add what pixels go through first, their scaling and the stem, and return the name of its output."""
        image = self.add("Cast", [PIXELS], "cast", to=1)
        image = self.add("Sub", [image, self.constant("mean", np.float32(folded.mean))], "shift")
        x = self.add("Div", [image, self.constant("scale", np.float32(folded.scale))], "scaled")
        return self.convolution("stem", x, stride=2, relu6=True)

    def block(self, number: int, block: Block, entered: str) -> str:
        """Add a block, and return the name of its output."""
        name, x = f"block{number}", entered
        if block.expand:
            x = self.convolution(f"{name}.expand", x, relu6=True)
        x = self.convolution(f"{name}.depthwise", x, stride=block.stride, relu6=True)
        x = self.convolution(f"{name}.project", x)
        return self.add("Add", [x, entered], f"{name}.add") if block.residual else x

    def model(self, outputs: Mapping[str, list[str | int]], metadata: Mapping[str, str]) -> onnx.ModelProto:
        """Return the whole model, checked; its outputs are Float32 of the shapes given."""
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        pixels = helper.make_tensor_value_info(PIXELS, kinds.UINT8, ["images", 3, "height", "width"])
        made = [helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self._nodes, metadata["name"], [pixels], made, list(self._constants.values()))
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain for node in self._nodes):
            opsets.append(helper.make_opsetid("com.microsoft", 1))
        model: onnx.ModelProto = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="photoflux"
        )
        helper.set_model_props(model, dict(metadata))
        self._onnx.checker.check_model(model)
        return model
