"""Measures a network's ranges for 8 bits on the training images of a dataset, once: they are kept in the cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from photoflux.data.cache import cache_folder, unwritable_cache
from photoflux.data.prepared import PreparedDataset
from photoflux.errors import BackboneError
from photoflux.features.int8 import Int8Network, measured
from photoflux.features.network import PretrainedNetwork
from photoflux.system import atomic

IMAGES = 256  # training images that are measured, at most
_BATCH = 8


def calibrated(network: PretrainedNetwork, prepared: PreparedDataset) -> Int8Network:
    """Return a network in 8 bits, with the ranges of training images that lie evenly over a dataset's training part.

    Raises
    ------
    BackboneError
        If a package is missing.
    DataError
        If the cache cannot be written.
    """
    train = prepared.indices("train")
    chosen = train[np.unique(np.linspace(0, len(train) - 1, min(IMAGES, len(train))).astype(int))]
    images = np.array(prepared.images[chosen])
    digest = hashlib.sha256(f"{network.fingerprint} {images.shape}".encode())
    digest.update(images.data)
    path = cache_folder() / "backbones" / f"{network.name}-int8-{digest.hexdigest()[:20]}.json"
    found = _read(path, network)
    if found is not None:
        return found
    batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
    made = Int8Network(network, measured(network.folded, batches))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(made.ranges))
    except OSError as error:
        raise unwritable_cache(path.parent, error) from error
    return made


def _read(path: Path, network: PretrainedNetwork) -> Int8Network | None:
    try:
        ranges = json.loads(path.read_text(encoding="utf-8"))
        return Int8Network(network, {name: (low, high) for name, (low, high) in ranges.items()})
    except (OSError, ValueError, TypeError, AttributeError, BackboneError):
        return None
