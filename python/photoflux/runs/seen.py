"""Records which images the weights of a run have seen, so that no score counts them as unseen.

A run's ``seen.safetensors`` names them by the first 8 bytes of two SHA-256: of the file, and of the prepared pixels, by
which a copy under other metadata or in another lossless format is known too; and of a folder's images by their
perceptual hash, with the rule that keeps near-duplicates on one side of a split. The ancestors' are among them
(``--initial``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from photoflux.data.duplicates import distinct_looks, looks_like
from photoflux.data.prepared import SPLITS, PreparedDataset, open_prepared
from photoflux.errors import DataError, RunError
from photoflux.model.weights import damaged, fingerprint_of, read_arrays, read_weights_of, write_arrays
from photoflux.runs.run import Run, load_run
from photoflux.system.names import printable

NAME = "seen.safetensors"
FORMAT = "photoflux-seen-1"
_LEFT_OUT = "left_out."


_NONE = np.empty(0, np.uint64)


@dataclass(frozen=True, eq=False)
class Seen:
    """The images that weights were made from.

    Attributes
    ----------
    train, validation : numpy.ndarray
        uint64, ascending: the identities of the images that weights were fitted to, and of those that chose an epoch.
    unknown : str
        Why there may be others, in words; empty if there are none.
    train_looks, validation_looks : numpy.ndarray
        uint64, ascending: the perceptual hashes of those images that are known by one, by which a copy of a photograph
        is found whose pixels differ a little, as after another decoder.
    left_out : mapping of str to numpy.ndarray
        Of the run's own ``"validation"`` and ``"test"`` part the positions in the dataset, int64, that are not scored,
        because the initial weights had seen the images.
    """

    train: np.ndarray
    validation: np.ndarray
    unknown: str = ""
    train_looks: np.ndarray = field(default_factory=lambda: _NONE)
    validation_looks: np.ndarray = field(default_factory=lambda: _NONE)
    left_out: Mapping[str, np.ndarray] = field(default_factory=dict)


NOTHING = Seen(_NONE, _NONE)


def identities(prepared: PreparedDataset, chosen: np.ndarray) -> np.ndarray:
    """Return the two identities, of file and of pixels, of chosen images of a dataset: (N, 2) uint64.

    Raises
    ------
    DataError
        If ``files.csv`` cannot be read.
    """
    rows = prepared.files()
    found = np.empty((len(chosen), 2), dtype=np.uint64)
    try:
        found[:, 0] = [int(rows[position]["sha256"][:16], 16) for position in chosen.tolist()]
    except ValueError as error:
        raise DataError(f"{prepared.path / 'files.csv'} has no valid sha256: {error}. Prepare it again.") from error
    for at, position in enumerate(chosen.tolist()):
        image = np.ascontiguousarray(prepared.images[position])
        found[at, 1] = int.from_bytes(hashlib.sha256(image.data).digest()[:8], "big")
    return found


def seen_in(prepared: PreparedDataset) -> Seen:
    """Return what a fit on a dataset sees: its training and validation parts."""
    train, validation = (np.unique(identities(prepared, prepared.indices(part))) for part in SPLITS[:2])
    hashes = prepared.looks
    if hashes is None:
        return Seen(train, validation)
    fitted_to, chosen_by = (distinct_looks(hashes[prepared.indices(part)]) for part in SPLITS[:2])
    return Seen(train, validation, "", fitted_to, chosen_by)


def united(one: Seen, other: Seen) -> Seen:
    """Return what weights have seen that were made from one and from the other."""
    return Seen(
        np.union1d(one.train, other.train),
        np.union1d(one.validation, other.validation),
        one.unknown or other.unknown,
        np.union1d(one.train_looks, other.train_looks),
        np.union1d(one.validation_looks, other.validation_looks),
    )


def among(found: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return for each image, by its identities (N, 2), whether one of them is among known ones: (N,) bool."""
    return np.asarray(np.isin(found, known).any(axis=1))


def already_seen(prepared: PreparedDataset, chosen: np.ndarray, seen: Seen, part: str = "test") -> np.ndarray:
    """Return for each chosen image whether weights have seen it, (N,) bool.

    Parameters
    ----------
    prepared : PreparedDataset
        The dataset.
    chosen : numpy.ndarray
        Positions in it, (N,).
    seen : Seen
        What was seen.
    part : str
        Of ``"validation"`` images only those count that weights were fitted to: an earlier choice of an epoch on them
        spoils no more than the present one.
    """
    known, looks = seen.train, seen.train_looks
    if part != "validation":
        known, looks = np.union1d(known, seen.validation), np.union1d(looks, seen.validation_looks)
    if not len(known) or not len(chosen):
        return np.zeros(len(chosen), dtype=bool)
    mask = among(identities(prepared, chosen), known)
    hashes = prepared.looks
    return mask if hashes is None or not len(looks) else mask | looks_like(hashes[chosen], looks)


def write_seen(folder: Path, seen: Seen) -> None:
    """Write ``seen.safetensors`` into a run's folder.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    arrays = {"train": seen.train, "validation": seen.validation}
    arrays |= {"train.looks": seen.train_looks, "validation.looks": seen.validation_looks}
    arrays |= {_LEFT_OUT + part: positions.astype(np.int64) for part, positions in seen.left_out.items()}
    write_arrays(folder / NAME, arrays, {"format": FORMAT, "unknown": printable(seen.unknown)})


def read_seen(folder: Path) -> Seen | None:
    """Return what ``seen.safetensors`` in a run's folder says; None if there is none. No code is executed.

    Raises
    ------
    RunError
        If it cannot be read.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    arrays, metadata = read_arrays(path, FORMAT)
    left_out = {name.removeprefix(_LEFT_OUT): arrays[name] for name in arrays if name.startswith(_LEFT_OUT)}
    try:
        for name, values in arrays.items():
            kind = np.int64 if name.startswith(_LEFT_OUT) else np.uint64
            if values.dtype != kind or values.ndim != 1:
                raise ValueError(f"{name} is {values.dtype} of the shape {values.shape}")
        return Seen(
            arrays["train"],
            arrays["validation"],
            metadata.get("unknown", ""),
            arrays.get("train.looks", _NONE),  # Julia writes none
            arrays.get("validation.looks", _NONE),
            left_out,
        )
    except (KeyError, ValueError) as error:
        raise damaged(path, error) from error


def seen_by(run: Run) -> Seen:
    """Return what the weights of a run have seen.

    A run of an earlier PhotoFlux has no file of it; its dataset says so, if it is still there.
    """
    found = read_seen(run.path)
    if found is not None:
        return found
    if run.ended == "adopted":
        return _unknown("it was imported from another program's file")
    before = NOTHING if run.initial is None else _seen_before(run.initial)
    try:
        prepared = open_prepared(run.data.path or "")
    except DataError:
        prepared = None
    if prepared is None or prepared.fingerprint != run.data.fingerprint:
        return united(before, _unknown(f"{printable(run.path)} does not say it, and its dataset is gone"))
    return united(seen_in(prepared), before)


def _unknown(why: str) -> Seen:
    return replace(NOTHING, unknown=why)


def _seen_before(initial: Mapping[str, str | None]) -> Seen:
    """Return what the initial weights of an earlier PhotoFlux's run had seen, if they are still there."""
    path = Path(initial["path"] or "")
    try:
        run = load_run(path)
        weights = read_weights_of(run.weights, run.variant, run.input_shape, len(run.classes))
        if fingerprint_of(weights) == initial["fingerprint"]:
            return seen_by(run)
    except RunError:
        pass
    return _unknown(f"its initial weights were {printable(path)}, which is gone or changed")


def seen_with(weights: Path) -> Seen:
    """Return what the weights in a file have seen: those of a run, or unknown."""
    if weights.name == "weights.safetensors" and (weights.parent / "run.json").is_file():
        return seen_by(load_run(weights.parent))
    return _unknown(f"{printable(weights)} is a weights file and no run, and does not say it")


def fitted(prepared: PreparedDataset, before: Seen | None) -> Seen:
    """Return what a run on a dataset will have seen, and which images of its own parts are not to be scored.

    Parameters
    ----------
    prepared : PreparedDataset
        The dataset.
    before : Seen or None
        What the initial weights have seen; None: they are drawn from the seed.
    """
    own = seen_in(prepared)
    if before is None:
        return own
    left_out = {}
    for part in ("validation", "test"):
        chosen = prepared.indices(part)
        left_out[part] = chosen[already_seen(prepared, chosen, before, part)]
    whole = united(own, before)
    return replace(whole, left_out=left_out)


def imported(prepared: PreparedDataset | None, model: Path) -> Seen:
    """Return what is known of a model from elsewhere: it is assumed to be trained on the dataset given with it."""
    own = NOTHING if prepared is None else seen_in(prepared)
    return replace(own, unknown=f"it was imported from {printable(model)}")


def notes_of(seen: Seen, prepared: PreparedDataset) -> list[str]:
    """Return notes on what a fit's initial weights mean for the scores of the run; none if they are drawn."""
    notes = []
    for part, positions in seen.left_out.items():
        if not len(positions):
            continue
        images = len(prepared.indices(part))
        note = (
            f"{len(positions)} of {images} {part} images are left out of the run's scores: the initial weights "
            "have seen them in training or validation."
        )
        if part == "validation":
            note += " The validation columns of the epochs include them, and are too optimistic."
        if len(positions) == images:
            note += f" There is no {part} score."
        notes.append(note)
    if seen.unknown:
        notes.append(
            "It is not known which images the initial weights have seen, so images of the validation and test "
            f"parts may be among them: {seen.unknown}."
        )
    return notes


def scored_positions(run: Run, prepared: PreparedDataset, part: str) -> np.ndarray:
    """Return the positions of the images of a part of a run's own dataset that are scored, ascending.

    Of the training part that is all; of the others those that no weights had seen before the fit.
    """
    chosen = prepared.indices(part)
    if part == "train" or run.initial is None or run.ended == "adopted":
        return chosen
    seen = seen_by(run)
    left_out = seen.left_out.get(part)
    if left_out is None:  # Julia, or an earlier PhotoFlux, wrote it
        left_out = chosen[already_seen(prepared, chosen, seen, part)]
    positions: np.ndarray = np.setdiff1d(chosen, left_out, assume_unique=True)
    return positions
