"""The folded weights file: BatchNorm folded, in Keras' layouts, in the cache once; other or damaged weights refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import tiny_backbone
from photoflux.errors import BackboneError, DataError, SettingError
from photoflux.features.folding import folded_weights, names_of, read_folded, weights_file
from photoflux.model.backbones import backbones
from photoflux.model.weights import fingerprint_of


def test_a_folded_convolution_is_the_convolution_and_its_batch_norm(tiny):
    weights, arrays = read_folded(folded_weights("tiny")).weights, tiny_backbone.tensors()
    rng = np.random.default_rng(1)
    for name, kernel, norm in (
        ("stem", "_conv_stem", "_bn0"),
        ("block2.expand", "_blocks.1._expand_conv", "_blocks.1._bn0"),
        ("block3.depthwise", "_blocks.2._depthwise_conv", "_blocks.2._bn1"),
        ("block3.project", "_blocks.2._project_conv", "_blocks.2._bn2"),
        ("top", "_conv_head", "_bn1"),
    ):
        before = arrays[f"{kernel}.weight"].astype(np.float64)
        patch = rng.normal(size=(*before.shape[2:], before.shape[1] * (len(before) if "depthwise" in name else 1)))
        gamma, beta, mean, variance = (
            arrays[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
        )
        folded = weights[f"{name}.kernel"].astype(np.float64)
        if "depthwise" in name:
            plain, ours = np.einsum("hwc,cihw->c", patch, before), np.einsum("hwc,hwci->c", patch, folded)
        else:
            plain, ours = np.einsum("hwi,oihw->o", patch, before), np.einsum("hwi,hwio->o", patch, folded)
        expected = gamma * (plain - mean) / np.sqrt(variance + 1e-3) + beta
        # Kernel and bias are rounded to Float32 once: half an ulp, 2⁻²⁴, of each term.
        bound = 2**-23 * (np.abs(patch).sum() * np.abs(folded).max() + np.abs(expected).max() + 10)
        assert np.abs(ours + weights[f"{name}.bias"] - expected).max() < bound, name


def test_the_file_says_what_julia_needs(tiny):
    path = folded_weights("tiny")
    folded = read_folded(path)
    description = json.loads(_metadata(path)["description"])
    assert description["blocks"] == [
        {"kernel": 3, "stride": 1, "residual": True, "expand": False},
        {"kernel": 3, "stride": 2, "residual": False, "expand": True},
        {"kernel": 5, "stride": 1, "residual": True, "expand": True},
    ]
    assert (description["name"], description["features"], description["image_size"]) == ("tiny", 16, 20)
    assert (description["mean"], description["scale"]) == (127, 128)
    assert _metadata(path)["source"] == tiny.sha256
    weights = load_file(path)
    assert list(folded.weights) == names_of(folded.blocks) and set(weights) == set(folded.weights)
    assert folded.fingerprint == fingerprint_of({name: weights[name] for name in names_of(folded.blocks)})
    shapes = {name: weights[name].shape for name in ("stem.kernel", "block2.expand.kernel", "block3.depthwise.kernel")}
    assert shapes == {
        "stem.kernel": (3, 3, 3, 8),
        "block2.expand.kernel": (1, 1, 8, 16),
        "block3.depthwise.kernel": (5, 5, 24, 1),
    }


def _metadata(path):
    length = int.from_bytes(path.read_bytes()[:8], "little")
    return json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]


def test_it_is_made_once_and_again_when_it_is_of_another_source_or_damaged(tiny):
    path = folded_weights("tiny")
    weights = load_file(path)
    made = path.stat().st_mtime_ns
    assert folded_weights("tiny") == path and path.stat().st_mtime_ns == made
    good = path.read_bytes()
    for damaged in (good[:100], good[: len(good) // 2], b"", good.replace(tiny.sha256.encode(), b"0" * 64)):
        path.write_bytes(damaged)
        again = load_file(folded_weights("tiny"))
        assert again.keys() == weights.keys() and all(np.array_equal(again[name], weights[name]) for name in weights)
        assert _metadata(path)["source"] == tiny.sha256


def test_tensors_that_were_changed_are_found(tiny):
    path = folded_weights("tiny")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(BackboneError, match=r"tiny\.safetensors .* not those of its fingerprint\. Remove it"):
        _ = read_folded(path).weights


def test_a_package_that_is_missing_other_or_damaged_is_said_and_nothing_is_left(tiny, tmp_path, monkeypatch):
    file = tmp_path / "packages" / "tiny_weights" / "models" / "tiny.pth"
    data = file.read_bytes()
    file.write_bytes(data[:-9])
    with pytest.raises(BackboneError, match=r"tiny\.pth is not the file .* pip install --force-reinstall tiny-weights"):
        folded_weights("tiny")
    # A file that is truncated, and known as such: the reader says it.
    import hashlib

    short = dataclasses.replace(tiny, sha256=hashlib.sha256(data[:-9]).hexdigest())
    monkeypatch.setattr("photoflux.model.backbones.backbones", lambda: {"tiny": short})
    with pytest.raises(BackboneError, match="ends 9 bytes too early"):
        folded_weights("tiny")
    file.unlink()
    with pytest.raises(BackboneError, match=r"which has no file models/tiny\.pth\. Install it: pip install tiny-"):
        folded_weights("tiny")
    shutil.rmtree(file.parents[1])
    sys.path_importer_cache.clear()
    with pytest.raises(BackboneError, match=r"which is not installed\. Install it: pip install tiny-weights"):
        folded_weights("tiny")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_an_unknown_backbone_and_a_cache_that_cannot_be_written_are_said(tiny, tmp_path, monkeypatch):
    with pytest.raises(SettingError, match=r"`backbone` must be one of tiny, other; received: 'tinny'\. Did you mean"):
        folded_weights("tinny")
    (tmp_path / "file").touch()
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"The cache .* could not be written"):
        folded_weights("tiny")


@pytest.mark.parametrize("name", list(backbones()))
def test_the_table_fits_the_packages(name, tmp_path, monkeypatch):
    row = backbones()[name]
    try:
        weights_file(row)
    except BackboneError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path))
    folded = read_folded(folded_weights(name))
    assert len(folded.weights["top.bias"]) == row.features == folded.features
    assert tuple(number for number, block in enumerate(folded.blocks, 1) if block.stride == 2) == row.halving
    assert Path(folded.path).parent == tmp_path / "backbones"
