"""Sheets of examples: which images are shown, and each as a small JPEG in the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from photoflux.reporting.i18n import Translator
from photoflux.reporting.report_data import Evidence

# Longest side of a thumbnail in pixels, and how many a report shows, of errors and of right examples each.
SIDE, QUALITY = 112, 82
A_GROUP, IN_ALL = 12, 72

Order = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Picture:
    """One thumbnail with what is said below it.

    Attributes
    ----------
    source : str
        A ``data:`` URI.
    path : str
        Where the image is in the source of its dataset.
    said : str
        What the model takes it for, in words.
    """

    source: str
    path: str
    said: str


@dataclass(frozen=True)
class Sheet:
    """The thumbnails of one group.

    Attributes
    ----------
    title : str
        The group.
    images, chosen : int
        How many images the group has, and how many of them the sheet draws from (all its errors, or all that are
        right).
    pictures : list of Picture
        In the order of the sheet.
    """

    title: str
    images: int
    chosen: int
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


def worst_errors(evidence: Evidence, part: str, words: Translator) -> list[Sheet]:
    """Return for each folder class the wrongly classified images of a part, the highest loss first."""
    scored, losses = evidence.scored[part], evidence.losses(part)
    wrong = scored.taken != scored.labels

    def worst(group: np.ndarray) -> np.ndarray:
        ordered: np.ndarray = group[np.argsort(-losses[group], kind="stable")]
        return ordered

    return _sheets(evidence, part, wrong, worst, words)


def right_examples(evidence: Evidence, part: str, words: Translator) -> list[Sheet]:
    """Return for each folder class rightly classified images of a part, from the surest to the least sure."""
    scored, losses = evidence.scored[part], evidence.losses(part)

    def spread(group: np.ndarray) -> np.ndarray:
        places = np.linspace(0, len(group) - 1, min(len(group), A_GROUP // 2)).round().astype(int)
        spread_out: np.ndarray = group[np.argsort(losses[group], kind="stable")][places]
        return spread_out

    return _sheets(evidence, part, scored.taken == scored.labels, spread, words)


def _sheets(evidence: Evidence, part: str, wanted: np.ndarray, order: Order, words: Translator) -> list[Sheet]:
    assert evidence.prepared is not None
    scored = evidence.scored[part]
    groups = evidence.folders[scored.indices]
    names = [name for name in sorted(set(groups)) if wanted[groups == name].any()]
    most = max(1, min(A_GROUP, IN_ALL // max(len(names), 1)))
    sheets = []
    for name in names[:IN_ALL]:
        members = np.flatnonzero(groups == name)
        chosen = members[wanted[members]]
        pictures = [
            Picture(
                thumbnail(evidence.prepared.images[scored.indices[i]]),
                evidence.files[int(scored.indices[i])]["path"],
                said_of(scored.probabilities[i], int(scored.taken[i]), evidence.run.classes, words),
            )
            for i in order(chosen)[:most]
        ]
        sheets.append(Sheet(str(name), len(members), len(chosen), pictures))
    return sheets


def said_of(probabilities: np.ndarray, taken: int, classes: Sequence[str], words: Translator) -> str:
    """Return what the model takes an image for, with its probability, in words."""
    return words.sentence("{name}, {share:.1%}", name=classes[taken], share=float(probabilities[taken]))
