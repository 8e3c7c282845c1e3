"""Logits and traces of the Keras engine. Worker process only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors.numpy
import tensorflow as tf

from photoflux.engines.keras_models import build_model, get_weights, named_variables, set_weights
from photoflux.engines.keras_steps import Measured, gradients, to_pixels
from photoflux.variants import Variant
from photoflux.weights import read_weights_of


class Predictor:
    """Computes logits, and keeps the last model for as long as its weights file stays the same."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Let go of the model."""
        self._key: tuple[Any, ...] = ()
        self._forward: Any = None

    def logits(self, request: dict[str, Any]) -> dict[str, Any]:
        """Write the logits of ``images`` in the file ``arrays`` to the file ``answer``."""
        images = safetensors.numpy.load_file(request["arrays"])["images"]
        self._load(request, *images.shape[1:])
        size = request["batch_size"]
        parts = [self._forward(images[start : start + size]).numpy() for start in range(0, len(images), size)]
        safetensors.numpy.save_file({"logits": np.concatenate(parts)}, request["answer"])
        return {}

    def _load(self, request: dict[str, Any], channels: int, height: int, width: int) -> None:
        path = Path(request["weights"])
        state = path.stat() if path.is_file() else None
        file = (state.st_mtime_ns, state.st_size, state.st_ino) if state else None
        key = (repr(request["variant"]), request["classes"], channels, height, width, path.absolute(), file)
        if key == self._key:
            return
        self.forget()
        keras.backend.clear_session()
        variant, classes = Variant.from_dict(request["variant"]), request["classes"]
        weights = read_weights_of(path, variant, channels, height, width, classes)
        model = build_model(variant, channels, height, width, classes)
        set_weights(model, weights)
        signature = [tf.TensorSpec([None, channels, height, width], tf.uint8)]
        self._forward = tf.function(lambda images: model(to_pixels(images), training=False), input_signature=signature)
        self._key = key


def trace(request: dict[str, Any]) -> dict[str, Any]:
    """Run the steps of a `TraceRequest` and write every number of them to the file ``answer``."""
    arrays = safetensors.numpy.load_file(request["arrays"])
    images, labels = arrays["images"], arrays["labels"]
    masks = {name.removeprefix("mask/"): value for name, value in arrays.items() if name.startswith("mask/")}
    variant, classes = Variant.from_dict(request["variant"]), request["classes"]
    channels, height, width = images.shape[2:]
    keras.backend.clear_session()
    weights = read_weights_of(request["weights"], variant, channels, height, width, classes)
    model = build_model(variant, channels, height, width, classes, masks=masks)
    set_weights(model, weights)
    optimizer = keras.optimizers.Adam(request["learning_rate"])
    names = list(named_variables(model))

    answer: dict[str, np.ndarray] = {}
    measured: list[Measured] = []
    for step in range(len(images)):
        pixels = to_pixels(images[step])
        inputs = [pixels, *(tf.constant(mask[step]) for mask in masks.values())] if masks else pixels
        if step == 0:
            answer["logits"] = model(inputs, training=False).numpy()
        factors = np.ones(len(labels[step]), np.float32)
        slopes, measure = gradients(model, variant, classes, inputs, labels[step], factors)
        measured.append(measure)
        optimizer.apply(slopes, model.trainable_variables)
        if step == 0:
            answer |= {f"gradient/{name}": np.array(slope) for name, slope in zip(names, slopes, strict=True)}
            answer |= {f"first/{name}": value for name, value in get_weights(model).items()}
    answer |= {f"final/{name}": value for name, value in get_weights(model).items()}
    loss = np.array([float(measure.loss) for measure in measured], np.float32)
    penalty = np.array([float(measure.penalty) for measure in measured], np.float32)
    answer |= {"loss": loss, "penalty": penalty, "total": loss + penalty}
    safetensors.numpy.save_file(answer, request["answer"])
    return {}
