"""Scores weights on images of a dataset: logits from an engine, metrics from the logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.engines.base import Engine, Model
from photoflux.errors import RunError
from photoflux.model.layers import layers, penalty_of
from photoflux.model.weights import read_weights_of
from photoflux.runs.evaluation import Metrics, score
from photoflux.runs.run import Run
from photoflux.runs.selection import Selection
from photoflux.runs.shift import in_words, observe
from photoflux.runs.transfer import TransferModel

EVALUATION_BATCH = 64


def score_selection(engine: Engine, run: Run, selection: Selection) -> Metrics:
    """Score a run on selected images, a block of them at a time."""
    prepared, chosen = selection.prepared, selection.chosen
    model = engine.load(run.variant, run.weights, prepared.shape, len(prepared.classes))
    logits = logits_of(model, prepared, chosen)
    found = metrics_of(run, prepared, chosen, logits)
    unlike = []
    if prepared.fingerprint != run.data.fingerprint:
        unlike = observe(model, run, prepared, chosen, logits).shifts()
    return replace(
        found,
        part=selection.part,
        left_out=selection.left_out,
        notes=[*selection.notes, *in_words(unlike)],
        rejected=selection.rejected,
        shifts=[shift.as_dict() for shift in unlike],
    )


def metrics_of(run: Run, prepared: PreparedDataset, chosen: np.ndarray, logits: np.ndarray) -> Metrics:
    """Score a run's logits, (N, outputs), of chosen images, and the penalty of its weights."""
    variant, shape, classes = run.variant, run.input_shape, len(run.classes)
    kernels = read_weights_of(run.weights, variant, shape, classes) if variant.penalty else {}
    penalty = penalty_of(layers(variant, shape, classes), kernels)
    folders = np.asarray(prepared.folder_labels())[chosen]
    return score(variant, logits, prepared.labels[chosen], classes, penalty, folders.tolist())


def own_logits(run: Run, part: str, images: int) -> np.ndarray | None:
    """Return what `Run.logits` gives of a part of so many images; None where there are none, or an earlier run's."""
    try:
        logits = run.logits(part)
    except RunError:
        return None
    # Julia writes no metrics, and leaves the logits of an earlier run in its folder.
    known = part in run.metrics.by_part() and len(logits) == images
    return logits if known and np.isfinite(logits).all() else None


def logits_of(model: Model, prepared: PreparedDataset, chosen: np.ndarray) -> np.ndarray:
    """Return the logits, (N, outputs), of chosen images, a block at a time: all at once may not fit into memory."""
    blocks = np.array_split(chosen, max(1, len(chosen) // 1024))
    images = prepared.images
    if isinstance(model, TransferModel):
        # Of a dataset the features are kept.
        images, model = model.engine.features(prepared).images, model.head
    return np.concatenate([model.logits(images[block], batch_size=EVALUATION_BATCH) for block in blocks])
