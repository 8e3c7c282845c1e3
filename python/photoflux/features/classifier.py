"""Writes a backbone and a head as one ONNX graph, from pixels to logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from photoflux.data.shape import Shape
from photoflux.errors import RunError
from photoflux.features.backbone import Backbone
from photoflux.features.graph import FEATURES, IR_VERSION, OPSET, PIXELS
from photoflux.model.layers import Layer
from photoflux.system import atomic

if TYPE_CHECKING:
    import onnx

IMAGES, LOGITS = "images", "logits"


def write_classifier(
    path: Path, backbone: Backbone, layers: Sequence[Layer], weights: Mapping[str, np.ndarray], shape: Shape
) -> None:
    """Write a model of a backbone and a head as an ONNX file, under a temporary name that is renamed once.

    Its input ``images`` is float32, (N, H, W, C), 0 to 255; its output ``logits`` is float32, (N, outputs).

    Parameters
    ----------
    path : Path
        The file.
    backbone : Backbone
        Makes the features.
    layers : sequence of Layer
        Those of the head, first to last.
    weights : mapping of str to numpy.ndarray
        Theirs, by their names in weights files.
    shape : Shape
        Of the images.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    model = classifier_of(backbone, layers, weights, shape)
    try:
        with atomic.writing_file(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
    except OSError as error:
        raise RunError(
            f"The model cannot be written to {path}: {error.strerror or error}. Free space or choose another folder; "
            "what was there before is unchanged."
        ) from error


def classifier_of(
    backbone: Backbone, layers: Sequence[Layer], weights: Mapping[str, np.ndarray], shape: Shape
) -> onnx.ModelProto:
    """Return the graph that `write_classifier` writes."""
    import onnx
    from onnx import TensorProto, compose, helper, numpy_helper

    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    x = add("Transpose", [IMAGES], "planes", perm=[0, 3, 1, 2])
    if shape.channels == 1:
        x = add("Concat", [x, x, x], "colours", axis=1)
    opsets = {"": OPSET}
    features = []
    for number, network in enumerate(backbone.networks, 1):
        # Each network has names of its own, begins at the same pixels, and casts them to float32 itself.
        part = compose.add_prefix(network.model(), f"backbone{number}.")
        for node in part.graph.node:
            node.input[:] = [x if name == f"backbone{number}.{PIXELS}" else name for name in node.input]
        nodes += part.graph.node
        constants += part.graph.initializer
        features.append(f"backbone{number}.{FEATURES}")
        for opset in part.opset_import:
            opsets[opset.domain] = max(opset.version, opsets.get(opset.domain, 0))
    x = features[0] if len(features) == 1 else add("Concat", features, "features", axis=1)
    for layer in layers:
        if layer.kind == "standardisation":
            x = add("Sub", [x, constant(f"{layer.name}.mean", weights[f"{layer.name}.mean"])], "centred")
            x = add("Div", [x, constant(f"{layer.name}.deviation", weights[f"{layer.name}.deviation"])], layer.name)
        elif layer.kind == "dense":
            kernel = constant(f"{layer.name}.kernel", weights[f"{layer.name}.kernel"])
            bias = constant(f"{layer.name}.bias", weights[f"{layer.name}.bias"])
            x = add("Gemm", [x, kernel, bias], LOGITS if layer is layers[-1] else f"{layer.name}.sums")
            if layer.relu:
                x = add("Relu", [x], layer.name)
    graph = helper.make_graph(
        nodes,
        "photoflux",
        [helper.make_tensor_value_info(IMAGES, TensorProto.FLOAT, ["N", *shape.hwc])],
        [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["N", *layers[-1].shape])],
        constants,
    )
    imports = [helper.make_opsetid(domain, number) for domain, number in opsets.items()]
    model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="photoflux")
    onnx.checker.check_model(model)
    return model
