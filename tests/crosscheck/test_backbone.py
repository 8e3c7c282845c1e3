"""A backbone in Flux is the one in ONNX Runtime: what every block makes of images, and the features."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import tiny_backbone
from photoflux.data.shape import Shape
from photoflux.errors import EngineError, SettingError
from photoflux.features import folded_weights
from photoflux.features.folding import read_folded
from photoflux.model.backbones import backbones
from photoflux.verification.backbone import activations_of, terms_until

# Even and odd sizes, a side of which only one pixel is left, and grey images.
TINY = [Shape(3, 20, 20), Shape(3, 21, 34), Shape(3, 2, 9), Shape(3, 1, 1), Shape(1, 15, 16)]
REAL = [(name, Shape(3, row.image_size, row.image_size)) for name, row in backbones().items()]
REAL += [("efficientnet-lite0", Shape(1, 97, 130))]


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """The folded weights file of a tiny backbone that is in the table."""
    row = tiny_backbone.install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("photoflux.model.backbones.backbones", lambda: {"tiny": row})
    return folded_weights("tiny")


def compare(flux, path: Path, shape: Shape) -> None:
    pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    folded = read_folded(path)
    rng = np.random.default_rng(1)
    # Patches and not noise alone, which no network answers with large numbers.
    coarse = rng.integers(0, 256, (2, shape.channels, -(-shape.height // 8), -(-shape.width // 8)))
    images = coarse.repeat(8, axis=2).repeat(8, axis=3)[:, :, : shape.height, : shape.width]
    images = np.clip(images + rng.integers(-30, 31, images.shape), 0, 255).astype(np.uint8)
    backbone = flux.backbone(path, shape)
    ours, theirs = backbone.activations(images), activations_of(folded, images)
    assert list(ours) == list(theirs)
    terms = terms_until(folded, theirs)
    for name, expected in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (np.float32, expected.shape)
        # A sum of n terms rounds n times, by at most eps of its largest partial sum, and passes on what came before.
        tolerance = terms[name] * np.finfo(np.float32).eps * max(float(np.abs(expected).max()), 1.0)
        assert np.abs(ours[name] - expected).max() <= tolerance, name
    # One by one as together, bit for bit.
    assert np.array_equal(backbone.features_of(images), ours["features"])
    assert np.array_equal(backbone.features_of(images, batch_size=1), ours["features"])


@pytest.mark.parametrize("shape", TINY, ids=str)
def test_tiny_backbone(flux, tiny, shape):
    compare(flux, tiny, shape)


@pytest.mark.parametrize(("name", "shape"), REAL, ids=str)
def test_pretrained_backbone(flux, name, shape):
    package = backbones()[name].package
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        pytest.skip(f"{package} is not installed")
    compare(flux, folded_weights(name), shape)


def test_what_a_backbone_refuses(flux, tiny, tmp_path):
    backbone = flux.backbone(tiny, Shape(3, 20, 16))
    assert backbone.features == tiny_backbone.FEATURES
    assert backbone.features_of(np.zeros((0, 3, 20, 16), np.uint8)).shape == (0, backbone.features)
    with pytest.raises(SettingError, match=r"must be 20×16×3 .*received: 16×20×3"):
        backbone.features_of(np.zeros((1, 3, 16, 20), np.uint8))
    with pytest.raises(SettingError, match=r"must be uint8 \(N, C, H, W\); received: float32"):
        backbone.activations(np.zeros((1, 3, 20, 16), np.float32))
    with pytest.raises(SettingError, match="`batch_size` must be 1 or more; received: 0"):
        backbone.features_of(np.zeros((1, 3, 20, 16), np.uint8), batch_size=0)
    with pytest.raises(EngineError, match="There is no backbone "):
        flux.backbone(tmp_path / "none.safetensors", Shape(3, 20, 16))
    short = tmp_path / "short.safetensors"
    short.write_bytes(tiny.read_bytes()[:-4])
    with pytest.raises(EngineError, match=r"short\.safetensors is not a backbone of PhotoFlux: .*truncated"):
        flux.backbone(short, Shape(3, 20, 16))
