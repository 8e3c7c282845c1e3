"""Functions for `photoflux.data.images.protected`, which processes of their own import: they fail in every way."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from photoflux.data.images.formats import RefusedError
from photoflux.data.images.members import Member
from photoflux.data.images.protected import Protected
from photoflux.filtering.placing import write_page

MEBIBYTE = 1 << 20


def work(what: str, number: int = 0) -> int:
    """Do what is said; return the process it is done in."""
    if what == "refuse":
        raise RefusedError("broken PNG: no")
    if what == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "place.png")
    if what == "fill":
        return len(bytearray(number * MEBIBYTE))
    if what == "die":
        os._exit(3)
    if what == "hang":
        time.sleep(600)
    return os.getpid()


def start_and_wait(connection) -> None:
    """Start a process, tell which, and do nothing more."""
    connection.send(Protected(work, seconds=60.0, memory=200 * MEBIBYTE)("pid"))
    time.sleep(600)


def deadly_page(source: Path | Member, page: int, file: Path) -> None:
    """Write a page; the fourth ends the process when it is half written."""
    if page == 4:
        file.write_bytes(b"\x89PNG")
        os._exit(3)
    write_page(source, page, file)
