"""The Keras side of run.py, on the backend that KERAS_BACKEND names.

One line of input gives one line of output that starts with "@ ".
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from photoflux.data.shape import Shape
from photoflux.engines.keras.models import build_model
from photoflux.model.variants import variant


def compiled(name: str, width: int, height: int, channels: int, classes: int) -> keras.Model:
    chosen = variant(name)
    model = build_model(chosen, Shape(channels, height, width), classes)
    losses = keras.losses
    loss = losses.BinaryCrossentropy if classes == 2 else losses.SparseCategoricalCrossentropy
    model.compile(optimizer=keras.optimizers.Adam(chosen.learning_rate), loss=loss(from_logits=True))
    return model


def material(width: int, height: int, channels: int, batch: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.arange(1, width * height * channels * batch + 1) * 37 % 256
    labels = np.arange(1, batch + 1) % classes
    return pixels.reshape(batch, height, width, channels).astype(np.float32), labels.astype(np.float32)


class Batches(keras.utils.PyDataset):
    """The training part of a prepared dataset, shuffled, read from its memory map."""

    def __init__(self, folder: Path, part: int, batch: int) -> None:
        super().__init__()
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.labels = np.load(folder / "labels.npy")
        self.order = np.flatnonzero(np.load(folder / "split.npy") == part)
        np.random.default_rng(1).shuffle(self.order)
        self.batch = batch

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.sort(self.order[i * self.batch : (i + 1) * self.batch])
        return self.images[chosen].transpose(0, 2, 3, 1).astype(np.float32), self.labels[chosen]


def measure(kind: str, name: str, *rest: str) -> Callable[[], float]:
    if kind == "epoch":
        folder = Path(rest[0])
        meta = json.loads((folder / "meta.json").read_text())
        images = np.load(folder / "images.npy", mmap_mode="r")
        batch = variant(name).batch_size

        def epoch() -> float:
            model = compiled(name, images.shape[3], images.shape[2], images.shape[1], len(meta["classes"]))
            training, validation = Batches(folder, 0, batch), Batches(folder, 1, batch)
            fitted = model.fit(training, epochs=1, verbose=0, validation_data=validation)
            return float(fitted.history["val_loss"][0])

        return epoch
    width, height, channels, batch, classes = map(int, rest)
    model = compiled(name, width, height, channels, classes)
    x, y = material(width, height, channels, batch, classes)
    if kind == "step":
        return lambda: float(model.train_on_batch(x, y))
    return lambda: float(np.sum(model.predict_on_batch(x)))


def main() -> None:
    call: Callable[[], float] | None = None
    for line in sys.stdin:
        words = line.split()
        if words[0] == "case":
            call = None
            keras.backend.clear_session()
            gc.collect()
            call = measure(*words[1:])
            answer = "ready"
        elif words[0] == "peak":
            status = Path("/proc/self/status").read_text()
            answer = str(int(status.split("VmHWM:")[1].split()[0]) / 1024)
        else:
            assert call is not None
            start = time.perf_counter()
            for _ in range(int(words[0])):
                result = call()
            answer = f"{time.perf_counter() - start} {result}"
        print("@", answer, flush=True)


main()
