"""Keeps a small summary of the images that a run was trained on: what is kept, and the file that holds it.

``reference.safetensors`` has for each respect in which images are compared (`photoflux.runs.appearance`) the values of
some images and their kinds (folder classes). Scores are those of validation
and test images, which the weights were not fitted to; so are the distances of features, from those of training images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.engines.base import Model
from photoflux.model.weights import damaged, read_arrays, write_arrays
from photoflux.runs.appearance import PIXELS, SIZES, dimensions_of, looks_of, margins_of
from photoflux.runs.run import Run
from photoflux.runs.seen import scored_positions
from photoflux.runs.transfer import TransferModel

NAME = "reference.safetensors"
FORMAT = "photoflux-reference-1"
RESPECTS = ("scores", *PIXELS, *SIZES, "features")
IMAGES, HELD, BANK = 1000, 2000, 3000  # at most: images whose looks are kept, scores, and directions of features
MAX_KINDS, FEW = 50, 20  # more kinds count as one, and so do those of fewer images, together
AXES, NEIGHBOUR = 32, 5
_KINDS, _SPACE = "kinds.", "space."
_PARTS = ("mean", "scale", "axes", "bank")


@dataclass(frozen=True, eq=False)
class Space:
    """Says how far features are from those of training images.

    Attributes
    ----------
    mean, scale : numpy.ndarray
        Of each feature over the training images, (F,) float32.
    axes : numpy.ndarray
        The directions in which the standardised features vary most, (F, K) float16.
    bank : numpy.ndarray
        The training images' directions along them, of length 1, (B, K) float16.
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    bank: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Space:
        """Return the space of training images' features, (B, F) with two rows or more."""
        wide = features.astype(np.float64)
        mean, scale = wide.mean(axis=0), wide.std(axis=0)
        scale[scale < 1e-6 * max(1e-6, float(scale.max()))] = 1  # one that never varies says nothing
        _, _, axes = np.linalg.svd((wide - mean) / scale, full_matrices=False)
        bare = cls(mean.astype(np.float32), scale.astype(np.float32), axes[:AXES].T.astype(np.float16), np.empty(0))
        return cls(bare.mean, bare.scale, bare.axes, bare.directions(features).astype(np.float16))

    def directions(self, features: np.ndarray) -> np.ndarray:
        """Return the directions of features (N, F) along the axes, (N, K) float32 of length 1."""
        found = ((features - self.mean) / self.scale) @ self.axes.astype(np.float32)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        directions: np.ndarray = found / np.maximum(lengths, 1e-12)
        return directions

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Return how far features (N, F) are from the fifth nearest training image's, (N,) float32, 0 to 2.

        The distance is that of directions of length 1: √(2 − 2·cosine).
        """
        cosines = self.directions(features) @ self.bank.astype(np.float32).T
        place = min(NEIGHBOUR, cosines.shape[1])
        near = np.partition(cosines, -place, axis=1)[:, -place]
        distances: np.ndarray = np.sqrt(np.maximum(0, 2 - 2 * near)).astype(np.float32)
        return distances


@dataclass(frozen=True, eq=False)
class Reference:
    """What is kept of the images that a run was trained on.

    Attributes
    ----------
    values : mapping of str to numpy.ndarray
        For each respect that is known the values of images, (N,) float32; see `photoflux.runs.appearance`, and of
        ``"features"`` `Space.distances`.
    kinds : mapping of str to numpy.ndarray
        For each of these the images' kinds, (N,) int16 from 0.
    space : Space or None
        Where distances of features are measured; None without a backbone.
    """

    values: Mapping[str, np.ndarray]
    kinds: Mapping[str, np.ndarray] = field(default_factory=dict)
    space: Space | None = None


def features_of(model: Model, images: np.ndarray) -> np.ndarray | None:
    """Return the features of images (N, C, H, W) that a model on a backbone has computed, or computes; else None."""
    return model.features(images) if isinstance(model, TransferModel) else None


def reference_of(run: Run, model: Model, prepared: PreparedDataset, logits: Mapping[str, np.ndarray]) -> Reference:
    """Return what is kept of a run's own dataset.

    Nothing is known of how images looked whose features only are there.

    Parameters
    ----------
    run : Run
        The run.
    model : Model
        It, loaded.
    prepared : PreparedDataset
        Its dataset.
    logits : mapping of str to numpy.ndarray
        Of its validation and test part, as far as they are scored: (N, outputs), in the order of `scored_positions`.
    """
    kinds = _kinds(prepared)
    chosen = _sample(np.arange(len(prepared)), kinds, IMAGES)
    values = {**_looks(prepared, chosen), **_dimensions(prepared, chosen)} if prepared.features is None else {}
    of = dict.fromkeys(values, kinds[chosen])
    space = None
    held = [(scored_positions(run, prepared, part), found) for part, found in logits.items()]
    if held:
        positions = np.concatenate([at for at, _ in held])
        margins = margins_of(np.concatenate([found for _, found in held]))
        order = {position: row for row, position in enumerate(positions.tolist())}
        kept = _sample(positions, kinds, HELD)
        values["scores"], of["scores"] = margins[[order[at] for at in kept.tolist()]], kinds[kept]
        train = _sample(prepared.indices("train"), kinds, BANK)
        if isinstance(model, TransferModel) and len(train) > 1:
            rows = model.engine.features(prepared).images
            space = Space.of(rows[train][:, :, 0, 0])
            values["features"], of["features"] = space.distances(rows[kept][:, :, 0, 0]), kinds[kept]
    return Reference(values, of, space)


def _kinds(prepared: PreparedDataset) -> np.ndarray:
    """Return the kind of each image, (N,) int16: its folder class."""
    _, kinds, counts = np.unique(prepared.folder_labels(), return_inverse=True, return_counts=True)
    found: np.ndarray = kinds.astype(np.int16) if len(counts) <= MAX_KINDS else np.zeros(len(kinds), np.int16)
    return found


def _sample(positions: np.ndarray, kinds: np.ndarray, most: int) -> np.ndarray:
    """Return up to `most` of the positions, ascending, of each kind as many where there are enough."""
    shuffled = np.random.default_rng(0).permutation(positions)
    present = np.unique(kinds[positions])
    share = max(1, most // max(1, len(present)))
    return np.sort(np.concatenate([shuffled[kinds[shuffled] == kind][:share] for kind in present] or [positions]))


def _looks(prepared: PreparedDataset, chosen: np.ndarray) -> dict[str, np.ndarray]:
    blocks = [looks_of(prepared.images[part]) for part in np.array_split(chosen, max(1, len(chosen) // 64))]
    return {respect: np.concatenate([block[respect] for block in blocks]) for respect in PIXELS}


def _dimensions(prepared: PreparedDataset, chosen: np.ndarray) -> dict[str, np.ndarray]:
    sizes = original_sizes(prepared, chosen)
    return {} if sizes is None else dimensions_of(sizes)


def original_sizes(prepared: PreparedDataset, chosen: np.ndarray) -> np.ndarray | None:
    """Return width and height of the originals of chosen images, (N, 2); None of what was in memory, resized or not."""
    if prepared.meta.get("source") in ("arrays", "own"):
        return None
    rows = prepared.files()
    return np.array([(int(rows[at]["width"]), int(rows[at]["height"])) for at in chosen.tolist()]).reshape(-1, 2)


def write_reference(folder: Path, reference: Reference) -> None:
    """Write ``reference.safetensors`` into a run's folder, in place of an earlier one.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    arrays = dict(reference.values) | {_KINDS + respect: kinds for respect, kinds in reference.kinds.items()}
    if reference.space is not None:
        arrays |= {_SPACE + part: getattr(reference.space, part) for part in _PARTS}
    write_arrays(folder / NAME, arrays, {"format": FORMAT})


def read_reference(run: Run) -> Reference | None:
    """Return what a run keeps of the images that it was trained on; None where Julia or an earlier PhotoFlux made it.

    No code is executed.

    Raises
    ------
    RunError
        If the file is there and cannot be read.
    """
    path = run.path / NAME
    if not path.is_file():
        return None
    arrays, _ = read_arrays(path, FORMAT)
    try:
        values = {respect: arrays[respect] for respect in RESPECTS if respect in arrays}
        kinds = {respect: arrays[_KINDS + respect] for respect in values}
        for respect, found in values.items():
            if found.shape != kinds[respect].shape or found.ndim != 1:
                raise ValueError(f"{respect} has the shapes {found.shape} and {kinds[respect].shape}")
        space = Space(*(arrays[_SPACE + part] for part in _PARTS)) if "features" in values else None
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, error) from error
    return Reference(values, kinds, space)
