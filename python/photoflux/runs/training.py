"""Trains a variant on a prepared dataset and saves the run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.engines.base import Checkpoints, Engine, Fit
from photoflux.engines.callbacks import NO_HOOKS, Hooks
from photoflux.errors import DivergedError, RunError
from photoflux.model.history import BatchProgress, EpochRow
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.model.weights import fingerprint_of, read_weights_of
from photoflux.runs.checkpoints import (
    begun,
    bytes_in_words,
    bytes_needed,
    checkpoint_files,
    free_bytes,
    keep_in,
    where_it_is,
)
from photoflux.runs.description import RunData, RunMetrics, TrainMetrics
from photoflux.runs.folder import write_description, writing
from photoflux.runs.progress import Display
from photoflux.runs.run import Run, load_run
from photoflux.runs.seen import fitted, notes_of, seen_with, write_seen
from photoflux.runs.transfer import backbone_entry, backbone_of, input_shape
from photoflux.system import log
from photoflux.system.names import reason, user_path
from photoflux.system.signals import ENDING, Asked, asking


def initial_weights(source: str | Path | Run) -> Path:
    """Return the weights file that a fit is to start from, of a run, its folder, or a weights file itself.

    Raises
    ------
    RunError
        If there is no such run or file.
    """
    if isinstance(source, Run):
        return source.weights
    path = user_path(source)
    if path.is_file() and path.suffix in (".keras", ".h5"):
        raise RunError(
            f"{path} is a Keras file. Make a run of it first: `photoflux import_keras {path} VARIANT --out RUN`."
        )
    if path.is_file():
        return path
    return load_run(source).weights


@dataclass(frozen=True)
class Trained:
    """A fit whose run is in its place.

    Attributes
    ----------
    run : Run
        The run, not scored yet.
    interruption : KeyboardInterrupt, SystemExit or None
        A Ctrl-C that came while the run was being saved, or the end of the process that a signal asked for.
    failure : DivergedError or None
        What ended the fit; the run has the last good weights.
    """

    run: Run
    interruption: KeyboardInterrupt | SystemExit | None
    failure: DivergedError | None


def fit_and_save(
    engine: Engine,
    variant: Variant,
    prepared: PreparedDataset,
    settings: Settings,
    folder: Path,
    display: Display,
    initial: Path | None = None,
    *,
    resume: bool = False,
    checkpoint_minutes: float = Checkpoints.minutes,
    hooks: Hooks = NO_HOOKS,
) -> Trained:
    """Fit, from the weights in the file `initial` if given, and write the run atomically.

    Checkpoints are in the run's folder until the fit has ended, and after an interruption; with `resume` it goes on
    from them. Without room for them there are none, and a note says so. Ctrl-C, SIGTERM and SIGHUP end the fit at the
    next batch, and the run so far is kept.

    Raises
    ------
    RunError
        If the folder cannot be written, or another process writes to it; an earlier run there stays.
    """
    rows: list[EpochRow] = []
    classes, shape = len(prepared.classes), input_shape(variant, prepared.shape, backbone_of(engine))
    origin = None if initial is None else origin_of(initial, read_weights_of(initial, variant, shape, classes))
    seen = fitted(prepared, None if initial is None else seen_with(initial))
    notes = notes_of(seen, prepared)
    for note in notes:
        log.note(note)

    latest: BatchProgress | None = None

    def on_batch(progress: BatchProgress) -> bool:
        nonlocal latest
        latest = progress
        display.batch(progress)
        return bool(asked)

    def on_epoch(row: EpochRow) -> None:
        rows.append(row)
        # There are more of them where a backbone is fine-tuned after the head's fit.
        display.epoch(row, settings.epochs if latest is None else latest.epochs)

    def on_note(note: str) -> None:
        notes.append(note)
        log.note(note)

    with asking() as asked:
        with writing(folder, rescue=True) as temporary, begun(folder, engine.name, variant, prepared) as place:
            checkpoints: Checkpoints | None = Checkpoints(place, resume, checkpoint_minutes)
            needed, free = bytes_needed(variant, prepared, backbone_of(engine)), free_bytes(folder)
            if needed > free and not resume:
                checkpoints = None
                on_note(
                    f"There is no room for checkpoints, which need up to {bytes_in_words(needed)}; "
                    f"{bytes_in_words(free)} are free. Where this fit is ended it cannot be resumed."
                )
            weights = temporary / "weights.safetensors"
            write_seen(temporary, seen)
            began = time.perf_counter()
            failure = None
            try:
                fit = engine.fit(
                    variant,
                    prepared,
                    settings,
                    weights,
                    initial=initial,
                    on_batch=on_batch,
                    on_epoch=on_epoch,
                    on_note=on_note,
                    checkpoints=checkpoints,
                    hooks=hooks,
                )
            except DivergedError as error:
                failure = DivergedError(str(error).replace(str(temporary), str(folder)))
                fit = Fit(rows, len(rows), "epochs")
            except RunError as error:
                hint = f" `--resume` goes on from {where_it_is(folder)}." if checkpoint_files(folder) else ""
                raise RunError(str(error).replace(str(temporary), str(folder)) + hint) from error
            if fit.ended == "interrupted":
                keep_in(folder, temporary)
                notes.append(_where_interrupted(latest, fit, variant))
            # Of a fit that was resumed, those of the epochs before too.
            seconds = max(time.perf_counter() - began, sum(row.seconds for row in fit.history) if resume else 0.0)
            versions: dict[str, str] = {}
            interruption: KeyboardInterrupt | SystemExit | None = None
            try:
                versions = engine.versions()
            except (KeyboardInterrupt, SystemExit) as error:
                interruption = error
            except Exception as error:
                notes.append(f"The versions of what computed it are not known: {reason(error)}")
            run = Run(
                path=folder,
                engine=engine.name,
                variant=variant,
                settings=settings,
                data=RunData.of(prepared),
                history=fit.history,
                kept_epoch=fit.kept_epoch,
                ended=fit.ended if failure is None else "diverged",
                seconds=seconds,
                metrics=RunMetrics(TrainMetrics.of(fit.history, fit.kept_epoch)),
                versions=versions,
                backbone=backbone_entry(engine, variant, weights, classes),
                initial=origin,
                notes=notes,
            )
            write_description(temporary, run)
        if fit.ended == "interrupted":
            can = " It can be resumed." if checkpoint_files(folder) else ""
            log.warn(f"{_by_what(asked)}: the run so far is kept.{can} Note: {notes[-1]}")
    try:
        asked.hand_on()
    except (KeyboardInterrupt, SystemExit) as error:
        # A Ctrl-C has ended the fit, and that is all.
        if fit.ended != "interrupted" or isinstance(error, SystemExit):
            interruption = error
    return Trained(run, interruption, failure)


def _by_what(asked: Asked) -> str:
    return f"Ended by {asked.name}" if asked.number in ENDING else "Interrupted"


def _where_interrupted(latest: BatchProgress | None, fit: Fit, variant: Variant) -> str:
    """Return the note of a run whose fit was interrupted."""
    finished = len(fit.history)
    if latest is None or finished >= latest.epoch:
        return (
            f"It was interrupted after epoch {finished}." if finished else "It was interrupted before its first batch."
        )
    whose = "that batch" if variant.patience is None or not finished else f"the end of epoch {fit.kept_epoch}"
    return (
        f"It was interrupted in epoch {latest.epoch}, after batch {latest.batch} of {latest.batches}: that epoch is "
        f"unfinished, and the weights are those of {whose}."
    )


def origin_of(source: Path, weights: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return what a run says of the origin of its initial weights: a run's folder or a file, and their fingerprint."""
    place = source.parent if (source.parent / "run.json").is_file() else source
    return {"path": str(place.resolve()), "fingerprint": fingerprint_of(weights)}
