"""Walks the files below a folder without ever raising; every command uses this walk."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from photoflux.data.litter import litter, own_folder
from photoflux.system.names import printable

FILE, FOLDER, REJECTED, IGNORED = "file", "folder", "rejected", "ignored"
_SPECIAL = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Walked(NamedTuple):
    """A file, a folder that is read, or what is not read.

    Attributes
    ----------
    path : str
        Relative to the folder, with forward slashes; that of a folder ends in one, and ``./`` is the folder itself.
    kind : str
        ``FILE``; ``FOLDER``: its entries come next; ``REJECTED``: cannot be read; ``IGNORED``: is not the user's data.
    detail : str
        The reason of a rejected entry, what an ignored one is, and nothing for the others.
    size, mtime_ns : int
        Of a file: bytes, and time of the last change.
    """

    path: str
    kind: str
    detail: str = ""
    size: int = -1
    mtime_ns: int = -1


class _Folder(NamedTuple):
    place: str
    path: str  # relative, empty or with a slash at its end


def walk(root: str | os.PathLike[str]) -> Iterator[Walked]:
    """Find the files below a folder, folder by folder, each in the order of its names.

    Linked folders are followed after all others, so that a folder itself is read rather than a link to it, and a
    folder that is reached twice is read once. Nothing raises: a folder without permission, a link to nothing or in a
    circle, a pipe, and what vanishes meanwhile are rejected, each with the reason. In memory are the names of one
    folder and the identities of all folders.

    Parameters
    ----------
    root : path
        The folder. It is read whatever its name and content are.
    """
    return _Walk(os.fspath(root)).of(os.fspath(root))


class _Walk:
    def __init__(self, root: str) -> None:
        # Following a link to a folder above would read it with all that lies beside the root.
        self.seen = dict.fromkeys(_above(root), "a folder above this one")
        self.folders: list[_Folder] = []
        self.links: list[_Folder] = []

    def of(self, root: str) -> Iterator[Walked]:
        start = _Folder(root, "")
        refused = self.enter(start)
        if refused is not None:
            yield refused
            return
        self.folders.append(start)
        while True:
            while self.folders:
                yield from self.entries(self.folders.pop())
            if not self.links:
                return
            self.links.sort(key=lambda link: link.path, reverse=True)
            link = self.links.pop()
            refused = self.enter(link, "a link to ")
            if refused is None:
                self.folders.append(link)
            else:
                yield refused

    def enter(self, folder: _Folder, what: str = "") -> Walked | None:
        """Note that a folder is read, or return why it is not."""
        try:
            status = os.stat(folder.place)
        except OSError as error:
            return Walked(folder.path or "./", REJECTED, f"the folder cannot be read: {_why(error)}")
        identity = _identity(folder.place, status)
        if identity in self.seen:
            return Walked(folder.path, REJECTED, what + self.seen[identity])
        self.seen[identity] = "a folder that is read already"
        return None

    def entries(self, folder: _Folder) -> Iterator[Walked]:
        """Find what is in a folder; folders in it are put on the lists of those to come."""
        entries: list[os.DirEntry[str]] = []
        try:
            with os.scandir(folder.place) as listing:
                entries.extend(listing)
        except OSError as error:
            yield Walked(folder.path or "./", REJECTED, f"the folder cannot be read: {_why(error)}")
            if not entries:
                return
        own = own_folder(folder.place, {entry.name for entry in entries}) if folder.path else None
        if own is not None:
            yield Walked(folder.path, IGNORED, own)
            return
        yield Walked(folder.path or "./", FOLDER)
        below: list[_Folder] = []
        for entry in sorted(entries, key=lambda entry: entry.name):
            found = self.entry(entry, folder.path + entry.name, below)
            if found is not None:
                yield found
        self.folders += reversed(below)

    def entry(self, entry: os.DirEntry[str], path: str, below: list[_Folder]) -> Walked | None:
        """Return what an entry is; a folder that is to be read is put on a list instead."""
        try:
            link, status = entry.is_symlink(), None
            folder = entry.is_dir(follow_symlinks=False)
            if not folder:
                status = entry.stat()
                folder = stat.S_ISDIR(status.st_mode)
        except OSError as error:
            ignored = litter(entry.name, entry.path, folder=False)
            return Walked(path, REJECTED, _reason(entry, error)) if ignored is None else Walked(path, IGNORED, ignored)
        if folder:
            path += "/"
        ignored = litter(entry.name, entry.path, folder=folder)
        if ignored is not None:
            return Walked(path, IGNORED, ignored)
        if folder:
            found = _Folder(entry.path, path)
            if link:
                self.links.append(found)
                return None
            refused = self.enter(found)
            if refused is None:
                below.append(found)
            return refused
        assert status is not None
        if stat.S_ISREG(status.st_mode):
            return Walked(path, FILE, "", status.st_size, status.st_mtime_ns)
        what = next((words for test, words in _SPECIAL if test(status.st_mode)), "something else")
        return Walked(path, REJECTED, f"not a regular file: {what}")


def _identity(folder: str, status: os.stat_result) -> tuple[int, int] | str:
    # Some file systems number nothing.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)


def _above(root: str) -> Iterator[tuple[int, int] | str]:
    place = os.path.realpath(root)
    while (parent := os.path.dirname(place)) != place:
        place = parent
        with contextlib.suppress(OSError):
            yield _identity(place, os.stat(place))


def absence(path: str | os.PathLike[str], what: str = "No such folder:") -> str | None:
    """Return the words for a path at which nothing can be found, or None where there is something."""
    name = printable(path)
    try:
        os.stat(path)
    except (FileNotFoundError, ValueError):
        return f"{name} is a link to nothing" if os.path.islink(path) else f"{what} {name}"
    except OSError as error:
        circle = error.errno == errno.ELOOP
        return f"{name} is a link in a circle" if circle else f"{name} cannot be read: {_why(error)}"
    return None


# The namesakes of these in Path raise where nothing may be read, and for links in a circle or names that are too long.
def is_file(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is a file, or a link to one."""
    return os.path.isfile(path)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is a folder, or a link to one."""
    return os.path.isdir(path)


def _reason(entry: os.DirEntry[str], error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "a link in a circle"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        try:
            return "a link to nothing" if entry.is_symlink() else "the file has gone"
        except OSError:
            return "the file has gone"
    return f"cannot be read: {_why(error)}"


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
