"""The variants written with Keras layers, as their documents have them; outputs are logits. Worker process only."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import keras
import numpy as np
from keras import layers

from photoflux.model.variants import Variant
from photoflux.model.weights import CONV_FILTERS, KERNEL, expected_shapes, outputs_of


def build_model(
    variant: Variant, channels: int, height: int, width: int, classes: int, masks: Collection[str] | None = None
) -> keras.Model:
    """Build a variant for an image size and a number of classes, with fresh Glorot-uniform kernels and zero biases.

    Parameters
    ----------
    variant : Variant
        The recipe.
    channels, height, width : int
        Size of the images; the model takes them as (N, H, W, C), 0 to 255.
    classes : int
        Number of classes.
    masks : collection of str, optional
        None: Dropout layers as the variant says. Otherwise the names of the dropout layers that multiply by a mask,
        each a further input of the model in this order; the other dropout layers are left out.
    """
    pixels = keras.Input((height, width, channels), name="pixels")
    factors: dict[str, keras.KerasTensor] = {}

    def dropout(x: keras.KerasTensor, name: str, rate: float | None) -> keras.KerasTensor:
        if rate is None:
            return x
        if masks is None:
            return layers.Dropout(rate, name=name)(x)
        if name not in masks:
            return x
        factors[name] = keras.Input(x.shape[1:], name=f"{name}_mask")
        return layers.Multiply(name=name)([x, factors[name]])

    def regularizer(group: str) -> keras.regularizers.Regularizer | None:
        coefficients = variant.penalty.get(group, {})
        if coefficients.keys() >= {"l1", "l2"}:
            return keras.regularizers.L1L2(coefficients["l1"], coefficients["l2"])
        if "l1" in coefficients:
            return keras.regularizers.L1(coefficients["l1"])
        return keras.regularizers.L2(coefficients["l2"]) if "l2" in coefficients else None

    x = layers.Rescaling(1.0 / 255, name="rescale")(pixels)
    if variant.architecture == "photo_cnn":
        for number, filters in enumerate(CONV_FILTERS, 1):
            x = layers.Conv2D(
                filters,
                (KERNEL, KERNEL),
                padding="same",
                activation="relu",
                kernel_regularizer=regularizer("conv"),
                name=f"conv{number}",
            )(x)
            if number == 1:
                x = layers.MaxPooling2D((2, 2), name="pool")(x)
                x = dropout(x, "pool_dropout", variant.dropout.get("pool"))
    x = layers.Flatten(name="flatten")(x)
    for number, units in enumerate(variant.hidden, 1):
        x = layers.Dense(units, activation="relu", kernel_regularizer=regularizer("hidden"), name=f"dense{number}")(x)
        x = dropout(x, f"dense{number}_dropout", variant.dropout.get("hidden"))
    x = layers.Dense(outputs_of(classes), kernel_regularizer=regularizer("output"), name="output")(x)
    inputs = pixels if masks is None else [pixels, *(factors[name] for name in masks)]
    model = keras.Model(inputs, x, name=variant.name)
    _check_shapes(model, expected_shapes(variant, channels, height, width, classes))
    return model


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


def _check_shapes(model: keras.Model, expected: Mapping[str, tuple[int, ...]]) -> None:
    found = {name: tuple(variable.shape) for name, variable in named_variables(model).items()}
    assert found == expected, f"the Keras layers and the table of shapes disagree: {found} against {expected}"
