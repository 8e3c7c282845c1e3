"""Lists the files of a folder of class folders in a fixed order, with a reason for each that is not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from photoflux.data.class_names import notes_on_names
from photoflux.data.layouts import BESIDE, arrange
from photoflux.data.litter import OWN, Ignored
from photoflux.data.walking import FILE, FOLDER, IGNORED, REJECTED, absence, is_folder, walk
from photoflux.errors import DataError
from photoflux.system.names import class_name, printable, user_path


class Found(NamedTuple):
    """A file: `path` is relative to the source, with forward slashes; `folder` is its class, named after the folder.

    `part` is its part where the source is split already.
    """

    path: str
    folder: str
    size: int
    mtime_ns: int
    part: str | None = None


class Scan(NamedTuple):
    """What a folder of class folders holds.

    Attributes
    ----------
    files : list of Found
        Sorted by path.
    rejected : list of (str, str)
        What is not read, and why.
    folders, unread : list of str
        The classes: folders with files in them, and those of which nothing can be read
        (`photoflux.system.names.class_name`).
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


def scan_folder(source: str | Path, resplit: bool = False) -> Scan:
    """List the files of every class folder, nested ones too, sorted by path.

    Files beside the class folders, folders that cannot be read, and links that lead in a circle or nowhere are listed
    as rejected, each with the reason. What systems and programs leave in folders, and PhotoFlux' own runs and
    datasets, are no images of the user's: they are counted as ignored (`photoflux.data.litter`).

    Parameters
    ----------
    source : str or Path
        The folder.
    resplit : bool
        Whether a split that the folder has already is not used; see `photoflux.data.layouts.arrange`.

    Raises
    ------
    DataError
        If the source is missing or no folder, or its folders can be read in two ways.
    """
    root = user_path(source)
    absent = absence(root)
    if absent is not None:
        raise DataError(f"{absent}. Expected a folder that holds one folder of images per class.")
    if not is_folder(root):
        raise DataError(f"{printable(root)} is a file, expected a folder that holds one folder of images per class.")
    states: dict[str, tuple[int, int]] = {}
    rejected: list[tuple[str, str]] = []
    ignored = Ignored()
    upper: dict[str, set[str]] = {}  # the kinds of what is in each folder of the source
    for path, kind, detail, size, mtime_ns in walk(root):
        top, slash, _ = path.partition("/")
        if kind == IGNORED:
            ignored.add(detail, folder=path.endswith("/"))
            if top in upper and detail in OWN:
                upper[top].add(kind)
        elif slash and top != ".":
            upper.setdefault(top, set()).update({kind} - {FOLDER})
        if kind == REJECTED:
            rejected.append((path, detail))
        elif kind == FILE:
            states[path] = size, mtime_ns
    # One that holds nothing but our own runs is no class.
    rejected += [(f"{name}/", "no files in this folder") for name, kinds in upper.items() if not kinds]
    unread = [name for name, kinds in upper.items() if FILE not in kinds and kinds != {IGNORED}]
    layout = arrange(root, list(states), resplit)
    rejected += [(path, BESIDE) for path in states if path not in layout.classes]
    files = [Found(path, name, *states[path], layout.parts.get(path)) for path, name in sorted(layout.classes.items())]
    return Scan(
        files=files,
        rejected=sorted(rejected),
        folders=sorted({file.folder for file in files}),
        unread=sorted({class_name(name) for name in unread}),
        ignored=ignored.as_dict(),
        notes=[*layout.notes, *notes_on_names(layout.folders)],
    )
