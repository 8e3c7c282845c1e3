"""Prepares MNIST-format idx files."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Unpack

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.data.sources.arrays import Settings, write_images
from photoflux.data.walking import is_file
from photoflux.errors import DataError
from photoflux.system.names import user_path

_PARTS = ("train", "t10k")
_KINDS = {"images": 3, "labels": 1}
_LARGEST = 1 << 32


def find_idx(folder: str | Path) -> dict[str, Path]:
    """Return those of the four idx files that a folder holds: ``{"train-images": path, …}``.

    ``train-images-idx3-ubyte`` and ``train-images.idx3-ubyte`` are the usual names, with or without ``.gz``.
    """
    found: dict[str, Path] = {}
    for part in _PARTS:
        for kind, dimensions in _KINDS.items():
            for name in (f"{part}-{kind}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in ("", ".gz")):
                if is_file(Path(folder) / name):
                    found.setdefault(f"{part}-{kind}", Path(folder) / name)
    return found


def prepare_idx(
    source: str | Path,
    dest: str | Path,
    **settings: Unpack[Settings],
) -> PreparedDataset:
    """Write the images of four idx files; the t10k files are the test part, a tenth of the others validation.

    Parameters
    ----------
    source, dest : str or Path
        The folder with the four files, and the prepared dataset to make. Classes are called "0", "1", …
    settings
        As in `write_images`.

    Raises
    ------
    DataError
        If a file is missing, is not what its name says, or is cut off.
    """
    source = user_path(source)
    found = find_idx(source)
    missing = [f"{part}-{kind}-idx{n}-ubyte(.gz)" for part in _PARTS for kind, n in _KINDS.items()
               if f"{part}-{kind}" not in found]  # fmt: skip
    if missing:
        raise DataError(f"{source} lacks {', '.join(missing)}; expected the four idx files of an MNIST-like dataset.")
    arrays = {key: read_idx(path, _KINDS[key.split("-")[1]]) for key, path in found.items()}
    for part in _PARTS:
        images, labels = arrays[f"{part}-images"], arrays[f"{part}-labels"]
        if len(images) != len(labels):
            raise DataError(
                f"{found[f'{part}-images'].name} holds {len(images)} images and {found[f'{part}-labels'].name} "
                f"{len(labels)} labels, expected as many of both. Get the files again."
            )
    train, test = (arrays[f"{part}-images"] for part in _PARTS)
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"The training and test images in {source} must have the same size; found {train.shape[1:]} and "
            f"{test.shape[1:]}. Get the files again."
        )
    codes = np.concatenate([arrays[f"{part}-labels"] for part in _PARTS]).astype(np.int32)
    paths = [
        f"{found[f'{part}-images'].name}#{number}"
        for part in _PARTS
        for number in range(1, len(arrays[f"{part}-images"]) + 1)
    ]
    return write_images(
        dest,
        np.concatenate([train, test])[:, None],
        codes,
        [str(code) for code in range(int(codes.max(initial=0)) + 1)],
        paths=paths,
        name=source.resolve().name,
        source="idx",
        test_from=len(train),
        **settings,
    )


def read_idx(path: str | Path, dimensions: int) -> np.ndarray:
    """Read an idx file of unsigned bytes, gzipped or not.

    Parameters
    ----------
    path : str or Path
        The file.
    dimensions : int
        How many dimensions it must have: 3 for images, 1 for labels.

    Raises
    ------
    DataError
        If it is not such a file, or its length is not what its header says.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as stream:
            header = stream.read(4 + 4 * dimensions)
            magic = bytes([0, 0, 8, dimensions])
            if header[:4] != magic:
                raise DataError(
                    f"{path} must start with {magic.hex()} (idx, {dimensions}-D); found {header[:4].hex()}."
                )
            shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4))
            size = math.prod(shape)
            if len(header) != 4 + 4 * dimensions or size > _LARGEST:
                raise DataError(f"{path} has no valid idx header: found the shape {shape}. Get the file again.")
            data = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}. Get the file again.") from error
    if len(data) != size:
        found = f"only {len(data)}" if len(data) < size else "more"
        raise DataError(f"{path} must hold {size} bytes after its header, for the shape {shape}; found {found}.")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
