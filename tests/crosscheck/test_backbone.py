"""A backbone in Flux is the one in ONNX Runtime: what every block makes of images, the features, and runs on them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import photoflux
import tiny_backbone
from photoflux.data.shape import Shape
from photoflux.errors import EngineError, SettingError
from photoflux.features import folded_weights, open_backbone
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


def test_a_run_of_one_language_is_evaluated_by_the_other(flux, tiny, tmp_path):
    pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(3)
    y = np.arange(90) % 3
    x = rng.integers(0, 90, (90, 18, 20, 3), np.uint8)
    x[..., 0] += (60 * y[:, None, None]).astype(np.uint8)
    prepared = photoflux.prepare((x, y), tmp_path / "prepared", progress=False)
    ours, quick = flux.julia.PhotoFlux, {"epochs": 20, "learning_rate": 0.02, "batch_size": 8}
    data = ours.open_dataset(str(prepared.path))

    def compared(of_julia, of_python) -> None:
        """Both compute the features as they do; how far these may lie apart is tested above."""
        one, other = ours.evaluate(of_julia, data), photoflux.evaluate(of_python, prepared, progress=False)
        assert one.accuracy == other.accuracy > 0.6
        assert np.array(one.confusion).tolist() == other.confusion
        for name in ("loss", "penalty", "total"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-4)
        images = x[prepared.indices("test")]
        p = np.array(ours.predict(of_julia, flux.julia.permutedims(flux.julia.Array(images), (3, 2, 4, 1)))).T
        expected = [
            list(found.probabilities.values()) for found in photoflux.predict(of_python, images, progress=False)
        ]
        assert p == pytest.approx(np.array(expected), abs=1e-4)

    run = ours.train(ours.variant("transfer_l1", backbone="tiny"), data, **quick)
    read = photoflux.load_run(str(ours.save_run(str(tmp_path / "julia"), run)))
    assert read.backbone["remaining"] <= read.backbone["features"] == tiny_backbone.FEATURES
    assert {"views": 0} | read.backbone == {
        **open_backbone("tiny").as_dict(),
        "views": 0,
        "remaining": read.backbone["remaining"],
    }
    compared(run, read)

    trained = photoflux.train(
        "transfer_l1", prepared, backbone="tiny", out=tmp_path / "python", progress=False, **quick
    )
    back = ours.load_run(str(trained.path))
    compared(back, trained)
    # Saved again, all that Python wrote of the backbone is there.
    assert photoflux.load_run(str(ours.save_run(str(tmp_path / "again"), back))).backbone == trained.backbone
