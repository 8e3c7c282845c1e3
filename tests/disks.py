"""Small disks in memory that fill, refuse to be written, and vanish, and permissions that bind root too."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Linux' numbers of the capabilities to write and to read what permissions forbid.
_OVERRIDES = (1 << 1) | (1 << 2)
_VERSION = 0x20080522


class Disk:
    """A file system in memory at a path."""

    def __init__(self, path: Path, size: str) -> None:
        self.path = path
        path.mkdir()
        done = _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
        if done.returncode:
            pytest.skip(f"No file system can be mounted here: {done.stderr.strip()}")

    def leave(self, count: int) -> None:
        """Fill it but for about so many bytes."""
        block = os.statvfs(self.path).f_frsize
        (self.path / "filler").write_bytes(b"")
        free = os.statvfs(self.path).f_bavail - -(-count // block)
        (self.path / "filler").write_bytes(bytes(max(free, 0) * block))

    def resize(self, size: str) -> None:
        """Make it larger or smaller."""
        assert _mount("-o", f"remount,size={size}", self.path).returncode == 0

    def read_only(self) -> None:
        """Refuse all writing."""
        done = _mount("-o", "remount,ro", self.path)
        assert done.returncode == 0, done.stderr

    def vanish(self) -> None:
        """Take it away, as a network does, while it is in use; what is there is not seen until `mend`."""
        aside = self.path.with_name(f"{self.path.name} elsewhere")
        aside.mkdir()
        assert _mount("--bind", self.path, aside).returncode == 0
        self._unmount(self.path)
        self.path.rmdir()

    def mend(self) -> None:
        """Have it there, with room, to be written."""
        aside = self.path.with_name(f"{self.path.name} elsewhere")
        if aside.exists():
            self.path.mkdir(exist_ok=True)
            assert _mount("--bind", aside, self.path).returncode == 0
            self._unmount(aside)
            aside.rmdir()
        assert _mount("-o", "remount,rw", self.path).returncode == 0
        (self.path / "filler").unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount it wherever it is."""
        for path in (self.path, self.path.with_name(f"{self.path.name} elsewhere")):
            if os.path.ismount(path):
                self._unmount(path)

    def _unmount(self, path: Path) -> None:
        # At once for whoever looks, though files of it are open.
        subprocess.run(["umount", "-l", path], check=True)


def _mount(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)


@contextlib.contextmanager
def small_disks(folder: Path) -> Iterator[Callable[[str], Disk]]:
    """Give what makes a `Disk` of a size in a folder; the test is skipped where that is not allowed."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("Only root can mount a file system, on Linux.")
    disks: list[Disk] = []

    def make(size: str) -> Disk:
        disks.append(Disk(folder / f"disk{len(disks)}", size))
        return disks[-1]

    try:
        yield make
    finally:
        for disk in disks:
            disk.remove()


@contextlib.contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Have permissions hold in the block for this thread and those it starts, though it is root's."""
    if os.geteuid() != 0:
        yield
        return
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    words = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, words) == 0
    effective = words[0]
    words[0] = effective & ~_OVERRIDES
    assert libc.capset(header, words) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        words[0] = effective
        assert libc.capset(header, words) == 0
