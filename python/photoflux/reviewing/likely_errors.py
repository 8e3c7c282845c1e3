"""Finds the likely label errors of a run's data, and writes them into the run's folder for a review."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.errors import SettingError
from photoflux.filtering.ledger import DONE, LABELS, Item, Ledger, SourceKey
from photoflux.runs.dataset import dataset_of
from photoflux.runs.evaluation import probabilities
from photoflux.runs.progress import Display
from photoflux.runs.run import Run
from photoflux.runs.seen import scored_positions
from photoflux.system.names import printable
from photoflux.thresholds.operating_point import scored_parts


def open_labels(run: Run, display: Display) -> Ledger:
    """Return the ledger ``labels.sqlite`` of a run, with the images of its validation and test part.

    Those of the training part are left out: the run was fitted to their labels, wrong ones too. An item's decision is
    the label that the dataset has, and its score is the run's. Labels that are there already stay.

    Raises
    ------
    SettingError
        If the run has not two classes.
    DataError, RunError
        If its dataset is gone or changed, it has no logits, or its folder cannot be written.
    """
    if len(run.classes) != 2:
        raise SettingError(
            f"Labels are reviewed of two classes; {printable(run.path)} has {len(run.classes)}: "
            f"{', '.join(run.classes)}. Train one with `positive`, which makes one class against the others."
        )
    parts = scored_parts(run, display)
    prepared = dataset_of(run, display)
    model = hashlib.sha256(b"".join(logits.tobytes() for logits, _ in parts.values())).hexdigest()[:16]
    ledger = Ledger(run.path, writes=True, name=LABELS)
    try:
        if ledger.meta("model") != [model, prepared.fingerprint]:
            _fill(ledger, run, prepared, parts, model)
    except BaseException:
        ledger.close()
        raise
    return ledger


def _fill(
    ledger: Ledger, run: Run, prepared: PreparedDataset, parts: dict[str, tuple[np.ndarray, np.ndarray]], model: str
) -> None:
    files = prepared.files()
    made_from = prepared.meta.get("made_from") or {}
    folder = Path(made_from["path"]) if made_from.get("kind") == "folder" else None
    with ledger.transaction():
        # An earlier run's, or of images that are in other parts now.
        ledger.mark_stale("state = 'done'")
        for part, (logits, labels) in parts.items():
            scores = probabilities(logits)[:, 1]
            positions = scored_positions(run, prepared, part)
            for position, label, score in zip(positions.tolist(), labels.tolist(), scores.tolist(), strict=True):
                row = files[position]
                key, page = _source(prepared, folder, row["path"], position)
                size = int(row["width"]), int(row["height"])
                item = Item(page, DONE, row["sha256"], *size, score, run.classes[label], "", None)
                source, _ = ledger.source(key, -1, -1)
                ledger.record(source, [item], model)
        ledger.keep(model=[model, prepared.fingerprint])


def _source(prepared: PreparedDataset, folder: Path | None, path: str, position: int) -> tuple[SourceKey, int]:
    """Return what an image is known by: its file and page if that is still there, else its place in the dataset."""
    if folder is not None:
        if (folder / path).is_file():
            return SourceKey(str((folder / path).absolute())), 0
        name, _, page = path.rpartition("#")
        if page.isdecimal() and (folder / name).is_file():
            return SourceKey(str((folder / name).absolute())), int(page)
    return SourceKey(str(prepared.path.resolve()), path, position), 0
