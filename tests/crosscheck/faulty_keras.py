"""A Keras worker with one deliberate fault, which the environment variable FAULT names."""

from __future__ import annotations

import dataclasses
import os

import keras
import numpy as np

from photoflux.engines.keras import models, server, steps


def adam_epsilon() -> None:
    """Adam with the ε that other libraries take."""
    adam = keras.optimizers.Adam
    keras.optimizers.Adam = lambda rate: adam(rate, epsilon=1e-8)


def flipped_kernel() -> None:
    """A convolution where the port means a cross-correlation."""

    class Flipped(keras.layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel[::-1, ::-1])

    keras.layers.Conv2D = Flipped


def penalty_on_biases() -> None:
    """The penalty of a kernel on its bias too."""

    def penalised(layer):
        def build(*args, **kwargs):
            return layer(*args, bias_regularizer=kwargs.get("kernel_regularizer"), **kwargs)

        return build

    keras.layers.Dense, keras.layers.Conv2D = penalised(keras.layers.Dense), penalised(keras.layers.Conv2D)


def flatten_order() -> None:
    """Columns before rows."""

    class Turned(keras.layers.Flatten):
        def call(self, inputs):
            return super().call(keras.ops.transpose(inputs, (0, 2, 1, 3)))

    keras.layers.Flatten = Turned


def half_the_l2() -> None:
    """λ/2·Σw², as much of the literature has it."""
    l2 = keras.regularizers.L2
    keras.regularizers.L2 = lambda factor: l2(factor / 2)


def no_proximal_step() -> None:
    """L1 in the loss only."""
    step = steps.step

    def without(optimizer, model, variant, slopes):
        step(optimizer, model, dataclasses.replace(variant, proximal=False), slopes)

    steps.step = without


def deviation_of_a_sample() -> None:
    """Divided by N − 1, not N."""
    measured = models.measured

    def of_a_sample(features):
        values = measured(features)
        return values | {"deviation": np.std(features, axis=(0, 2, 3), ddof=1)}

    models.measured = of_a_sample


FAULTS = (adam_epsilon, flipped_kernel, penalty_on_biases, flatten_order, half_the_l2)
FAULTS += (no_proximal_step, deviation_of_a_sample)

if __name__ == "__main__":
    {fault.__name__: fault for fault in FAULTS}[os.environ["FAULT"]]()
    server.main()
