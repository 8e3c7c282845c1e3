"""Puts the picture of an item into the job's folder: a hard link, a copy, or a page or member written out."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from photoflux.data.images.formats import RefusedError
from photoflux.data.images.members import Member, open_member
from photoflux.data.images.pages import read_page

LINK, COPY, LIST = "link", "copy", "list"
HOW = (LINK, COPY, LIST)
# Where the system makes no link of this file, there or at all.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}


WritePage = Callable[[Path | Member, int, Path], None]


def write_page(source: Path | Member, page: int, file: Path) -> None:
    """Write a page of a file or member, in PNG, in all its pixels; see `photoflux.data.images.pages.read_page`.

    Raises
    ------
    RefusedError
        If it cannot be read.
    OSError
        If it cannot be written.
    """
    # Not atomic: into the staging folder of `put`, or the scratch folder of a worker.
    read_page(source, page).save(file, "PNG", compress_level=1)


def put(source: Path | Member, page: int, place: Path, how: str, staging: Path, write_page: WritePage) -> bool:
    """Put the picture of an item at a place, whose folder is there; what is at the place is replaced.

    Parameters
    ----------
    source : Path or Member
        What the item is in; it is only read.
    page : int
        0: the source itself; else the page that is written out, in PNG, in all its pixels.
    place : Path
        Where.
    how : str
        ``"link"``: a hard link, where the system makes one; ``"copy"``: a copy, with the time of the last change.
    staging : Path
        A folder on the same disk, in which it is made before it is renamed to the place.
    write_page : callable
        `write_page`, or what calls it elsewhere.

    Returns
    -------
    bool
        Whether it was copied though a link was wanted.

    Raises
    ------
    OSError
        If it cannot be written.
    RefusedError
        If the file, member or page cannot be read any more.
    """
    if how == LINK and page == 0 and isinstance(source, Path) and _link(source, place):
        return False
    made = staging / "picture"
    try:
        if page:
            write_page(source, page, made)
        else:
            _copy(source, made)
        # Not synced: what a power cut takes is done again.
        made.replace(place)
    finally:
        with contextlib.suppress(OSError):
            made.unlink()
    return how == LINK and page == 0 and isinstance(source, Path)


def _link(source: Path, place: Path) -> bool:
    """Link a file, and say whether the system has done it."""
    # A link to the file, not to a link to it.
    file = os.path.realpath(source) if source.is_symlink() else source
    try:
        try:
            # Not atomic: a link is there or it is not.
            os.link(file, place)
        except FileExistsError:
            # Of an earlier start; if it is the same file, a link to it would not be renamed.
            place.unlink()
            # Not atomic: as above.
            os.link(file, place)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        if isinstance(error, FileNotFoundError) and not os.path.lexists(file):
            raise RefusedError(_why(error)) from error
        raise
    return True


def _copy(source: Path | Member, made: Path) -> None:
    try:
        opened = open_member(source) if isinstance(source, Member) else source.open("rb")
    except OSError as error:
        raise RefusedError(_why(error)) from error
    # Not atomic: into the staging folder, from which `put` renames it.
    with opened as original, made.open("wb") as file:
        shutil.copyfileobj(original, file, 1 << 20)
    if isinstance(source, Path):
        shutil.copystat(source, made)


def _why(error: OSError) -> str:
    return "the file has gone" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"


def take_away(place: Path, top: Path) -> None:
    """Remove a picture that was put somewhere, and the folders up to `top` that are empty then."""
    with contextlib.suppress(FileNotFoundError):
        place.unlink()
    for folder in place.parents:
        if folder == top:
            return
        try:
            folder.rmdir()
        except OSError:
            return
