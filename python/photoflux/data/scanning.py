"""The files of a folder of class folders, in one order everywhere, with a reason for each that is not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from photoflux.data.class_names import notes_on_names
from photoflux.data.litter import OWN, Ignored
from photoflux.data.walking import FILE, FOLDER, IGNORED, REJECTED, absence, is_folder, walk
from photoflux.errors import DataError
from photoflux.names import class_name, printable


class Found(NamedTuple):
    """A file: `path` is relative to the source, with forward slashes; `folder` is its class, named after the folder."""

    path: str
    folder: str
    size: int
    mtime_ns: int


class Scan(NamedTuple):
    """What a folder of class folders holds.

    Attributes
    ----------
    files : list of Found
        Sorted by path.
    rejected : list of (str, str)
        What is not read, and why.
    folders, unread : list of str
        The classes: folders with files in them, and those of which nothing can be read (`photoflux.names.class_name`).
    ignored : dict
        The counts that `photoflux.data.litter.Ignored.as_dict` returns.
    notes : list of str
        What a user should know of the folders.
    """

    files: list[Found]
    rejected: list[tuple[str, str]]
    folders: list[str]
    unread: list[str]
    ignored: dict[str, Any]
    notes: list[str]


def scan_folder(source: str | Path) -> Scan:
    """List the files of every class folder, nested ones too, sorted by path.

    Files beside the class folders, folders that cannot be read, and links that lead in a circle or nowhere are listed
    as rejected, each with the reason. What systems and programs leave in folders, and PhotoFlux' own runs and
    datasets, are no images of the user's: they are counted as ignored (`photoflux.data.litter`).

    Raises
    ------
    DataError
        If the source is missing or no folder.
    """
    root = Path(source)
    absent = absence(root)
    if absent is not None:
        raise DataError(f"{absent}. Expected a folder that holds one folder of images per class.")
    if not is_folder(root):
        raise DataError(f"{printable(root)} is a file, expected a folder that holds one folder of images per class.")
    files: list[Found] = []
    rejected: list[tuple[str, str]] = []
    ignored = Ignored()
    classes: dict[str, set[str]] = {}  # the kinds of what is in each class folder
    for path, kind, detail, size, mtime_ns in walk(root):
        top, slash, _ = path.partition("/")
        if kind == IGNORED:
            ignored.add(detail, folder=path.endswith("/"))
            if top in classes and detail in OWN:
                classes[top].add(kind)
        elif slash and top != ".":
            classes.setdefault(top, set()).update({kind} - {FOLDER})
        if kind == REJECTED:
            rejected.append((path, detail))
        elif kind == FILE and slash:
            files.append(Found(path, class_name(top), size, mtime_ns))
        elif kind == FILE:
            rejected.append((path, "beside the class folders, expected inside one"))
    # One that holds nothing but our own runs is no class.
    rejected += [(f"{name}/", "no files in this folder") for name, kinds in classes.items() if not kinds]
    read = [name for name, kinds in classes.items() if FILE in kinds]
    unread = [name for name, kinds in classes.items() if FILE not in kinds and kinds != {IGNORED}]
    return Scan(
        files=sorted(files),
        rejected=sorted(rejected),
        folders=sorted({class_name(name) for name in read}),
        unread=sorted({class_name(name) for name in unread}),
        ignored=ignored.as_dict(),
        notes=notes_on_names(read),
    )
