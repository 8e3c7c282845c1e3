"""Locks between processes: one process at a time owns a place on the disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from photoflux.system import atomic

_STEP = 0.05  # seconds between two tries
_SETTLE = 1.0  # so long a claim without a living owner is tried: another process may be writing or removing it
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
# The places that this process has, and the thread that took each: a claim within a claim is the same one.
_held: dict[str, tuple[int, int]] = {}


class Busy(Exception):
    """Another process, or another thread of this one, has the place; the text says which, and since when."""


@contextlib.contextmanager
def claim(path: Path, *, wait: float = 0.0, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Claim a place during the block; the thread that has claimed it may claim it again.

    The claim is a lock on the file ``.NAME.lock`` beside the place, which the system gives up when the process is gone,
    however it ended. Where the file system has no locks, the file's content decides: a claim of a process of this
    machine that is gone is taken over, one of another machine is respected.

    Parameters
    ----------
    path : Path
        The file or folder, which need not exist; its parents are made.
    wait : float
        Seconds to wait for another process, at most.
    on_wait : callable, optional
        Is told once for whom the wait is.

    Raises
    ------
    Busy
        If another has it.
    OSError
        If the claim cannot be written.
    """
    real = Path(os.path.realpath(path))
    me = (os.getpid(), threading.get_ident())
    if _held.get(str(real)) == me:
        yield
        return
    made = _make_parents(real.parent)
    try:
        atomic.sweep(real.parent)
        _sweep_locks(real.parent)
        lock = _lock_file(real)
        release = _obtain(lock, wait, on_wait)
        _held[str(real)] = me
        try:
            yield
        finally:
            _held.pop(str(real), None)
            release()
    finally:
        # Parents that were made for nothing.
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()


def _make_parents(folder: Path) -> list[Path]:
    """Make a folder with its parents, and return those that were missing, the deepest first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{atomic.short(path.name)}.lock")


def _obtain(lock: Path, wait: float, on_wait: Callable[[str], None] | None) -> Callable[[], None]:
    began = time.monotonic()
    told = False
    while True:
        release = _take(lock)
        if release is not None:
            return release
        holder = _holder(lock)
        waited = time.monotonic() - began
        if waited >= (wait if _is_living(holder) else max(wait, _SETTLE)):
            raise Busy(_in_words(holder))
        if wait and on_wait is not None and not told and waited > _SETTLE:
            told = True
            on_wait(_in_words(holder))
        time.sleep(_STEP)


def _take(lock: Path) -> Callable[[], None] | None:
    """Take a lock file; None if another has it."""
    while True:
        # Not atomic: what counts is the system's lock on it, its content is for messages.
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _locked(file):
                os.close(file)
                return None
        except OSError as error:
            os.close(file)
            if error.errno not in _UNSUPPORTED:
                raise
            return _take_without_locks(lock)
        # Who had it may have removed the file between the two calls.
        if _is_at(file, lock):
            break
        os.close(file)
    with contextlib.suppress(OSError):  # the lock counts; the content is for messages
        os.ftruncate(file, 0)
        os.write(file, _me())

    def release() -> None:
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(file)

    return release


def _locked(file: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, 1 << 20, os.SEEK_SET)  # behind the content, which others are to read
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            os.lseek(file, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _take_without_locks(lock: Path) -> Callable[[], None] | None:
    """Take it by making a file that must not be there, or whose maker is gone."""
    mark = lock.with_suffix(".owner")
    with contextlib.suppress(OSError):
        lock.unlink()
    for _ in range(2):
        try:
            # Not atomic: what counts is that it is there.
            file = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            if _is_living(_holder(mark)):
                return None
            taken = atomic.sibling(mark)
            with contextlib.suppress(OSError):  # of two that take it over, one renames it
                mark.rename(taken)
                taken.unlink()
            continue
        try:
            os.write(file, _me())
        finally:
            os.close(file)
        return lambda: mark.unlink(missing_ok=True)
    return None


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _me() -> bytes:
    values = {
        "photoflux": "claim",
        "machine": atomic.machine(),
        "host": platform.node(),
        "pid": os.getpid(),
        "start": atomic.started(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    return json.dumps(values).encode()


def _holder(lock: Path) -> dict[str, Any] | None:
    """Return what a claim says of who has it; None if it says nothing, as while it is being written."""
    for path in (lock, lock.with_suffix(".owner")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            values = json.loads(path.read_bytes()[:4096])
            if values["photoflux"] == "claim":
                words = {name: str(values[name]) for name in ("machine", "host", "since")}
                return {"pid": int(values["pid"]), "start": int(values["start"]), "file": path, **words}
    return None


def _is_living(holder: dict[str, Any] | None) -> bool:
    if holder is None:
        return False
    return holder["machine"] != atomic.machine() or atomic.is_alive(holder["pid"], holder["start"])


def _in_words(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "another process"
    if holder["machine"] != atomic.machine():
        return (
            f"process {holder['pid']} on {holder['host']}, since {holder['since']} "
            f"(if it is gone, remove {holder['file']})"
        )
    mine = " (this one)" if holder["pid"] == os.getpid() else ""
    return f"process {holder['pid']}{mine}, since {holder['since']}"


def _sweep_locks(folder: Path) -> None:
    """Remove the claims that processes of this machine left which are gone."""
    with contextlib.suppress(OSError):
        for lock in folder.glob(".*.lock"):
            holder = _holder(lock)
            if holder is None or _is_living(holder):
                continue
            release = _take(lock)
            if release is not None:
                release()
