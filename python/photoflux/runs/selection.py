"""Selects the images that a run is scored on: a part of its data, or images that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.data.preparation import NAMES, Source, kind_of
from photoflux.data.preparation import prepare as prepare_source
from photoflux.data.prepared import SPLITS, PreparedDataset
from photoflux.data.sources.unsplit import missing_classes, prepare_unsplit
from photoflux.errors import DataError, SettingError, unknown_name
from photoflux.runs.dataset import dataset_of
from photoflux.runs.progress import Display, announce
from photoflux.runs.run import Run
from photoflux.runs.seen import already_seen, scored_positions, seen_by
from photoflux.system.names import composed, printable, user_path

ALL = "all"
# Sources whose publisher defines the test part.
_PUBLISHED = ("cifar10", "idx")


@dataclass(frozen=True, eq=False)
class Selection:
    """The images that are scored.

    Attributes
    ----------
    prepared : PreparedDataset
        Holds them.
    part : str
        ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
    chosen : numpy.ndarray
        Their positions, ascending, one or more.
    left_out : int
        How many images of the part are not scored.
    notes : list of str
        Why, and what else is to be known.
    rejected : int
        How many files of other data than the run's own could not be read.
    """

    prepared: PreparedDataset
    part: str
    chosen: np.ndarray
    left_out: int = 0
    notes: list[str] = field(default_factory=list)
    rejected: int = 0


def select(run: Run, data: Source | None, part: str | None, display: Display) -> Selection:
    """Return the images on which a run is scored.

    Its own dataset, given or not, has the parts that it was trained with. Any other has been split differently or not
    at all, so of whatever is scored there the images are left out that the run has seen. A source that has no parts of
    its own is not split for it.

    Parameters
    ----------
    run : Run
        The run.
    data : optional
        As `photoflux.evaluate` takes it.
    part : str or None
        ``"train"``, ``"validation"``, ``"test"`` or ``"all"``; None: all of a source that has no parts, else test.
    display : Display
        Shows what is prepared.

    Raises
    ------
    SettingError
        If there is no such part.
    DataError
        If the data cannot be used, does not fit the run, or has no image that the run has not seen.
    """
    if part is not None and part not in (*SPLITS, ALL):
        raise unknown_name("part", part, (*SPLITS, ALL))
    prepared, whole = (dataset_of(run, display), False) if data is None else _opened(run, data, display)
    if prepared.fingerprint == run.data.fingerprint:
        return _own(run, prepared, part or "test")
    _check_fits(run, prepared)
    if whole and part not in (None, ALL):
        raise SettingError(
            f"{printable(prepared.name)} has no {part} part: it was not split for this run, and all is scored but the "
            "images that the run has seen. Leave `part` out, or leave the data out to score the run on its own."
        )
    part = part or (ALL if whole else "test")
    return _foreign(run, prepared, part)


def _own(run: Run, prepared: PreparedDataset, part: str) -> Selection:
    whole = np.arange(len(prepared)) if part == ALL else prepared.indices(part)
    chosen = scored_positions(run, prepared, "test" if part == ALL else part)
    name = "images" if part == ALL else f"{part} images"
    if not len(whole):
        raise DataError(f"The {part} part of {printable(prepared.name)} has no images.")
    if not len(chosen):
        raise DataError(
            f"All {len(whole)} {name} of {printable(prepared.name)} were seen by the initial weights of "
            f"{printable(run.path)}, so there is nothing to score. Give images that no run before it was "
            "trained on."
        )
    left_out = len(whole) - len(chosen)
    notes = []
    if left_out:
        why = "the model has seen them in training or validation"
        if part != ALL:
            why = "the initial weights had seen them in training or validation"
        notes.append(f"{left_out} of {len(whole)} {name} were left out: {why}.")
    return _selection(run, prepared, part, chosen, left_out, notes, part in ("test", ALL))


def _foreign(run: Run, prepared: PreparedDataset, part: str) -> Selection:
    whole = np.arange(len(prepared)) if part == ALL else prepared.indices(part)
    name = "images" if part == ALL else f"{part} images"
    if not len(whole):
        raise DataError(f"The {part} part of {printable(prepared.name)} has no images.")
    mask = already_seen(prepared, whole, seen_by(run))
    chosen, left_out = whole[~mask], int(mask.sum())
    if not len(chosen):
        raise DataError(
            f"The run {printable(run.path)} has seen all {left_out} {name} of {printable(prepared.name)} in training "
            "or validation, so there is nothing to score. Give images that it was not trained on."
        )
    notes = prepared.warnings if prepared.meta.get("unsplit") is True else []
    if left_out:
        notes.append(
            f"{left_out} of {len(whole)} {name} were left out: the model has seen them in training or validation."
        )
    return _selection(run, prepared, part, chosen, left_out, notes, True)


def _selection(
    run: Run, prepared: PreparedDataset, part: str, chosen: np.ndarray, left_out: int, notes: list[str], new: bool
) -> Selection:
    unknown = seen_by(run).unknown if new else ""
    if unknown:
        notes.append(f"It is not known which images the model has seen, so some of these may be among them: {unknown}.")
    notes += missing_classes(run.classes, prepared.labels[chosen])
    rejected = 0 if prepared.fingerprint == run.data.fingerprint else len(prepared.rejected)
    return Selection(prepared, part, chosen, left_out, notes, rejected)


def _opened(run: Run, data: Source, display: Display) -> tuple[PreparedDataset, bool]:
    """Return given data as a dataset, and whether it has no parts of its own."""
    kind = kind_of(data)
    if isinstance(data, str | Path) and kind != "own" and data not in NAMES:
        data = user_path(data)
    if kind == "prepared":
        return prepare_source(data), False
    d = run.data
    prepared = _as_the_run_did(run, data, kind, display)
    if prepared is not None and prepared.fingerprint == d.fingerprint:
        return prepared, False
    if prepared is None and kind in ("demo", *_PUBLISHED):
        prepared = prepare_source(
            data,
            positive=d.positive,
            image_size=d.shape.height if d.shape.height == d.shape.width else None,
            seed=run.settings.seed if d.seed is None else d.seed,
            on_progress=display.step,
        )
    if prepared is None:
        prepared = prepare_unsplit(
            data,  # type: ignore[arg-type]  # only a path, a registered source or arrays are left
            classes=run.classes,
            positive=d.positive,
            shape=d.shape,
            on_progress=display.step,
        )
    # What there is to be said of a dataset that has no parts is said of the score.
    announce(prepared, display, warnings=False)
    return prepared, kind not in _PUBLISHED


def _as_the_run_did(run: Run, data: Any, kind: str, display: Display) -> PreparedDataset | None:
    """Prepare the source of the run's own data as that was prepared, so that it is known if it has not changed.

    None if it is another source, or cannot be prepared so any more.
    """
    from photoflux.data.additions import with_labels_again

    settings = dict(run.data.made_from or {})
    place = settings.pop("path", None)
    settings.pop("labels", None)
    if settings.pop("kind", None) != kind:
        return None
    if kind == "folder" and (place is None or Path(place).resolve() != Path(data).resolve()):
        return None
    if kind == "own" and place != data:
        return None
    try:
        prepared = prepare_source(data, **settings, on_progress=display.step)
        prepared = with_labels_again(prepared, run.data.made_from or {}, display.step)
    except DataError:
        return None
    return prepared if _fits(run, prepared) else None


def _fits(run: Run, prepared: PreparedDataset) -> bool:
    same_names = [composed(name) for name in run.classes] == [composed(name) for name in prepared.classes]
    return same_names and run.shape == prepared.shape


def _check_fits(run: Run, prepared: PreparedDataset) -> None:
    if not _fits(run, prepared):
        expected, found = ("×".join(map(str, of.shape)) for of in (run, prepared))
        raise DataError(
            f"The dataset {printable(prepared.name)} does not fit the run {printable(run.path)}: expected classes "
            f"{run.classes}, images of {expected} (C×H×W); found {prepared.classes}, {found}."
        )
