"""Predicts the classes of files and arrays, one block of images at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from photoflux.data.litter import Ignored, ignored_in_words
from photoflux.data.shape import Shape
from photoflux.data.walking import FILE, IGNORED, REJECTED, absence, is_folder, walk
from photoflux.engines.base import Model
from photoflux.errors import DataError
from photoflux.runs.evaluation import probabilities
from photoflux.runs.progress import Display
from photoflux.runs.reference import features_of
from photoflux.runs.run import Run
from photoflux.runs.scoring import EVALUATION_BATCH
from photoflux.runs.shift import Observed, evenly
from photoflux.system.names import user_path


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a run says of one image.

    Attributes
    ----------
    path : str
        The file; a page of a TIFF with several is ``file.tif#2``.
    label : str or None
        The most probable class; where the run has a threshold, its second class from that score on and its first
        below. None if the file was rejected.
    probabilities : mapping of str to float
        Of every class, 0 to 1, as the model gives them: no temperature is applied. Empty if the file was rejected.
    rejected : str or None
        Why the file could not be read.
    """

    path: str
    label: str | None
    probabilities: Mapping[str, float]
    rejected: str | None = None


def check_array(images: np.ndarray, shape: Shape) -> np.ndarray:
    """Return images (N, H, W, C), or (N, H, W) for one channel, as (N, C, H, W).

    Raises
    ------
    DataError
        If they are not uint8 or of another size.
    """
    if images.ndim == 3 and shape.channels == 1:
        images = images[..., None]
    if images.dtype != np.uint8 or images.shape[1:] != shape.hwc:
        raise DataError(
            f"`images` must be uint8, (N, {shape.height}, {shape.width}, {shape.channels}); "
            f"received: {images.dtype}, {images.shape}."
        )
    return images.transpose(0, 3, 1, 2)


class Candidate(NamedTuple):
    """A file to predict, or the reason why it is not read."""

    path: Path
    reason: str | None = None


def expand(paths: Iterable[str | Path]) -> tuple[list[Candidate], dict[str, Any]]:
    """Return the files, with every folder replaced by all files below it, sorted, and the counts of what is ignored.

    The files of a folder are those that `photoflux.prepare` finds in it; what cannot be read is among them, with its
    reason. A file that is given itself is never ignored.

    Raises
    ------
    DataError
        If a path does not exist, or there is no file at all.
    """
    found: list[Candidate] = []
    ignored = Ignored()
    for path in map(user_path, paths):
        absent = absence(path, "There is no file or folder")
        if absent is not None:
            raise DataError(f"{absent}. Expected images, or folders of them.")
        if not is_folder(path):
            found.append(Candidate(path))
            continue
        below = []
        for item in walk(path):
            if item.kind == IGNORED:
                ignored.add(item.detail, folder=item.path.endswith("/"))
            elif item.kind in (FILE, REJECTED):
                below.append((item.path, item.detail or None))
        found += [Candidate(path / name, reason) for name, reason in sorted(below)]
    counts = ignored.as_dict()
    if not found:
        raise DataError(f"No files to predict: the folders given are empty. {ignored_in_words(counts) or ''}".rstrip())
    return found, counts


def predict_files(
    model: Model, run: Run, files: Sequence[Candidate], display: Display, observed: Observed | None = None
) -> list[Prediction]:
    """Decode and predict files, in blocks of bounded memory; the pages of a file may fall into several.

    The images of some of all files are observed.
    """
    from photoflux.data.images.decoding import decode_parts

    results: list[Prediction] = []
    block: list[tuple[str, str | None]] = []  # name, and the reason of a rejected file
    pixels: list[np.ndarray] = []
    looked_at = set(evenly(len(files)).tolist()) if observed is not None and not observed.full else set()
    sizes: list[tuple[int, int]] = []  # of the images that are observed
    rows: list[int] = []  # and their places among the pixels

    def predict_block() -> None:
        names = [name for name, reason in block if reason is None]
        predicted = iter(predictions_of(model, run, names, np.stack(pixels), observed, rows, sizes) if pixels else [])
        results.extend(
            next(predicted) if reason is None else Prediction(name, None, {}, reason) for name, reason in block
        )
        for kept in (block, pixels, sizes, rows):
            kept.clear()

    for done, (path, unread) in enumerate(files, start=1):
        if unread is not None:
            block.append((str(path), unread))
        for part in decode_parts(path, run.shape) if unread is None else ():
            for image in part.images:
                block.append((_page_name(path, image.page), None))
                if done - 1 in looked_at:
                    rows.append(len(pixels))
                    sizes.append((image.width, image.height))
                pixels.append(image.pixels)
            block.extend((_page_name(path, page), reason) for page, reason in part.rejected)
            if len(block) >= EVALUATION_BATCH:
                predict_block()
        if len(block) >= EVALUATION_BATCH or done == len(files):
            predict_block()
        if done % EVALUATION_BATCH == 0 or done == len(files):
            display.step(done, len(files), "Predicting")
    return results


def _page_name(path: Path, page: int) -> str:
    return f"{path}#{page}" if page else str(path)


def predictions_of(
    model: Model,
    run: Run,
    names: list[str],
    images: np.ndarray,
    observed: Observed | None = None,
    rows: Sequence[int] | np.ndarray = (),
    sizes: Sequence[tuple[int, int]] | None = None,
) -> list[Prediction]:
    """Predict uint8 images (N, C, H, W), of which those in `rows`, whose originals have `sizes`, are observed."""
    logits = model.logits(images, batch_size=EVALUATION_BATCH)
    if observed is not None and len(rows) and not observed.full:
        features = features_of(model, images)
        observed.add(images[rows], logits[rows], sizes, None if features is None else features[rows])
    found = probabilities(logits)
    if run.threshold is None:
        taken = found.argmax(axis=1)
    else:
        # Rounded as the scores are: one that equals the threshold is taken.
        taken = (found[:, 1] >= np.float32(run.threshold["score"])).astype(int)
    return [
        Prediction(name, run.classes[label], dict(zip(run.classes, map(float, row), strict=True)))
        for name, label, row in zip(names, taken.tolist(), found, strict=True)
    ]
