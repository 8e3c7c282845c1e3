"""The files of a folder of class folders, in one order everywhere, with a reason for each that is not read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from photoflux.data.prepared import is_prepared
from photoflux.errors import DataError


class Found(NamedTuple):
    """A file: `path` is relative to the source, with forward slashes; `folder` is its class folder."""

    path: str
    folder: str
    size: int
    mtime_ns: int


class Scan(NamedTuple):
    """What a folder of class folders holds."""

    files: list[Found]
    rejected: list[tuple[str, str]]
    folders: list[str]


def scan_folder(source: str | Path) -> Scan:
    """List the files of every class folder, nested ones too, sorted by path.

    Hidden files and folders, files beside the class folders, links that lead in a circle and what cannot be read are
    listed as rejected, each with the reason.

    Raises
    ------
    DataError
        If the source is missing or no folder.
    """
    root = Path(source)
    if not root.exists():
        raise DataError(f"No such folder: {root}. Expected a folder that holds one folder of images per class.")
    if not root.is_dir():
        raise DataError(f"{root} is a file, expected a folder that holds one folder of images per class.")
    scan = Scan([], [], [])
    seen = {_identity(root.stat())}
    for entry in _entries(root, "", scan):
        if not entry.is_dir():
            scan.rejected.append((entry.name, "beside the class folders, expected inside one"))
        elif _enter(Path(entry.path), entry.name, scan, seen):
            before = len(scan.files)
            _walk(entry.path, entry.name, entry.name, scan, seen)
            if len(scan.files) > before:
                scan.folders.append(entry.name)
            else:
                scan.rejected.append((f"{entry.name}/", "no files in this folder"))
    scan.files.sort()
    scan.rejected.sort()
    scan.folders.sort()
    return scan


def _walk(folder: str, relative: str, label: str, scan: Scan, seen: set[tuple[int, int]]) -> None:
    pending = [(folder, relative)]
    while pending:
        here, path = pending.pop()
        for entry in _entries(here, f"{path}/", scan):
            name = f"{path}/{entry.name}"
            if entry.is_dir():
                if _enter(Path(entry.path), name, scan, seen):
                    pending.append((entry.path, name))
            elif entry.name.startswith("."):
                scan.rejected.append((name, "a hidden file"))
            else:
                status = _status(entry)
                scan.files.append(Found(name, label, *((status.st_size, status.st_mtime_ns) if status else (-1, -1))))


def _entries(folder: str | Path, prefix: str, scan: Scan) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, links last, so that of a folder and a link to it the folder is read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError as error:
        scan.rejected.append((prefix or "./", f"the folder cannot be read: {error.strerror}"))
        return []


def _enter(folder: Path, name: str, scan: Scan, seen: set[tuple[int, int]]) -> bool:
    reason = None
    if folder.name.startswith("."):
        reason = "a hidden folder"
    elif is_prepared(folder):
        reason = "a prepared dataset"
    else:
        try:
            identity = _identity(folder.stat())
        except OSError as error:
            reason = f"the folder cannot be read: {error.strerror}"
        else:
            if identity in seen:
                reason = "a link to a folder that is read already"
            seen.add(identity)
    if reason:
        scan.rejected.append((f"{name}/", reason))
    return reason is None


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:
        return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
