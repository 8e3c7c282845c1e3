"""Weights files that cannot be read or written."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from photoflux.data.shape import Shape
from photoflux.errors import RunError
from photoflux.model.variants import variants
from photoflux.model.weights import read_weights
from small import write_random


def test_foreign_and_truncated_weights_files(tmp_path):
    path = tmp_path / "w"
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(RunError, match="something else"):
        read_weights(path)
    write_random(path, variants()["dense_l2"], Shape(1, 4, 4), 2)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(RunError, match="truncated"):
        read_weights(path)
    path.write_bytes(b"")
    with pytest.raises(RunError, match="truncated"):
        read_weights(path)
    with pytest.raises(RunError, match="no weights file"):
        read_weights(tmp_path)


def test_a_failed_write_leaves_the_old_weights_alone(tmp_path, monkeypatch):
    path, variant = tmp_path / "w", variants()["dense_l2"]
    write_random(path, variant, Shape(1, 4, 4), 2)
    before = path.read_bytes()

    def full(arrays, file, metadata):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(RunError, match="No space left"):
        write_random(path, variant, Shape(1, 4, 4), 2)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["w"]
