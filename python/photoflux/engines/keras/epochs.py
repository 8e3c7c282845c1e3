"""The images of an epoch of the Keras engine: order, class weights and augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from photoflux.data.prepared import PreparedDataset
from photoflux.model.settings import Settings

ORDER, FLIP, ROTATION, ZOOM = range(4)


class Epochs:
    """The batches of each epoch of the training part, drawn from (seed, epoch).

    ``balance="weights"`` gives an image of class k the factor N / (K · N_k); ``"augment"`` tops every class up to the
    size of the largest with copies that the document's three layers have changed, new ones each epoch.
    """

    def __init__(self, prepared: PreparedDataset, settings: Settings) -> None:
        self._images = prepared.images
        self._labels = np.array(prepared.labels)
        self._settings = settings
        self._train = prepared.indices("train")
        self._counts = np.bincount(self._labels[self._train], minlength=len(prepared.classes))
        self._factors = np.ones(len(self._counts), np.float32)
        if settings.balance == "weights":
            self._factors = (len(self._train) / (len(self._counts) * np.maximum(self._counts, 1))).astype(np.float32)
        self._copies = settings.balance == "augment" and len(set(self._counts[self._counts > 0].tolist())) > 1
        self._augment: Any = None
        self.seeds: list[Any] = []
        if self._copies:
            self._augment, self.seeds = _augmentation(prepared, settings.seed)
        seen = np.count_nonzero(self._counts) * self._counts.max() if self._copies else len(self._train)
        self.batches = -(-int(seen) // settings.batch_size)

    def epoch(self, number: int, done: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the images (uint8, or float32 where some are augmented), labels and loss factors of each batch.

        The first `done` batches are left out, and nothing is drawn for them: see `seeds`, the states of what draws.
        """
        chosen, copied = self._drawn(number)
        for start in range(done * self._settings.batch_size, len(chosen), self._settings.batch_size):
            batch = slice(start, start + self._settings.batch_size)
            images, labels = self._images[chosen[batch]], self._labels[chosen[batch]]
            if self._augment is not None:
                changed = copied[batch]
                plain = images
                images = plain.astype(np.float32)
                if changed.any():
                    images[changed] = self._augment(plain[changed]).numpy()
            yield images, labels, self._factors[labels]

    def images_of(self, number: int, batch: int) -> list[int]:
        """Return the positions of the images of a batch, from 1, of an epoch in the dataset, each once."""
        chosen, _ = self._drawn(number)
        start = (batch - 1) * self._settings.batch_size
        return list(dict.fromkeys(chosen[start : start + self._settings.batch_size].tolist()))

    def _drawn(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the images of an epoch in their order, and which of them are copies to be changed."""
        rng = np.random.default_rng([self._settings.seed, ORDER, number])
        chosen, copied = self._train, np.zeros(len(self._train), bool)
        if self._copies:
            extra = np.concatenate([self._extra(label, rng) for label in range(len(self._counts))])
            chosen, copied = np.concatenate([chosen, extra]), np.repeat([False, True], [len(chosen), len(extra)])
        order = rng.permutation(len(chosen))
        return chosen[order], copied[order]

    def _extra(self, label: int, rng: np.random.Generator) -> np.ndarray:
        members = self._train[self._labels[self._train] == label]
        # np.resize repeats the shuffled members: no image is copied twice before every other one was copied once.
        missing = int(self._counts.max()) - len(members) if len(members) else 0
        return np.resize(rng.permutation(members), missing)


def _augmentation(prepared: PreparedDataset, seed: int) -> tuple[Any, list[Any]]:
    def seed_of(purpose: int) -> int:
        return int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0] >> 1)

    layers = [
        keras.layers.RandomFlip("horizontal_and_vertical", seed=seed_of(FLIP)),
        keras.layers.RandomRotation(0.1, fill_mode="nearest", seed=seed_of(ROTATION)),
        keras.layers.RandomZoom(0.1, fill_mode="nearest", seed=seed_of(ZOOM)),
    ]
    shape = [None, *prepared.images.shape[1:]]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8)])  # type: ignore[untyped-decorator]
    def augment(images: Any) -> Any:
        x = tf.transpose(tf.cast(images, tf.float32), (0, 2, 3, 1))
        for layer in layers:
            x = layer(x, training=True)
        return tf.transpose(x, (0, 3, 1, 2))

    return augment, [layer.generator.state for layer in layers]
