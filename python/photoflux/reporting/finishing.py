"""Scores a trained run, draws its figures and writes its report; a failure of one does not stop the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from photoflux.data.prepared import PreparedDataset, open_prepared
from photoflux.engines.base import Engine, Model
from photoflux.errors import DataError
from photoflux.model.weights import read_weights_of, write_arrays
from photoflux.reporting import plots
from photoflux.reporting.report_data import PARTS
from photoflux.reporting.run_report import report
from photoflux.runs.dataset import dataset_of
from photoflux.runs.folder import amend
from photoflux.runs.progress import Display
from photoflux.runs.reference import NAME as REFERENCE
from photoflux.runs.reference import reference_of, write_reference
from photoflux.runs.run import LOGITS, Run
from photoflux.runs.scoring import logits_of, metrics_of, own_logits
from photoflux.runs.seen import scored_positions
from photoflux.runs.training import Trained
from photoflux.system import atomic, log
from photoflux.system.names import printable, reason
from photoflux.thresholds.calibration import Calibration

INTERRUPTED = "It was interrupted after the last epoch: what is missing was not made."
ENDED = "It was ended before it was scored: what is missing was not made."
CURVES, CONFUSION = "curves.png", "confusion.png"
FAILED = " could not be made: "


class _Finisher:
    """Makes one thing after the other; what fails becomes a note of the run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.notes = [note for note in run.notes if note not in (INTERRUPTED, ENDED)]
        self.changed = self.notes != run.notes
        self.interrupted = False
        self.ended: SystemExit | None = None
        self.scored: tuple[Model, PreparedDataset, dict[str, np.ndarray]] | None = None  # and the logits of its parts

    def interrupt(self, error: KeyboardInterrupt | SystemExit) -> None:
        """Make nothing more, and note why."""
        self.interrupted = True
        self.ended = error if isinstance(error, SystemExit) else None
        self.note(ENDED if self.run.ended == "interrupted" else INTERRUPTED)

    def make(self, what: str, do: Callable[[], Any]) -> bool:
        """Make something and return whether that worked; nothing more is made after an interruption."""
        if self.interrupted:
            return False
        kept = [note for note in self.notes if not note.startswith(what + FAILED)]
        try:
            do()
        except (KeyboardInterrupt, SystemExit) as error:
            self.interrupt(error)
            return False
        except Exception as error:
            self.notes = kept
            self.note(f"{what}{FAILED}{reason(error)}")
            return False
        if kept != self.notes:
            self.notes, self.changed = kept, True
        return True

    def note(self, text: str) -> None:
        """Keep a note, and print it."""
        self.notes.append(text)
        self.changed = True
        log.note(f"{text} `photoflux report {printable(self.run.path)}` tries again.")

    def save(self, metrics: bool) -> Run:
        """Write down what was found, as far as that can be done, and return the run."""
        values: dict[str, Any] = {"notes": self.notes} | ({"metrics": self.run.metrics} if metrics else {})
        if not (self.changed or metrics):
            return self.run
        for _ in range(2):  # a Ctrl-C here must not cost the scores
            try:
                return amend(self.run, **values)
            except KeyboardInterrupt:
                self.interrupted = True
            except Exception as error:
                log.note(f"{reason(error)}")
                break
        return dataclasses.replace(self.run, notes=self.notes)


def finish(
    run: Run,
    engine: Engine,
    prepared: PreparedDataset | None,
    interruption: KeyboardInterrupt | SystemExit | None = None,
) -> Run:
    """Score validation and test, keep their logits, draw and report a run that is in its place.

    Nothing is raised for what fails, a Ctrl-C included: the run's ``notes`` say what is missing and why, and
    `photoflux.report` makes it again.

    Without its data it gets no scores; after an `interruption` that came while it was being saved nothing is made.

    Raises
    ------
    SystemExit
        If the process was told to end; the notes are written before.
    """
    finisher = _Finisher(run)
    if interruption is not None:
        finisher.interrupt(interruption)
    scored = (
        finisher.make("Scores", lambda: _score(finisher, engine, prepared, PARTS)) if prepared is not None else False
    )
    run = finisher.run = finisher.save(scored)
    finisher.changed = False
    _keep_reference(finisher)
    _draw(finisher)
    finisher.make("report.html", lambda: report(finisher.run))
    run = finisher.save(False)
    if finisher.ended is not None:
        raise finisher.ended
    return run


def finish_fit(trained: Trained, engine: Engine, prepared: PreparedDataset) -> Run:
    """Do for a fit what `finish` does for a run, and then raise what ended it.

    Raises
    ------
    DivergedError
        If the loss became NaN or infinite.
    """
    run = finish(trained.run, engine, prepared, trained.interruption)
    if trained.failure is not None:
        raise trained.failure
    return run


def complete(run: Run, engine: Callable[[], Engine], display: Display) -> Run:
    """Make what a run lacks: scores, logits and reference, if its data is there, and figures; see `finish`.

    `engine` is called, and returns the engine, only if there is something to score.
    """
    finisher = _Finisher(run)
    scored = False
    prepared = _data_of(run, display)
    if prepared is not None:
        missing = unscored_parts(run, prepared)
        if missing or _lacks_reference(run):
            scored = finisher.make("Scores", lambda: _score(finisher, engine, prepared, missing))
            _keep_reference(finisher)
    _draw(finisher, only_missing=not scored)
    run = finisher.save(scored)
    if finisher.interrupted:
        raise finisher.ended or KeyboardInterrupt
    return run


def was_interrupted(run: Run) -> bool:
    """Say whether a Ctrl-C kept scores, figures or the report of a run from being made."""
    return INTERRUPTED in run.notes or ENDED in run.notes


def unscored_parts(run: Run, prepared: PreparedDataset) -> list[str]:
    """Return the parts of a run's data that have images to score, and of which it has no metrics or no logits."""
    images = {part: len(scored_positions(run, prepared, part)) for part in PARTS}
    return [part for part, count in images.items() if count and own_logits(run, part, count) is None]


def _data_of(run: Run, display: Display) -> PreparedDataset | None:
    """Return the dataset that a run was made with, or None.

    One that is gone is prepared again only where there is something to score: whoever needs it for more says so.
    """
    try:
        if not all(part in run.metrics.by_part() for part in PARTS) or not (run.path / LOGITS).is_file():
            return dataset_of(run, display)
        prepared = open_prepared(run.data.path or "")
    except DataError:
        return None
    return prepared if prepared.fingerprint == run.data.fingerprint else None


def _score(
    finisher: _Finisher, engine: Engine | Callable[[], Engine], prepared: PreparedDataset, parts: Sequence[str]
) -> None:
    run = finisher.run
    read_weights_of(run.weights, run.variant, run.input_shape, len(run.classes))  # before an engine starts
    chosen: Engine = engine() if callable(engine) else engine
    model = chosen.load(run.variant, run.weights, prepared.shape, len(prepared.classes))
    logits: dict[str, np.ndarray] = {}
    scored: dict[str, Any] = {}
    for part in PARTS:
        indices = scored_positions(run, prepared, part)
        if not len(indices):
            continue
        if part in parts:
            logits[part] = logits_of(model, prepared, indices)
            metrics = metrics_of(run, prepared, indices, logits[part])
            left_out = len(prepared.indices(part)) - len(indices)
            scored[part] = dataclasses.replace(metrics, part=part, left_out=left_out)
        else:
            logits[part] = run.logits(part)
    finisher.run = dataclasses.replace(run, metrics=dataclasses.replace(run.metrics, **scored))
    if logits:
        write_arrays(run.path / LOGITS, logits)
    finisher.scored = model, prepared, logits


def _keep_reference(finisher: _Finisher) -> None:
    """Keep what the run was trained on, once it is scored."""
    if finisher.scored is not None:
        run, scored = finisher.run, finisher.scored
        finisher.make(REFERENCE, lambda: write_reference(run.path, reference_of(run, *scored)))


def _lacks_reference(run: Run) -> bool:
    """Say whether what the run was trained on should have been kept and was not; an earlier PhotoFlux kept none."""
    failed = was_interrupted(run) or any(note.startswith(REFERENCE + FAILED) for note in run.notes)
    return failed and not (run.path / REFERENCE).is_file()


def _draw(finisher: _Finisher, only_missing: bool = False) -> None:
    run = finisher.run

    def wanted(name: str) -> bool:
        return not (only_missing and (run.path / name).is_file())

    if run.history and wanted(CURVES):
        title = f"{run.variant.name} on {run.data.name} (engine {run.engine}, seed {run.settings.seed})"
        finisher.make(CURVES, lambda: plots.plot_curves(run.history, run.ended, title, run.path / CURVES))
    test = run.metrics.test
    if test is not None and wanted(CONFUSION):
        caption = f"{run.variant.name} on {run.data.name}: test accuracy {test.accuracy:.3f}"
        finisher.make(
            CONFUSION, lambda: plots.plot_confusion(test.confusion, run.classes, caption, run.path / CONFUSION)
        )


def draw_calibration(run: Run, calibration: Calibration) -> list[str]:
    """Draw ``calibration.png``, and return a note if that fails: a threshold holds without a picture."""
    path = run.path / "calibration.png"
    title = f"{run.variant.name} on {run.data.name}: are its probabilities right?"
    try:
        plots.plot_calibration(calibration, title, path)
    except Exception as error:
        atomic.remove(path)  # an earlier threshold's
        return [f"{path.name} could not be made: {reason(error)}"]
    return []
