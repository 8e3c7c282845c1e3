from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from photoflux.data.prepared import PreparedDataset, open_prepared
from photoflux.data.shape import Shape
from photoflux.data.writer import FilesWriter, ImageRecord
from photoflux.errors import DataError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(dest: Path, *, images: np.ndarray | None = None, **changes) -> PreparedDataset:
    images = np.arange(4 * 3 * 64, dtype=np.uint32).astype(np.uint8).reshape(4, 3, 8, 8) if images is None else images
    count = len(images)
    settings = {
        "name": "n",
        "source": "arrays",
        "classes": ["a", "b"],
        "labels": np.arange(count) % 2,
        "split": np.zeros(count, int),
        "files": [ImageRecord(f"x#{n}", "a", "0", n, 8, 8) for n in range(count)],
        "seed": 1,
    }
    with FilesWriter(dest, Shape(3, 8, 8)) as writer:
        for image in images:
            writer.append(image[None])
        return writer.finish(**(settings | changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_numpy_reads_the_appended_images(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (1234, 3, 8, 8), dtype=np.uint8)
    write(tmp_path / "set", images=images)
    assert np.array_equal(np.load(tmp_path / "set" / "images.npy"), images)
    assert names(tmp_path) == ["set"]


def test_fingerprint_follows_the_contents(tmp_path: Path):
    images = np.zeros((4, 3, 8, 8), np.uint8)
    first = write(tmp_path / "a", images=images).fingerprint
    assert write(tmp_path / "b", images=images).fingerprint == first
    others = [
        write(tmp_path / "c", images=images + 1),
        write(tmp_path / "c", images=images, labels=np.array([1, 0, 0, 1])),
        write(tmp_path / "c", images=images, split=np.array([0, 1, 2, 0])),
        write(tmp_path / "c", images=images, classes=["a", "c"]),
        write(tmp_path / "c", images=images[:3]),
    ]
    assert len({first, *(other.fingerprint for other in others)}) == 6


def test_an_old_dataset_is_replaced(tmp_path: Path):
    old = write(tmp_path / "set")
    (tmp_path / "set" / ".DS_Store").touch()
    new = write(tmp_path / "set", images=np.zeros((5, 3, 8, 8), np.uint8))
    assert len(open_prepared(tmp_path / "set")) == len(new) == 5
    # Who has the old one open goes on reading it.
    assert old.images.sum() > 0
    assert names(tmp_path) == ["set"]


def test_a_link_stays_a_link(tmp_path: Path):
    write(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", images=np.zeros((5, 3, 8, 8), np.uint8))
    assert (tmp_path / "link").is_symlink()
    assert len(open_prepared(tmp_path / "real")) == 5


def test_an_empty_folder_is_taken(tmp_path: Path):
    (tmp_path / "set").mkdir()
    assert len(write(tmp_path / "set")) == 4


@pytest.mark.parametrize("name", ["holiday.jpg", "images.npy", "meta.json"])
def test_a_folder_of_others_is_refused(tmp_path: Path, name: str):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_text("mine")
    with pytest.raises(DataError, match=f"exists and is not a prepared dataset \\({name}\\); nothing was written"):
        write(tmp_path / "set")
    assert contents(tmp_path / "set") == {name: b"mine"}


def test_a_dataset_with_other_files_is_refused(tmp_path: Path):
    write(tmp_path / "set")
    (tmp_path / "set" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds other files beside a prepared dataset \(notes.txt\)"):
        write(tmp_path / "set")
    assert (tmp_path / "set" / "notes.txt").read_text() == "mine"


def test_a_file_is_refused(tmp_path: Path):
    (tmp_path / "set").write_text("mine")
    with pytest.raises(DataError, match="is a file"):
        write(tmp_path / "set")
    with pytest.raises(DataError, match="could not be written"):
        write(tmp_path / "set" / "below")
    assert (tmp_path / "set").read_text() == "mine"


def test_odd_names_come_back(tmp_path: Path):
    names = ['a "quoted", name', "line\nbreak", "carriage\rreturn", os.fsdecode(b"latin\xe9.png")]
    files = [ImageRecord(name, name, "0", 0, 8, 8) for name in names]
    dataset = write(tmp_path / "set", files=files, rejected=[(names[3], "broken")], classes=["a", names[3]])
    assert dataset.folder_labels() == names
    assert dataset.classes == ["a", names[3]]
    assert dataset.rejected == [("latin\\xe9.png", "broken")]


@pytest.mark.parametrize("failing", ["append", "fsync", "save", "csv", "rename"])
def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str):
    write(tmp_path / "set")
    before = contents(tmp_path / "set")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if failing == "append":

        class FullFile:
            def __init__(self, file) -> None:
                self.seek, self.tell, self.close, self.write_ = file.seek, file.tell, file.close, file.write

            def write(self, data) -> int:
                return full() if memoryview(data).nbytes == 3 * 64 else self.write_(data)

        real_open = Path.open
        monkeypatch.setattr(Path, "open", lambda self, *a, **k: FullFile(real_open(self, *a, **k)))
    elif failing == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif failing == "save":
        monkeypatch.setattr(np, "save", full)
    elif failing == "csv":
        monkeypatch.setattr("photoflux.data.writer.write_csv", full)
    else:
        real = Path.rename
        monkeypatch.setattr(Path, "rename", lambda self, to: full() if self.name.endswith(".tmp") else real(self, to))
    with pytest.raises(DataError, match=r"No space left on device. What was there before is untouched. Free"):
        write(tmp_path / "set", images=np.zeros((9, 3, 8, 8), np.uint8))
    monkeypatch.undo()
    assert contents(tmp_path / "set") == before
    assert names(tmp_path) == ["set"]


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_real_limit_of_the_system(tmp_path: Path):
    """The system itself refuses to let the file grow, as it does on a full disk."""
    write(tmp_path / "set")
    before = contents(tmp_path / "set")
    code = f"""
import resource, numpy as np
from photoflux.data.sources.arrays import prepare_arrays
from photoflux.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
x = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
try:
    prepare_arrays(x, np.arange(200) % 2, {str(tmp_path / "set")!r})
except DataError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "could not be written: File too large. What was there before is untouched." in done.stdout
    assert done.stderr == ""
    assert contents(tmp_path / "set") == before
    assert names(tmp_path) == ["set"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_the_old_content(tmp_path: Path, error: type[BaseException]):
    write(tmp_path / "set")
    before = contents(tmp_path / "set")
    with pytest.raises(error), FilesWriter(tmp_path / "set", Shape(3, 8, 8)) as writer:
        writer.append(np.zeros((2, 3, 8, 8), np.uint8))
        raise error
    assert contents(tmp_path / "set") == before
    assert names(tmp_path) == ["set"]


def test_an_interruption_between_the_renames_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "set")
    before = contents(tmp_path / "set")
    real = Path.rename

    def interrupted(self: Path, to: Path) -> Path:
        moved = real(self, to)
        if to.name.endswith(".old"):
            raise KeyboardInterrupt
        return moved

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", images=np.zeros((9, 3, 8, 8), np.uint8))
    assert contents(tmp_path / "set") == before
    assert names(tmp_path) == ["set"]
