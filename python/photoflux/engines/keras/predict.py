"""Computes logits with the Keras engine. Worker process only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors.numpy
import tensorflow as tf

from photoflux.data.shape import Shape
from photoflux.engines.keras.models import build_model
from photoflux.engines.keras.steps import input_type, to_pixels
from photoflux.model.variant import Variant
from photoflux.model.weights import read_weights_of


class Predictor:
    """Computes logits, and keeps the last model for as long as its weights file stays the same."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Release the model."""
        self._key: tuple[Any, ...] = ()
        self._forward: Any = None

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Load the model of a request, unless it is the last one."""
        shape = Shape(*request["shape"])
        path = Path(request["weights"])
        state = path.stat() if path.is_file() else None
        file = (state.st_mtime_ns, state.st_size, state.st_ino) if state else None
        key = (repr(request["variant"]), request["classes"], shape, path.absolute(), file)
        if key == self._key:
            return {}
        self.forget()
        keras.backend.clear_session()
        variant, classes = Variant.from_dict(request["variant"]), request["classes"]
        weights = read_weights_of(path, variant, shape, classes)
        model = build_model(variant, shape, classes, weights=weights)
        signature = [tf.TensorSpec([None, *shape], input_type(variant))]
        self._forward = tf.function(lambda images: model(to_pixels(images), training=False), input_signature=signature)
        self._key = key
        return {}

    def logits(self, request: dict[str, Any]) -> dict[str, Any]:
        """Write the logits of ``images`` in the file ``arrays`` to the file ``answer``."""
        images = safetensors.numpy.load_file(request["arrays"])["images"]
        self.load(request)
        size = request["batch_size"]
        parts = [self._forward(images[start : start + size]).numpy() for start in range(0, len(images), size)]
        write_answer(request, {"logits": np.concatenate(parts)})
        return {}


def write_answer(request: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays that a request asks for to its file ``answer``."""
    # Not atomic: into the scratch folder of the process that waits for it.
    safetensors.numpy.save_file(dict(arrays), request["answer"])
