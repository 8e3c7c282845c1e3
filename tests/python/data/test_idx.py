from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from photoflux.data.sources.idx import find_idx, prepare_idx, read_idx
from photoflux.errors import DataError

ROOT = Path(__file__).parents[3]
MNIST = next((p for p in (ROOT / "shared/data/mnist", ROOT.parent / "shared/data/mnist") if p.is_dir()), None)

RNG = np.random.default_rng(0)
ARRAYS = {
    "train-images": RNG.integers(0, 256, (60, 9, 8), dtype=np.uint8),
    "train-labels": (np.arange(60) % 3).astype(np.uint8),
    "t10k-images": RNG.integers(0, 256, (12, 9, 8), dtype=np.uint8),
    "t10k-labels": (np.arange(12) % 3).astype(np.uint8),
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def encode(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(folder: Path, arrays: dict[str, np.ndarray] = ARRAYS, mark: str = "-", zipped: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    for key, array in arrays.items():
        data = encode(array)
        name = f"{key}{mark}idx{array.ndim}-ubyte"
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(data) if zipped else data)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("mark", ["-", "."])
def test_four_files(tmp_path: Path, mark: str, zipped: bool):
    source = write(tmp_path / "digits", mark=mark, zipped=zipped)
    assert set(find_idx(source)) == set(ARRAYS)
    dataset = prepare_idx(source, tmp_path / "set")
    assert dataset.images.shape == (72, 1, 9, 8)
    assert np.array_equal(dataset.images[:60, 0], ARRAYS["train-images"])
    assert np.array_equal(dataset.images[60:, 0], ARRAYS["t10k-images"])
    assert dataset.labels.tolist() == [n % 3 for n in range(60)] + [n % 3 for n in range(12)]
    assert (dataset.name, dataset.classes, dataset.meta["source"]) == ("digits", ["0", "1", "2"], "idx")
    assert dataset.indices("test").tolist() == list(range(60, 72))
    assert dataset.counts()["validation"] == {"0": 2, "1": 2, "2": 2}
    assert dataset.files()[60]["path"] == f"t10k-images{mark}idx3-ubyte{'.gz' * zipped}#1"


def test_positive_and_size(tmp_path: Path):
    dataset = prepare_idx(write(tmp_path / "digits"), tmp_path / "set", positive="2", image_size=16)
    assert dataset.classes == ["not 2", "2"]
    assert dataset.images.shape == (72, 1, 16, 16)


GOOD = encode(ARRAYS["train-images"])


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train-images-idx3-ubyte", None, r"lacks train-images-idx3-ubyte\(.gz\); expected the four idx files"),
        ("train-images-idx3-ubyte", b"", "must start with 00000803 .*; found $|found ."),
        ("train-images-idx3-ubyte", b"\x00\x00\x08\x01" + GOOD[4:], "must start with 00000803 .*; found 00000801"),
        ("train-images-idx3-ubyte", GOOD[:9], "has no valid idx header"),
        ("train-images-idx3-ubyte", GOOD[:-1], "must hold 4320 bytes .* found only 4319"),
        ("train-images-idx3-ubyte", GOOD + b"x", "must hold 4320 bytes .* found more"),
        ("train-images-idx3-ubyte", GOOD[:4] + b"\xff" * 12, "has no valid idx header"),
        ("train-images-idx3-ubyte", gzip.compress(GOOD)[:-20], "cannot be read: .* Get the file again"),
        ("train-images-idx3-ubyte", b"\x1f\x8bnot gzip", "cannot be read: .* Get the file again"),
        ("train-labels-idx1-ubyte", encode(ARRAYS["t10k-labels"]), "60 images and .* 12 labels"),
        ("t10k-images-idx3-ubyte", encode(np.zeros((12, 8, 8), np.uint8)), "must have the same size"),
    ],
)
def test_damage(tmp_path: Path, name: str, data: bytes | None, message: str):
    source = write(tmp_path / "digits")
    (source / name).unlink()
    if data is not None:
        (source / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        prepare_idx(source, tmp_path / "set")
    assert names(tmp_path) == ["digits"]


@pytest.mark.skipif(MNIST is None, reason="MNIST is not on this machine")
def test_mnist(tmp_path: Path):
    assert MNIST is not None
    dataset = prepare_idx(MNIST, tmp_path / "set")
    assert dataset.images.shape == (70_000, 1, 28, 28)
    assert [len(dataset.indices(part)) for part in ("train", "validation", "test")] == [54_000, 6_000, 10_000]
    assert dataset.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.classes == [str(n) for n in range(10)]
    assert dataset.images[0].sum() == read_idx(MNIST / "train-images-idx3-ubyte.gz", 3)[0].sum() == 27_525
