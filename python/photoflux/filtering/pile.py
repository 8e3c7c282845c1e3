"""Walks the pile: every file, and every member of an archive, with what is known of it before it is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from photoflux.data.archives import is_archive, members
from photoflux.data.images.helpers import Source
from photoflux.data.litter import Ignored
from photoflux.data.walking import FILE, IGNORED, REJECTED, absence, is_folder, walk
from photoflux.errors import DataError
from photoflux.filtering.ledger import SourceKey
from photoflux.system.names import printable, user_path


class Entry(NamedTuple):
    """A source of the pile.

    Attributes
    ----------
    key : SourceKey
        What it is known by.
    root, below : str
        The folder of the pile that it was found in, empty for a file that was given itself, and its path from there.
    size, mtime_ns : int
        Bytes, and the time of the last change of its file; −1 if not known.
    source : Path, Member or None
        What is decoded; None of what is not read.
    reason : str
        Why it is not read.
    """

    key: SourceKey
    root: str
    below: str
    size: int
    mtime_ns: int
    source: Source | None
    reason: str = ""


IsDone = Callable[[SourceKey, int, int], bool]


class Pile:
    """The folders, files and archives that a job was given.

    Parameters
    ----------
    paths : sequence of path
        As the user gave them.
    out : Path
        The job's folder; where it lies in the pile, the walk knows it and leaves it out.

    Attributes
    ----------
    roots : list of str
        The folders among the paths, absolute.
    files : int
        How many files were met in the last walk.
    ignored : Ignored
        What was met in it that is not the user's data.

    Raises
    ------
    DataError
        If there is no path, one does not exist, or one is the job's folder.
    """

    def __init__(self, paths: list[str | Path], out: Path) -> None:
        if not paths:
            raise DataError("There is nothing to filter. Give folders, archives or image files.")
        self.paths: list[str] = []
        for path in map(user_path, paths):
            absent = absence(path, "There is no file or folder")
            if absent is not None:
                raise DataError(f"{absent}. Expected folders, archives or image files.")
            if os.path.realpath(path) == os.path.realpath(out):
                raise DataError(f"`out` {printable(out)} must be another folder than the pile. Choose a new one.")
            self.paths.append(os.path.abspath(path))
        self.roots = [path for path in dict.fromkeys(self.paths) if is_folder(path)]
        self.files, self.ignored = 0, Ignored()

    def count(self, over: Callable[[], bool]) -> int | None:
        """Return how many files there are; None if `over` says to stop."""
        found = 0
        for _ in self._files():
            found += 1
            if found % 512 == 0 and over():
                return None
        return found

    def entries(self, is_done: IsDone, scratch: Path) -> Iterator[Entry]:
        """Walk the pile and yield what is not done yet; what cannot be read is among it, with the reason.

        In memory are the names of one folder, and of one zip archive.

        Parameters
        ----------
        is_done : callable
            Is asked with key, size and time of the last change. An archive that is done is not opened.
        scratch : Path
            As in `photoflux.data.archives.members`.
        """
        self.files, self.ignored = 0, Ignored()
        for entry in self._files(self.ignored):
            self.files += 1
            if is_done(entry.key, entry.size, entry.mtime_ns):
                continue
            if entry.source is None or not is_archive(entry.key.path):
                yield entry
            else:
                yield from self._members(entry, is_done, scratch)

    def _members(self, archive: Entry, is_done: IsDone, scratch: Path) -> Iterator[Entry]:
        """Yield the members of an archive, and at the end the archive itself, which stands for its being read."""
        path, state = archive.key.path, (archive.size, archive.mtime_ns)

        def wanted(name: str, nth: int) -> bool:
            return not is_done(SourceKey(path, name, nth), *state)

        reason = ""
        for listed in members(Path(path), scratch, wanted):
            if listed.ignored is not None:
                self.ignored.add(listed.ignored, folder=False)
            elif not listed.name:
                reason = listed.reason or ""
            elif wanted(listed.name, listed.nth):
                key = SourceKey(path, listed.name, listed.nth)
                yield archive._replace(key=key, source=listed.member, reason=listed.reason or "")
        yield archive._replace(source=None, reason=reason)

    def _files(self, ignored: Ignored | None = None) -> Iterator[Entry]:
        for path in dict.fromkeys(self.paths):
            if path not in self.roots:
                yield _given(path)
                continue
            for item in walk(path):
                whole = os.path.join(path, item.path)
                if item.kind == FILE:
                    yield Entry(SourceKey(whole), path, item.path, item.size, item.mtime_ns, Path(whole))
                elif item.kind == REJECTED:
                    yield Entry(SourceKey(whole), path, item.path, -1, -1, None, item.detail)
                elif item.kind == IGNORED and ignored is not None:
                    ignored.add(item.detail, folder=item.path.endswith("/"))


def _given(path: str) -> Entry:
    """Return a file that was given itself, which is never ignored."""
    key, name = SourceKey(path), os.path.basename(path)
    try:
        status = os.stat(path)
    except OSError as error:
        return Entry(key, "", name, -1, -1, None, f"cannot be read: {error.strerror}")
    return Entry(key, "", name, status.st_size, status.st_mtime_ns, Path(path))
