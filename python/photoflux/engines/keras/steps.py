"""One training step and one evaluation step in TensorFlow, shared by `fit` and `trace`. Worker process only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from photoflux.model.layers import outputs_of
from photoflux.model.variant import Variant


class Measured(NamedTuple):
    """What a step measures on a batch: the mean data loss, the penalty, and the number of correct predictions."""

    loss: Any
    penalty: Any
    correct: Any


def to_pixels(images: Any) -> Any:
    """Return (N, C, H, W) images, as prepared datasets hold them, as float32 (N, H, W, C), as Keras wants them."""
    return tf.transpose(tf.cast(images, tf.float32), (0, 2, 3, 1))


def input_type(variant: Variant) -> tf.DType:
    """Return the type of what prepared datasets hold for a variant: pixels, or a backbone's features."""
    return tf.float32 if variant.takes_features else tf.uint8


def data_losses(variant: Variant, classes: int, labels: Any, logits: Any) -> Any:
    """Return the data loss of each image, (N,)."""
    binary = outputs_of(classes) == 1
    targets = tf.cast(labels, tf.float32)[:, None] if binary else tf.one_hot(labels, classes)
    if variant.loss == "squared_error":
        outputs = tf.sigmoid(logits) if binary else tf.nn.softmax(logits)
        return 0.5 * tf.reduce_mean(tf.square(outputs - targets), axis=1)
    if binary:
        return keras.losses.binary_crossentropy(targets, logits, from_logits=True)
    return keras.losses.categorical_crossentropy(targets, logits, from_logits=True)


def penalty(model: keras.Model) -> Any:
    """Return the sum of what the layers' regularizers add to the loss."""
    return tf.add_n(model.losses) if model.losses else tf.constant(0.0)


def smooth_penalty(model: keras.Model) -> Any:
    """Return the L2 part of `penalty`: what is left of it in the gradient where L1 is a proximal step."""
    found = [regularizer.l2 * tf.reduce_sum(tf.square(layer.kernel)) for layer, regularizer in _penalised(model, "l2")]
    return tf.add_n(found) if found else tf.constant(0.0)


def _penalised(model: keras.Model, kind: str) -> list[tuple[keras.Layer, Any]]:
    """Return the layers whose kernel has a penalty of that kind, each with its regularizer."""
    pairs = [(layer, getattr(layer, "kernel_regularizer", None)) for layer in model.layers]
    return [(layer, regularizer) for layer, regularizer in pairs if getattr(regularizer, kind, 0)]


def moments_of(optimizer: keras.optimizers.Optimizer) -> list[tuple[Any, Any]]:
    """Return Adam's two moments of each variable: Keras keeps them side by side, behind the iteration and the rate."""
    moments = optimizer.variables[2:]
    return list(zip(moments[::2], moments[1::2], strict=True))


def step(optimizer: keras.optimizers.Optimizer, model: keras.Model, variant: Variant, slopes: list[Any]) -> None:
    """Make one step of Adam and, where the variant's L1 is proximal, the proximal step in Adam's metric after it.

    ProxGen (Yun, Lozano & Yang, 2021) with Adam's diagonal √v + ε: a kernel's weight w becomes
    sign(w)·max(|w| − αₜ·λ₁/(√v + ε), 0), αₜ = rate·√(1 − β₂ᵗ)/(1 − β₁ᵗ) the size of the step that was just made.
    """
    variables = model.trainable_variables
    optimizer.apply(slopes, variables)
    if not variant.proximal:
        return
    t = tf.cast(optimizer.iterations, tf.float32)
    rate = tf.cast(optimizer.learning_rate, tf.float32)
    size = rate * tf.sqrt(1 - tf.pow(optimizer.beta_2, t)) / (1 - tf.pow(optimizer.beta_1, t))
    second = {variable.path: moments[1] for variable, moments in zip(variables, moments_of(optimizer), strict=True)}
    for layer, regularizer in _penalised(model, "l1"):
        kernel = layer.kernel
        reach = size * regularizer.l1 / (tf.sqrt(tf.convert_to_tensor(second[kernel.path])) + optimizer.epsilon)
        kernel.assign(tf.sign(kernel.value) * tf.maximum(tf.abs(kernel.value) - reach, 0.0))


def count_correct(classes: int, labels: Any, logits: Any) -> Any:
    """Return how many images are classified correctly: a positive logit means label 1, else the largest logit's."""
    if outputs_of(classes) == 1:
        predicted = tf.cast(logits[:, 0] > 0, labels.dtype)
    else:
        predicted = tf.argmax(logits, axis=1, output_type=labels.dtype)
    return tf.reduce_sum(tf.cast(predicted == labels, tf.int32))


def gradients(
    model: keras.Model,
    variant: Variant,
    classes: int,
    inputs: Any,
    labels: Any,
    weights: Any,
    logits_of: Callable[[Any], Any] | None = None,
) -> tuple[list[Any], Measured]:
    """Return the gradient of a batch's total loss for every trainable variable, and what was measured.

    Where the variant's L1 is proximal it is measured, and left to `step`.

    `weights` holds a factor for each image's data loss; the mean divides by the number of images, as Keras' does.
    `logits_of` stands for the model's call where the layers' values are wanted too.
    """
    with tf.GradientTape() as tape:
        logits = model(inputs, training=True) if logits_of is None else logits_of(inputs)
        loss = tf.reduce_mean(weights * data_losses(variant, classes, labels, logits))
        extra = penalty(model)
        total = loss + (smooth_penalty(model) if variant.proximal else extra)
    measured = Measured(loss, extra, count_correct(classes, labels, logits))
    return tape.gradient(total, model.trainable_variables), measured


class Steps:
    """The compiled steps of one fit: `train` updates the weights, `evaluate` only measures, without dropout."""

    def __init__(self, model: keras.Model, variant: Variant, classes: int, learning_rate: float) -> None:
        height, width, channels = model.input_shape[1:]
        optimizer = self.optimizer = keras.optimizers.Adam(learning_rate)
        optimizer.build(model.trainable_variables)
        labels = tf.TensorSpec([None], tf.int32)
        weights = tf.TensorSpec([None], tf.float32)

        def train(images: Any, labels: Any, weights: Any) -> Measured:
            slopes, measured = gradients(model, variant, classes, to_pixels(images), labels, weights)
            step(optimizer, model, variant, slopes)
            return measured

        def evaluate(images: Any, labels: Any) -> Measured:
            logits = model(to_pixels(images), training=False)
            loss = tf.reduce_mean(data_losses(variant, classes, labels, logits))
            return Measured(loss, penalty(model), count_correct(classes, labels, logits))

        def images(dtype: Any) -> Any:
            return tf.TensorSpec([None, channels, height, width], dtype)

        # Augmented batches are float32: one graph for each kind spares the others a cast on the Python side.
        self._train = {
            dtype.as_numpy_dtype: tf.function(train, input_signature=[images(dtype), labels, weights])
            for dtype in {input_type(variant), tf.float32}
        }
        self.evaluate = tf.function(evaluate, input_signature=[images(input_type(variant)), labels])

    def train(self, images: Any, labels: Any, weights: Any) -> Measured:
        """Make one Adam step on a batch of uint8 or float32 images (N, C, H, W)."""
        measured: Measured = self._train[images.dtype.type](images, labels, weights)
        return measured
