"""`photoflux.filter`: takes the photographs out of a pile, in a job that goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from photoflux.data.checks import check_whole
from photoflux.data.images.parallel import cores
from photoflux.data.litter import ignored_in_words
from photoflux.engines.base import Model
from photoflux.errors import DataError, RunError, SettingError, unknown_name
from photoflux.filtering.cluster import ClusterScorer
from photoflux.filtering.decision import Decision, Filtered
from photoflux.filtering.job import Job, fingerprint_of_model
from photoflux.filtering.ledger import NAME
from photoflux.filtering.pile import Pile
from photoflux.filtering.placing import HOW
from photoflux.filtering.scoring import LocalScorer, Scorer
from photoflux.filtering.station import Loader
from photoflux.model.weights import fingerprint_of, read_weights_of
from photoflux.runs.evaluation import probabilities
from photoflux.runs.folder import claimed_out
from photoflux.runs.progress import Display
from photoflux.runs.run import Run
from photoflux.runs.shift import Observed, in_words
from photoflux.system import atomic, log
from photoflux.system.names import printable
from photoflux.system.signals import received
from photoflux.thresholds.band import uncertain_band
from photoflux.thresholds.choice import check
from photoflux.thresholds.operating_point import scored_parts

CONFIDENCE = 0.95


def decision_of(run: Run, recall: float | None, threshold: float | None, display: Display) -> Decision:
    """Return from which score on an image is what: by a promise, a given threshold, the run's own, or 0.5.

    With a promise of recall or precision, what is near the threshold is uncertain (`uncertain_band`).

    Raises
    ------
    SettingError
        If both are given, one is out of range, or the run has not two classes.
    DataError, RunError
        If a promise cannot be kept: the run's data is gone, or has too few images.
    """
    if len(run.classes) != 2:
        raise SettingError(
            f"A pile is filtered by a run of two classes; {printable(run.path)} has {len(run.classes)}: "
            f"{', '.join(run.classes)}. Train one with `positive`, which makes one class against the others."
        )
    negative, positive = run.classes
    if recall is not None and threshold is not None:
        raise SettingError("Give one of `recall` and `threshold`; received both.")
    if threshold is not None:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise SettingError(f"`threshold` must be a score, 0 to 1; received: {threshold!r}.")
        value = float(threshold)
        return Decision(value, value, value, negative, positive, f"“{positive}” from the given score {value:g} on")
    if recall is not None:
        check("recall", recall, CONFIDENCE)
        low, high = _band(run, "recall", recall, CONFIDENCE, display)
        return _promised(low, high, "recall", recall, CONFIDENCE, negative, positive)
    if run.threshold is None:
        return Decision(0.5, 0.5, 0.5, negative, positive, f"“{positive}” from a score of 0.5 on")
    kept = run.threshold
    promise, value, score = kept["promise"], kept["value"], kept["score"]
    confidence = float(kept.get("confidence", CONFIDENCE))
    try:
        low, high = _band(run, promise, value, confidence, display)
    except (DataError, RunError) as error:
        log.note(f"no scores are taken for uncertain, as the run's validation images are not here: {error}")
        low = high = score
    if score not in (low, high):  # it was chosen on other scores than those of now
        low = high = score
    return _promised(low, high, promise, value, confidence, negative, positive)


def _band(run: Run, promise: str, value: float, confidence: float, display: Display) -> tuple[float, float]:
    logits, labels = scored_parts(run, display)["validation"]
    return uncertain_band(promise, probabilities(logits)[:, 1], labels, value, confidence)


def _promised(
    low: float, high: float, promise: str, value: float, confidence: float, negative: str, positive: str
) -> Decision:
    threshold = low if promise == "recall" else high
    why = f"“{positive}” from a score of {threshold:.6g} on, for a {promise} of {value:g} or more"
    why += f" with confidence {confidence:g}"
    if low < high:
        why += f"; uncertain from {low:.6g} to {high:.6g}"
    return Decision(threshold, low, high, negative, positive, why)


def filter_pile(
    run: Run,
    pile: Sequence[str | Path],
    out: Path,
    load: Callable[[], Model],
    *,
    recall: float | None,
    threshold: float | None,
    how: str,
    workers: int | None,
    watch: bool,
    display: Display,
    dask: str | None = None,
    load_there: Loader | None = None,
) -> Filtered:
    """Filter a pile into a folder, as `photoflux.filter` says; `load_there` loads the run on a worker of `dask`."""
    if how not in HOW:
        raise unknown_name("how", how, HOW)
    if dask is not None and workers is not None:
        raise SettingError("Give one of `workers` and `dask`: on a cluster each worker decodes in all its threads.")
    workers = cores() if workers is None else check_whole("`workers`", workers, 1, "an integer")
    _check_out(out)
    found = Pile(list(pile), out)
    decision = decision_of(run, recall, threshold, display)
    model = fingerprint_of_model(
        run, fingerprint_of(read_weights_of(run.weights, run.variant, run.input_shape, len(run.classes)))
    )
    with ExitStack() as stack:
        scorer_of = partial(_scorer_here, run, workers)
        if dask is not None:
            assert load_there is not None
            cluster = ClusterScorer(dask, run, load_there)
            stack.callback(cluster.end)
            scorer_of = partial(_scorer_there, cluster)
        stack.enter_context(claimed_out(out, _unwritable))
        try:
            out.mkdir(parents=True, exist_ok=True)
            job = Job(out, run, model, decision, found, how, display)
        except OSError as error:
            raise _unwritable(out, error) from error
        try:
            return _filter(job, load, scorer_of, watch, display)
        except OSError as error:
            raise _unwritable(out, error) from error
        finally:
            job.close()


def _scorer_here(run: Run, workers: int, look: _Look) -> Scorer:
    return LocalScorer(run, look.load, workers, look.see)


def _scorer_there(cluster: ClusterScorer, look: _Look) -> Scorer:
    cluster.show(look)
    return cluster


def _filter(
    job: Job, load: Callable[[], Model], scorer_of: Callable[[_Look], Scorer], watch: bool, display: Display
) -> Filtered:
    complete = False
    with ExitStack() as stack:
        look = _Look(job, load, stack)
        scorer = scorer_of(look)
        try:
            job.begin()
            display.say(f"Filtering: {job.decision.why}")
            job.work(scorer, watch=watch)
            complete = True
        finally:
            scorer.end()
            look.tell()
            values = job.finish(complete=complete)
    notes = [shift["text"] for shift in values["shifts"]]
    ignored = ignored_in_words(values["ignored"])
    if ignored is not None:
        notes.append(ignored)
    if job.copied:
        notes.append(
            f"{job.copied} pictures could not be linked and were copied: they lie on another disk or are not yours."
        )
    if "results.parquet" not in values["results"]:
        notes.append("there is no results.parquet, which needs pyarrow: pip install 'photoflux[filter]'.")
    return Filtered(job.folder, complete, values["counts"], values["failures"], job.decision, notes, values["shifts"])


class _Look:
    """Looks at the first images of the pile, and says if they are unlike those that the run was trained on."""

    def __init__(self, job: Job, load: Callable[[], Model], stack: ExitStack) -> None:
        self._job, self._load, self._stack = job, load, stack
        self._observed: Observed | None = None
        self._told = job.ledger.meta("shifts") is not None

    def load(self) -> Model:
        model = self._load()
        # From here on signals would be Julia's.
        self._stack.enter_context(received())
        self._observed = Observed(model, self._job.run)
        return model

    def see(self, pixels: Any, logits: Any, sizes: Any) -> None:
        assert self._observed is not None
        if self._told:
            return
        self._observed.add(pixels, logits, sizes)
        if self._observed.full:
            self.tell()

    @property
    def wants(self) -> bool:
        """Whether it is to see more images."""
        return not self._told and (self._observed is None or not self._observed.full)

    def extend(self, images: int, measured: dict[str, Any]) -> None:
        """Take what was measured of images on another machine."""
        if self._observed is None:
            self._observed = Observed(None, self._job.run)
        self._observed.extend(images, measured)
        if self._observed.full:
            self.tell()

    def tell(self) -> None:
        """Say it once, and keep it in the ledger."""
        if self._told or self._observed is None or not self._observed.images:
            return
        self._told = True
        found = self._observed.shifts()
        self._job.keep_shifts([shift.as_dict() for shift in found])
        for line in in_words(found):
            log.warn(line)


def _check_out(out: Path) -> None:
    """Refuse a folder that is not a job's, and not empty."""
    if out.is_dir() and ((out / NAME).is_file() or atomic.is_empty(out)):
        return
    if out.exists() or out.is_symlink():
        kind = f"a folder with other content (it has no {NAME})" if out.is_dir() else "a file"
        raise RunError(
            f"`out` must be a new folder or that of an earlier `photoflux filter`; {printable(out)} is {kind}."
        )


def _unwritable(out: Path, error: OSError) -> RunError:
    return RunError(
        f"The job could not be written to {printable(out)}: {error.strerror or error}. Free space or see to the "
        "permissions, and start it again: it goes on where it stopped."
    )
