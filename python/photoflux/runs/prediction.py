"""Predicts the classes of files and arrays, one block of images at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
from photoflux.runs.shift import Observed, Shift, evenly
from photoflux.system.names import user_path

if TYPE_CHECKING:
    from photoflux.data.images.parallel import Delivery


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
    load: Callable[[], Model], run: Run, files: Sequence[Candidate], display: Display
) -> tuple[list[Prediction], list[Shift]]:
    """Decode and predict files in bounded memory, and say in which respects they are unlike the run's own.

    Parameters
    ----------
    load : callable
        Returns the run's model; called when decoding has begun.
    run, files, display
        The run, the files in the order of the predictions, and where progress is shown. Some of all files are
        compared with the run's own.
    """
    from photoflux.data.images.parallel import Decoders, processes_for
    from photoflux.runs.stream import decoded_ahead, share_cores

    readable = [number for number, file in enumerate(files) if file.reason is None]
    results: list[list[Prediction]] = [
        [] if file.reason is None else [Prediction(str(file.path), None, {}, file.reason)] for file in files
    ]
    looked_at = {readable[at] for at in evenly(len(readable)).tolist()}
    model, observed = None, None
    processes = processes_for(len(readable))
    with Decoders(run.shape, processes, hashed=False) as decoders:
        sources = (files[number].path for number in readable)
        with closing(decoded_ahead(decoders, sources)) as blocks:
            for block in blocks:
                if model is None or observed is None:
                    model = load()
                    observed = Observed(model, run)
                share_cores(model, block, processes)
                numbered = [(readable[delivery.number], delivery) for delivery in block.deliveries]
                _predict_block(model, run, numbered, results, looked_at, observed)
                if numbered[-1][0] + 1 < len(files):
                    display.step(numbered[-1][0] + 1, len(files), "Predicting")
    display.step(len(files), len(files), "Predicting")
    return [prediction for of_file in results for prediction in of_file], [] if observed is None else observed.shifts()


def _predict_block(
    model: Model,
    run: Run,
    block: Sequence[tuple[int, Delivery]],
    results: list[list[Prediction]],
    looked_at: set[int],
    observed: Observed,
) -> None:
    """Add the predictions of what was decoded, with the numbers of the files, to those of the files."""
    images = [(number, image) for number, delivery in block for image in delivery.part.images]
    names = [_page_name(delivery.source, image.page) for _, delivery in block for image in delivery.part.images]
    rows = [row for row, (number, _) in enumerate(images) if number in looked_at]
    predictions: Iterator[Prediction] = iter(())
    if images:
        pixels = np.stack([image.pixels for _, image in images])
        sizes = [(images[row][1].width, images[row][1].height) for row in rows]
        predictions = iter(predictions_of(model, run, names, pixels, observed, rows, sizes))
    for number, delivery in block:
        results[number] += [next(predictions) for _ in delivery.part.images]
        results[number] += [
            Prediction(_page_name(delivery.source, page), None, {}, reason) for page, reason in delivery.part.rejected
        ]


def _page_name(path: object, page: int) -> str:
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
