"""Exports weights as a Keras or ONNX file; a new format is added here. Worker process only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from photoflux.data.shape import Shape
from photoflux.engines.keras.backbone import features_of
from photoflux.engines.keras.models import build_model
from photoflux.errors import RunError
from photoflux.features.folding import Folded, read_folded
from photoflux.model.variant import Variant
from photoflux.model.weights import read_weights_of
from photoflux.system import atomic


def export(request: dict[str, Any]) -> dict[str, Any]:
    """Write the model to ``path``, in Keras' own format or by Keras' own ONNX exporter, and rename it once."""
    variant, path = Variant.from_dict(request["variant"]), Path(request["path"])
    shape = Shape(*request["shape"])
    keras.backend.clear_session()
    backbones = [read_folded(Path(backbone)) for backbone in request["backbones"]]
    taken = Shape(sum(backbone.features for backbone in backbones), 1, 1) if backbones else shape
    weights = read_weights_of(request["weights"], variant, taken, request["classes"])
    model = build_model(variant, taken, request["classes"], weights=weights)
    if backbones:
        model = _on_pixels(model, shape, backbones)
    try:
        # Both exporters go by the suffix.
        with atomic.writing_file(path, suffix=path.suffix) as temporary:
            if request["format"] == "onnx":
                model(np.zeros((1, *shape.hwc), np.float32))  # the exporter wants a model that was called
                model.export(temporary, format="onnx", verbose=False)
            else:
                model.save(temporary)
    except OSError as error:
        raise RunError(
            f"The model cannot be written to {path}: {error.strerror or error}. Free space or choose another folder; "
            "what was there before is unchanged."
        ) from error
    return {}


def _on_pixels(head: keras.Model, shape: Shape, backbones: Sequence[Folded]) -> keras.Model:
    """Return a head as a model of images, with the backbones before it."""
    pixels = keras.Input(shape.hwc, name="pixels")
    features = [features_of(pixels, backbone) for backbone in backbones]
    x = features[0] if len(features) == 1 else keras.layers.Concatenate(name="features")(features)
    return keras.Model(pixels, head(keras.layers.Reshape(head.input_shape[1:], name="as_pixel")(x)), name=head.name)
