"""Builds a variant as a Keras model whose outputs are logits. Worker process only."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import keras
import numpy as np
from keras import layers

from photoflux.data.shape import Shape
from photoflux.model.layers import WINDOW, Layer
from photoflux.model.layers import layers as layers_of
from photoflux.model.variants import Variant


def build_model(variant: Variant, shape: Shape, classes: int, masks: Collection[str] | None = None) -> keras.Model:
    """Build a variant for a shape of images and a number of classes, with Glorot-uniform kernels and zero biases.

    Parameters
    ----------
    variant : Variant
        What to build.
    shape : Shape
        Of the images; the model takes them as (N, H, W, C), 0 to 255.
    classes : int
        Number of classes.
    masks : collection of str, optional
        None: Dropout layers as the variant says. Otherwise the names of the dropout layers that multiply by a mask,
        each a further input of the model in this order; the other dropout layers are left out.
    """
    x = pixels = keras.Input(shape.hwc, name="pixels")
    factors: dict[str, keras.KerasTensor] = {}
    for layer in layers_of(variant, shape, classes):
        if layer.kind != "dropout" or masks is None:
            x = _keras_layer(layer)(x)
        elif layer.name in masks:
            factors[layer.name] = keras.Input(layer.shape, name=f"{layer.name}_mask")
            x = layers.Multiply(name=layer.name)([x, factors[layer.name]])
    inputs = pixels if masks is None else [pixels, *(factors[name] for name in masks)]
    return keras.Model(inputs, x, name=variant.name)


def _keras_layer(layer: Layer) -> keras.Layer:
    weighted = {"activation": "relu" if layer.relu else None, "kernel_regularizer": _regularizer(layer.penalty)}
    match layer.kind:
        case "rescaling":
            return layers.Rescaling(1.0 / 255, name=layer.name)
        case "convolution":
            return layers.Conv2D(layer.kernel[-1], layer.kernel[:2], padding="same", name=layer.name, **weighted)
        case "max pooling":
            return layers.MaxPooling2D((WINDOW, WINDOW), name=layer.name)
        case "dropout":
            return layers.Dropout(layer.rate, name=layer.name)
        case "flatten":
            return layers.Flatten(name=layer.name)
        case "dense":
            return layers.Dense(layer.kernel[-1], name=layer.name, **weighted)
    raise AssertionError(f"no Keras layer for a layer of the kind {layer.kind}")


def _regularizer(penalty: Mapping[str, float]) -> keras.regularizers.Regularizer | None:
    if penalty.keys() >= {"l1", "l2"}:
        return keras.regularizers.L1L2(penalty["l1"], penalty["l2"])
    if "l1" in penalty:
        return keras.regularizers.L1(penalty["l1"])
    return keras.regularizers.L2(penalty["l2"]) if "l2" in penalty else None


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Return the trainable variables under their names in weights files, first layer to last."""
    return {
        f"{layer.name}.{variable.name}": variable for layer in model.layers for variable in layer.trainable_variables
    }


def get_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Return a copy of the weights under their names in weights files."""
    return {name: np.array(variable) for name, variable in named_variables(model).items()}


def set_weights(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    """Give the model the weights of those names."""
    for name, variable in named_variables(model).items():
        variable.assign(weights[name])
