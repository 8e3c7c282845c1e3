"""Exports weights as a Keras or ONNX file; a new format is added here. Worker process only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from photoflux.data.shape import Shape
from photoflux.engines.keras.models import build_model
from photoflux.errors import RunError
from photoflux.model.variants import Variant
from photoflux.model.weights import read_weights_of
from photoflux.system import atomic


def export(request: dict[str, Any]) -> dict[str, Any]:
    """Write the model to ``path``, in Keras' own format or by Keras' own ONNX exporter, and rename it once."""
    variant, path = Variant.from_dict(request["variant"]), Path(request["path"])
    shape = Shape(*request["shape"])
    keras.backend.clear_session()
    weights = read_weights_of(request["weights"], variant, shape, request["classes"])
    model = build_model(variant, shape, request["classes"], weights=weights)
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
