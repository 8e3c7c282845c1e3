"""A tiny image model in an ONNX file, which is a backbone without any package of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIZE, FEATURES = 24, 6


def write_backbone(path: Path, seed: int = 0, features: int = FEATURES) -> Path:
    """Write an image model: a convolution, ReLU and the mean over places."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.random.default_rng(seed).normal(0, 0.3, (features, 3, 3, 3)).astype(np.float32)
    kernel[0] = 0  # a feature that never changes, as there are for few images
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["pixels", "kernel"], ["sums"], auto_pad="SAME_UPPER"),
            helper.make_node("Relu", ["sums"], ["positive"]),
            helper.make_node("GlobalAveragePool", ["positive"], ["means"]),
            helper.make_node("Flatten", ["means"], ["features"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", features])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
