"""JSON files of anybody: an object of a bounded size, or a ValueError in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile import NOT_JSON
from photoflux.system import json_file
from photoflux.system.json_file import read_object


def read(folder: Path, data: bytes) -> dict:
    (folder / "file.json").write_bytes(data)
    return read_object(folder / "file.json")


def test_an_object_as_it_stands_there(tmp_path: Path):
    found = read(tmp_path, b'{"a": [1, {"a": NaN}], "b": "\\udc80"}')
    assert list(found) == ["a", "b"] and found["a"][1]["a"] != found["a"][1]["a"]
    assert found["b"] == "\udc80"
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "none.json")


@pytest.mark.parametrize("text", [text for text in NOT_JSON if text not in ("{}", '{"format": 1}')])
def test_what_is_none(tmp_path: Path, text: str):
    with pytest.raises(ValueError, match=r"\w"):
        read(tmp_path, text.encode())


def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for data, said in (
        (b"[1]", "must be a JSON object, found list"),
        (b'{"a": {"b": 1, "b": 2}}', "it has 'b' twice"),
        (b'{"a":' * 100_000, "objects within objects without end"),
        (b'{"a": "\xff"}', "utf-8"),
    ):
        with pytest.raises(ValueError, match=said):
            read(tmp_path, data)
    monkeypatch.setattr(json_file, "MOST_BYTES", 10)
    assert read(tmp_path, b'{"a": 123}') == {"a": 123}
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        read(tmp_path, b'{"a": 1234}')
