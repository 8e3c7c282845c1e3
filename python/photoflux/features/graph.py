"""Writes a backbone's network as an ONNX graph: pixels in, features out, any number of images of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from photoflux.features.folding import Folded
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
    builder = _Builder(folded.weights)
    image = builder.add("Cast", [PIXELS], "cast", to=1)
    image = builder.add("Sub", [image, builder.constant("mean", folded.mean)], "shift")
    x = builder.add("Div", [image, builder.constant("scale", folded.scale)], "scaled")
    x = builder.convolution("stem", x, stride=2, relu6=True)
    for number, block in enumerate(folded.blocks, 1):
        entered, name = x, f"block{number}"
        if block.expand:
            x = builder.convolution(f"{name}.expand", x, relu6=True)
        x = builder.convolution(f"{name}.depthwise", x, stride=block.stride, relu6=True)
        x = builder.convolution(f"{name}.project", x)
        if block.residual:
            x = builder.add("Add", [x, entered], f"{name}.add")
    x = builder.convolution("top", x, relu6=True)
    x = builder.add("GlobalAveragePool", [x], "pool")
    builder.add("Flatten", [x], "flatten", FEATURES, axis=1)
    return builder.model(folded.features, {"name": folded.name, "fingerprint": folded.fingerprint, "graph": GRAPH})


class _Builder:
    """Collects the nodes and constants of a graph."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        need("onnx")
        import onnx

        self._onnx = onnx
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: list[str], name: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = output or f"{name}.output"
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], name, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        """Add a Float32 constant and return its name."""
        self._constants.append(self._onnx.numpy_helper.from_array(np.asarray(value, np.float32, order="C"), name))
        return name

    def convolution(self, name: str, x: str, *, stride: int = 1, relu6: bool = False) -> str:
        """Add a convolution with its bias, and ReLU6 where it has one."""
        kernel = self._weights[f"{name}.kernel"]
        depthwise = name.endswith("depthwise")
        # Keras' (h, w, in, out), and (h, w, out, 1) of a depthwise one, is (out, in, h, w) here.
        axes = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
        inputs = [x, self.constant(f"{name}.kernel", kernel.transpose(axes)), f"{name}.bias"]
        self.constant(f"{name}.bias", self._weights[f"{name}.bias"])
        size = len(kernel)
        same = {"auto_pad": "SAME_UPPER"} if size > 1 else {}
        group = kernel.shape[2] if depthwise else 1
        x = self.add(
            "Conv", inputs, name, kernel_shape=[size, size], strides=[stride, stride], group=group, **same
        )  # fmt: skip
        if not relu6:
            return x
        if not any(tensor.name == "six" for tensor in self._constants):
            self.constant("zero", 0), self.constant("six", 6)
        return self.add("Clip", [x, "zero", "six"], f"{name}.relu6")

    def model(self, features: int, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """Return the whole model, checked."""
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        pixels = helper.make_tensor_value_info(PIXELS, kinds.UINT8, ["images", 3, "height", "width"])
        output = helper.make_tensor_value_info(FEATURES, kinds.FLOAT, ["images", features])
        graph = helper.make_graph(self._nodes, metadata["name"], [pixels], [output], self._constants)
        model: onnx.ModelProto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="photoflux",
        )
        helper.set_model_props(model, dict(metadata))
        self._onnx.checker.check_model(model)
        return model
