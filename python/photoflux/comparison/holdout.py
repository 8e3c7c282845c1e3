"""The second folder of a comparison: selects those of its images that no fit has trained or validated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from photoflux.data.preparation import kind_of
from photoflux.data.preparation import prepare as prepare_source
from photoflux.data.prepared import PreparedDataset
from photoflux.data.sources.unsplit import missing_classes, prepare_unsplit
from photoflux.errors import DataError
from photoflux.runs.progress import Display, announce
from photoflux.runs.seen import NOTHING, already_seen, seen_in, united
from photoflux.system import log
from photoflux.system.names import printable


@dataclass(frozen=True, eq=False)
class Holdout:
    """A second folder.

    Attributes
    ----------
    prepared : PreparedDataset
        All of its images.
    chosen : numpy.ndarray
        The positions of those that are scored, ascending, one or more.
    """

    prepared: PreparedDataset
    chosen: np.ndarray

    @property
    def left_out(self) -> int:
        """How many images are not scored."""
        return len(self.prepared) - len(self.chosen)


def second_folder(source: str | Path, split: Sequence[PreparedDataset], display: Display) -> Holdout:
    """Prepare the second folder for a comparison's datasets, one per seed, and leave out what any of its fits will see.

    Raises
    ------
    DataError
        If it cannot be used, does not fit, or the fits see all of it.
    """
    first = split[0]
    if kind_of(source) in ("folder", "own"):
        prepared = prepare_unsplit(
            source, classes=first.classes, positive=first.positive, shape=first.shape, on_progress=display.step
        )
    else:
        prepared = prepare_source(source, on_progress=display.step)
    announce(prepared, display)
    if (prepared.classes, prepared.shape) != (first.classes, first.shape):
        raise DataError(
            f"`holdout` {printable(source)} does not fit {printable(first.name)}: expected classes {first.classes} and "
            f"images of {'×'.join(map(str, first.shape))} (C×H×W); "
            f"found {prepared.classes}, {'×'.join(map(str, prepared.shape))}."
        )
    seen = NOTHING
    for dataset in {dataset.fingerprint: dataset for dataset in split}.values():
        seen = united(seen, seen_in(dataset))
    whole = np.arange(len(prepared))
    chosen = whole[~already_seen(prepared, whole, seen)]
    if not len(chosen):
        raise DataError(
            f"`holdout` {printable(source)}: all {len(whole)} images are among those that the fits train or validate "
            "on, so it gives no new evidence. Give images from other sources."
        )
    if len(chosen) < len(whole):
        log.note(
            f"{len(whole) - len(chosen)} of {len(whole)} images of the second folder are left out: the fits "
            "train or validate on them."
        )
    for note in missing_classes(first.classes, prepared.labels[chosen]):
        log.note(note)
    return Holdout(prepared, chosen)
