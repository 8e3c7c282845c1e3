"""Does with Keras and TensorFlow what the documents do, on tiny data, and prints each outcome in one JSON object.

A script for `test_errata.py`, run in a process of its own.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from PIL import Image

SIDE, BATCH = 12, 4
CLASSES = ("Painting", "Photo", "Schematics", "Sketch", "Text")
RNG = np.random.default_rng(0)
OUTCOMES: dict[str, Any] = {}


def claim(try_it: Callable[[], Any]) -> Callable[[], Any]:
    """Run a function and keep what it returns under its name."""
    OUTCOMES[try_it.__name__] = try_it()
    return try_it


def failure(call: Callable[[], Any]) -> str:
    """Return the kind and text of the exception that a call raises."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def first_warning(call: Callable[[], Any]) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return str(caught[0].message) if caught else "no warning"


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


# The notebook's loading, on 8 images a class.
SCRATCH = tempfile.TemporaryDirectory(prefix="photoflux-errata-")
ROOT = Path(SCRATCH.name)
for folder in CLASSES:
    (ROOT / "scans" / folder).mkdir(parents=True)
    for number in range(8):
        noise(20, 30).save(ROOT / "scans" / folder / f"{number}.png")


def load(subset: str) -> tf.data.Dataset:
    return keras.utils.image_dataset_from_directory(
        ROOT / "scans",
        label_mode="int",
        batch_size=BATCH,
        image_size=(SIDE, SIDE),
        seed=42,
        validation_split=0.2,
        subset=subset,
        verbose=False,
    )


TRAIN, VALIDATION = load("training"), load("validation")
BINARY = TRAIN.map(lambda image, label: (image, tf.cast(tf.equal(label, CLASSES.index("Photo")), tf.int32)))
AUGMENTATION = [
    layers.RandomFlip(mode="horizontal_and_vertical", seed=1),
    layers.RandomRotation(factor=0.1, fill_mode="nearest", seed=2),
    layers.RandomZoom(height_factor=0.1, fill_mode="nearest", seed=3),
]


def augmented(image: tf.Tensor) -> tf.Tensor:
    for layer in AUGMENTATION:
        image = layer(image)
    return image


def augment_photos_with_list(image, label):
    if tf.equal(label, 1):
        image = AUGMENTATION(image)
    return image, label


def augment_photos(image, label):
    if tf.equal(label, 1):
        image = augmented(image)
    return image, label


# What the notebook means: image by image.
ONE_BY_ONE = BINARY.unbatch().map(augment_photos).batch(BATCH)


def labels_of(dataset: tf.data.Dataset) -> np.ndarray:
    return np.concatenate([labels.numpy() for _, labels in dataset])


def images_of(dataset: tf.data.Dataset) -> np.ndarray:
    return np.concatenate([images.numpy() for images, _ in dataset])


@claim
def list_call():
    return failure(lambda: BINARY.map(augment_photos_with_list))


@claim
def condition_on_a_batch():
    return failure(lambda: list(BINARY.map(augment_photos)))


@claim
def counts_before_and_after():
    return [np.bincount(labels_of(dataset)).tolist() for dataset in (BINARY, ONE_BY_ONE)]


@claim
def changed_labels():
    # What differs from the plain image, by label.
    dataset = TRAIN.unbatch().map(lambda image, label: (image, tf.cast(tf.equal(label, 1), tf.int32)))
    changed = dataset.map(lambda image, label: (tf.reduce_any(augment_photos(image, label)[0] != image), label))
    return sorted({(int(label), bool(differs)) for differs, label in changed})


@claim
def flat_image_stays_flat():
    flat = np.full((SIDE, SIDE, 3), 100, np.float32)
    return max(float(np.abs(augmented(flat) - flat).max()) for _ in range(5))


@claim
def epochs_differ_without_and_with_cache():
    def differ(dataset: tf.data.Dataset) -> bool:
        return not np.array_equal(images_of(dataset), images_of(dataset))

    # The loader shuffles too; so from arrays, to see augmentation alone.
    plain = tf.data.Dataset.from_tensor_slices((images_of(BINARY), labels_of(BINARY)))
    changed = plain.map(augment_photos)
    return [differ(changed.batch(BATCH)), differ(changed.batch(BATCH).cache())]


@claim
def cached_batches_keep_their_images():
    dataset = BINARY.cache().shuffle(1000)
    epochs = [sorted(images.numpy().tobytes() for images, _ in dataset) for _ in range(3)]
    return epochs[0] == epochs[1] == epochs[2]


@claim
def read_before_the_first_step():
    read = []

    def numbers() -> Iterator[int]:
        for number in range(1035):
            read.append(number)
            yield number

    next(iter(tf.data.Dataset.from_generator(numbers, output_signature=tf.TensorSpec((), tf.int32)).shuffle(1000)))
    return len(read)


@claim
def read_to_count_labels():
    read = []

    def pairs() -> Iterator[tuple[int, int]]:
        for number in range(6):
            read.append(number)
            yield number, number % 2

    signature = (tf.TensorSpec((), tf.int32), tf.TensorSpec((), tf.int32))
    dataset = tf.data.Dataset.from_generator(pairs, output_signature=signature).batch(2)
    for wanted in (1, 0):
        sum(1 for _, label in dataset.unbatch() if label.numpy() == wanted)
    return len(read)


@claim
def titles():
    return sorted({CLASSES[label] for label in labels_of(BINARY)})


@claim
def printed_shape():
    return list(next(iter(TRAIN))[0].shape)


@claim
def pixel_type():
    return TRAIN.element_spec[0].dtype.name


@claim
def parts_overlap():
    return bool({*TRAIN.file_paths} & {*VALIDATION.file_paths})


@claim
def validation_images_of_each_class():
    return np.bincount(labels_of(VALIDATION), minlength=5).tolist()


@claim
def formats_read():
    for name in ("scan.tif", "scan.webp", "scan.bmp"):
        noise(8, 8).save(ROOT / "scans" / "Text" / name)
    (ROOT / "scans" / "Text" / "desktop.ini").write_text("")
    names = {Path(path).name for subset in ("training", "validation") for path in load(subset).file_paths}
    return sorted(names - {f"{number}.png" for number in range(8)})


@claim
def broken_file():
    path = ROOT / "scans" / "Text" / "0.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return failure(lambda: [list(load(subset)) for subset in ("training", "validation")])


def decoded(path: Path) -> np.ndarray:
    return tf.io.decode_image(tf.io.read_file(str(path)), channels=3, expand_animations=False).numpy()


@claim
def shape_of_a_rotated_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    noise(20, 40).save(ROOT / "rotated.jpg", exif=exif)
    return list(decoded(ROOT / "rotated.jpg").shape)


@claim
def transparent_pixel():
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(ROOT / "clear.png")
    return decoded(ROOT / "clear.png")[0, 0].tolist()


@claim
def unbuilt_summary():
    lines: list[str] = []
    model = keras.Sequential([layers.Rescaling(1.0 / 255), layers.Flatten(), layers.Dense(128)])
    model.compile(optimizer="adam", loss="binary_crossentropy")
    model.summary(print_fn=lambda line, **_: lines.append(line))
    return "\n".join(lines)


@claim
def first_weights_differ():
    first, second = (layers.Dense(4) for _ in range(2))
    first.build((None, 3)), second.build((None, 3))
    return bool((first.kernel.numpy() != second.kernel.numpy()).any())


@claim
def loss_at_logit_50():
    x, y = np.array([[50.0]], np.float32), np.array([[0]])
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, activation="sigmoid", kernel_initializer="ones")])
    model.compile(optimizer="adam", loss=keras.losses.BinaryCrossentropy(from_logits=False))
    return {
        "in the model": float(model.evaluate(x, y, verbose=0)),
        "on probabilities": float(keras.losses.BinaryCrossentropy()(y, model.predict(x, verbose=0))),
        "on logits": float(keras.losses.BinaryCrossentropy(from_logits=True)(y, x)),
    }


@claim
def l1_by_adam():
    keras.utils.set_random_seed(0)
    regularizer = keras.regularizers.l1(0.01)
    model = keras.Sequential(
        [keras.Input((20,)), layers.Dense(8, activation="relu", kernel_regularizer=regularizer), layers.Dense(1)]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    x = RNG.normal(size=(64, 20)).astype(np.float32)
    y = (x[:, :1] > 0).astype(np.float32)
    model.fit(x, y, epochs=200, batch_size=64, verbose=0)
    kernel = model.layers[0].kernel.numpy()
    reported = float(model.evaluate(x, y, verbose=0))
    data_loss = float(keras.losses.BinaryCrossentropy(from_logits=True)(y, model(x)))
    penalty = 0.01 * float(np.abs(kernel).sum())
    zero, small = int((kernel == 0).sum()), int((np.abs(kernel) < 0.01).sum())
    return {"zero": zero, "small": small, "reported": reported, "data": data_loss, "penalty": penalty}


@claim
def input_shape_warning():
    return [
        first_warning(lambda: layers.Flatten(input_shape=(28, 28))),
        first_warning(lambda: layers.Dense(64, input_shape=(784,))),
        first_warning(lambda: layers.RandomFlip(input_shape=(SIDE, SIDE, 3))),
    ]


LESSON = keras.Sequential([keras.Input((784,))])
for layer in (layers.Dense(64), layers.Dropout(0.5), layers.Dense(64), layers.Dropout(0.5), layers.Dense(10)):
    LESSON.add(layer)


@claim
def layers_with_weights():
    return [layer.units for layer in LESSON.layers if layer.weights]


@claim
def square_images():
    return failure(lambda: LESSON(np.zeros((2, 28, 28), np.float32)))


@claim
def not_compiled():
    return failure(lambda: LESSON.fit(np.zeros((2, 784)), np.zeros(2), verbose=0))


@claim
def penalised_kernels():
    hidden = layers.Dense(128, kernel_regularizer=keras.regularizers.l2(0.001))
    model = keras.Sequential([keras.Input((28, 28)), layers.Flatten(), hidden, layers.Dense(10)])
    expected = 0.001 * float((hidden.kernel.numpy() ** 2).sum())
    return [len(model.losses), float(model.losses[0]) / expected]


SCRATCH.cleanup()
print(json.dumps(OUTCOMES))
