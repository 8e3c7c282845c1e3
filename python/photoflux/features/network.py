"""One network as a backbone's part: pixels to features through ONNX Runtime; how a batch is run is said here."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from photoflux.data.cache import cache_folder, unwritable_cache
from photoflux.errors import BackboneError
from photoflux.features.folding import Folded, folded_weights, read_folded
from photoflux.features.graph import FEATURES, GRAPH, PIXELS, graph_of
from photoflux.features.runtime import need, session_of
from photoflux.model.backbones import pretrained
from photoflux.system import atomic
from photoflux.system.claims import claim
from photoflux.system.names import printable

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    import onnxruntime

BATCH = 16  # images a run; more of them take more memory and are no faster


class Network(ABC):
    """A network that turns images into features.

    Attributes
    ----------
    name : str
        The name of the table, or of the file.
    features : int
        Numbers an image.
    image_size : int or None
        Height and width of the images that it is best given; None: not known.
    fixed : tuple of int or None
        Height and width, where it takes no other.
    fingerprint : str
        SHA-256 of all that its features depend on, the pixels aside.
    """

    name: str
    features: int
    image_size: int | None
    fixed: tuple[int, int] | None = None
    fingerprint: str

    def features_of(self, images: np.ndarray, batch_size: int = BATCH) -> np.ndarray:
        """Return the features, float32 (N, F), of images, uint8 (N, C, H, W); a grey one is repeated to 3 channels.

        Raises
        ------
        BackboneError
            If the model does not give a row of finite numbers for each image.
        """
        features = np.empty((len(images), self.features), np.float32)
        for start in range(0, len(images), batch_size):
            batch = np.ascontiguousarray(images[start : start + batch_size])
            found = self.run(with_channels(batch))
            if found.shape != (len(batch), self.features):
                raise BackboneError(
                    f"{self.name} gave features of shape {found.shape} for {len(batch)} images, expected "
                    f"({len(batch)}, {self.features}). Take a model that gives one row for each image."
                )
            features[start : start + len(batch)] = found
        if not np.isfinite(features).all():
            raise BackboneError(
                f"{self.name} gave features that are not finite. Its weights are damaged, or its mean and scale are "
                "not those it was trained with."
            )
        return features

    @abstractmethod
    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the features, float32 (N, F), of a batch, uint8 (N, 3, H, W)."""

    @abstractmethod
    def model(self) -> onnx.ModelProto:
        """Return its graph: ``pixels``, (N, 3, H, W), 0 to 255, of any type, to ``features``, float32 (N, F).

        Raises
        ------
        BackboneError
            If it cannot be a part of another graph.
        """

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Return what it takes to open it again, as plain JSON-ready values."""


def with_channels(images: np.ndarray) -> np.ndarray:
    """Return images (N, 3, H, W) as they are, and grey ones (N, 1, H, W) with their channel three times."""
    return np.repeat(images, 3, axis=1) if images.shape[1] == 1 else images


class PretrainedNetwork(Network):
    """A network of the table, whose graph PhotoFlux writes into the cache from the folded weights.

    Parameters
    ----------
    name : str
        Its name in the table.
    file : Path, optional
        A folded weights file of it that was fine-tuned; None: the one in the cache.

    Raises
    ------
    SettingError
        If there is none of that name.
    BackboneError
        If onnxruntime or the package with the weights is not installed, or the weights are others.
    DataError
        If the cache cannot be written.
    """

    def __init__(self, name: str, file: Path | None = None) -> None:
        pretrained(name)  # a wrong name is said before a missing package
        need("onnxruntime")
        self.folded: Folded = read_folded(folded_weights(name)) if file is None else _tuned_weights(file)
        self._tuned = file is not None
        self.name, self.features = name, self.folded.features
        self.image_size, self.fingerprint = self.folded.image_size, self.folded.fingerprint

    @cached_property
    def graph(self) -> Path:
        """The graph in the cache, written if it is not there."""
        path = self.folded.path.with_suffix(".onnx")
        if self._tuned:  # its run's folder may be one that cannot be written
            path = cache_folder() / "backbones" / f"{self.name}-{self.fingerprint[:20]}.onnx"
        if not _has_graph(path, self.folded):
            write_graph(path, self.folded)
        return path

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return session_of(self.graph)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the features, float32 (N, F), of a batch, uint8 (N, 3, H, W)."""
        (features,) = self._session.run([FEATURES], {PIXELS: np.ascontiguousarray(images)})
        return np.asarray(features)

    def model(self) -> onnx.ModelProto:
        """Return its graph; see `Network.model`."""
        return graph_of(self.folded)

    def as_dict(self) -> dict[str, Any]:
        """Return its name and fingerprint."""
        return {"name": self.name, "fingerprint": self.fingerprint}


def _tuned_weights(file: Path) -> Folded:
    """Read a fine-tuned weights file, of which there is no other copy, its tensors too."""
    try:
        folded = read_folded(file)
        _ = folded.weights  # are checked
    except BackboneError as error:
        raise BackboneError(
            f"{printable(file)}, the backbone that was fine-tuned in this run, is missing or damaged. Copy the whole "
            "folder of the run again, or train again."
        ) from error
    return folded


def write_graph(path: Path, folded: Folded) -> None:
    """Write a network's graph into the cache, whole or not at all.

    Raises
    ------
    BackboneError
        If the package onnx is not installed.
    DataError
        If the cache cannot be written.
    """
    model = graph_of(folded)
    try:
        with claim(path, wait=math.inf), atomic.writing_file(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
    except OSError as error:
        raise unwritable_cache(path.parent, error) from error


def _has_graph(path: Path, folded: Folded) -> bool:
    """Say whether the cache has the graph of these weights, as this PhotoFlux writes it."""
    if not path.is_file():
        return False
    try:
        found = session_of(path).get_modelmeta().custom_metadata_map
    except BackboneError:
        return False
    return (found.get("fingerprint"), found.get("graph")) == (folded.fingerprint, GRAPH)
