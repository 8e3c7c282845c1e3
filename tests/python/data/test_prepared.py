from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from photoflux.data.prepared import PreparedDataset, is_prepared, open_prepared
from photoflux.data.shape import Shape
from photoflux.data.writer import FilesWriter, ImageRecord
from photoflux.errors import DataError, SettingError


@pytest.fixture
def dataset(tmp_path: Path) -> PreparedDataset:
    folders = ["Photo", "Text", "Sketch", "Photo", "Text", "Sketch"]
    with FilesWriter(tmp_path / "set", Shape(3, 8, 10)) as writer:
        writer.append(np.arange(6 * 3 * 8 * 10, dtype=np.uint32).astype(np.uint8).reshape(6, 3, 8, 10))
        return writer.finish(
            name="scans",
            source="folder",
            classes=["not Photo", "Photo"],
            positive="Photo",
            labels=np.array([1, 0, 0, 1, 0, 0]),
            split=np.array([0, 0, 1, 2, 2, 0]),
            files=[ImageRecord(f"{f}/{n}.png", f, f"{n:064x}", n, 20, 30) for n, f in enumerate(folders)],
            rejected=[("Photo/desktop.ini", "not an image")],
            seed=7,
            warnings=["small"],
        )


def test_what_was_written_is_read(dataset: PreparedDataset):
    assert (dataset.name, dataset.classes, dataset.positive) == ("scans", ["not Photo", "Photo"], "Photo")
    assert (len(dataset), dataset.channels, dataset.height, dataset.width) == (6, 3, 8, 10)
    assert isinstance(dataset.images, np.memmap)
    assert not dataset.images.flags.writeable
    assert dataset.rejected == [("Photo/desktop.ini", "not an image")]
    assert dataset.warnings == ["small"]
    assert dataset.folder_labels() == ["Photo", "Text", "Sketch", "Photo", "Text", "Sketch"]
    assert dataset.folder_counts() == {"Photo": 2, "Sketch": 2, "Text": 2}
    assert dataset.files()[2] == {
        "path": "Sketch/2.png", "folder": "Sketch", "sha256": f"{2:064x}", "group": "2",
        "width": "20", "height": "30", "split": "validation",
    }  # fmt: skip
    assert dataset.meta["image_size"] == [8, 10]
    assert dataset.meta["seed"] == 7
    assert len(dataset.fingerprint) == 64


def test_parts(dataset: PreparedDataset):
    assert dataset.indices("train").tolist() == [0, 1, 5]
    assert dataset.indices("validation").tolist() == [2]
    assert dataset.indices("test").tolist() == [3, 4]
    assert dataset.counts() == {
        "train": {"not Photo": 2, "Photo": 1},
        "validation": {"not Photo": 1, "Photo": 0},
        "test": {"not Photo": 1, "Photo": 1},
    }
    with pytest.raises(SettingError, match="`split` must be one of train, validation, test; received: 'tset'"):
        dataset.indices("tset")


def test_is_prepared(dataset: PreparedDataset, tmp_path: Path):
    assert is_prepared(dataset.path)
    assert is_prepared(str(dataset.path))
    assert not is_prepared(tmp_path)
    assert not is_prepared(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "split.npy", "files.csv", "meta.json", "rejected.csv"])
def test_missing_file(dataset: PreparedDataset, name: str):
    (dataset.path / name).unlink()
    with pytest.raises(DataError, match=f"{name} missing"):
        open_prepared(dataset.path)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "split.npy"])
@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_truncated_array(dataset: PreparedDataset, name: str, keep: int):
    data = (dataset.path / name).read_bytes()
    (dataset.path / name).write_bytes(data[:keep])
    with pytest.raises(DataError, match=f"{name} is truncated"):
        open_prepared(dataset.path)


def spoil(name: str, array: np.ndarray):
    return lambda folder: np.save(folder / name, array)


def meta(**values: object):
    def change(folder: Path) -> None:
        path = folder / "meta.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("images.npy", np.zeros((6, 3, 8, 10), np.float32)), "images.npy is float32 with 4 dimensions"),
        (spoil("images.npy", np.zeros((6, 8, 10), np.uint8)), "images.npy is uint8 with 3 dimensions"),
        (spoil("images.npy", np.zeros((6, 3, 9, 10), np.uint8)), r"shape \(6, 3, 9, 10\), meta.json says"),
        (spoil("images.npy", np.asfortranarray(np.zeros((6, 3, 8, 10), np.uint8))), "Fortran order"),
        (spoil("images.npy", np.array([{}, 2], dtype=object)), "images.npy is truncated or no .npy file"),
        (spoil("labels.npy", np.zeros(6, np.int64)), "labels.npy is int64"),
        (spoil("labels.npy", np.zeros(5, np.int32)), "labels.npy has 5 entries for 6 images"),
        (spoil("labels.npy", np.full(6, 2, np.int32)), "labels from 2 to 2, expected 0 to 1"),
        (spoil("labels.npy", np.full(6, -1, np.int32)), "labels from -1 to -1"),
        (spoil("split.npy", np.full(6, 3, np.uint8)), "split.npy has the value 3"),
        (spoil("split.npy", np.ones(6, np.uint8)), "it has no training images"),
        (lambda folder: (folder / "meta.json").write_text("{"), "meta.json cannot be read"),
        (lambda folder: (folder / "meta.json").write_text("[]"), "it must be a JSON object, found list"),
        (lambda folder: (folder / "meta.json").write_text('{"format": 1}'), "meta.json lacks name, classes, positive"),
        (meta(format=2), "format version 2, this PhotoFlux reads version 1"),
        (meta(classes=["one"]), "two or more classes"),
        (meta(classes=["cat", "dog"]), "the positive class is 'Photo', but the classes are"),
        (meta(image_size=8), "in meta.json `image_size`"),
        (meta(channels="3"), "in meta.json `channels`"),
        (meta(images=7), "meta.json says"),
    ],
)
def test_spoilt(dataset: PreparedDataset, change, message: str):
    change(dataset.path)
    with pytest.raises(DataError, match=message) as caught:
        open_prepared(dataset.path)
    assert str(dataset.path) in str(caught.value)
    assert "Prepare it again" in str(caught.value)


def test_spoilt_tables(dataset: PreparedDataset):
    (dataset.path / "files.csv").write_text("path,folder,sha256,group,width,height,split\na,b,c,1,2,3,train\n")
    (dataset.path / "rejected.csv").write_text("what\n")
    with pytest.raises(DataError, match=r"files.csv has 1 rows for 6 images"):
        dataset.folder_labels()
    with pytest.raises(DataError, match=r"rejected.csv must have the columns file, reason"):
        _ = dataset.rejected


def test_no_such_folder(tmp_path: Path):
    with pytest.raises(DataError, match="there is no such folder"):
        open_prepared(tmp_path / "none")
