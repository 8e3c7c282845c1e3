"""Tables of groups as spreadsheets and people write them, and the paths in them."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from photoflux.data.grouping import match_groups, read_groups
from photoflux.errors import DataError

FILES = ["Fotografía/é.png", "Photo/a.jpg", "Photo/in/b.tif"]
GROUPS = {"Fotografía/é.png": "x", "Photo/a.jpg": "y", "Photo/in/b.tif": "y"}


def folder(tmp_path: Path, files=FILES) -> Path:
    for name in files:
        place = tmp_path / "scans" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"\xff\xd8\xff begins as a JPEG does")
    return tmp_path / "scans"


def text(between: str = ",", paths=FILES, end: str = "\n", head: str = "") -> str:
    return head + end.join(
        [f"path{between}group", *(f"{p}{between}{g}" for p, g in zip(paths, "xyy", strict=True)), ""]
    )


def groups_of(tmp_path: Path, data: bytes, files=FILES) -> tuple[dict[str, str], list[str]]:
    source = folder(tmp_path, files)
    (tmp_path / "g.csv").write_bytes(data)
    return match_groups(read_groups(tmp_path / "g.csv"), source, files)


@pytest.mark.parametrize(
    "data",
    [
        text(";").encode(),
        text("\t").encode(),
        text("|").encode(),
        text(end="\r\n").encode(),
        text(end="\r").encode(),
        text(";", head="sep=;\n").encode("utf-8-sig"),
        text(";").replace("path;group", "Path; GROUP").encode(),
        text().encode("utf-16"),
        text("\t").encode("utf-16-le"),
        text(";").encode("utf-16-be"),
        text().encode("utf-32"),
        text(";").encode("cp1252"),
        text(head="\n\r\n  \n").encode(),
        text(";", head="sep=;\n\n;\n").encode(),
        (text() + ",\n , \n,,,\n\n  \n").encode(),
        text(end="\n,\n").encode(),
    ],
)
def test_separators_and_encodings(tmp_path: Path, data: bytes):
    assert groups_of(tmp_path, data) == (GROUPS, [])


def test_an_error_names_the_line_of_the_file(tmp_path: Path):
    with pytest.raises(DataError, match="Line 5 of "):
        groups_of(tmp_path, b"\nsep=;\n\npath;group\na/1.jpg;\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda path, source: path.replace("/", "\\"),
        lambda path, source: ".\\" + path.replace("/", "\\"),
        lambda path, source: f"./{path}",
        lambda path, source: f" {path} ",
        lambda path, source: f"scans/{path}",
        lambda path, source: f"./scans/{path}",
        lambda path, source: f"scans\\{path}".replace("/", "\\"),
        lambda path, source: f"{source}/{path}",
        lambda path, source: f"C:\\work\\scans\\{path}".replace("/", "\\"),
        lambda path, source: f"D:/old copy/{path}",
        lambda path, source: f"/home/me/scans/{path}",
        lambda path, source: f"{path}#2",
        lambda path, source: f"scans/{path}#3",
        lambda path, source: unicodedata.normalize("NFD", path),
    ],
)
def test_paths_as_people_write_them(tmp_path: Path, change):
    source = tmp_path / "scans"
    data = text(paths=[change(path, source) for path in FILES]).encode()
    assert groups_of(tmp_path, data) == (GROUPS, [])


def test_names_on_the_disk_may_be_decomposed_or_no_utf_8(tmp_path: Path):
    files = [unicodedata.normalize("NFD", FILES[0]), os.fsdecode(b"Photo/caf\xe9.jpg"), "Photo/back\\slash.jpg"]
    data = text(paths=[FILES[0], os.fsdecode(b"Photo/caf\xe9.jpg"), files[2]])
    found, notes = groups_of(tmp_path, data.encode("utf-8", "surrogateescape"), files)
    assert (found, notes) == (dict(zip(files, "xyy", strict=True)), [])


def test_the_path_as_it_is_written_comes_first(tmp_path: Path):
    files = ["scans/a.jpg", "a.jpg", "b.jpg"]
    assert groups_of(tmp_path, text(paths=files).encode(), files)[0] == dict(zip(files, "xyy", strict=True))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04and more", "is an Excel or OpenDocument file, expected text. Save it as CSV"),
        (b"\xd0\xcf\x11\xe0and more", "is an Excel file, expected text"),
        (b"\xff\xfep\x00a", "begins as UTF-16 text and is not"),
        (b"path,group\n\0,x\n", "is not text: it has null characters"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, data: bytes, message: str):
    with pytest.raises(DataError, match=message):
        groups_of(tmp_path, data)


def test_a_path_that_means_nothing_is_shown_with_what_is_expected(tmp_path: Path):
    data = text(paths=[f"elsewhere/{path}" for path in FILES]).encode()
    with pytest.raises(DataError, match=r"such as Fotografía/é.png. The table lists elsewhere/Fotografía/é.png, which"):
        groups_of(tmp_path, data)
