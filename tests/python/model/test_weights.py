"""Weights files that cannot be read or written."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from photoflux.data.shape import Shape
from photoflux.errors import RunError
from photoflux.model.variants import variant, variants
from photoflux.model.weights import read_weights, remaining_features
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


def test_features_remain_if_one_of_their_weights_does():
    kernel = np.float32([[0, 0, 0], [0, 1e-30, 0], [-1, 2, 0], [-0.0, 0, 0]])
    assert remaining_features(variant("transfer_l1"), {"output.kernel": kernel}) == (2, 4)
    # The first Dense layer's weights decide.
    weights = {"dense1.kernel": kernel, "output.kernel": np.ones((3, 1), np.float32)}
    assert remaining_features(variant("transfer_mlp"), weights) == (2, 4)
