"""An engine that is not started, and what is trained and scored with it, for the tests of what a run has seen."""

from types import SimpleNamespace

import numpy as np
from PIL import Image

import photoflux
from photoflux.engines.base import Fit
from photoflux.model.history import EpochRow
from photoflux.model.weights import expected_shapes, metadata_of, write_weights

CLASSES = ("Painting", "Photo", "Schematics", "Sketch", "Text")


class Still:
    """Writes weights that are all the seed, and takes an image for what its brightness says: no engine is started."""

    name = "keras"

    def __init__(self):
        self.scored = 0

    def versions(self):
        return {}

    def fit(self, variant, prepared, settings, weights, **options):
        of = prepared.shape, len(prepared.classes)
        values = {
            name: np.full(sides, settings.seed, np.float32) for name, sides in expected_shapes(variant, *of).items()
        }
        write_weights(weights, values, metadata_of(variant, *of))
        return Fit([EpochRow(1, 0.5, 1.0, 0.1, 1.1, 0.5, 1.5, 0.1, 1.6, 0.25)], 1, "epochs")

    def load(self, variant, weights, shape, classes):
        def logits(images, *, batch_size):
            self.scored += len(images)
            bright = images.mean(axis=(1, 2, 3), dtype=np.float64)[:, None] / 32 - 4
            return (bright if classes == 2 else bright * np.arange(classes)).astype(np.float32)

        return SimpleNamespace(logits=logits)


def trained(data, out, **options):
    settings = {"image_size": 16, "progress": False} | options
    return photoflux.train("dense_l2", data, out=out, **settings)


def score(run, data=None, **options):
    return photoflux.evaluate(run, data, progress=False, **options)


def paths_of(prepared, part):
    rows = prepared.files()
    return {rows[position]["path"] for position in prepared.indices(part)}


def copies(source, dest, save):
    """Copy images under other names, each by `save(image, stem of the file to write)`."""
    for number, path in enumerate(sorted(source.glob("*/*"))):
        folder = dest / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            save(image, folder / f"copy-{number}")
    return dest
