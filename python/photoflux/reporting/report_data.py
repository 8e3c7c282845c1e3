"""Collects what a run's report is made from, and says what is missing and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.errors import DataError
from photoflux.reporting.i18n import Translator
from photoflux.runs.dataset import DatasetChangedError, dataset_of
from photoflux.runs.evaluation import decisions, image_losses, probabilities
from photoflux.runs.progress import Display
from photoflux.runs.run import Run
from photoflux.runs.scoring import own_logits
from photoflux.runs.seen import scored_positions
from photoflux.system import log

PARTS = ("validation", "test")


@dataclass(frozen=True, eq=False)
class Scored:
    """The logits of one part of the run's data, with what is known of its images.

    Attributes
    ----------
    indices : numpy.ndarray
        The positions of its images in the dataset, (N,).
    labels : numpy.ndarray
        From 0, (N,).
    logits : numpy.ndarray
        (N, outputs).
    """

    indices: np.ndarray
    labels: np.ndarray
    logits: np.ndarray

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of every class, (N, classes)."""
        return probabilities(self.logits)

    @cached_property
    def predicted(self) -> np.ndarray:
        """The predicted class of each image, (N,)."""
        return decisions(self.logits)


@dataclass(frozen=True, eq=False)
class ReportData:
    """A run with its dataset and its logits, as far as they are there.

    Attributes
    ----------
    run : Run
        The run.
    prepared : PreparedDataset or None
        Its dataset, the same as it was trained on; None if it is gone or another.
    files : list of dict
        The rows of its ``files.csv``, one per image.
    scored : mapping of str to Scored
        The validation and test parts that have logits and images.
    missing : list of str
        A sentence for each thing that the report lacks, and why.
    """

    run: Run
    prepared: PreparedDataset | None
    files: list[dict[str, str]]
    scored: Mapping[str, Scored]
    missing: list[str] = field(default_factory=list)

    @cached_property
    def folders(self) -> np.ndarray:
        """The folder class of every image of the dataset, (N,); its class where it was made of no folders."""
        return np.asarray([row["folder"] for row in self.files], dtype=object)

    def losses(self, part: str) -> np.ndarray:
        """Return the data loss of each image of a part, (N,)."""
        scored = self.scored[part]
        return image_losses(self.run.variant.loss, scored.logits, scored.labels)


def gather(run: Run, tr: Translator) -> ReportData:
    """Return what is there of a run, with a sentence for what is missing."""
    missing: list[str] = []
    prepared, files = _dataset(run, tr, missing)
    scored = {}
    if run.metrics.test is None:
        missing[:] = [_without_scores(run, prepared, tr)]
    elif prepared is not None:
        for part in PARTS:
            indices = scored_positions(run, prepared, part)
            if not len(indices):
                continue
            logits = own_logits(run, part, len(indices))
            if logits is not None:
                scored[part] = Scored(indices, np.asarray(prepared.labels[indices]), logits)
        if not scored:
            missing.append(
                tr(
                    "The run holds no logits of its own: an earlier PhotoFlux wrote it. Without them there are no "
                    "threshold curves and no examples; training again gives them."
                )
            )
    return ReportData(run, prepared, files, scored, missing)


def _dataset(run: Run, tr: Translator, missing: list[str]) -> tuple[PreparedDataset | None, list[dict[str, str]]]:
    path = run.data.path
    if path is None and run.data.made_from is None:
        missing.append(tr("The run does not say where its prepared dataset is, so no image of it is shown."))
        return None, []
    try:
        with Display() as display:
            prepared = dataset_of(run, display)
        return prepared, prepared.files()
    except DataError as error:
        log.note(str(error))
        changed = isinstance(error, DatasetChangedError)
    missing.append(
        tr.sentence(
            "The prepared dataset at {path} is no longer the one that the run was trained on (its fingerprint "
            "differs): examples, errors by image and threshold curves are missing."
            if changed
            else "There is no usable prepared dataset at {path} any more: examples, errors by image and threshold "
            "curves are missing.",
            path=path,
        )
    )
    return None, []


def _without_scores(run: Run, prepared: PreparedDataset | None, tr: Translator) -> str:
    if prepared is not None and len(prepared.indices("test")) and not len(scored_positions(run, prepared, "test")):
        return tr("The initial weights had seen all test images, so there is no test score.")
    if run.ended == "adopted":
        return tr("The model was imported without its data, so it has not been evaluated.")
    return tr(
        "The run holds no scores of the validation and test parts: Julia alone wrote it. `photoflux evaluate RUN "
        "--data DATA` gives them."
    )
