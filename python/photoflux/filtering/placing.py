"""Puts the picture of an item into the job's folder: a hard link, a copy, or a page or member written out."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from photoflux.data.images.members import Member, open_member
from photoflux.data.images.pages import read_page

LINK, COPY, LIST = "link", "copy", "list"
HOW = (LINK, COPY, LIST)
# Where the system makes no link of this file, there or at all.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}


def put(source: Path | Member, page: int, place: Path, how: str, staging: Path) -> bool:
    """Put the picture of an item at a place; what is there is replaced at once, and the folders are made.

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

    Returns
    -------
    bool
        Whether it was copied though a link was wanted.

    Raises
    ------
    OSError
        If it cannot be written, or the file has gone.
    RefusedError
        If a member or page cannot be read any more.
    """
    made = staging / "picture"
    try:
        copied = _make(source, page, made, how)
        place.parent.mkdir(parents=True, exist_ok=True)
        # Not synced: what a power cut takes is done again.
        made.replace(place)
    finally:
        # Renaming a link to a file onto another link to it does nothing, and leaves both.
        with contextlib.suppress(OSError):
            made.unlink()
    return copied


def _make(source: Path | Member, page: int, made: Path, how: str) -> bool:
    if page:
        read_page(source, page).save(made, "PNG", compress_level=1)
        return False
    if isinstance(source, Member):
        with open_member(source) as packed, made.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
        return False
    if how == LINK:
        try:
            # A link to the file, not to a link to it.
            os.link(os.path.realpath(source), made)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
        else:
            return False
    shutil.copyfile(source, made)
    shutil.copystat(source, made)
    return how == LINK


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
