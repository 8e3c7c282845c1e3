"""Writes a prepared dataset atomically; a change of its files on disk is made here and in ``prepared``."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
from numpy.lib import format as npy

from photoflux.data.cache import advice_for
from photoflux.data.conflicts import NAME as CONFLICTS
from photoflux.data.conflicts import Conflict
from photoflux.data.prepared import (
    FEATURES,
    FILE_COLUMNS,
    FILES,
    FORMAT,
    LOOKS,
    REJECTED_COLUMNS,
    SPLITS,
    PreparedDataset,
    is_prepared,
    open_prepared,
)
from photoflux.data.shape import Shape
from photoflux.errors import DataError
from photoflux.system import atomic
from photoflux.system.claims import Busy, claim
from photoflux.system.names import as_json, first_few, printable, user_path
from photoflux.system.version import __version__

# What file managers leave in folders; it does not make a dataset somebody else's folder.
LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


class UnwritableError(DataError):
    """An error of the destination, not of an image."""


class ImageRecord(NamedTuple):
    """What ``files.csv`` says of an image, its split aside."""

    path: str
    folder: str
    sha256: str
    group: int
    width: int
    height: int


class FilesWriter:
    """Writes the files of one prepared dataset; use it as a context manager and end with `finish`.

    Images are appended to the file and the count is put in its header last, so a million images never sit in memory
    and nobody has to know beforehand how many can be decoded. Leaving the block without `finish`, whatever the
    reason, removes the temporary folder; what was at the destination stays.

    Parameters
    ----------
    dest : Path
        The folder to make. An existing prepared dataset is replaced, any other folder that holds something is refused.
    shape : Shape
        Of every image.

    Raises
    ------
    DataError
        If the destination cannot be used, another process writes to it, or the disk is full.
    """

    def __init__(self, dest: str | Path, shape: Shape) -> None:
        self.dest = user_path(dest).resolve()
        self.shape = shape
        self.count = 0
        self._digest = hashlib.sha256()
        self._temporary: Path
        self._file: BinaryIO

    def __enter__(self) -> Self:
        check_destination(self.dest)
        with self._writing(), contextlib.ExitStack() as stack:
            try:
                stack.enter_context(claim(self.dest))
            except Busy as busy:
                raise DataError(
                    f"The destination {self.dest} is being written by {busy}. Wait until that is done, or choose "
                    "another."
                ) from None
            self._temporary = atomic.sibling(self.dest)
            stack.callback(atomic.remove, self._temporary)
            self._temporary.mkdir()
            self._file = (self._temporary / "images.npy").open("w+b")
            stack.callback(self._close)
            self._write_header()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def append(self, images: np.ndarray) -> None:
        """Append images, uint8 (n, C, H, W)."""
        assert images.dtype == np.uint8 and images.shape[1:] == self.shape
        pixels = np.ascontiguousarray(images).data
        with self._writing():
            self._file.write(pixels)
        self._digest.update(pixels)
        self.count += len(images)

    def finish(
        self,
        *,
        name: str,
        source: str,
        classes: Sequence[str],
        labels: np.ndarray,
        split: np.ndarray,
        files: Iterable[ImageRecord],
        seed: int,
        positive: str | None = None,
        rejected: Iterable[tuple[str, str]] = (),
        warnings: Sequence[str] = (),
        groups: str | None = None,
        ignored: dict[str, Any] | None = None,
        given: bool = False,
        conflicts: Sequence[Conflict] = (),
        made_from: Mapping[str, Any] | None = None,
        unsplit: bool = False,
        looks: Sequence[int] | None = None,
    ) -> PreparedDataset:
        """Write the rest, move the folder into place and open it.

        Parameters
        ----------
        name, source : str
            What the dataset is called, and the kind of source: folder, cifar10, idx, demo,
            arrays or own (of `PreparedWriter`).
        classes : sequence of str
            Class names in the order of the labels.
        labels, split : numpy.ndarray
            One entry for each appended image.
        files : iterable of ImageRecord
            One for each appended image.
        seed : int
            The seed of the split.
        positive : str, optional
            The positive class of a binary dataset.
        rejected : iterable of (str, str)
            Files left out, each with the reason.
        warnings : sequence of str
            What a user should know of the split.
        groups : str, optional
            sha256 of the file of groups that were kept together.
        ignored : dict, optional
            Counts of what is not the user's data, of `photoflux.data.litter.Ignored`.
        given : bool
            Whether the split is one that the source has.
        conflicts : sequence of Conflict
            Equal images in several class folders.
        made_from : mapping, optional
            What `photoflux.data.preparation.prepare` was given, so that it can be prepared again.
        unsplit : bool
            Whether it was prepared for evaluation: all of it is the test part.
        looks : sequence of int, optional
            The perceptual hash of each image.
        """
        labels, split = labels.astype(np.int32), split.astype(np.uint8)
        assert len(labels) == len(split) == self.count
        self._digest.update(labels.astype("<i4").tobytes() + split.tobytes())
        self._digest.update(json.dumps([list(classes), positive, self.shape]).encode())
        description = {
            "format": FORMAT,
            "name": printable(name),
            "source": source,
            "classes": list(classes),
            "positive": positive,
            "image_size": [self.shape.height, self.shape.width],
            "channels": self.shape.channels,
            "seed": seed,
            "split": "given" if given else "made",
            "groups": groups,
            "unsplit": unsplit,
            "made_from": None if made_from is None else dict(made_from),
            "images": self.count,
            "fingerprint": self._digest.hexdigest(),
            "warnings": list(warnings),
            "ignored": ignored,
            "photoflux": __version__,
        }
        with self._writing():
            self._write_header()
            # Some file systems report a full disk only here.
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            np.save(self._temporary / "labels.npy", labels)
            np.save(self._temporary / "split.npy", split)
            if looks is not None:
                np.save(self._temporary / LOOKS, np.array(looks, dtype=np.uint64))
            rows = ((*record, SPLITS[part]) for record, part in zip(files, split.tolist(), strict=True))
            write_csv(self._temporary / "files.csv", FILE_COLUMNS, rows)
            write_rejected(self._temporary / "rejected.csv", rejected)
            if conflicts:
                write_csv(self._temporary / CONFLICTS, Conflict._fields, conflicts)
            text = as_json(description, indent=2) + "\n"
            (self._temporary / "meta.json").write_text(text, encoding="utf-8")
            check_destination(self.dest)
            atomic.install(self._temporary, self.dest)
        return open_prepared(self.dest)

    def _write_header(self) -> None:
        """Write the .npy header for the present count; NumPy pads it so that a growing first axis keeps its length."""
        start = self._file.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self.shape)}
        npy.write_array_header_1_0(self._file, header)
        if self.count == 0:
            self._offset = self._file.tell()
        assert start == 0 and self._file.tell() == self._offset, "the header of images.npy changed its length"

    def _close(self) -> None:
        # Closing flushes, which fails again where the disk is full.
        with contextlib.suppress(OSError):
            self._file.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnwritableError(
                f"The prepared dataset {self.dest} could not be written: {error.strerror or error}. "
                f"What was there before is untouched. {advice_for(self.dest)}"
            ) from error


def check_destination(dest: Path) -> None:
    """Refuse a destination that is a file, or a folder that holds anything but a prepared dataset."""
    if not os.path.lexists(dest):
        return
    if not dest.is_dir():
        raise DataError(f"The destination {dest} is a file, expected a new folder or an old prepared dataset.")
    try:
        entries = {entry.name for entry in dest.iterdir()}
    except OSError as error:
        raise DataError(f"The destination {dest} cannot be read: {error.strerror}. Choose another.") from error
    foreign = sorted(entries - {*FILES, CONFLICTS, LOOKS, FEATURES} - LITTER) if is_prepared(dest) else sorted(entries)
    if foreign:
        what = "holds other files beside a prepared dataset" if is_prepared(dest) else "is not a prepared dataset"
        raise DataError(
            f"The destination {dest} exists and {what} ({first_few(foreign)}); "
            "nothing was written. Choose a new folder, or empty this one."
        )


def write_rejected(temporary: Path, rejected: Iterable[tuple[str, str]]) -> None:
    """Write a ``rejected.csv`` under a temporary name: files, each with the reason why it was left out."""
    write_csv(temporary, REJECTED_COLUMNS, rejected)


def write_csv(temporary: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table of a prepared dataset under a temporary name, or into a folder that has one."""
    with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        plain = csv.writer(file, lineterminator="\n")
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(columns)
        for row in rows:
            # Python leaves a lone carriage return unquoted, and then reads it as the end of the line.
            (quoted if any("\r" in str(value) for value in row) else plain).writerow(row)
