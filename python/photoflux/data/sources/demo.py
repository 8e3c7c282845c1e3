"""Prepares the demo dataset: five classes of generated images, without a download."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from photoflux.data.checks import OnProgress, check_seed, check_whole
from photoflux.data.labels import AUTO
from photoflux.data.prepared import PreparedDataset
from photoflux.data.sources.arrays import write_images
from photoflux.data.sources.demo_drawing import DRAWERS, SIDE, draw
from photoflux.errors import DataError
from photoflux.system import atomic
from photoflux.system.names import user_path

CLASSES = tuple(DRAWERS)


def prepare_demo(
    dest: str | Path,
    *,
    images_per_class: int = 120,
    image_size: int | None = None,
    seed: int = 42,
    positive: str | None = AUTO,
    on_progress: OnProgress | None = None,
    made_from: Mapping[str, Any] | None = None,
) -> PreparedDataset:
    """Draw the demo images and write them as a prepared dataset.

    Brightness, tint and contrast are drawn alike for the five classes Painting, Photo, Schematics, Sketch and Text,
    so a model has to look at the strokes: the mean colour says nothing.

    Parameters
    ----------
    dest : str or Path
        The prepared dataset to make.
    images_per_class : int
        3 or more.
    image_size : int, optional
        Height and width; by default 64, the size at which they are drawn.
    seed : int
        Fixes the images and their split.
    positive : str or None
        The positive class, as in `prepare_folder`: Photo by default.
    on_progress : callable, optional
        Called with (images done, images in all, what is being done).
    made_from : mapping, optional
        As in `FilesWriter.finish`.
    """
    check_whole("`images_per_class`", images_per_class, 3, "an integer")
    seed = check_seed(seed)
    images = np.empty((images_per_class * len(CLASSES), 3, SIDE, SIDE), dtype=np.uint8)
    paths = []
    for position, (path, pixels) in enumerate(_drawings(images_per_class, seed)):
        images[position] = pixels.transpose(2, 0, 1)
        paths.append(path)
        if on_progress is not None:
            on_progress(position + 1, len(images), "Drawing the demo images")
    return write_images(
        dest,
        images,
        np.repeat(np.arange(len(CLASSES), dtype=np.int32), images_per_class),
        CLASSES,
        paths=paths,
        name="demo",
        source="demo",
        positive=positive,
        image_size=image_size,
        seed=seed,
        made_from=made_from,
    )


def write_demo_folder(dest: str | Path, *, images_per_class: int = 20, seed: int = 42) -> Path:
    """Write demo images as a folder of class folders, every second one a JPEG, the others PNG.

    Parameters
    ----------
    dest : str or Path
        The folder to make; one that holds something is refused.
    images_per_class : int
        3 or more.
    seed : int
        Fixes the images.

    Returns
    -------
    Path
        The folder.
    """
    check_whole("`images_per_class`", images_per_class, 3, "an integer")
    seed = check_seed(seed)
    root = user_path(dest)
    if root.exists() and (not root.is_dir() or not atomic.is_empty(root)):
        raise DataError(f"The destination {root} exists, expected a new or empty folder; nothing was written.")
    for path, pixels in _drawings(images_per_class, seed):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels)
        if int(file.stem) % 2:
            # Not atomic: the images are drawn anew, and a folder that holds some is refused.
            image.save(file.with_suffix(".jpg"), quality=92)
        else:
            image.save(file)  # Not atomic: as above.
    return root


def _drawings(images_per_class: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    for code, kind in enumerate(CLASSES):
        for number in range(images_per_class):
            yield f"{kind}/{number:05d}.png", draw(kind, np.random.default_rng([seed, code, number]))
