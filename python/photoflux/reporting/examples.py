"""Selects the example images of a report and makes a small JPEG of each."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from photoflux.reporting.i18n import Translator
from photoflux.reporting.report_data import ReportData

# Longest side of a thumbnail in pixels, and how many a report shows, of errors and of correct examples each.
SIDE, QUALITY = 112, 82
PER_GROUP, IN_TOTAL = 12, 72

Order = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Picture:
    """One thumbnail with its caption.

    Attributes
    ----------
    source : str
        A ``data:`` URI.
    path : str
        Where the image is in the source of its dataset.
    caption : str
        The predicted class with its probability.
    """

    source: str
    path: str
    caption: str


@dataclass(frozen=True)
class ExampleGroup:
    """The thumbnails of one group.

    Attributes
    ----------
    title : str
        The group.
    images, selected : int
        How many images the group has, and how many of them the pictures are from (all its errors, or all that are
        classified correctly).
    pictures : list of Picture
        In the order of the page.
    """

    title: str
    images: int
    selected: int
    pictures: list[Picture]


def thumbnail(pixels: np.ndarray) -> str:
    """Return an image (C, H, W), uint8, as a JPEG of bounded size in a ``data:`` URI."""
    from PIL import Image

    array = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def worst_errors(report_data: ReportData, part: str, tr: Translator) -> list[ExampleGroup]:
    """Return for each folder class the misclassified images of a part, the highest loss first."""
    scored, losses = report_data.scored[part], report_data.losses(part)
    wrong = scored.predicted != scored.labels

    def worst(group: np.ndarray) -> np.ndarray:
        ordered: np.ndarray = group[np.argsort(-losses[group], kind="stable")]
        return ordered

    return _groups(report_data, part, wrong, worst, tr)


def correct_examples(report_data: ReportData, part: str, tr: Translator) -> list[ExampleGroup]:
    """Return for each folder class correctly classified images of a part, from the most to the least confident."""
    scored, losses = report_data.scored[part], report_data.losses(part)

    def spread(group: np.ndarray) -> np.ndarray:
        places = np.linspace(0, len(group) - 1, min(len(group), PER_GROUP // 2)).round().astype(int)
        spread_out: np.ndarray = group[np.argsort(losses[group], kind="stable")][places]
        return spread_out

    return _groups(report_data, part, scored.predicted == scored.labels, spread, tr)


def _groups(report_data: ReportData, part: str, wanted: np.ndarray, order: Order, tr: Translator) -> list[ExampleGroup]:
    assert report_data.prepared is not None
    scored = report_data.scored[part]
    groups = report_data.folders[scored.indices]
    names = [name for name in sorted(set(groups)) if wanted[groups == name].any()]
    most = max(1, min(PER_GROUP, IN_TOTAL // max(len(names), 1)))
    found = []
    for name in names[:IN_TOTAL]:
        members = np.flatnonzero(groups == name)
        selected = members[wanted[members]]
        pictures = [
            Picture(
                thumbnail(report_data.prepared.images[scored.indices[i]]),
                report_data.files[int(scored.indices[i])]["path"],
                caption_of(scored.probabilities[i], int(scored.predicted[i]), report_data.run.classes, tr),
            )
            for i in order(selected)[:most]
        ]
        found.append(ExampleGroup(str(name), len(members), len(selected), pictures))
    return found


def caption_of(probabilities: np.ndarray, predicted: int, classes: Sequence[str], tr: Translator) -> str:
    """Return the predicted class of an image with its probability, as text."""
    return tr.sentence("{name}, {share:.1%}", name=classes[predicted], share=float(probabilities[predicted]))
