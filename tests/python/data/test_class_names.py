from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from photoflux.data.class_names import notes_on_names
from photoflux.data.labels import resolve_positive
from photoflux.data.scanning import scan_folder

NFC, NFD = "Fotografía", unicodedata.normalize("NFD", "Fotografía")


@pytest.mark.parametrize("other", ["photo", "Photos", "PHOTO", " Photo", "Photo ", "pho-to", "Ｐｈｏｔｏ"])
def test_two_classes_that_look_like_one_are_a_note(other: str):
    (said,) = [note for note in notes_on_names(["Photo", "Text", other]) if "two classes" in note]
    assert "'Photo'" in said and f"'{other}'" in said and "'Text'" not in said


@pytest.mark.parametrize("names", [["Photo", "Text"], ["1", "2", "1s"], ["a", "as"], ["c", "c++"], ["写真", "絵"]])
def test_other_names_are_none(names: list[str]):
    assert notes_on_names(names) == []


def test_a_blank_at_an_end_is_a_note():
    assert notes_on_names(["Photo ", "Text"]) == [
        "A class folder has a blank at an end of its name, and so has the class: 'Photo '."
    ]


def test_a_class_is_called_the_same_in_both_forms_of_unicode(tmp_path: Path):
    for name in (NFD, NFC, "Text"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_text("x")
    scan = scan_folder(tmp_path)
    assert scan.folders == [NFC, "Text"]
    assert sorted((file.path, file.folder) for file in scan.files) == sorted(
        [(f"{NFC}/a.png", NFC), (f"{NFD}/a.png", NFC), ("Text/a.png", "Text")]
    )
    assert scan.notes == [
        f"2 class folders are called '{NFC}', in two forms of Unicode that look alike: they are read as one class."
    ]
    (tmp_path / NFC / "a.png").unlink()
    (tmp_path / NFC).rmdir()
    assert scan_folder(tmp_path).folders == [NFC, "Text"]


def test_a_class_is_one_line_of_text_whatever_its_bytes_are(tmp_path: Path):
    for name in (b"caf\xe9", b"a\tb\nc", b"Text"):
        os.mkdir(os.path.join(os.fsencode(tmp_path), name))  # noqa: PTH102, PTH118
        with open(os.path.join(os.fsencode(tmp_path), name, b"x.png"), "w") as file:  # noqa: PTH118, PTH123
            file.write("x")
    scan = scan_folder(tmp_path)
    assert scan.folders == ["Text", "a\\tb\\nc", "caf\\xe9"]
    assert {os.fsencode(file.path) for file in scan.files} == {b"caf\xe9/x.png", b"a\tb\nc/x.png", b"Text/x.png"}


@pytest.mark.parametrize("given", [NFC, NFD])
def test_the_positive_class_is_found_in_both_forms(given: str):
    assert resolve_positive(given, [NFC, "Text"]) == NFC
    assert resolve_positive(given, [NFD, "Text"]) == NFD
    assert resolve_positive("caf\udce9", ["caf\\xe9", "Text"]) == "caf\\xe9"
    assert resolve_positive("auto", ["Photo ", "Text"]) == "Photo "
