"""One training step and one evaluation step in TensorFlow, shared by `fit` and `trace`. Worker process only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from photoflux.model.layers import outputs_of
from photoflux.model.variants import Variant


class Measured(NamedTuple):
    """What a step measures on a batch: the mean data loss, the penalty, and the number of correct predictions."""

    loss: Any
    penalty: Any
    correct: Any


def to_pixels(images: Any) -> Any:
    """Return (N, C, H, W) images, as prepared datasets hold them, as float32 (N, H, W, C), as Keras wants them."""
    return tf.transpose(tf.cast(images, tf.float32), (0, 2, 3, 1))


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

    `weights` holds a factor for each image's data loss; the mean divides by the number of images, as Keras' does.
    `logits_of` stands for the model's call where the layers' values are wanted too.
    """
    with tf.GradientTape() as tape:
        logits = model(inputs, training=True) if logits_of is None else logits_of(inputs)
        loss = tf.reduce_mean(weights * data_losses(variant, classes, labels, logits))
        extra = penalty(model)
        total = loss + extra
    measured = Measured(loss, extra, count_correct(classes, labels, logits))
    return tape.gradient(total, model.trainable_variables), measured


class Steps:
    """The compiled steps of one fit: `train` updates the weights, `evaluate` only measures, without dropout."""

    def __init__(self, model: keras.Model, variant: Variant, classes: int, learning_rate: float) -> None:
        height, width, channels = model.input_shape[1:]
        optimizer = keras.optimizers.Adam(learning_rate)
        optimizer.build(model.trainable_variables)
        labels = tf.TensorSpec([None], tf.int32)
        weights = tf.TensorSpec([None], tf.float32)

        def train(images: Any, labels: Any, weights: Any) -> Measured:
            slopes, measured = gradients(model, variant, classes, to_pixels(images), labels, weights)
            optimizer.apply(slopes, model.trainable_variables)
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
            for dtype in (tf.uint8, tf.float32)
        }
        self.evaluate = tf.function(evaluate, input_signature=[images(tf.uint8), labels])

    def train(self, images: Any, labels: Any, weights: Any) -> Measured:
        """Make one Adam step on a batch of uint8 or float32 images (N, C, H, W)."""
        measured: Measured = self._train[images.dtype.type](images, labels, weights)
        return measured
