"""Any seed from 0 on, however large, and NumPy's integers too, in everything that takes a seed, in both engines."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import photoflux
from photoflux.data.checks import check_seed
from photoflux.errors import SettingError
from photoflux.model.settings import settings_of
from photoflux.model.variants import variant

SEEDS = [0, 2**31, 2**32, 2**63, 2**64, 2**64 + 2**32 + 42, 2**100]
OF_NUMPY = [np.int8(42), np.int64(42), np.uint32(2**32 - 1), np.uint64(2**63), np.uint64(2**64 - 1)]


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(1)
    y = np.arange(60) % 2
    x = rng.integers(0, 100, (60, 8, 8, 1), np.uint8)
    x[y == 0, :, :4] += 120
    return x, y


@pytest.mark.parametrize("seed", SEEDS + OF_NUMPY)
def test_a_seed_becomes_pythons_own_integer(seed):
    for taken in (check_seed(seed), settings_of(variant("l2"), None, None, None, seed, "none").seed):
        assert (type(taken), taken) == (int, int(seed))


@pytest.mark.parametrize("seed", [-1, -(2**64), 1.0, np.float64(3), True, np.True_, "1", None])
def test_what_is_no_seed(seed, arrays, tmp_path):
    for use in (
        lambda: check_seed(seed),
        lambda: settings_of(variant("l2"), None, None, None, seed, "none"),
        lambda: photoflux.prepare(arrays, tmp_path / "p", seed=seed, progress=False),
    ):
        with pytest.raises(SettingError, match="`seed` must be an integer, 0 or more"):
            use()


@pytest.mark.parametrize("seed", SEEDS + OF_NUMPY)
def test_prepare(seed, arrays, tmp_path):
    prepared = photoflux.prepare(arrays, tmp_path / "p", seed=seed, progress=False)
    assert json.loads((prepared.path / "meta.json").read_text())["seed"] == int(seed)
    again = photoflux.prepare(arrays, tmp_path / "again", seed=int(seed), progress=False)
    assert prepared.meta["fingerprint"] == again.meta["fingerprint"]


def test_all_bits_of_a_seed_count(arrays, tmp_path):
    found = {
        photoflux.prepare(arrays, tmp_path / str(seed), seed=seed, progress=False).meta["fingerprint"]
        for seed in (42, 2**32 + 42, 2**64 + 42, 2**100 + 42)
    }
    assert len(found) == 4


@pytest.mark.parametrize("name", ["flux", "keras"])
@pytest.mark.parametrize("balance", ["none", "augment"])
def test_fits(name, balance, arrays, tmp_path, request):
    engine = request.getfixturevalue(name)
    prepared = photoflux.prepare((arrays[0][:51], arrays[1][:51]), tmp_path / "p", seed=1, progress=False)
    recipe = variant("dense_dropout")

    def fitted(seed):
        weights = tmp_path / "w.safetensors"
        engine.fit(recipe, prepared, settings_of(recipe, 1, 8, None, seed, balance), weights)
        return b"".join(array.tobytes() for _, array in sorted(load_file(weights).items()))

    seeds = [42, *SEEDS[2:], 2**32 + 42, 2**100 + 42]
    found = [fitted(seed) for seed in seeds]
    assert len(set(found)) == len(seeds)
    assert fitted(np.uint64(2**63)) == found[seeds.index(2**63)]
    assert fitted(2**100) == found[seeds.index(2**100)]


@pytest.mark.parametrize("name", ["flux", "keras"])
def test_initial_weights_depend_on_all_bits(name, arrays, tmp_path, request):
    engine = request.getfixturevalue(name)
    prepared = photoflux.prepare(arrays, tmp_path / "p", seed=1, progress=False)

    def fitted(seed):
        # One batch of all images, without dropout: only the initial weights differ by more than rounding.
        weights = tmp_path / "w.safetensors"
        engine.fit(variant("dense_l2"), prepared, settings_of(variant("dense_l2"), 1, 60, 1e-6, seed, "none"), weights)
        return load_file(weights)["dense1.kernel"]

    one, other = fitted(42), fitted(2**32 + 42)
    assert np.abs(one - other).max() > 0.05
