"""Prepares CIFAR-10, from its python or binary version or downloaded."""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Unpack

import numpy as np

from photoflux.data.checks import OnProgress
from photoflux.data.prepared import PreparedDataset
from photoflux.data.sources.arrays import Settings, write_images
from photoflux.data.sources.download import download
from photoflux.data.sources.pickles import load_batch
from photoflux.data.walking import is_file, is_folder
from photoflux.errors import DataError
from photoflux.system.names import first_few, printable, user_path

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
PYTHON_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
PYTHON_FILES = tuple(PYTHON_MD5)
BINARY_FILES = tuple(f"{name}.bin" for name in PYTHON_FILES)
_FILES = (*PYTHON_FILES, *BINARY_FILES)
BATCH = 10_000
_RECORD = 1 + 3 * 32 * 32
_FOLDERS = ("", "cifar-10-batches-py", "cifar-10-batches-bin")
# CIFAR-10's batches are among the first ten; other archives may be very large.
_LOOKED_AT = 100
_ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")

Read = Callable[[str], bytes]


def find_cifar10(source: str | Path) -> Path | None:
    """Return where a path holds CIFAR-10: a folder with batches (or with the folder of them), or the archive."""
    source = user_path(source)
    for folder in (source / name for name in _FOLDERS):
        if any(is_file(folder / name) for name in _FILES):
            return folder
    for archive in (source / name for name in _ARCHIVES):
        if is_file(archive):
            return archive
    if is_file(source) and source.name.lower().endswith((".tar.gz", ".tgz", ".tar")):
        return source
    return None


def check_archive(place: Path) -> None:
    """Refuse a tar archive of something else; one that is damaged is refused when it is read.

    Raises
    ------
    DataError
        If the archive can be opened and none of its first files is a batch of CIFAR-10.
    """
    try:
        with tarfile.open(place) as archive:
            names = [member.name for member in islice(archive, _LOOKED_AT)]
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError):
        return
    if not any(Path(name).name in _FILES for name in names):
        raise DataError(
            f"{printable(place)} is an archive, and not of CIFAR-10: it holds "
            f"{first_few(map(printable, names)) or 'nothing'}. "
            f"Expected {' or '.join(_ARCHIVES)}, or a folder of class folders: unpack the archive and give its folder."
        )


def cifar10_files(place: Path) -> list[Path]:
    """Return the files at a place that `find_cifar10` returned."""
    if is_file(place):
        return [place]
    return [place / name for name in _FILES if is_file(place / name)]


def prepare_cifar10(
    source: str | Path | None,
    dest: str | Path,
    *,
    cache: str | Path | None = None,
    url: str = URL,
    **settings: Unpack[Settings],
) -> PreparedDataset:
    """Write CIFAR-10 as a prepared dataset: 45,000 training and 5,000 validation images, and the test batch.

    Every batch of the python version must have its published md5; those of the binary version must have their size.

    Parameters
    ----------
    source : str, Path or None
        A folder with the batches, or with the folder of them, or the .tar.gz archive of either version; None: the
        python version is downloaded, once.
    dest : str or Path
        The prepared dataset to make.
    cache : str or Path, optional
        Where a download is kept; by default the user's cache folder.
    url : str
        From where it is downloaded.
    settings
        As in `write_images`.

    Raises
    ------
    DataError
        If a batch is missing or damaged, or the download fails.
    """
    if source is None:
        place: Path | None = _download(cache, url, settings.get("on_progress"))
    else:
        place = find_cifar10(source)
    if place is None:
        raise DataError(f"{source} does not hold CIFAR-10, expected data_batch_1 … test_batch, or {_ARCHIVES[0]}.")
    with _reader(place) as (names, read):
        version = PYTHON_FILES if any(name in names for name in PYTHON_FILES) else BINARY_FILES
        missing = [name for name in version if name not in names]
        if missing:
            raise DataError(f"{place} lacks {', '.join(missing)} of CIFAR-10's batches. Get the archive again: {URL}")
        batches = [_decode(place, name, read(name)) for name in version]
    return write_images(
        dest,
        np.concatenate([images for images, _ in batches]),
        np.concatenate([labels for _, labels in batches]),
        CLASSES,
        paths=[f"{name}#{number}" for name in version for number in range(1, BATCH + 1)],
        name="cifar10",
        source="cifar10",
        test_from=5 * BATCH,
        **settings,
    )


def _download(cache: str | Path | None, url: str, on_progress: OnProgress | None) -> Path:
    from photoflux.data.cache import cache_folder

    folder = cache_folder() if cache is None else Path(cache)
    return download(
        url,
        folder / "downloads" / "cifar-10-python.tar.gz",
        md5=ARCHIVE_MD5,
        instead=f"Or get {_ARCHIVES[0]} by other means and give the folder that holds it in place of 'cifar10'.",
        on_progress=on_progress,
    )


@contextmanager
def _reader(place: Path) -> Iterator[tuple[list[str], Read]]:
    """Give the names of the batches in a folder or an archive, and how to read one; nothing is extracted to disk."""
    try:
        if is_folder(place):
            yield [name for name in _FILES if is_file(place / name)], lambda name: (place / name).read_bytes()
            return
        with tarfile.open(place) as archive:
            members = {Path(member.name).name: member for member in archive if member.isfile()}

            def read(name: str) -> bytes:
                stream = archive.extractfile(members[name])
                assert stream is not None
                # A batch has 31 MB; what is larger is none, and need not be unpacked to the end to know.
                return stream.read(2 * BATCH * _RECORD)

            yield [name for name in members if name in _FILES], read
    except tarfile.ReadError as error:
        raise DataError(
            f"{place} cannot be read: it is not a tar archive, or truncated. Get it again: {URL}"
        ) from error
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{place} cannot be read: {error}. Get it again: {URL}") from error


def _decode(place: Path, name: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    if name in PYTHON_MD5:
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found != PYTHON_MD5[name]:
            raise DataError(
                f"{name} in {place} is damaged: its md5 must be {PYTHON_MD5[name]}; found {found}. "
                f"Get the archive again: {URL}"
            )
        pixels, labels = load_batch(data, f"{name} in {place}")
    else:
        if len(data) != BATCH * _RECORD:
            raise DataError(
                f"{name} in {place} is damaged: it must have {BATCH * _RECORD} bytes; found {len(data)}. "
                "Get the binary version again."
            )
        records = np.frombuffer(data, dtype=np.uint8).reshape(BATCH, _RECORD)
        pixels, labels = records[:, 1:], records[:, 0].astype(np.int32)
    expected = f"{name} in {place} must hold {BATCH} images of 3072 bytes with labels from 0 to 9; found"
    if pixels.shape != (BATCH, _RECORD - 1) or labels.shape != (BATCH,):
        raise DataError(f"{expected} the shapes {pixels.shape} and {labels.shape}. Get the archive again: {URL}")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise DataError(f"{expected} labels from {labels.min()} to {labels.max()}. Get the archive again: {URL}")
    return pixels.reshape(BATCH, 3, 32, 32), labels
