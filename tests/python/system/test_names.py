"""Names as a terminal or a page shows them, and as they are compared."""

import os

import pytest

from photoflux.system.names import composed, printable, user_path


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Fotografía", "Fotografía"),
        ("a\tb\nc\x1b[31m", r"a\tb\nc\x1b[31m"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),
        ("a\u2028b", r"a\u2028b"),
        ("\ud800", r"\ud800"),
    ],
)
def test_every_name_is_one_line_of_utf_8(name, shown):
    assert printable(name) == shown
    shown.encode("utf-8")


def test_two_spellings_of_one_name_are_equal():
    assert "Fotografi\u0301a" != "Fotografía" and composed("Fotografi\u0301a") == composed("Fotografía")


def test_the_home_folder_is_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert user_path("~/scans").as_posix() == "/somewhere/scans"
