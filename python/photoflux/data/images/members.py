"""A member of an archive as a source of images, opened without reading the archive's list of members again."""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from photoflux.data.images.formats import RefusedError
from photoflux.data.images.pieces import joined

# A file larger than this is refused, and so is a member that would unpack to more.
MAX_BYTES = 1 << 30
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_STEP = 1 << 20


class Member(NamedTuple):
    """A member of an archive.

    Attributes
    ----------
    archive : Path
        The archive.
    name : str
        Of the member, as the archive has it.
    file : Path
        The file that its bytes are in: the archive, or what was unpacked of it.
    start, stored : int
        Where they begin, and how many there are; in a zip archive the header of the member begins there.
    size : int
        Of the member, unpacked.
    method : int or None
        How a zip archive packed it (`zipfile.ZIP_STORED` and so on); None: `stored` bytes as they are.
    crc : int
        The checksum that a zip archive has of it.
    nth : int
        0, or how many members of the same name come before it in the archive.
    """

    archive: Path
    name: str
    file: Path
    start: int
    stored: int
    size: int
    method: int | None = None
    crc: int = 0
    nth: int = 0


def open_member(member: Member) -> BinaryIO:
    """Open a member for reading.

    Raises
    ------
    RefusedError
        If it is empty, too large, or its bytes are damaged.
    OSError
        If the archive cannot be read.
    """
    if member.size > MAX_BYTES:
        raise RefusedError(f"larger than {MAX_BYTES >> 20} MiB")
    if member.size == 0:
        raise RefusedError("an empty file (0 bytes)")
    with member.file.open("rb") as file:
        if member.method is None:
            file.seek(member.start)
            data = file.read(member.stored)
        else:
            data = _unpacked(member, file)
    if len(data) != member.size:
        raise RefusedError(f"broken archive: {len(data)} of the {member.size} bytes of this member are there")
    if member.method is not None and zlib.crc32(data) != member.crc:
        raise RefusedError("broken archive: the checksum of this member is wrong")
    return io.BytesIO(data)


def _unpacked(member: Member, file: BinaryIO) -> bytes:
    file.seek(member.start)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
        raise RefusedError("broken archive: this member has no header")
    *_, name, extra = _LOCAL_HEADER.unpack(header)
    start = member.start + _LOCAL_HEADER.size + name + extra
    if member.method == zipfile.ZIP_STORED:
        file.seek(start)
        return file.read(member.size)
    try:
        return _inflated(member, joined(file, [(start, member.stored)]))
    except (zlib.error, OSError, EOFError, lzma.LZMAError) as error:
        raise RefusedError(f"broken archive: this member cannot be unpacked ({error})") from error


def _inflated(member: Member, packed: BinaryIO) -> bytes:
    """Unpack as many bytes as the archive promises, and one more to see that there are no others."""
    most = member.size + 1
    if member.method == zipfile.ZIP_DEFLATED:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        found = bytearray()
        while len(found) < most and (block := packed.read(_STEP)):
            found += inflater.decompress(block, most - len(found))
            while inflater.unconsumed_tail and len(found) < most:
                found += inflater.decompress(inflater.unconsumed_tail, most - len(found))
        return bytes(found)
    if member.method == zipfile.ZIP_BZIP2:
        with bz2.open(packed) as unpacked:
            return unpacked.read(most)
    raise RefusedError(f"is packed by method {member.method} of ZIP, which is not read: unpack the archive")
