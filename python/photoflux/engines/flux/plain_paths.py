"""Makes a path whose bytes are not UTF-8 readable for Julia, through a symbolic link."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from photoflux.system.atomic import scratch


@contextmanager
def plain_paths(*paths: Path) -> Iterator[list[str]]:
    """Give paths that are valid Unicode and lead to the same files and folders, for the time of the block.

    Python carries bytes of a name that are not UTF-8 as lone surrogates, which Julia's strings cannot be made of.

    Parameters
    ----------
    *paths : Path
        Folders and files; a file whose own name is valid Unicode need not be there yet.
    """
    if all(map(_is_text, paths)):
        yield [str(path) for path in paths]
        return
    with scratch("names") as folder:
        given = []
        for number, path in enumerate(paths):
            link = folder / str(number)
            if _is_text(path):
                given.append(str(path))
            elif _is_text(path.name):
                # Not atomic: a link is there or it is not, and this one is in a scratch folder.
                link.symlink_to(path.parent.absolute(), target_is_directory=True)
                given.append(str(link / path.name))
            else:
                # Not atomic: as above.
                link.symlink_to(path.absolute(), target_is_directory=path.is_dir())
                given.append(str(link))
        yield given


def _is_text(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).isascii() or not any("\ud800" <= letter <= "\udfff" for letter in os.fspath(path))
