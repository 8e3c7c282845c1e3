from __future__ import annotations

import os
from pathlib import Path

import pytest

from photoflux.data.scanning import scan_folder
from photoflux.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_class_folders_are_read_with_what_is_nested(tmp_path: Path):
    touch(tmp_path, "Text/b.png", "Text/a.png", "Photo/2019/may/c.jpg", "Photo/z.jpg", "Photo/2018/d.jpg")
    scan = scan_folder(tmp_path)
    assert [(f.path, f.folder, f.size) for f in scan.files] == [
        ("Photo/2018/d.jpg", "Photo", 16),
        ("Photo/2019/may/c.jpg", "Photo", 20),
        ("Photo/z.jpg", "Photo", 11),
        ("Text/a.png", "Text", 10),
        ("Text/b.png", "Text", 10),
    ]
    assert scan.folders == ["Photo", "Text"]
    assert scan.rejected == []


def test_nothing_is_skipped_silently(tmp_path: Path):
    touch(tmp_path, "a/x.png", "a/.DS_Store", "a/.thumbs/x.png", ".git/config", "readme.txt", "b/y.png")
    touch(tmp_path, "b/old/meta.json", "b/old/images.npy")
    (tmp_path / "empty").mkdir()
    scan = scan_folder(tmp_path)
    assert [f.path for f in scan.files] == ["a/x.png", "b/y.png"]
    assert (scan.folders, scan.unread) == (["a", "b"], ["empty"])
    assert scan.rejected == [
        ("empty/", "no files in this folder"),
        ("readme.txt", "beside the class folders, expected inside one"),
    ]
    assert scan.ignored == {
        "files": 1,
        "folders": 3,
        "names": {".DS_Store": 1, ".git": 1, "hidden folders": 1, "prepared datasets": 1},
    }


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path):
    touch(tmp_path, "root/a/x.png", "elsewhere/y.png")
    (tmp_path / "root" / "a" / "up").symlink_to("..")
    (tmp_path / "root" / "a" / "self").symlink_to(".")
    (tmp_path / "root" / "a" / "gone.png").symlink_to("nowhere")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "A-link").symlink_to("a")
    scan = scan_folder(tmp_path / "root")
    assert [f.path for f in scan.files] == ["a/x.png", "b/y.png"]
    again = "a link to a folder that is read already"
    assert scan.rejected == [
        ("A-link/", again),
        ("a/gone.png", "a link to nothing"),
        ("a/self/", again),
        ("a/up/", again),
    ]
    assert scan.unread == ["A-link"]


def test_a_folder_that_cannot_be_read_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    touch(tmp_path, "a/x.png", "b/y.png")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    scan = scan_folder(tmp_path)
    assert (scan.folders, scan.unread) == (["a"], ["b"])
    assert ("b/", "the folder cannot be read: Permission denied") in scan.rejected


def test_our_own_folders_are_no_classes_and_a_class_may_be_called_runs(tmp_path: Path):
    touch(tmp_path, "Photo/a.png", "Text/b.png")
    touch(tmp_path, "runs/l2-1/run.json", "runs/l2-1/weights.safetensors", "runs/l2-1/curves.png")
    touch(tmp_path, "which/comparison.json", "which/runs/l1-seed1/run.json", "which/scores/l1-seed1.safetensors")
    touch(tmp_path, "begun/runs/l1-seed1/run.json", "begun/scores/l1-seed1.safetensors")
    touch(tmp_path, "prepared/meta.json", "prepared/images.npy")
    scan = scan_folder(tmp_path)
    assert (scan.folders, scan.unread, scan.rejected) == (["Photo", "Text"], [], [])
    assert scan.ignored["names"] == {"comparisons": 2, "prepared datasets": 1, "runs": 1}
    touch(tmp_path, "runs/cricket.png", "Recycled/bottle.png", "Thumbs/nail.png", "scores/1.png")
    assert scan_folder(tmp_path).folders == ["Photo", "Recycled", "Text", "Thumbs", "runs", "scores"]
    touch(tmp_path, "Recycled/S-1-5-21/INFO2")
    assert "Recycled" not in scan_folder(tmp_path).folders


def test_no_folder(tmp_path: Path):
    with pytest.raises(DataError, match=r"No such folder: .*none. Expected a folder"):
        scan_folder(tmp_path / "none")
    touch(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"a.png is a file, expected a folder"):
        scan_folder(tmp_path / "a.png")
