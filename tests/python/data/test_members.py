"""Members of archives are read as files are; damage costs the member."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from photoflux.data.images.decoding import decode_file, decode_parts
from photoflux.data.images.members import Member, open_member
from photoflux.data.shape import Shape

SHAPE = Shape(3, 8, 8)


def picture() -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").save(stream, "BMP")
    return stream.getvalue()


def member_of(archive: Path) -> Member:
    with zipfile.ZipFile(archive) as opened:
        (info,) = opened.infolist()
    return Member(
        archive,
        info.filename,
        archive,
        info.header_offset,
        info.compress_size,
        info.file_size,
        info.compress_type,
        info.CRC,
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_member_of_a_zip_is_read_as_its_file(tmp_path: Path, method: int):
    (tmp_path / "a.bmp").write_bytes(picture())
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.write(tmp_path / "a.bmp", "inner/a.bmp")
    (part,) = decode_parts(member_of(tmp_path / "a.zip"), SHAPE)
    (expected,) = decode_file(tmp_path / "a.bmp", SHAPE).images
    (found,) = part.images
    assert (found.pixels == expected.pixels).all()
    assert found[2:] == expected[2:], "the digest is that of the file"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_damage_is_named(tmp_path: Path, method: int):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.bmp", picture())
    member = member_of(tmp_path / "a.zip")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[len(data) // 3] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    (part,) = decode_parts(member, SHAPE)
    assert part.images == []
    assert "broken archive" in part.rejected[0][1]
    (tmp_path / "a.zip").write_bytes(data[:20])
    ((_, reason),) = next(decode_parts(member, SHAPE)).rejected
    assert reason.startswith("broken archive: ")
    (tmp_path / "a.zip").unlink()
    assert next(decode_parts(member, SHAPE)).rejected == [(0, "its archive cannot be read: No such file or directory")]


def test_a_member_that_unpacks_to_more_than_it_says(tmp_path: Path):
    """As a bomb does: no more is unpacked than the archive promises."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bmp", bytes(50 << 20))
    member = member_of(tmp_path / "a.zip")._replace(size=1000)
    assert next(decode_parts(member, SHAPE)).rejected == [
        (0, "broken archive: 1001 of the 1000 bytes of this member are there")
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 0}, "an empty file (0 bytes)"),
        ({"size": (1 << 30) + 1}, "larger than 1024 MiB"),
        ({"method": 9}, "is packed by method 9 of ZIP, which is not read: unpack the archive"),
    ],
)
def test_what_is_not_read(tmp_path: Path, changes: dict[str, int], words: str):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.bmp", picture())
    member = member_of(tmp_path / "a.zip")._replace(**changes)
    assert next(decode_parts(member, SHAPE)).rejected == [(0, words)]


def test_a_span_of_a_file(tmp_path: Path):
    """As an uncompressed tar has its members."""
    (tmp_path / "a.tar").write_bytes(b"x" * 512 + picture() + b"y" * 100)
    member = Member(tmp_path / "a.tar", "a.bmp", tmp_path / "a.tar", 512, len(picture()), len(picture()))
    with open_member(member) as file:
        assert file.read() == picture()
