"""The check of a backbone: what Flux makes of images, part by part, against ONNX Runtime."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from photoflux.features.backbone import Backbone
from photoflux.features.folding import Folded
from photoflux.features.graph import FEATURES, PIXELS, graph_of
from photoflux.features.network import PretrainedNetwork, with_channels
from photoflux.features.runtime import session_of
from photoflux.verification.checks import Check, compare
from photoflux.verification.tolerances import summed

WHY = "6·√n·eps·largest, n the terms summed on the way there"
IMAGES = 4


class Activations(Protocol):
    """A backbone that returns what each of its parts makes of images."""

    def activations(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the stem's, each block's, (N, C, H, W), and the features, (N, F), of uint8 images (N, C, H, W)."""
        ...


def backbone_check(ours: Activations, network: PretrainedNetwork, images: np.ndarray) -> Check:
    """Compare every block's activations and the features of some images.

    Parameters
    ----------
    ours : Activations
        The backbone in Flux.
    network : PretrainedNetwork
        The same in ONNX Runtime.
    images : numpy.ndarray
        uint8, (N, C, H, W).
    """
    found, expected = ours.activations(images), activations_of(network.folded, images)
    terms = terms_until(network.folded, expected)
    parts = [
        compare(name, found.get(name, np.empty(0)), value, summed(terms[name], max(float(np.abs(value).max()), 1e-6)))
        for name, value in expected.items()
    ]
    return Check(f"backbone {network.name}: every block", WHY, parts)


def networks_of(backbone: Backbone) -> list[PretrainedNetwork]:
    """Return the networks of a backbone that Flux has too: those of the table."""
    return [network for network in backbone.networks if isinstance(network, PretrainedNetwork)]


def activations_of(folded: Folded, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the stem, each block and the whole network give for images in ONNX Runtime."""
    from onnx import TensorProto, helper

    model = graph_of(folded)
    outputs = {"stem": "stem.relu6.output"}
    for number, block in enumerate(folded.blocks, 1):
        outputs[f"block{number}"] = f"block{number}.{'add' if block.residual else 'project'}.output"
    for output in outputs.values():
        model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    outputs["features"] = FEATURES
    given = {PIXELS: with_channels(np.ascontiguousarray(images))}
    found = session_of(model.SerializeToString()).run(list(outputs.values()), given)
    return dict(zip(outputs, map(np.asarray, found), strict=True))


def terms_until(folded: Folded, activations: dict[str, np.ndarray]) -> dict[str, int]:
    """Return the terms that are summed on the way to the stem, each block and the features."""
    found, total = {}, 0
    for name, kernel in folded.weights.items():
        if name.endswith(".kernel"):
            inputs = 1 if name.endswith(".depthwise.kernel") else kernel.shape[2]
            total += math.prod(kernel.shape[:2]) * inputs + 1
            found[name.partition(".")[0]] = total
    last = activations[f"block{len(folded.blocks)}"]
    return found | {"features": found["top"] + math.prod(last.shape[2:])}
