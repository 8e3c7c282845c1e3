"""Lists the members of zip and tar archives, one after another; nothing is unpacked that is not asked for."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from photoflux.data.images.members import MAX_BYTES, Member
from photoflux.data.litter import litter

ZIP, TAR = "zip", "tar"
_KINDS: dict[tuple[str, ...], tuple[str, Any]] = {
    (".zip", ".cbz"): (ZIP, None),
    (".tar", ".cbt"): (TAR, open),
    (".tar.gz", ".tgz"): (TAR, gzip.open),
    (".tar.bz2", ".tbz2", ".tbz"): (TAR, bz2.open),
    (".tar.xz", ".txz", ".tar.lzma"): (TAR, lzma.open),
}
_ENCRYPTED = 0x1
_numbers = itertools.count()  # of the files of unpacked members, of all archives
# What the libraries raise for an archive that is damaged or cut short.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, NotImplementedError)
_NAMELESS = "a member has no name"


class Listed(NamedTuple):
    """A member of an archive.

    Attributes
    ----------
    name : str
        As the archive has it; empty where the archive itself cannot be read further.
    nth : int
        0, or how many members of the same name come before it.
    member : Member or None
        None of what is not read.
    reason : str or None
        Why it is not read.
    ignored : str or None
        What it is, if it is not the user's data.
    """

    name: str
    nth: int = 0
    member: Member | None = None
    reason: str | None = None
    ignored: str | None = None


Wanted = Callable[[str, int], bool]


def is_archive(name: str) -> bool:
    """Say whether a file is an archive by its name: zip, tar, or a tar that is packed by gzip, bzip2 or xz."""
    return name.lower().endswith(tuple(ending for endings in _KINDS for ending in endings))


def members(archive: Path, scratch: Path, wanted: Wanted) -> Iterator[Listed]:
    """List the members of an archive, in its order; folders in it are left out.

    Parameters
    ----------
    archive : Path
        The file; it is only read.
    scratch : Path
        A folder for members that can be read only once, in passing: those of a packed tar. Whoever takes such a member
        deletes its file, `Member.file`.
    wanted : callable
        Is asked with name and `nth` before a member is unpacked into `scratch`.

    Yields
    ------
    Listed
        Damage does not raise: what could be read comes first, and then an entry without a name that has the reason.
    """
    lower = archive.name.lower()
    kind, opener = next(found for endings, found in _KINDS.items() if lower.endswith(endings))
    try:
        if kind == ZIP:
            yield from _in_zip(archive)
        else:
            yield from _in_tar(archive, opener, scratch, wanted)
    except OSError as error:
        yield Listed("", reason=f"the archive cannot be read: {error.strerror or error}")
    except _DAMAGE as error:
        yield Listed("", reason=f"broken {kind} archive: {' '.join(str(error).split()) or type(error).__name__}")


def _in_zip(archive: Path) -> Iterator[Listed]:
    seen: Counter[str] = Counter()
    nameless = False
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            name = info.filename
            if not name:
                nameless = True
                continue
            if info.is_dir():
                continue
            nth, seen[name] = seen[name], seen[name] + 1
            what, mode = _litter(name), info.external_attr >> 16
            if what is not None:
                yield Listed(name, nth, ignored=what)
            elif info.flag_bits & _ENCRYPTED:
                yield Listed(name, nth, reason="is encrypted: unpack the archive with its password")
            elif stat.S_ISLNK(mode):
                yield Listed(name, nth, reason="not a regular file: a link in an archive")
            else:
                packed = info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC
                yield Listed(name, nth, Member(archive, name, archive, *packed, nth))
    if nameless:
        yield Listed("", reason=f"broken zip archive: {_NAMELESS}")


class _Remembering(io.RawIOBase):
    """A file for tarfile that keeps what was read last: the header at which the archive ended, or seemed to."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self.last = file, b""

    def read(self, size: int = -1) -> bytes:
        self.last = self._file.read(size)
        return self.last

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _in_tar(archive: Path, opener: Any, scratch: Path, wanted: Wanted) -> Iterator[Listed]:
    seen: Counter[str] = Counter()
    plain, nameless = opener is open, False
    with opener(archive, "rb") as file:
        remembering = _Remembering(file)
        with tarfile.open(fileobj=remembering, mode="r:", errors="surrogateescape") as opened:
            for info in opened:
                # It keeps a list of all members otherwise.
                opened.members = []  # type: ignore[attr-defined]
                name = info.name
                if info.isdir():
                    continue
                if not name:
                    nameless = True
                    continue
                nth, seen[name] = seen[name], seen[name] + 1
                what = _litter(name)
                if what is not None:
                    yield Listed(name, nth, ignored=what)
                elif not info.isreg() or info.issparse():
                    yield Listed(name, nth, reason=f"not a regular file: {_kind_of(info)}")
                elif plain:
                    yield Listed(
                        name, nth, Member(archive, name, archive, info.offset_data, info.size, info.size, nth=nth)
                    )
                elif info.size > MAX_BYTES or not wanted(name, nth):
                    # A member that is not asked for is told all the same: it is there.
                    yield Listed(name, nth, Member(archive, name, archive, 0, 0, info.size, nth=nth))
                else:
                    copy = _unpacked(remembering, info, scratch)
                    yield Listed(name, nth, Member(archive, name, copy, 0, info.size, info.size, nth=nth))
        if nameless:
            yield Listed("", reason=f"broken tar archive: {_NAMELESS}")
        if remembering.last.strip(b"\0"):
            yield Listed("", reason="broken tar archive: what follows its last readable member is no member")
        elif not remembering.last:
            yield Listed("", reason="broken tar archive: it ends without its end mark, so members may be missing")


def _unpacked(file: _Remembering, info: tarfile.TarInfo, scratch: Path) -> Path:
    # Where tarfile has just read the header, so that nothing is unpacked twice.
    file.seek(info.offset_data)
    path, left = scratch / str(next(_numbers)), info.size
    # Not atomic: into a scratch folder.
    with path.open("wb") as copy:
        while left and (block := file.read(min(left, 1 << 20))):
            copy.write(block)
            left -= len(block)
    if left:
        path.unlink()
        raise EOFError(f"it ends within {info.name}")
    return path


def _kind_of(info: tarfile.TarInfo) -> str:
    if info.islnk() or info.issym():
        return f"a link to {info.linkname} in an archive"
    return "a sparse file in an archive" if info.issparse() else "a device or a pipe in an archive"


def _litter(name: str) -> str | None:
    *folders, last = [part for part in PurePosixPath(name).parts if part not in ("..", "/")] or [""]
    found = next((what for folder in folders if (what := litter(folder, "", folder=True)) is not None), None)
    return found or litter(last, "", folder=False)
