"""Files and folders that are written atomically: temporary names beside the place, fsync, rename, and who clears up.

A temporary name carries the machine, the process id and the start time of the process that made it. So whoever writes
into the same folder next can tell what a process that was killed has left, and removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# What another machine left may be in use there, which cannot be seen from here; after this time nothing is.
FOREIGN_SECONDS = 30 * 24 * 3600
_LONGEST = 150  # bytes of a name that a temporary one may repeat; file systems take 255 in all
_NAME = re.compile(
    r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-\d+\.(?P<kind>tmp|old)(\.\w+)?", re.DOTALL
)
_SCRATCH = re.compile(r"photoflux-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-.+")
_numbers = itertools.count()


@cache
def machine() -> str:
    """Return 8 hexadecimal digits for the machine, or the container, in which process ids mean something."""
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    return hashlib.sha256(f"{platform.node()} {namespace}".encode("utf-8", "surrogateescape")).hexdigest()[:8]


def started(pid: int) -> int:
    """Return when a process started, in ticks since the system's start; 0 where that cannot be known."""
    status = _status(pid)
    return int(status[19]) if status else 0


def is_alive(pid: int, start: int) -> bool:
    """Say whether a process of this machine still runs; another one with a used process id is not it."""
    if sys.platform == "win32":
        return True  # there os.kill would end it
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # a file may say any number
        return False
    except OSError:
        pass  # somebody else's
    status = _status(pid)
    if not status:
        return True
    return status[0] not in ("Z", "X") and start in (0, int(status[19]))


def _status(pid: int) -> list[str]:
    """Return the fields of a process after its name, from its state on; none where the system does not tell."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return []
    try:
        return os.read(descriptor, 4096).rpartition(b")")[2].decode("ascii", "replace").split()
    except OSError:
        return []
    finally:
        os.close(descriptor)


def owner() -> str:
    """Return what names this process in a temporary name."""
    return f"{machine()}-{os.getpid()}-{started(os.getpid())}"


def short(name: str) -> str:
    """Return a name that leaves room for more; a long one is cut and told from others by a hash."""
    data = os.fsencode(name)
    if len(data) <= _LONGEST:
        return name
    return f"{os.fsdecode(data[: _LONGEST - 10])}~{hashlib.sha256(data).hexdigest()[:8]}"


def sibling(path: Path, kind: str = "tmp", suffix: str = "") -> Path:
    """Return a temporary name beside a path that no other process and no other call uses.

    Parameters
    ----------
    path : Path
        The file or folder.
    kind : str
        ``"tmp"`` for what becomes the path, ``"old"`` for what was there before.
    suffix : str
        What the name must end in, where a library goes by it, such as ``".keras"``.
    """
    return path.with_name(f".{short(path.name)}.{owner()}-{next(_numbers)}.{kind}{suffix}")


def sweep(folder: Path) -> None:
    """Remove what processes that are gone left in a folder; an earlier content that one had moved aside goes back."""
    for left, match in _abandoned(folder, _NAME):
        place = folder / match["name"]
        if match["kind"] == "old" and not os.path.lexists(place):
            with contextlib.suppress(OSError):
                left.rename(place)
        else:
            remove(left)


def is_empty(folder: Path) -> bool:
    """Say whether a folder has nothing in it; what processes that are gone left there is removed and does not count."""
    sweep(folder)
    return not any(folder.iterdir())


def _abandoned(folder: Path, temporary: re.Pattern[str]) -> Iterator[tuple[Path, re.Match[str]]]:
    """Yield what processes that are gone left in a folder under temporary names, as far as the folder can be read."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in list(entries):
            match = temporary.fullmatch(entry.name)
            if match is None:
                continue
            gone = False
            if match["machine"] == machine():
                gone = not is_alive(int(match["pid"]), int(match["start"]))
            else:
                with contextlib.suppress(OSError):
                    gone = time.time() - entry.stat(follow_symlinks=False).st_mtime > FOREIGN_SECONDS
            if gone:
                yield Path(entry.path), match


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def remove_in_use(folder: Path) -> None:
    """Remove a folder into which other threads may still write: under another name, where they do not find it.

    Two processes may do so in turn: the second removes what the first, killed meanwhile, has left under that name.
    """
    gone = folder.with_name(f"{folder.name}-gone")
    with contextlib.suppress(OSError):
        folder.rename(gone)
    remove(folder)
    remove(gone)


@contextlib.contextmanager
def writing_file(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """Give a temporary name beside a file; what is written there replaces the file when the block ends without error.

    Parameters
    ----------
    path : Path
        The file.
    suffix : str
        What the temporary name must end in.

    Raises
    ------
    OSError
        If it cannot be written; the file is as it was.
    """
    sweep(path.parent)
    temporary = sibling(path, suffix=suffix)
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        remove(temporary)


def write_text(path: Path, text: str) -> None:
    r"""Write a text file atomically, in UTF-8.

    Bytes of a name that are no UTF-8 are written ``\udcNN``: in JSON that is an escape, which is read back as it was.

    Raises
    ------
    OSError
        If it cannot be written; an earlier file is as it was.
    """
    with writing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def sync_file(path: Path) -> None:
    """Have the system write a file to the disk; some file systems report only here that the disk is full."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the system write the names in a folder to the disk, where it can."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def install(temporary: Path, path: Path) -> None:
    """Move a finished folder to its place, where an earlier one is replaced; if that fails the earlier one is back.

    Raises
    ------
    OSError
        If it cannot be moved; `temporary` is still there.
    """
    old = sibling(path, "old")
    for file in temporary.rglob("*"):
        if file.is_file():
            sync_file(file)
    sync_folder(temporary)
    try:
        if os.path.lexists(path):
            path.rename(old)
        temporary.rename(path)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            old.rename(path)
        raise
    sync_folder(path.parent)
    remove(old)


@contextlib.contextmanager
def scratch(title: str, place: Path | None = None) -> Iterator[Path]:
    """Give a temporary folder for the time of the block; see `new_scratch`."""
    folder = new_scratch(title, place)
    try:
        yield folder
    finally:
        remove(folder)


def new_scratch(title: str, place: Path | None = None) -> Path:
    """Make a temporary folder, and remove those of processes that are gone.

    Parameters
    ----------
    title : str
        Ends its name, for people who look.
    place : Path, optional
        Where; None: in the system's temporary folder.
    """
    place = place or Path(tempfile.gettempdir())
    for left, _ in _abandoned(place, _SCRATCH):
        remove(left)
    return Path(tempfile.mkdtemp(prefix=f"photoflux-{owner()}-", suffix=f"-{title}", dir=place))
