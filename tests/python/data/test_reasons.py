"""The reasons of files that were left out survive a refusal."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photoflux
from photoflux import DataError
from photoflux.data.reasons import by_kind
from photoflux.data.sources.demo import write_demo_folder

JUNK = {"empty": b"", "text": b"Dear Sir", "cut": b"\xff\xd8\xff\xe0 and no more"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(folder: Path, images: int, **junk: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(folder.name))
    for number in range(images):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / f"{number}.png")
    for kind, count in junk.items():
        for number in range(count):
            (folder / f"{kind}{number}.jpg").write_bytes(JUNK[kind])


def refused(source: Path, **options: object) -> tuple[str, list[list[str]]]:
    before = sorted(source.rglob("*"))
    with pytest.raises(DataError) as caught:
        photoflux.prepare(source, progress=False, image_size=8, **options)
    assert sorted(source.rglob("*")) == before
    text = str(caught.value)
    listed = re.search(r"left out, all listed in (.*):$", text, flags=re.MULTILINE)
    with Path(listed[1]).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "reason"]
    return text, rows[1:]


def test_nothing_is_readable(tmp_path):
    fill(tmp_path / "s" / "Photo", 0, empty=4, text=2)
    fill(tmp_path / "s" / "Text", 0, text=3, cut=1)
    text, rows = refused(tmp_path / "s")
    assert text.startswith("No image in")
    assert "10 were left out" in text and len(rows) == 10
    assert re.search(r"^  5 × .*such as Photo/text0\.jpg$", text, flags=re.MULTILINE)
    assert re.search(r"^  4 × .*empty.*such as Photo/empty0\.jpg$", text, flags=re.MULTILINE)
    assert re.search(r"^  1 × .*such as Text/cut0\.jpg", text, flags=re.MULTILINE)


@pytest.mark.parametrize("images", [0, 1])
def test_a_class_is_gone_or_too_small(tmp_path, images):
    fill(tmp_path / "s" / "Photo", 12)
    fill(tmp_path / "s" / "Text", images, cut=9)
    text, rows = refused(tmp_path / "s")
    assert len(rows) == 9 and "  9 × " in text
    assert all(row[0].startswith("Text/cut") for row in rows)


def test_a_positive_class_that_cannot_be_read(tmp_path):
    for name in ("Photo", "Text"):
        fill(tmp_path / "s" / name, 12)
    fill(tmp_path / "s" / "Sketch", 0, empty=2)
    text, rows = refused(tmp_path / "s", positive="Sketch")
    assert len(rows) == 2 and "2 × " in text


def test_names_that_are_not_utf_8(tmp_path):
    fill(tmp_path / "s" / "Photo", 0, empty=1)
    fill(tmp_path / "s" / "Text", 0, empty=1)
    odd = os.fsdecode(b"caf\xe9\n.jpg")
    (tmp_path / "s" / "Photo" / "empty0.jpg").rename(tmp_path / "s" / "Photo" / odd)
    text, rows = refused(tmp_path / "s")
    assert [row[0] for row in rows] == [f"Photo/{odd}", "Text/empty0.jpg"]
    text.encode()
    assert "Photo/caf\\xe9\\n.jpg" in text


def test_without_a_place_for_the_list_the_files_are_named(tmp_path, cache):
    fill(tmp_path / "s" / "Photo", 0, empty=30)
    fill(tmp_path / "s" / "Text", 0, text=1)
    cache.mkdir()
    (cache / "rejected").write_text("a file")
    with pytest.raises(DataError, match=r"set PHOTOFLUX_CACHE") as caught:
        photoflux.prepare(tmp_path / "s", tmp_path / "d", progress=False)
    assert "Photo/empty19.jpg" in str(caught.value) and "… and 11 more" in str(caught.value)


def test_a_full_disk_is_not_explained_by_files(tmp_path, monkeypatch):
    fill(tmp_path / "s" / "Photo", 12, empty=1)
    fill(tmp_path / "s" / "Text", 12)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match="No space left") as caught:
        photoflux.prepare(tmp_path / "s", progress=False)
    assert "left out" not in str(caught.value)


def test_many_kinds():
    rejected = [(f"{number}.png", f"has {number} × 3 pixels") for number in range(5)]
    rejected += [(f"{letter}.png", f"reason {letter}") for letter in "abcdefgh"]
    lines = by_kind(rejected)
    assert lines[0] == "  5 × has 0 × 3 pixels, such as 0.png (has 0 × 3 pixels)"
    assert lines[-1] == "  3 for other reasons"
    assert len(lines) == 7


def test_an_image_is_not_crowded_out_of_what_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = write_demo_folder(tmp_path / "scans", images_per_class=5)
    for number in range(40):
        (source / "Photo" / f"{number}.xmp").write_text("<x:xmpmeta/>")
        (source / "Photo" / f"{number}.json").write_text("{}")
    (source / "Text" / "scan.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    photoflux.prepare(source, tmp_path / "set", image_size=8)
    said = caplog.messages[0].splitlines()
    assert said[0].startswith("81 files were left out, all listed in ")
    assert said[1].startswith("  1 × broken PNG") and "Text/scan.png" in said[1]
    assert len(said) == 4
