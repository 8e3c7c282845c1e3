"""A fit from start to saved run, and the score of weights on a part of a dataset."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from photoflux import plots, runs
from photoflux.data.prepared import PreparedDataset
from photoflux.engines.base import BatchProgress, Engine, EpochRow, Fit, Settings
from photoflux.errors import DataError, DivergedError, RunError
from photoflux.evaluation import Metrics, score
from photoflux.progress import Display, say
from photoflux.reporting.run_report import report
from photoflux.runs import Run
from photoflux.variants import Variant
from photoflux.weights import fingerprint_of, read_weights_of, write_arrays

EVALUATION_BATCH = 64


def initial_weights(source: str | Path | Run) -> Path:
    """Return the weights file that a fit is to start from, of a run, its folder, or a weights file itself.

    Raises
    ------
    RunError
        If there is no such run or file.
    """
    if isinstance(source, Run):
        return source.weights
    path = Path(source)
    if path.is_file() and path.suffix in (".keras", ".h5"):
        raise RunError(f"{path} is a Keras file. Make a run of it first: `photoflux adopt {path} VARIANT --out RUN`.")
    if path.is_file():
        return path
    return runs.load_run(source).weights


def fit_and_save(
    engine: Engine,
    recipe: Variant,
    prepared: PreparedDataset,
    settings: Settings,
    folder: Path,
    display: Display,
    initial: Path | None = None,
) -> Run:
    """Fit, from the weights in the file `initial` if given, score validation and test, draw, and write the run, whole.

    Raises
    ------
    DivergedError
        If the loss became NaN or infinite; the run is written all the same, with the last good weights.
    RunError
        If the folder cannot be written; an earlier run there stays.
    """
    rows: list[EpochRow] = []
    classes, shape = len(prepared.classes), (prepared.channels, prepared.height, prepared.width)
    origin = None if initial is None else origin_of(initial, read_weights_of(initial, recipe, *shape, classes))

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
            fit = engine.fit(recipe, prepared, settings, weights, initial=initial, on_batch=on_batch, on_epoch=on_epoch)
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
            data=description_of(prepared),
            history=fit.history,
            kept_epoch=fit.kept_epoch,
            ended=fit.ended if failure is None else "diverged",
            seconds=seconds,
            metrics={"train": runs.train_metrics(fit.history, fit.kept_epoch)} if fit.history else {},
            versions=engine.versions(),
            initial=origin,
        )
        score_and_save(run, engine, prepared, temporary)
    if failure is not None:
        raise failure
    return run


def origin_of(source: Path, weights: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return what a run says of where its first weights came from: a run's folder or a file, and their fingerprint."""
    place = source.parent if (source.parent / "run.json").is_file() else source
    return {"path": str(place.resolve()), "fingerprint": fingerprint_of(weights)}


def description_of(prepared: PreparedDataset) -> dict[str, Any]:
    """Return what a run says of its data."""
    return {
        "name": prepared.name,
        "path": str(prepared.path.resolve()),
        "fingerprint": prepared.fingerprint,
        "seed": prepared.meta["seed"],
        "images": len(prepared),
        "made_from": prepared.meta.get("made_from"),
        "groups": prepared.meta.get("groups"),
        "classes": prepared.classes,
        "positive": prepared.positive,
        "channels": prepared.channels,
        "height": prepared.height,
        "width": prepared.width,
    }


def score_and_save(run: Run, engine: Engine, prepared: PreparedDataset | None, folder: Path) -> None:
    """Score validation and test into the run's metrics, keep their logits, draw, describe and report the run.

    All of it goes into the folder of its weights.
    """
    weights, logits = folder / run.weights.name, {}
    for part in ("validation", "test"):
        if prepared is not None and len(prepared.indices(part)):
            logits[part] = logits_of(engine, run.variant, weights, prepared, prepared.indices(part))
            run.metrics[part] = metrics_of(run.variant, weights, prepared, part, logits[part]).as_dict()
    if logits:
        write_arrays(folder / runs.LOGITS, logits)
    _draw(run, folder)
    runs.write_description(folder, run)
    try:
        report(runs.load_run(folder))
    except Exception as error:
        # Hours of training are not to be lost for a page.
        say(f"No report was made: {error} `photoflux report {run.path}` tries again once the run is there.")


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
