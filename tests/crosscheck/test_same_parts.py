"""The same data has the same parts in both languages."""

from __future__ import annotations

import numpy as np
import pytest

from photoflux.data import cifar10
from photoflux.data.cifar10 import BINARY_FILES, prepare_cifar10


@pytest.mark.parametrize("seed", [42, 7])
def test_cifar10_has_the_same_parts_in_both_languages(seed, flux, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "BATCH", 60)
    rng = np.random.default_rng(3)
    records = rng.integers(0, 256, (6, 60, 3073), dtype=np.uint8)
    records[..., 0] = rng.permuted(np.tile(np.arange(10), (6, 6)), axis=1)
    # Equal images stay together: in two batches, and with two labels.
    records[3, :3, 1:] = records[0, 0, 1:]
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, batch in zip(BINARY_FILES, records, strict=True):
        (folder / name).write_bytes(batch.tobytes())
    ours = prepare_cifar10(folder, tmp_path / "set", seed=seed)
    theirs = flux.julia.PhotoFlux.open_dataset(str(folder), seed=seed)
    assert np.array(theirs.split).tolist() == ours.split.tolist()
    assert len(ours.indices("validation")) >= 25
    assert str(theirs.fingerprint) == ours.fingerprint
    other = prepare_cifar10(folder, tmp_path / "other", seed=seed + 1)
    assert other.split.tolist() != ours.split.tolist()
