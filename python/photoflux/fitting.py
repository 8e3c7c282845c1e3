"""A fit from start to saved run, and the score of weights on a part of a dataset."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from photoflux import plots, runs
from photoflux.data.prepared import PreparedDataset
from photoflux.engines.base import BatchProgress, Engine, EpochRow, Fit, Settings
from photoflux.errors import DataError, DivergedError
from photoflux.evaluation import Metrics, score
from photoflux.progress import Display
from photoflux.runs import Run
from photoflux.variants import Variant
from photoflux.weights import read_weights_of

EVALUATION_BATCH = 64


def fit_and_save(
    engine: Engine, recipe: Variant, prepared: PreparedDataset, settings: Settings, folder: Path, display: Display
) -> Run:
    """Fit, score validation and test, draw, and write the run, whole.

    Raises
    ------
    DivergedError
        If the loss became NaN or infinite; the run is written all the same, with the last good weights.
    RunError
        If the folder cannot be written; an earlier run there stays.
    """
    rows: list[EpochRow] = []

    def on_batch(progress: BatchProgress) -> bool:
        display.batch(progress)
        return False

    def on_epoch(row: EpochRow) -> None:
        rows.append(row)
        display.epoch(row, settings.epochs)

    with runs.writing(folder) as temporary:
        weights = temporary / "weights.safetensors"
        began = time.perf_counter()
        failure = None
        try:
            fit = engine.fit(recipe, prepared, settings, weights, on_batch=on_batch, on_epoch=on_epoch)
        except DivergedError as error:
            failure = DivergedError(str(error).replace(str(temporary), str(folder)))
            fit = Fit(rows, len(rows), "epochs")
        seconds = time.perf_counter() - began
        if fit.ended == "interrupted":
            display.say("Interrupted: the run so far is kept.")
        run = Run(
            path=folder,
            engine=engine.name,
            variant=recipe,
            settings=settings,
            data={
                "name": prepared.name,
                "path": str(prepared.path.resolve()),
                "fingerprint": prepared.fingerprint,
                "classes": prepared.classes,
                "positive": prepared.positive,
                "channels": prepared.channels,
                "height": prepared.height,
                "width": prepared.width,
            },
            history=fit.history,
            kept_epoch=fit.kept_epoch,
            ended=fit.ended if failure is None else "diverged",
            seconds=seconds,
            metrics={"train": runs.train_metrics(fit.history, fit.kept_epoch)} if fit.history else {},
            versions=engine.versions(),
        )
        for part in ("validation", "test"):
            if len(prepared.indices(part)):
                run.metrics[part] = score_part(engine, recipe, weights, prepared, part).as_dict()
        _draw(run, temporary)
        runs.write_description(temporary, run)
    if failure is not None:
        raise failure
    return run


def _draw(run: Run, folder: Path) -> None:
    title = f"{run.variant.name} on {run.data['name']} (engine {run.engine}, seed {run.settings.seed})"
    if run.history:
        plots.plot_curves(run.history, run.ended, title, folder / "curves.png")
    if "test" in run.metrics:
        test = run.metrics["test"]
        caption = f"{run.variant.name} on {run.data['name']}: test accuracy {test['accuracy']:.3f}"
        plots.plot_confusion(test["confusion"], run.classes, caption, folder / "confusion.png")


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
    classes = len(prepared.classes)
    shape = (prepared.channels, prepared.height, prepared.width)
    penalty = recipe.penalty_of(read_weights_of(weights, recipe, *shape, classes)) if recipe.penalty else 0.0
    # Gathered a block at a time: the images of a part may not fit into memory.
    blocks = np.array_split(chosen, max(1, len(chosen) // 1024))
    logits = np.concatenate(
        [
            engine.logits(recipe, weights, prepared.images[block], classes, batch_size=EVALUATION_BATCH)
            for block in blocks
        ]
    )
    folders = np.asarray(prepared.folder_labels())[chosen]
    return score(recipe, logits, prepared.labels[chosen], classes, penalty, folders.tolist())
