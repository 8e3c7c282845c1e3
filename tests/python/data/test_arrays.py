from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photoflux.data.sources.arrays import prepare_arrays
from photoflux.errors import DataError, SettingError

X = np.random.default_rng(0).integers(0, 256, (40, 9, 11, 3), dtype=np.uint8)
Y = np.arange(40) % 2


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_images_and_labels_come_back(tmp_path: Path):
    dataset = prepare_arrays(X, Y, tmp_path / "set", classes=["cat", "dog"])
    assert np.array_equal(dataset.images, X.transpose(0, 3, 1, 2))
    assert dataset.labels.tolist() == Y.tolist()
    assert dataset.classes == ["cat", "dog"]
    assert dataset.positive is None
    assert dataset.counts() == {
        "train": {"cat": 14, "dog": 14},
        "validation": {"cat": 2, "dog": 2},
        "test": {"cat": 4, "dog": 4},
    }
    row = dataset.files()[3]
    assert (row["path"], row["folder"], row["width"], row["height"]) == ("x#4", "dog", "11", "9")
    assert row["sha256"] == hashlib.sha256(X[3].transpose(2, 0, 1).tobytes()).hexdigest()


@pytest.mark.parametrize("y", [Y.astype(np.int8), Y.astype(np.uint64), Y.astype(bool), Y.tolist()])
def test_kinds_of_labels(tmp_path: Path, y: object):
    dataset = prepare_arrays(X, y, tmp_path / "set")
    assert dataset.labels.tolist() == Y.tolist()
    assert dataset.classes == ["0", "1"]


def test_grey(tmp_path: Path):
    for x in (X[..., 0], X[..., :1]):
        dataset = prepare_arrays(x, Y, tmp_path / "set")
        assert dataset.channels == 1
        assert np.array_equal(dataset.images[:, 0], X[..., 0])


def test_resized(tmp_path: Path):
    dataset = prepare_arrays(X, Y, tmp_path / "set", image_size=16)
    expected = np.asarray(Image.fromarray(X[5]).resize((16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(dataset.images[5], expected.transpose(2, 0, 1))
    with pytest.raises(SettingError, match="`image_size`"):
        prepare_arrays(X, Y, tmp_path / "set", image_size=4)


def test_more_images_than_a_batch(tmp_path: Path):
    x = np.random.default_rng(0).integers(0, 256, (1100, 8, 8), dtype=np.uint8)
    steps: list[tuple[int, int, str]] = []
    dataset = prepare_arrays(x, np.arange(1100) % 3, tmp_path / "set", on_progress=lambda *s: steps.append(s))
    assert np.array_equal(dataset.images[:, 0], x)
    assert steps == [(n, 1100, "Writing images") for n in (512, 1024, 1100)]


def test_positive(tmp_path: Path):
    dataset = prepare_arrays(X, np.arange(40) % 3, tmp_path / "set", classes=["x", "Photo", "z"])
    assert dataset.classes == ["not Photo", "Photo"]
    assert dataset.labels.tolist() == [int(n % 3 == 1) for n in range(40)]
    assert dataset.folder_labels()[:3] == ["x", "Photo", "z"]


def test_equal_images_are_on_one_side(tmp_path: Path):
    x = np.concatenate([X, X])
    for seed in range(5):
        split = prepare_arrays(x, np.concatenate([Y, Y]), tmp_path / "set", seed=seed).split
        assert np.array_equal(split[:40], split[40:])


FLOAT = X.astype(np.float32)
NAN = FLOAT.copy()
NAN[0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (FLOAT / 255, Y, r"`x` must be uint8 .* received float32 from 0 to 1. Convert with \(x \* 255\)"),
        (FLOAT, Y, r"received float32. Convert with x.round\(\).astype\('uint8'\)"),
        (FLOAT - 128, Y, "received float32 from -128.0 to 127.0. Scale it"),
        (NAN, Y, "received float32, of which 3 values are NaN or infinite"),
        (X.astype(np.int64), Y, "received int64. Convert with"),
        (X.astype(np.uint16) * 200, Y, "received uint16 from 0 to 51000. Scale it"),
        (X.astype(complex), Y, "received complex128.$"),
        (X.astype(str), Y, "received <U"),
        (X > 3, Y, "received bool."),
        (X[0, 0], Y, r"`x` must have the shape \(N, H, W, C\) or \(N, H, W\); received \(11, 3\)"),
        (X[None], Y, r"received \(1, 40, 9, 11, 3\)"),
        (X[..., :2], Y, r"must have 1 or 3 channels, .*; received the shape \(40, 9, 11, 2\).$"),
        (np.moveaxis(X, -1, 1), Y, r"The channels must be last: np.moveaxis"),
        (X, Y[:39], "received 40 images, 39 labels"),
        (X, Y.reshape(-1, 1), r"`y` must have the shape \(N,\); received \(40, 1\). Flatten it: y.ravel\(\)"),
        (X, np.eye(2)[Y], r"One-hot labels: y.argmax\(axis=1\)"),
        (X, Y.astype(float), "`y` must hold integer labels from 0; received float64"),
        (X, np.array(["a", "b"] * 20), "`y` must hold integer labels from 0; received <U1"),
        (X, Y - 1, "`y` must hold labels from 0; received -1"),
        (X, Y * 1000, "without gaps; received 1000 among 40 labels"),
        (X, Y * 0, "two or more classes; received one"),
        (X, Y * 2, "Class '1' of arrays has no usable image"),
        (X, (np.arange(40) == 0).astype(int), "Class '1' of arrays has one usable image"),
        (X[:0], Y[:0], "`x` must hold images; received none"),
        (X[:, :7], Y, "are 11 × 7, expected 8 or more a side"),
        ([[1], [1, 2]], Y, "`x` must be a NumPy array or convert to one; received list"),
    ],
)
def test_wrong_arrays(tmp_path: Path, x: object, y: object, message: str):
    with pytest.raises(DataError, match=message):
        prepare_arrays(x, y, tmp_path / "set")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a"], "labels from 0 to 0, as there are 1 classes; received 1"),
        (["a", "a"], "`classes` must be different strings"),
        (["a", 2], "`classes` must be different strings"),
        (["a", "b", "c"], "Class 'c' of arrays has no usable image"),
    ],
)
def test_wrong_classes(tmp_path: Path, classes: list[str], message: str):
    with pytest.raises(DataError, match=message):
        prepare_arrays(X, Y, tmp_path / "set", classes=classes)
