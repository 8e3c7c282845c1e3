"""Says how unlike new images are to those that a run was trained on; what counts as unlike is set here.

In each respect an image is *outside* where its value is outside the range of every kind (folder class) of the run's
reference. So another mixture of the same kinds is no shift, and a new kind is. The range of a kind leaves out 1 % of
its images at each end (`TAILS`), one or more; of what pixels and sizes say it is widened, since a new source of the
same kind may differ a little. There is a shift where the share of images outside is large (`SHARES`), and larger than
chance would make it: for images that are drawn as those of a kind of n images were, of which the range leaves out k,
the number outside of m is at most beta-binomial with parameters (m, k, n + 1 − k), whatever the distribution of the
values; its tail must be below `CHANCE` / the number of respects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.engines.base import Model
from photoflux.runs.appearance import dimensions_of, looks_of, margins_of
from photoflux.runs.reference import FEW, RESPECTS, Reference, features_of, original_sizes, read_reference
from photoflux.runs.run import Run
from photoflux.runs.transfer import TransferModel

__all__ = ["Observed", "Reference", "Shift", "in_words", "observe", "read_reference", "shifts"]

OBSERVED = 300  # images that are looked at
CHANCE = 0.01  # of a false alarm in any respect, of images that are drawn as those of the reference
TAIL = 0.01  # of a kind's values left out at each end of its range
# Below and above, where it is another; None: no value is too small. Hardly a score is lower than all of the least
# certain kind, so what tells is how many are among its lowest.
TAILS: dict[str, tuple[float | None, float]] = {"scores": (0.25, TAIL), "features": (None, TAIL)}
WIDER = 0.1  # of its width, by which a range of what is measured in pixels is widened at each end, and by so much
# at least, in the unit of the values: what is no difference.
MARGINS = {"colour": 5.0, "brightness": 10.0, "sharpness": 0.5, "size": 2.0, "shape": 0.2}
# The share outside that is a shift. New sources of the training kinds reached 0.67, 0.03 and 0.08 in what was measured.
SHARES = {"scores": 0.8, "features": 0.08}
SHARE = 0.2


@dataclass(frozen=True)
class Shift:
    """One respect in which images are unlike those that a run was trained on.

    Attributes
    ----------
    respect : str
        ``"scores"``, ``"colour"``, ``"brightness"``, ``"sharpness"``, ``"size"``, ``"shape"`` or ``"features"``.
    measure : float
        The share of the images, 0 to 1, that are outside the range of the training images of every kind.
    value : float
        The median of those that are outside, in the unit of the respect: log-odds of the class against the next
        (scores), colourfulness, mean grey value of 255, standard deviation of the Laplacian in grey values (sharpness),
        megapixels, height / width, and the distance from the fifth nearest training image's features, 0 to 2.
    low, high : float
        Between which nearly all training images are, in the same unit.
    text : str
        All of it in a sentence.
    """

    respect: str
    measure: float
    value: float
    low: float
    high: float
    text: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON-ready values."""
        return asdict(self)


class Observed:
    """Measures the first images of a pile, or some of all: up to `OBSERVED`, of which only numbers are kept.

    Parameters
    ----------
    model : Model or None
        What classifies them, as the run's engine loaded it; None where `extend` alone is called.
    run : Run
        The run. One without a reference is asked for nothing, and `full` is true at once.
    """

    def __init__(self, model: Model | None, run: Run) -> None:
        self.reference = read_reference(run)
        self.images = 0
        self._model = model
        self._values: dict[str, list[np.ndarray]] = {respect: [] for respect in RESPECTS}

    @property
    def full(self) -> bool:
        """Whether no more images are looked at."""
        return self.reference is None or self.images >= OBSERVED

    def add(
        self,
        pixels: np.ndarray,
        logits: np.ndarray,
        sizes: Sequence[tuple[int, int]] | np.ndarray | None,
        features: np.ndarray | None = None,
    ) -> None:
        """Look at images; those beyond `OBSERVED` are passed over.

        Parameters
        ----------
        pixels : numpy.ndarray
            uint8, (N, C, H, W), as they were given to the model.
        logits : numpy.ndarray
            What it returned, (N, outputs).
        sizes : sequence of (int, int) or None
            Width and height of the originals; None where they are not known.
        features : numpy.ndarray, optional
            Of a run on a backbone, (N, F), if they are known. None: the model's, which are computed again unless
            `pixels` is the very array that it was asked for last.
        """
        reference, count = self.reference, min(len(pixels), OBSERVED - self.images)
        if reference is None or count <= 0:
            return
        found = looks_of(pixels[:count]) | {"scores": margins_of(logits[:count])}
        if sizes is not None:
            found |= dimensions_of(sizes[:count])
        if reference.space is not None:
            if features is None and self._model is not None:
                features = features_of(self._model, pixels)
            if features is not None:
                found["features"] = reference.space.distances(features[:count])
        self.extend(count, found)

    def extend(self, images: int, measured: dict[str, np.ndarray]) -> None:
        """Add what another has `measured` of so many images; those beyond `OBSERVED` are passed over."""
        count = min(images, OBSERVED - self.images)
        for respect, values in measured.items():
            self._values[respect].append(values[:count])
        self.images += count

    def measured(self) -> dict[str, np.ndarray]:
        """Return the value of each image in each respect that was measured, (images,), NaN or infinite ones too."""
        return {respect: np.concatenate(parts) for respect, parts in self._values.items() if parts}

    def values(self) -> dict[str, np.ndarray]:
        """Return the values of each respect that was measured, (N,) float32."""
        return {respect: values[np.isfinite(values)] for respect, values in self.measured().items()}

    def shifts(self) -> list[Shift]:
        """Return in which respects the images are unlike those of the run; none of a run without a reference."""
        return [] if self.reference is None else shifts(self.reference, self)


def observe(model: Model, run: Run, prepared: PreparedDataset, chosen: np.ndarray, logits: np.ndarray) -> Observed:
    """Look at images of a dataset, evenly from all that are chosen.

    Parameters
    ----------
    model, run
        As of `Observed`.
    prepared : PreparedDataset
        A dataset of images.
    chosen : numpy.ndarray
        Positions in it, (N,).
    logits : numpy.ndarray
        Theirs, (N, outputs).
    """
    observed = Observed(model, run)
    if observed.full or prepared.features is not None:
        return observed
    rows = evenly(len(chosen))
    at = chosen[rows]
    features = None
    if isinstance(model, TransferModel):
        features = model.engine.features(prepared).images[at][:, :, 0, 0]
    observed.add(prepared.images[at], logits[rows], original_sizes(prepared, at), features)
    return observed


def evenly(count: int) -> np.ndarray:
    """Return up to `OBSERVED` of the positions 0 to `count` − 1, ascending, evenly spaced."""
    return np.arange(min(count, OBSERVED)) * count // max(1, min(count, OBSERVED))


def shifts(reference: Reference, observed: Observed) -> list[Shift]:
    """Return in which respects observed images are unlike those of a reference, in the order of `RESPECTS`."""
    return [
        shift
        for respect, values in observed.values().items()
        if respect in reference.values and len(values)
        for shift in [_shift(respect, reference.values[respect], reference.kinds[respect], values)]
        if shift is not None
    ]


def _shift(respect: str, known: np.ndarray, kinds: np.ndarray, values: np.ndarray) -> Shift | None:
    from scipy.stats import betabinom

    ranges = _ranges(respect, known, kinds)
    if not ranges:
        return None
    outside = np.all([(values < kind.low) | (values > kind.high) for kind in ranges], axis=0)
    count = int(outside.sum())
    if not count or count < SHARES.get(respect, SHARE) * len(values):
        return None
    chance = max(
        betabinom.sf(count - 1, len(values), kind.left_out, kind.images + 1 - kind.left_out) for kind in ranges
    )
    if chance > CHANCE / len(RESPECTS):
        return None
    low, high = min(kind.first for kind in ranges), max(kind.last for kind in ranges)
    return _described(respect, count / len(values), values[outside], low, high)


@dataclass(frozen=True)
class _Range:
    """The range of a kind: its order statistics, the same widened, and how many images it has and leaves out."""

    first: float
    last: float
    low: float
    high: float
    images: int
    left_out: int


def _ranges(respect: str, known: np.ndarray, kinds: np.ndarray) -> list[_Range]:
    """Return the range of each kind; those of few images are one together, or none if they are few together too."""
    tails = TAILS.get(respect, (TAIL, TAIL))
    names, counts = np.unique(kinds, return_counts=True)
    few = np.isin(kinds, names[counts < FEW])
    of_kinds = [known[kinds == name] for name in names[counts >= FEW]]
    if few.sum() >= FEW or not of_kinds:
        of_kinds.append(known[few])
    found = []
    for values in of_kinds:
        ordered, images = np.sort(values[np.isfinite(values)]), len(values)
        below, above = (0 if tail is None else max(1, int(tail * (images + 1))) for tail in tails)
        if len(ordered) < images or images < below + above + 1:
            continue
        first, last = float(ordered[max(0, below - 1)]), float(ordered[-above])
        wider = max(WIDER * (last - first), MARGINS[respect]) if respect in MARGINS else 0.0
        low = first - wider if below else -np.inf
        found.append(_Range(first, last, low, last + wider, images, below + above))
    return found


# Of each respect: how an image is called that is above, and one that is below; the quantity; how a value is written.
_WORDS = {
    "scores": ("more certain", "less certain", "log-odds of the class against the next", "{:.1f}"),
    "colour": ("more colourful", "less colourful", "colourfulness", "{:.0f}"),
    "brightness": ("brighter", "darker", "mean grey value from 0 to 255", "{:.0f}"),
    "sharpness": ("sharper or noisier", "more blurred", "contrast of neighbouring pixels in grey values", "{:.1f}"),
    "size": ("larger", "smaller", "megapixels", "{:.2g}"),
    "shape": ("taller", "wider", "height to width", "{:.2f}"),
    "features": ("farther", "", "distance of the backbone's features", "{:.2f}"),
}


def _described(respect: str, share: float, outside: np.ndarray, low: float, high: float) -> Shift:
    above, below, quantity, form = _WORDS[respect]
    over, under = outside[outside > high], outside[outside < low]
    side, word = (over, above) if len(over) >= len(under) else (under, below)
    if not len(side):  # in a gap between the kinds
        side, word = outside, "between the kinds"
    value, low, high = (_in_unit(respect, number) for number in (float(np.median(side)), low, high))
    numbers = [form.format(number) for number in (value, low, high)]
    known = "validation and test images" if respect in ("scores", "features") else "training images"
    text = (
        f"{respect}: {share:.0%} of the images are outside what the {known} span, most of them {word} "
        f"({quantity}: {numbers[0]}, nearly all {known}: {numbers[1]} to {numbers[2]})."
    )
    return Shift(respect, share, value, low, high, text)


def _in_unit(respect: str, value: float) -> float:
    """Return a value in the unit in which people know it."""
    if respect in ("size", "shape"):
        return float(2.0**value)
    return float(2.0**value - 1) if respect == "sharpness" else value


def in_words(found: Sequence[Shift]) -> list[str]:
    """Return what is to be said of shifts: nothing if there are none, else a line for all and one for each."""
    if not found:
        return []
    respects = [shift.respect for shift in found]
    listed = respects[0] if len(respects) == 1 else f"{', '.join(respects[:-1])} and {respects[-1]}"
    advice = "The scores may mean little: look at a sample before you use them, and train on images like these."
    if respects == ["size"]:
        advice += " If the training images are smaller copies of such images, the size alone means nothing."
    return [
        f"These images are unlike those that the run was trained on, in {listed}. {advice}",
        *(s.text for s in found),
    ]
