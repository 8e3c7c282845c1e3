"""Prepares labelled images for the evaluation of an existing run, all of them as its test part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.data.cache import digest_of, place_of
from photoflux.data.checks import OnProgress
from photoflux.data.duplicates import number_groups
from photoflux.data.labels import label_folders
from photoflux.data.prepared import PreparedDataset
from photoflux.data.scanning import scan_folder
from photoflux.data.shape import Shape
from photoflux.data.writer import FilesWriter, ImageRecord
from photoflux.errors import DataError
from photoflux.system.names import printable, quoted, user_path

TEST = 2


def prepare_unsplit(
    source: str | Path | tuple[Any, Any],
    *,
    classes: Sequence[str],
    positive: str | None,
    shape: Shape,
    on_progress: OnProgress | None = None,
) -> PreparedDataset:
    """Return labelled images as a dataset of the classes and size of a run; all are marked as the test part.

    Nothing is asked of it that only training needs: a class may be missing.

    Parameters
    ----------
    source : str, Path or tuple
        A folder of class folders, a registered source, or arrays ``(x, y)`` whose labels are positions in `classes`.
    classes : sequence of str
        The run's.
    positive : str or None
        The run's positive class; every folder but that one then counts as "not …".
    shape : Shape
        Of the run's images.
    on_progress : callable, optional
        Called with (done, in all, what is being done).

    Raises
    ------
    DataError
        If there is no such folder, nothing in it can be read, a folder is no class of the run, or arrays do not fit.
    """
    from photoflux.data.sources.folder import decode_into, nothing_readable
    from photoflux.data.sources.own import own_source
    from photoflux.data.sources.own_reading import prepare_own_unsplit

    if isinstance(source, tuple | list):
        return _from_arrays(source, classes, positive, shape)
    own = own_source(source)
    if own is not None:
        return prepare_own_unsplit(own, classes, positive, shape)
    root = user_path(source)
    scan = scan_folder(root, resplit=True)
    if not scan.folders:
        raise DataError(
            f"{printable(root)} has no class folders with files in them. Expected one folder of images per class, each "
            f"called as one of the run's classes ({', '.join(classes)}); `photoflux predict` takes images without one."
        )
    label_of, notes = label_folders(printable(root), scan.folders, classes, positive)

    digest = digest_of([*scan.files, *scan.rejected])
    key = ["unsplit", str(root.resolve()), digest, list(classes), positive, list(shape)]
    with place_of(None, f"{root.resolve().name}-whole", lambda: key) as (path, there):
        if there is not None:
            return there
        with FilesWriter(path, shape) as writer:
            read = decode_into(writer, root, scan.files, on_progress)
            if not read.records:
                raise nothing_readable(root, [*scan.rejected, *read.rejected])
            labels = np.array([label_of[record.folder] for record in read.records], dtype=np.int32)
            return writer.finish(
                name=root.resolve().name,
                source="folder",
                classes=classes,
                positive=positive,
                labels=labels,
                split=np.full(len(labels), TEST),
                files=read.grouped(read.groups(labels)),
                rejected=sorted([*scan.rejected, *read.rejected]),
                seed=0,
                warnings=[*notes, *scan.notes],
                ignored=scan.ignored,
                looks=read.hashes,
                unsplit=True,
            )


def missing_classes(classes: Sequence[str], labels: np.ndarray) -> list[str]:
    """Return a note if images are not of every class: what an average over the classes then means."""
    absent = [name for label, name in enumerate(classes) if not np.any(labels == label)]
    if not absent:
        return []
    if len(absent) == len(classes) - 1:
        (only,) = (name for name in classes if name not in absent)
        return [
            f"All images are of the class {quoted(only)}: the accuracy is its recall, and precision says nothing "
            "without images of another class."
        ]
    names = ", ".join(map(quoted, absent))
    return [f"There is no image of the class {names}: the balanced accuracy is the mean over the others."]


def _from_arrays(
    source: tuple[Any, Any], classes: Sequence[str], positive: str | None, shape: Shape
) -> PreparedDataset:
    from photoflux.data.sources.arrays import as_array, check_images, check_labels

    if len(source) != 2:
        raise DataError(f"A source of arrays must be (x, y); received {len(source)} entries.")
    images, labels = check_images(as_array("x", source[0])), check_labels(as_array("y", source[1])).astype(np.int32)
    if len(images) != len(labels) or not len(labels):
        raise DataError(
            f"`x` and `y` must have one entry per image, 1 or more; received {len(images)} images and {len(labels)} "
            "labels."
        )
    if Shape.of(images) != shape or labels.max() >= len(classes):
        expected, found = ("×".join(map(str, sides)) for sides in (shape, Shape.of(images)))
        raise DataError(
            f"The dataset arrays does not fit the run: expected images of {expected} (C×H×W) and labels from 0 to "
            f"{len(classes) - 1} ({', '.join(classes)}); found {found} and labels up to {labels.max()}."
        )
    digests = [hashlib.sha256(np.ascontiguousarray(image).data).hexdigest() for image in images]
    groups = number_groups(np.asarray(digests))

    text = "".join(digests) + repr(labels.tolist())
    key = ["unsplit arrays", hashlib.sha256(text.encode()).hexdigest(), list(classes), positive, list(shape)]
    with place_of(None, "arrays-whole", lambda: key) as (path, there):
        if there is not None:
            return there
        with FilesWriter(path, shape) as writer:
            writer.append(np.ascontiguousarray(images))
            return writer.finish(
                name="arrays",
                source="arrays",
                classes=classes,
                positive=positive,
                labels=labels,
                split=np.full(len(labels), TEST),
                files=(
                    ImageRecord(f"x#{number}", classes[label], digest, group, shape.width, shape.height)
                    for number, (label, digest, group) in enumerate(
                        zip(labels.tolist(), digests, groups.tolist(), strict=True), start=1
                    )
                ),
                seed=0,
                unsplit=True,
            )
