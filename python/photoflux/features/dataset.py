"""Makes the features dataset of a prepared dataset and a backbone; what it holds, and where it lies, is set here.

It is a prepared dataset itself: the files are those of the images' dataset, with ``images.npy`` float32 (N, F, 1, 1),
and ``features`` in ``meta.json`` says what it was made of. It lies beside the images, in ``features/KEY`` of their
dataset's folder, or in the cache where that folder cannot be written, and is written whole or not at all. The
features of a picture come from the store in the cache where an earlier dataset had the same picture (see ``store``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from photoflux.data.cache import advice_for, cache_folder, writable
from photoflux.data.checks import OnProgress, check_seed, check_whole
from photoflux.data.conflicts import NAME as CONFLICTS
from photoflux.data.prepared import FEATURES, FILE_COLUMNS, LOOKS, PreparedDataset, open_prepared
from photoflux.data.writer import write_csv
from photoflux.errors import DataError
from photoflux.features.backbone import Backbone
from photoflux.features.store import Store, opened, say_waiting
from photoflux.features.views import view_of
from photoflux.system import atomic
from photoflux.system.claims import claim
from photoflux.system.names import as_json, printable
from photoflux.system.version import __version__

BLOCK = 64  # images that are in memory at once


def features_dataset(
    prepared: PreparedDataset,
    backbone: Backbone,
    *,
    views: int = 0,
    seed: int = 42,
    on_progress: OnProgress | None = None,
) -> PreparedDataset:
    """Return the features dataset of a dataset of images, which is made if it is not there.

    Parameters
    ----------
    prepared : PreparedDataset
        The images, of a size that the backbone takes.
    backbone : Backbone
        What turns them into features; of precision int8 it is calibrated on the training images first. The dataset's
        ``features["backbone"]`` is what it was made with, for `photoflux.features.backbone_from`.
    views : int
        Augmented views of each training image that are added, 0 or more; see `photoflux.features.views.view_of`.
    seed : int
        Fixes the views.
    on_progress : callable, optional
        Called with (images done, images in all, what is being done); an image counts once for each network.

    Returns
    -------
    PreparedDataset
        Its ``images`` are float32, (N, F, 1, 1), in the order of the images; labels and split are theirs. With views
        there are N + views·T: after the N, for each of the T training images in turn, the rows of its views, with its
        label and in the training part.

    Raises
    ------
    SettingError
        If `views` or `seed` is no whole number, 0 or more.
    BackboneError
        If the backbone does not take such images, or cannot run.
    DataError
        If `prepared` holds features, or the result can be written neither beside it nor into the cache.
    """
    if prepared.features is not None:
        raise DataError(f"{printable(prepared.path)} holds features already. Give the dataset of the images.")
    backbone.check(prepared.images.shape, prepared.images.dtype)
    views, seed = check_whole("`views`", views, 0), check_seed(seed)
    backbone = backbone.calibrated_on(prepared)
    description = {
        "backbone": backbone.as_dict(),
        "dataset": prepared.fingerprint,
        "views": views,
        "seed": seed if views else None,
    }
    beside = prepared.path / FEATURES / _key(backbone, views, seed)
    # A dataset may say anything of itself.
    known_as = re.sub(r"[^A-Za-z0-9_-]+", "-", prepared.fingerprint[:20]) or "-"
    cached = cache_folder() / FEATURES / "datasets" / known_as / beside.name
    for place in (beside, cached):
        found = _opened(place, description)
        if found is not None:
            return found
    place = beside if writable(beside.parent) else cached
    with _writing(place), claim(place, wait=math.inf, on_wait=say_waiting):
        found = _opened(place, description)
        if found is None:
            pictures = Pictures(prepared, views, seed)
            _make(place, pictures, backbone, description, _computed(pictures, backbone, on_progress))
            found = open_prepared(place)
    return found


class Pictures:
    """The images of a dataset and, after them, the views of its training images: the rows of a features dataset."""

    def __init__(self, prepared: PreparedDataset, views: int, seed: int) -> None:
        self.prepared, self._views, self._seed = prepared, views, seed
        train = np.repeat(prepared.indices("train"), views)
        self.origin = np.concatenate([np.arange(len(prepared)), train])  # the image of each row
        self.view = np.concatenate([np.zeros(len(prepared), int), np.arange(len(train)) % max(views, 1) + 1])

    def __len__(self) -> int:
        return len(self.origin)

    def block(self, start: int) -> np.ndarray:
        """Return the pictures of a block of rows, uint8 (n, C, H, W)."""
        # From a map of its own: pages that stay mapped count as memory of the process.
        images = np.load(self.prepared.path / "images.npy", mmap_mode="r", allow_pickle=False)
        rows = slice(start, start + BLOCK)
        found = np.array(images[self.origin[rows]])
        for at, view in enumerate(self.view[rows].tolist()):
            if view:
                found[at] = view_of(found[at], self._seed, view)
        return found

    def files(self) -> Iterator[list[str]]:
        """Yield the rows of ``files.csv``; a view has its image's, and its number in the path."""
        files = self.prepared.files()
        for origin, view in zip(self.origin.tolist(), self.view.tolist(), strict=True):
            path, *rest = files[origin].values()
            yield [f"{path} (view {view})" if view else path, *rest]


def _key(backbone: Backbone, views: int, seed: int) -> str:
    """Return the name of the folder: readable, and another for other weights of the same name."""
    parts = [re.sub(r"[^A-Za-z0-9_+-]+", "-", backbone.name).strip("-")[:80]]
    parts += [] if backbone.precision == "float32" else [backbone.precision]
    parts += [backbone.fingerprint[:8]]
    parts += [f"{views}views", f"seed{seed}"] if views else []
    return "-".join(parts)


def _opened(place: Path, description: dict[str, Any]) -> PreparedDataset | None:
    """Return the features dataset at a place, if it is a good one of the same images and backbone."""
    if not place.is_dir():
        return None
    try:
        found = open_prepared(place)
    except DataError:
        return None
    return found if found.features == json.loads(json.dumps(description)) else None


def _make(
    place: Path,
    pictures: Pictures,
    backbone: Backbone,
    description: dict[str, Any],
    stores: list[tuple[Store, np.ndarray]],
) -> None:
    prepared, origin = pictures.prepared, pictures.origin
    temporary = atomic.sibling(place)
    try:
        temporary.mkdir()
        with (temporary / "images.npy").open("wb") as file:
            shape = (len(pictures), backbone.features, 1, 1)
            npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for start in range(0, len(pictures), BLOCK):
                rows = [store.read(rows[start : start + BLOCK]) for store, rows in stores]
                file.write(np.ascontiguousarray(np.hstack(rows)).data)
        # Views are of the training part, as their images are.
        np.save(temporary / "labels.npy", prepared.labels[origin])
        np.save(temporary / "split.npy", prepared.split[origin])
        if prepared.looks is not None:
            np.save(temporary / LOOKS, prepared.looks[origin])
        copied = ["rejected.csv", CONFLICTS]
        if len(pictures) == len(prepared):
            copied.append("files.csv")
        else:
            write_csv(temporary / "files.csv", FILE_COLUMNS, pictures.files())
        for name in copied:
            if (prepared.path / name).is_file():
                shutil.copyfile(prepared.path / name, temporary / name)
        meta = {
            **prepared.meta,
            "images": len(pictures),
            "channels": backbone.features,
            "image_size": [1, 1],
            "fingerprint": hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest(),
            FEATURES: description,
            "photoflux": __version__,
        }
        (temporary / "meta.json").write_text(as_json(meta, indent=2) + "\n", encoding="utf-8")
        atomic.install(temporary, place)
    finally:
        atomic.remove(temporary)


def _computed(pictures: Pictures, backbone: Backbone, on_progress: OnProgress | None) -> list[tuple[Store, np.ndarray]]:
    """Return for each network its store, and the rows of the pictures in it; what is not there is computed."""
    stores = []
    done, total = 0, len(pictures) * len(backbone.networks)
    for network in backbone.networks:
        rows = np.empty(len(pictures), np.int64)
        with opened(network, pictures.prepared.shape) as store:
            for start in range(0, len(pictures), BLOCK):
                block = pictures.block(start)
                rows[start : start + len(block)] = store.rows_of(block, network.features_of)
                done += len(block)
                if on_progress is not None:
                    on_progress(done, total, f"Features of {backbone.name}")
        stores.append((store, rows))
    return stores


@contextlib.contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The features {printable(place)} could not be written: {error.strerror or error}. {advice_for(place)}"
        ) from error
