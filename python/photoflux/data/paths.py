"""Matches paths written in a table to the files of a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from photoflux.system.names import composed

_PAGE = re.compile(r"#[0-9]+$")
_ABSOLUTE = re.compile(r"/|~|[A-Za-z]:/|file:/")


class PathMatcher:
    """Finds the files of a folder that a path in a table means.

    Parameters
    ----------
    source : Path
        The folder.
    files : sequence of str
        Its files, relative to it, with forward slashes.
    """

    def __init__(self, source: Path, files: Sequence[str]) -> None:
        self._files = set(files)
        self._composed: dict[str, list[str]] = {}
        for file in files:
            self._composed.setdefault(composed(file), []).append(file)
        resolved = os.path.realpath(source)
        self._places = {composed(str(place)) for place in (source, source.absolute(), resolved)}
        self._name = composed(Path(resolved).name)

    def files(self, path: str) -> list[str]:
        """Return the files that a path means; two, where their names differ in the form of Unicode only."""
        for written in _encodings(path):
            if written in self._files:
                return [written]
            for variant in self._variants(written):
                for name in (variant, _PAGE.sub("", variant)):
                    if name in self._composed:
                        return self._composed[name]
        return []

    def _variants(self, path: str) -> Iterator[str]:
        """Say what a path may be relative to the folder, the most literal first."""
        for slashed in dict.fromkeys((path, path.replace("\\", "/"))):
            name = composed(slashed).strip()
            while name.startswith("./"):
                name = name[2:].lstrip("/")
            yield composed(slashed)
            yield name
            for place in self._places:
                if name.startswith(place.rstrip("/") + "/"):
                    yield name[len(place.rstrip("/")) + 1 :]
            parts = name.split("/")
            # The folder's own name, alone or after where this folder was when the table was made.
            if self._name in parts[:-1] and (parts[0] == self._name or _ABSOLUTE.match(name)):
                yield "/".join(parts[parts.index(self._name) + 1 :])
            # A copy of the folder under another name: class folder and file at least must agree.
            if _ABSOLUTE.match(name):
                yield from ("/".join(parts[start:]) for start in range(1, len(parts) - 1))


def _encodings(path: str) -> Iterator[str]:
    yield path
    if any("\udc80" <= letter <= "\udcff" for letter in path):  # not UTF-8: perhaps of an old program on Windows
        yield path.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
