"""Trains every variant with every seed, keeps the fits that exist already, and measures each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from photoflux.comparison.holdout import Holdout
from photoflux.comparison.measures import Measured, images_of, recall_at_precision
from photoflux.data.prepared import PreparedDataset
from photoflux.engines.base import Engine
from photoflux.errors import DivergedError, RunError
from photoflux.model.history import BatchProgress, EpochRow, overfitting_starts
from photoflux.model.layers import outputs_of
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.model.weights import read_any_arrays, read_weights_of, write_arrays
from photoflux.reporting.finishing import finish, finish_fit, unscored_parts, was_interrupted
from photoflux.runs.checkpoints import checkpoint_files, where_it_is
from photoflux.runs.evaluation import decisions
from photoflux.runs.folder import claimed
from photoflux.runs.progress import Display
from photoflux.runs.run import Run, load_run
from photoflux.runs.scoring import logits_of
from photoflux.runs.training import fit_and_save
from photoflux.system import log
from photoflux.system.names import printable
from photoflux.system.signals import Ended


@dataclass(frozen=True)
class Fit:
    """One fit of a comparison: a variant, a seed, the data that the seed splits, what fits it, the second folder."""

    variant: Variant
    settings: Settings
    data: PreparedDataset
    engine: Engine
    holdout: Holdout | None = None

    @property
    def name(self) -> str:
        """Of the folder and file that hold it."""
        return f"{self.variant.name}-seed{self.settings.seed}"


class FitDisplay(Display):
    """Passes the progress of one fit on to the display of the whole comparison."""

    def __init__(self, whole: Display, advance: Callable[[float, str], None]) -> None:
        super().__init__(visible=False)
        self._whole, self._advance_whole = whole, advance

    def say(self, text: str) -> None:
        """Print a line above the bar of the whole."""
        self._whole.say(text)

    def batch(self, progress: BatchProgress) -> None:
        """Show the share of the fit that is done."""
        done = (progress.epoch - 1 + progress.batch / progress.batches) / progress.epochs
        figures = f"loss {progress.loss:.4f} accuracy {progress.accuracy:.4f}"
        self._advance_whole(done, f"epoch {progress.epoch}/{progress.epochs}  {figures}")

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """Say nothing: an epoch's line of each fit would be too many."""


def fit_all(fits: Sequence[Fit], folder: Path, display: Display) -> Iterator[tuple[Fit, Run]]:
    """Run the fits that are not there yet, and score the training part and the second folder with each.

    Raises
    ------
    RunError
        If the folder holds a fit of other settings, or cannot be written.
    KeyboardInterrupt, Ended
        If Ctrl-C or another signal ended a fit; those before it are kept, and the next call goes on with it.
    """
    there = {fit.name: kept_run(fit, folder / "runs" / fit.name) for fit in fits}
    kept = sum(run is not None for run in there.values())
    if kept:
        display.say(f"{kept} of {len(fits)} fits are there and are kept.")
    for number, fit in enumerate(fits):
        run = there[fit.name]

        def advance(done: float, text: str, number: int = number, name: str = fit.name) -> None:
            display.step(number + done, len(fits), "Fits", f"now {name}, {text}")

        if run is None:
            # What an earlier fit of this name scored is not this one's.
            _scores_file(fit, folder).unlink(missing_ok=True)
            place = folder / "runs" / fit.name
            ended: KeyboardInterrupt | Ended = KeyboardInterrupt()
            try:
                run = _fitted(fit, place, FitDisplay(display, advance))
            except Ended as error:
                if not (place / "run.json").is_file():
                    raise
                run, ended = load_run(place), error
            if run.ended == "interrupted":
                if not checkpoint_files(place):
                    shutil.rmtree(place)
                _stop(number, fits, folder, display, ended)
            if was_interrupted(run):
                _stop(number + 1, fits, folder, display, ended)
        if unscored_parts(run, fit.data):
            run = _scored(fit, run)
        if there[fit.name] is None:
            display.say(line_of(fit, run))
        _score(fit, run, folder)
        yield fit, run


def _stop(kept: int, fits: Sequence[Fit], folder: Path, display: Display, ended: BaseException) -> NoReturn:
    display.say(f"{kept} of {len(fits)} fits are kept in {printable(folder)}; the same command goes on from there.")
    raise ended


def _scored(fit: Fit, run: Run) -> Run:
    """Score a run that is complete but for its scores, which could not be computed when it was trained.

    Raises
    ------
    RunError
        If that fails again.
    """
    run = finish(run, fit.engine, fit.data)
    if was_interrupted(run):
        raise KeyboardInterrupt
    if unscored_parts(run, fit.data):
        raise RunError(f"{printable(run.path)} cannot be compared without its scores. {' '.join(run.notes)}")
    return run


def line_of(fit: Fit, run: Run) -> str:
    """Return what is said of a fit when it is done."""
    m = run.metrics.validation
    assert m is not None
    return (
        f"{fit.variant.name}, seed {fit.settings.seed}: {len(run.history)} epochs, {run.seconds:.0f} s, "
        f"validation loss {m.loss:.4f}, balanced accuracy {m.balanced_accuracy:.4f}"
    )


def _fitted(fit: Fit, path: Path, display: Display) -> Run:
    try:
        with claimed(path):
            resume = bool(checkpoint_files(path))
            if resume:
                display.say(f"{fit.name} goes on from {where_it_is(path)}.")
            trained = fit_and_save(fit.engine, fit.variant, fit.data, fit.settings, path, display, resume=resume)
            return finish_fit(trained, fit.engine, fit.data)
    except DivergedError as error:
        log.warn(f"{fit.name}: {error}")
        return load_run(path)


def kept_run(fit: Fit, path: Path) -> Run | None:
    """Return the run of a fit that exists already and is complete; None where it was ended, and goes on.

    Raises
    ------
    RunError
        If it is one of other settings.
    """
    if not (path / "run.json").is_file() or checkpoint_files(path):
        return None
    run = load_run(path)
    of_settings = [(name, getattr(run.settings, name), value) for name, value in vars(fit.settings).items()]
    for name, found, expected in (
        ("variant", run.variant, fit.variant),
        *of_settings,
        ("engine", run.engine, fit.engine.name),
        ("device", _device(run.versions), _device(fit.engine.versions())),
        ("data", run.data.fingerprint, fit.data.fingerprint),
    ):
        if found != expected:
            raise RunError(
                f"{printable(path)} is of a comparison with another {name.replace('_', ' ')}: found {found}, now "
                f"{expected}. Choose another folder with `out`, or remove this one."
            )
    return run


def _device(versions: dict[str, str]) -> str:
    """Return the device that the versions of an engine name."""
    return versions.get("device", "cpu").partition(" ")[0]


def _scores_file(fit: Fit, folder: Path) -> Path:
    return folder / "scores" / f"{fit.name}.safetensors"


def _score(fit: Fit, run: Run, folder: Path) -> None:
    """Write the logits of the training part and of the second folder, unless they are there."""
    path, holdout = _scores_file(fit, folder), fit.holdout
    named = {"train": "", "holdout": "" if holdout is None else holdout.prepared.fingerprint}
    if path.exists() and _metadata(path).get("holdout") == named["holdout"]:
        return
    model = fit.engine.load(fit.variant, run.weights, fit.data.shape, len(fit.data.classes))
    arrays = {"train": logits_of(model, fit.data, fit.data.indices("train"))}
    if holdout is not None:
        arrays["holdout"] = logits_of(model, holdout.prepared, np.arange(len(holdout.prepared)))
    path.parent.mkdir(exist_ok=True)
    write_arrays(path, arrays, named)


def _metadata(path: Path) -> dict[str, str]:
    return read_any_arrays(path)[1]


def groups_of(prepared: PreparedDataset) -> np.ndarray:
    """Return the near-duplicate group of each image, (N,) int64."""
    return np.array([int(row["group"]) for row in prepared.files()], dtype=np.int64)


def _scores(fit: Fit, folder: Path) -> dict[str, np.ndarray]:
    """Return the logits of the training part and of the second folder, (N, outputs) float32."""
    path = _scores_file(fit, folder)
    scores, _ = read_any_arrays(path)
    expected = {"train": len(fit.data.indices("train"))}
    if fit.holdout is not None:
        expected["holdout"] = len(fit.holdout.prepared)
    outputs = outputs_of(len(fit.data.classes))
    for name, images in expected.items():
        found = scores.get(name)
        if found is None or found.dtype != np.float32 or found.shape != (images, outputs):
            raise RunError(
                f"{printable(path)} must have {name} of float32, {images}×{outputs}; found "
                f"{'none' if found is None else f'{found.dtype} {found.shape}'}. Remove it; it is made again."
            )
    return scores


def measure(fit: Fit, run: Run, folder: Path) -> Measured:
    """Measure a fit on the validation and test parts, and on the second folder if there is one.

    Raises
    ------
    RunError
        If what it wrote cannot be read.
    """
    scores, groups = _scores(fit, folder), groups_of(fit.data)
    parts = {}
    for part in ("validation", "test"):
        chosen = fit.data.indices(part)
        parts[part] = (run.logits(part), fit.data.labels[chosen], groups[chosen])
    if fit.holdout is not None:
        chosen, second = fit.holdout.chosen, fit.holdout.prepared
        parts["holdout"] = (scores["holdout"][chosen], second.labels[chosen], groups_of(second)[chosen])
    training = decisions(scores["train"]) == fit.data.labels[fit.data.indices("train")]
    weights = read_weights_of(run.weights, run.variant, run.input_shape, len(run.classes)).values()
    images = {part: images_of(fit.variant, *values) for part, values in parts.items()}
    binary = len(run.classes) == 2
    return Measured(
        images=images,
        numbers={
            "gap": float(training.mean() - images["validation"].right.mean()),
            "best_epoch": float(min(run.history, key=lambda row: row.validation_total).epoch),
            "overfits_from": overfitting_starts(run.history),
            "seconds": run.seconds,
            "nonzero": float(sum(np.count_nonzero(w) for w in weights)),
        },
        recall={part: recall_at_precision(z, y) for part, (z, y, _) in parts.items()} if binary else {},
    )
