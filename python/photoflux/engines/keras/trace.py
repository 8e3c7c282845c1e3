"""Returns every intermediate number of some steps, for `photoflux verify`. Worker process only."""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors.numpy
import tensorflow as tf

from photoflux.data.prepared import open_prepared
from photoflux.data.shape import Shape
from photoflux.engines.keras.models import build_model, get_weights, named_variables
from photoflux.engines.keras.predict import write_answer
from photoflux.engines.keras.state import early_stopping
from photoflux.engines.keras.steps import Measured, gradients, moments_of, step, to_pixels
from photoflux.engines.proof import Augmentation
from photoflux.model.variant import Variant
from photoflux.model.weights import read_weights_of

Request = dict[str, Any]


def trace(request: Request) -> Request:
    """Run the steps of a `TraceRequest` and write every number of them to the file ``answer``."""
    arrays = safetensors.numpy.load_file(request["arrays"])
    masks = {name.removeprefix("mask/"): value for name, value in arrays.items() if name.startswith("mask/")}
    variant, classes, shape = Variant.from_dict(request["variant"]), request["classes"], Shape.of(arrays["images"])
    weights = read_weights_of(request["weights"], variant, shape, classes)
    statistics = tuple((name, weights[name].tobytes()) for name in weights if name.startswith("standardise."))
    spec = json.dumps(request["variant"], sort_keys=True)
    traced = _traced(spec, shape, classes, tuple(masks), request["learning_rate"], statistics)
    write_answer(request, traced.run(weights, arrays["images"], arrays["labels"], masks))
    return {}


@lru_cache(maxsize=1)
def _traced(
    spec: str,
    shape: Shape,
    classes: int,
    masks: tuple[str, ...],
    rate: float,
    statistics: tuple[tuple[str, bytes], ...],
) -> Traced:
    """Return the steps for requests that differ in nothing but weights and batches: most of a trace is to build them.

    A standardisation's `statistics` are constants of the compiled steps.
    """
    given = {name: np.frombuffer(value, np.float32) for name, value in statistics}
    return Traced(Variant.from_dict(json.loads(spec)), shape, classes, masks, rate, given)


class Traced:
    """The compiled steps of a variant that return every intermediate number."""

    def __init__(
        self,
        variant: Variant,
        shape: Shape,
        classes: int,
        masks: tuple[str, ...],
        rate: float,
        statistics: dict[str, np.ndarray],
    ) -> None:
        keras.backend.clear_session()
        model = self._model = build_model(variant, shape, classes, masks=masks, weights=statistics)
        optimizer = self._optimizer = keras.optimizers.Adam(rate)
        optimizer.build(model.trainable_variables)
        layers = _shown_layers(model)
        self._layers = [layer.name for layer in layers]
        whole = keras.Model(model.inputs, [layer.output for layer in layers])

        # The activations are those that the gradient is made from: another graph may round otherwise, and be on another
        # side of a kink.
        @tf.function  # type: ignore[untyped-decorator]
        def train(inputs: Any, labels: Any, factors: Any) -> tuple[list[Any], Measured, list[Any]]:
            values: list[Any] = []

            def logits_of(inputs: Any) -> Any:
                values.extend(whole(inputs, training=True))
                return values[-1]

            slopes, measured = gradients(model, variant, classes, inputs, labels, factors, logits_of)
            step(optimizer, model, variant, slopes)
            return slopes, measured, values

        self._train = train

    def run(
        self, weights: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray, masks: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Run the steps from these weights; return the numbers that `ProofEngine.trace` lists."""
        model, optimizer = self._model, self._optimizer
        variables = named_variables(model)
        for name, variable in variables.items():
            variable.assign(weights[name])
        for variable in (optimizer.iterations, *chain.from_iterable(moments_of(optimizer))):
            variable.assign(np.zeros(variable.shape))
        answer = _named("initial", get_weights(model))
        measured: list[Measured] = []
        for number in range(len(images)):
            pixels = to_pixels(images[number])
            inputs = [pixels, *(tf.constant(mask[number]) for mask in masks.values())] if masks else pixels
            factors = tf.ones(len(labels[number]))
            slopes, measure, values = self._train(inputs, tf.constant(labels[number]), factors)
            measured.append(measure)
            if number == 0:
                named = zip(self._layers, values, strict=True)
                answer |= _named("activation", {name: value.numpy() for name, value in named})
                answer["logits"] = answer["activation/output"]
                answer |= _named("gradient", dict(zip(variables, map(np.array, slopes), strict=True)))
                answer |= _named("first", get_weights(model))
                for order, moments in enumerate(zip(*moments_of(optimizer), strict=True), 1):
                    answer |= _named(f"moment{order}", dict(zip(variables, map(np.array, moments), strict=True)))
        answer |= _named("final", get_weights(model))
        loss = np.array([float(measure.loss) for measure in measured], np.float32)
        penalty = np.array([float(measure.penalty) for measure in measured], np.float32)
        return answer | {"loss": loss, "penalty": penalty, "total": loss + penalty}


def _named(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def _shown_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers that compute, first to last; the others only rename."""
    renaming = keras.layers.InputLayer | keras.layers.Flatten | keras.layers.Permute
    return [layer for layer in model.layers if not isinstance(layer, renaming)]


def stopping(request: Request) -> Request:
    """Return after which epoch Keras' own callback ends a fit with these totals, and its best epoch, both from 1."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    callback = early_stopping(model, request["patience"])
    ended = 0
    for epoch, total in enumerate(request["totals"]):
        callback.on_epoch_end(epoch, {"val_loss": total})
        ended = epoch + 1
        if model.stop_training:
            break
    return {"ended": ended, "best": callback.best_epoch + 1}


def augmented(request: Request) -> Request:
    """Write the images of the file ``arrays``, each through Keras' layers with the drawn values, to ``answer``."""
    images = safetensors.numpy.load_file(request["arrays"])["images"]
    values = [_transformed(image, Augmentation(**drawn)) for image, drawn in zip(images, request["drawn"], strict=True)]
    write_answer(request, {"images": np.stack(values)})
    return {}


def _transformed(image: np.ndarray, drawn: Augmentation) -> np.ndarray:
    x = to_pixels(image[None])
    flips = {"horizontal": drawn.flip_x, "vertical": drawn.flip_y}
    for mode in (mode for mode, flipped in flips.items() if flipped):
        x = keras.layers.RandomFlip(mode).transform_images(x, {"flips": np.ones((1, 1, 1, 1), bool)})
    # A range with one value in it draws that value.
    if drawn.angle:
        turns = drawn.angle / (2 * np.pi)
        x = keras.layers.RandomRotation((turns, turns), fill_mode="nearest")(x, training=True)
    if drawn.zoom != 1:
        x = keras.layers.RandomZoom((drawn.zoom - 1, drawn.zoom - 1), fill_mode="nearest")(x, training=True)
    return np.ascontiguousarray(np.array(x)[0].transpose(2, 0, 1))


def pixels(request: Request) -> Request:
    """Write images of a prepared dataset, as a fit's model gets them, to the file ``answer``."""
    chosen = safetensors.numpy.load_file(request["arrays"])["chosen"]
    images = to_pixels(open_prepared(Path(request["prepared"])).images[chosen]).numpy()
    write_answer(request, {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2))})
    return {}
