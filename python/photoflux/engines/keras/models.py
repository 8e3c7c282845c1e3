"""Builds a variant as a Keras model whose outputs are logits. Worker process only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import keras
import numpy as np
from keras import layers

from photoflux.data.shape import Shape
from photoflux.model.layers import STATISTICS, WINDOW, Layer
from photoflux.model.layers import layers as layers_of
from photoflux.model.variant import Variant


def build_model(
    variant: Variant,
    shape: Shape,
    classes: int,
    masks: Collection[str] | None = None,
    weights: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> keras.Model:
    """Build a variant for a shape of images and a number of classes, with Glorot-uniform kernels and zero biases.

    Parameters
    ----------
    variant : Variant
        What to build.
    shape : Shape
        Of the images; the model takes them as (N, H, W, C), 0 to 255, and features as (N, 1, 1, features).
    classes : int
        Number of classes.
    masks : collection of str, optional
        None: Dropout layers as the variant says. Otherwise the names of the dropout layers that multiply by a mask,
        each a further input of the model in this order; the other dropout layers are left out.
    weights : mapping of str to numpy.ndarray, optional
        Under their names in weights files. What is not given is drawn, and a standardisation then changes nothing.
    """
    x = pixels = keras.Input(shape.hwc, name="pixels")
    factors: dict[str, keras.KerasTensor] = {}
    for layer in layers_of(variant, shape, classes):
        if layer.kind != "dropout" or masks is None:
            x = _keras_layer(layer, weights)(x)
        elif layer.name in masks:
            factors[layer.name] = keras.Input(layer.shape, name=f"{layer.name}_mask")
            x = layers.Multiply(name=layer.name)([x, factors[layer.name]])
    inputs = pixels if masks is None else [pixels, *(factors[name] for name in masks)]
    model = keras.Model(inputs, x, name=variant.name)
    for name, variable in named_variables(model).items():
        if name in weights:
            variable.assign(weights[name])
    return model


def _keras_layer(layer: Layer, weights: Mapping[str, np.ndarray]) -> keras.Layer:
    weighted = {"activation": "relu" if layer.relu else None, "kernel_regularizer": _regularizer(layer.penalty)}
    match layer.kind:
        case "rescaling":
            return layers.Rescaling(1.0 / 255, name=layer.name)
        case "standardisation":
            return _normalization(layer, weights)
        case "convolution":
            return layers.Conv2D(layer.kernel[-1], layer.kernel[:2], padding="same", name=layer.name, **weighted)
        case "max pooling":
            return layers.MaxPooling2D((WINDOW, WINDOW), name=layer.name)
        case "dropout":
            return layers.Dropout(layer.rate, name=layer.name)
        case "flatten":
            return layers.Flatten(name=layer.name)
        case "dense":
            start = "zeros" if layer.zeros else "glorot_uniform"
            return layers.Dense(layer.kernel[-1], name=layer.name, kernel_initializer=start, **weighted)
    raise AssertionError(f"no Keras layer for a layer of the kind {layer.kind}")


def _normalization(layer: Layer, weights: Mapping[str, np.ndarray]) -> keras.layers.Normalization:
    """Return the layer with a fixed mean and variance; a deviation's square is exact in float64, and so is its root."""
    neutral = {"mean": np.zeros(layer.shape[-1]), "deviation": np.ones(layer.shape[-1])}
    mean, deviation = (weights.get(f"{layer.name}.{kind}", neutral[kind]) for kind in STATISTICS)
    return layers.Normalization(
        mean=np.asarray(mean, np.float64), variance=np.asarray(deviation, np.float64) ** 2, name=layer.name
    )


def statistics_of(layer: keras.layers.Normalization) -> dict[str, np.ndarray]:
    """Return mean and deviation, float32 (features,), of a Normalization layer, given to it or adapted by it."""
    given = layer.input_mean is not None
    pair = (layer.input_mean, layer.input_variance) if given else (layer.adapt_mean, layer.adapt_variance)
    mean, variance = (np.array(value, np.float64).reshape(-1) for value in pair)
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    return dict(zip(STATISTICS, (mean.astype(np.float32), deviation.astype(np.float32)), strict=True))


def measured(features: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean and the population's standard deviation of each feature, computed in float64, as float32.

    A deviation below 1e-7, by which Keras' layer would not divide, is that of a constant feature and becomes 1.

    Parameters
    ----------
    features : numpy.ndarray
        float32, (N, features, 1, 1).
    """
    rows = features.reshape(len(features), -1)
    deviation = np.std(rows, axis=0, dtype=np.float64)
    deviation[deviation < keras.config.epsilon()] = 1
    return {
        "mean": np.mean(rows, axis=0, dtype=np.float64).astype(np.float32),
        "deviation": deviation.astype(np.float32),
    }


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
    """Return a copy of the weights under their names in weights files, first layer to last."""
    fixed = {
        f"{layer.name}.{kind}": value
        for layer in model.layers
        if isinstance(layer, keras.layers.Normalization)
        for kind, value in statistics_of(layer).items()
    }
    return fixed | {name: np.array(variable) for name, variable in named_variables(model).items()}
