"""The score of weights on images of a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.engines.base import Engine
from photoflux.errors import DataError
from photoflux.evaluation import Metrics, score
from photoflux.variants import Variant
from photoflux.weights import read_weights_of

EVALUATION_BATCH = 64


def score_part(engine: Engine, recipe: Variant, weights: Path, prepared: PreparedDataset, part: str) -> Metrics:
    """Score a weights file on a part of a dataset, a block of images at a time.

    Raises
    ------
    DataError
        If the part has no images.
    """
    chosen = prepared.indices(part)
    if not len(chosen):
        raise DataError(f"The {part} part of {prepared.name} has no images.")
    return metrics_of(recipe, weights, prepared, part, logits_of(engine, recipe, weights, prepared, chosen))


def metrics_of(recipe: Variant, weights: Path, prepared: PreparedDataset, part: str, logits: np.ndarray) -> Metrics:
    """Score the logits, (N, outputs), of a part of a dataset, and the penalty of the weights that gave them."""
    chosen, classes = prepared.indices(part), len(prepared.classes)
    shape = (prepared.channels, prepared.height, prepared.width)
    penalty = recipe.penalty_of(read_weights_of(weights, recipe, *shape, classes)) if recipe.penalty else 0.0
    folders = np.asarray(prepared.folder_labels())[chosen]
    return score(recipe, logits, prepared.labels[chosen], classes, penalty, folders.tolist())


def logits_of(
    engine: Engine, recipe: Variant, weights: Path, prepared: PreparedDataset, chosen: np.ndarray
) -> np.ndarray:
    """Return the logits, (N, outputs), of chosen images, a block at a time: all at once may not fit into memory."""
    blocks = np.array_split(chosen, max(1, len(chosen) // 1024))
    classes = len(prepared.classes)
    return np.concatenate(
        [
            engine.logits(recipe, weights, prepared.images[block], classes, batch_size=EVALUATION_BATCH)
            for block in blocks
        ]
    )
