"""A prepared dataset as it is read: the folder's files, their checks and their meaning."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.data.shape import Shape
from photoflux.data.walking import is_file
from photoflux.errors import DataError, unknown_name
from photoflux.system.json_file import read_object
from photoflux.system.kinds import check_range, check_table
from photoflux.system.names import printable, user_path

FORMAT = 1
SPLITS = ("train", "validation", "test")
FILES = ("images.npy", "labels.npy", "split.npy", "files.csv", "meta.json", "rejected.csv")
FEATURES = "features"  # the folder of the features datasets that were made of it
LOOKS = "phash.npy"  # of a folder's images; a dataset of an earlier PhotoFlux has none
FILE_COLUMNS = ("path", "folder", "sha256", "group", "width", "height", "split")
REJECTED_COLUMNS = ("file", "reason")
MOST_CLASSES = 100_000
# What meta.json says; what an earlier PhotoFlux did not write may be missing.
_NEEDED = ("name", "classes", "positive", "image_size", "channels", "seed", "images", "fingerprint")
_META = {
    "name": str, "source": str | None, "classes": list[str], "positive": str | None, "image_size": list[int],
    "channels": int, "seed": int, "split": str | None, "groups": str | None, "unsplit": bool | None,
    "made_from": dict[str, Any] | None, "images": int, "fingerprint": str, "warnings": list[str] | None,
    "ignored": dict[str, Any] | None, "features": dict[str, Any] | None,
}  # fmt: skip
_FEATURES = {"backbone": dict[str, Any], "dataset": str}
# What it, and run.json, says of the source; `photoflux.data.preparation` writes it.
MADE_FROM = {
    "kind": str | None, "path": str | None, "groups": str | None, "positive": str | None, "image_size": int | None,
    "seed": int | None, "resplit": bool | None, "labels": list[list[str]] | None,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class PreparedDataset:
    """An opened prepared dataset; `open_prepared` has checked it.

    Attributes
    ----------
    path : Path
        Its folder.
    images : numpy.ndarray
        uint8, (N, C, H, W), memory-mapped and read-only; in a features dataset float32, (N, F, 1, 1).
    labels : numpy.ndarray
        int32, (N,), from 0: positions in `classes`.
    split : numpy.ndarray
        uint8, (N,): positions in ``SPLITS``.
    meta : dict
        What ``meta.json`` holds.
    """

    path: Path
    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    split: np.ndarray = field(repr=False)
    meta: dict[str, Any]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def name(self) -> str:
        """The name of the source."""
        return str(self.meta["name"])

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the labels."""
        return list(self.meta["classes"])

    @property
    def positive(self) -> str | None:
        """The positive class (label 1) of a binary dataset that was made from folders; None otherwise."""
        positive = self.meta["positive"]
        return None if positive is None else str(positive)

    @property
    def shape(self) -> Shape:
        """Channels, height and width of every image."""
        return Shape.of(self.images)

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB); in a features dataset the number of features."""
        return self.shape.channels

    @property
    def features(self) -> dict[str, Any] | None:
        """What a features dataset was made from and with, see docs/features.md; None: this one holds images."""
        return self.meta.get("features")

    @property
    def height(self) -> int:
        """Height of every image."""
        return self.shape.height

    @property
    def width(self) -> int:
        """Width of every image."""
        return self.shape.width

    @property
    def fingerprint(self) -> str:
        """sha256 over pixels, labels, split and class names: two datasets that share it train alike."""
        return str(self.meta["fingerprint"])

    @property
    def warnings(self) -> list[str]:
        """What a user should know of the split, such as a class that is too small for every part."""
        return list(self.meta.get("warnings") or [])

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """The files that were left out, each with the reason."""
        rows = _read_csv(self.path / "rejected.csv", REJECTED_COLUMNS)
        return [(printable(row["file"]), row["reason"]) for row in rows]

    @property
    def looks(self) -> np.ndarray | None:
        """The perceptual hash of each image, (N,) uint64, of a dataset that was made from a folder; else None."""
        try:
            hashes = np.load(self.path / LOOKS, allow_pickle=False)
        except Exception:
            return None
        return hashes if isinstance(hashes, np.ndarray) and hashes.shape == (len(self),) else None

    def indices(self, split: str) -> np.ndarray:
        """Return the positions of the images of one part, ascending.

        Parameters
        ----------
        split : str
            ``"train"``, ``"validation"`` or ``"test"``.

        Raises
        ------
        SettingError
            If there is no such part.
        """
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        return np.flatnonzero(self.split == SPLITS.index(split))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images of each class in each part."""
        counts = {}
        for split in SPLITS:
            of_class = np.bincount(self.labels[self.indices(split)], minlength=len(self.classes)).tolist()
            counts[split] = dict(zip(self.classes, of_class, strict=True))
        return counts

    def files(self) -> list[dict[str, str]]:
        """Return the rows of ``files.csv``, one per image, in the images' order.

        Raises
        ------
        DataError
            If there is not one row per image.
        """
        rows = list(_read_csv(self.path / "files.csv", FILE_COLUMNS))
        if len(rows) != len(self):
            raise _broken(self.path, f"files.csv has {len(rows)} rows for {len(self)} images")
        return rows

    def folder_labels(self) -> list[str]:
        """Return the folder class of each image: the hidden class, where a binary dataset was made of several."""
        return [row["folder"] for row in self.files()]

    def folder_counts(self) -> dict[str, int]:
        """Return the number of images of each folder class."""
        return dict(sorted(Counter(self.folder_labels()).items()))


def is_prepared(path: str | Path) -> bool:
    """Say whether a folder looks like a prepared dataset; `open_prepared` says whether it is a good one."""
    return is_file(user_path(path) / "meta.json") and is_file(user_path(path) / "images.npy")


def open_prepared(path: str | Path) -> PreparedDataset:
    """Open a prepared dataset by memory map, after checking it.

    Parameters
    ----------
    path : str or Path
        Its folder.

    Returns
    -------
    PreparedDataset

    Raises
    ------
    DataError
        If a file is missing, truncated or of another type, shape or format version, or there is nothing to train on.
    """
    folder = user_path(path)
    if not folder.is_dir():
        raise DataError(f"No prepared dataset at {folder}: there is no such folder. Make one with `photoflux prepare`.")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise _broken(folder, f"{', '.join(missing)} missing")
    meta = _read_meta(folder)
    of_features = "features" in meta
    images = _load(folder, "images.npy", np.float32 if of_features else np.uint8, 4)
    labels = _load(folder, "labels.npy", np.int32, 1)
    split = _load(folder, "split.npy", np.uint8, 1)
    for name, array in (("labels.npy", labels), ("split.npy", split)):
        if len(array) != len(images):
            raise _broken(folder, f"{name} has {len(array)} entries for {len(images)} images")
    expected = (meta["images"], meta["channels"], *meta["image_size"])
    if images.shape != expected:
        raise _broken(folder, f"images.npy has shape {images.shape}, meta.json says {expected}")
    if of_features and images.shape[2:] != (1, 1):
        raise _broken(folder, f"images.npy has shape {images.shape}, expected features (N, F, 1, 1)")
    if not of_features and images.shape[1] not in (1, 3):
        raise _broken(folder, f"images.npy has {images.shape[1]} channels, expected 1 or 3")
    classes = meta["classes"]
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
        raise _broken(
            folder, f"labels.npy has labels from {labels.min()} to {labels.max()}, expected 0 to {len(classes) - 1}"
        )
    if len(split) and split.max() >= len(SPLITS):
        raise _broken(folder, f"split.npy has the value {split.max()}, expected 0, 1 or 2 ({', '.join(SPLITS)})")
    if not np.any(split == 0) and meta.get("unsplit") is not True:
        raise _broken(folder, "it has no training images")
    return PreparedDataset(folder, images, labels, split, meta)


def _broken(folder: Path, found: str) -> DataError:
    return DataError(f"The prepared dataset {folder} cannot be used: {found}. Prepare it again from its source.")


def _read_meta(folder: Path) -> dict[str, Any]:
    try:
        meta = read_object(folder / "meta.json")
    except (OSError, ValueError) as error:
        raise _broken(folder, f"meta.json cannot be read ({error})") from error
    if "format" not in meta:
        raise _broken(folder, "meta.json has no format version")
    if meta["format"] != FORMAT:
        raise _broken(folder, f"it has format version {meta['format']!r}, this PhotoFlux reads version {FORMAT}")
    absent = [key for key in _NEEDED if key not in meta]
    if absent:
        raise _broken(folder, f"meta.json lacks {', '.join(absent)}")
    features = meta.get("features", {})
    if not isinstance(features, dict) or ("features" in meta and not _FEATURES.keys() <= features.keys()):
        raise _broken(folder, f"`features` in meta.json must say the backbone and the dataset, found {features!r}")
    try:
        check_table(meta, _META)
        check_table(features or None, _FEATURES, "features")
        check_table(meta.get("made_from"), MADE_FROM, "made_from")
        check_range(len(meta["image_size"]), 2, 2, "the numbers of image_size")
    except (TypeError, ValueError) as error:
        raise _broken(folder, f"in meta.json {error}") from error
    if not 2 <= len(meta["classes"]) <= MOST_CLASSES:
        raise _broken(folder, f"meta.json must list two or more classes, found {len(meta['classes'])}")
    positive = meta["positive"]
    if positive is not None and meta["classes"] != [f"not {positive}", positive]:
        raise _broken(folder, f"the positive class is {positive!r}, but the classes are {meta['classes']!r}")
    return meta


def _load(folder: Path, name: str, dtype: type[np.generic], dimensions: int) -> np.ndarray:
    try:
        array = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    # Of a header that lies almost anything is raised.
    except Exception as error:
        raise _broken(folder, f"{name} is truncated or no .npy file ({error})") from error
    if not isinstance(array, np.ndarray):
        raise _broken(folder, f"{name} is an archive, expected one array")
    if array.dtype != dtype or array.ndim != dimensions:
        raise _broken(
            folder,
            f"{name} is {array.dtype} with {array.ndim} dimensions, expected {np.dtype(dtype)} with {dimensions}",
        )
    if not array.flags.c_contiguous:
        raise _broken(folder, f"{name} is in Fortran order, expected C order")
    return array


def _read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.DictReader(file, strict=True)
            if tuple(reader.fieldnames or ()) != columns:
                raise _broken(path.parent, f"{path.name} must have the columns {', '.join(columns)}")
            yield from reader
    except (OSError, csv.Error) as error:
        raise _broken(path.parent, f"{path.name} cannot be read ({error})") from error
