"""A backbone through ONNX Runtime: its features are the network's; what does not fit or is missing is said."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest

import tiny_backbone
from photoflux.errors import BackboneError, SettingError
from photoflux.features import backbone_from, open_backbone, runtime

pytest.importorskip("onnxruntime", reason="features run through onnxruntime, which is not installed")
pytest.importorskip("onnx", reason="the graph is written with onnx, which is not installed")


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [(20, 20), (19, 24), (9, 7)])
def test_the_features_are_those_of_the_network_with_its_batch_norms(tiny, size):
    images = pixels(3, 3, *size)
    expected = tiny_backbone.features(tiny_backbone.tensors(), images)
    found = open_backbone("tiny").features_of(images)
    assert (found.dtype, found.shape) == (np.float32, (3, 16))
    # Eight convolutions deep, sums of at most 72 terms below 10 in Float32: 8·72·10·2⁻²⁴ is 3e-4.
    assert np.abs(found - expected).max() < 3e-4
    assert expected.std() > 0.1


def test_a_grey_image_is_that_image_in_three_channels(tiny):
    grey = pixels(2, 1, 20, 20)
    backbone = open_backbone("tiny")
    assert np.array_equal(backbone.features_of(grey), backbone.features_of(np.repeat(grey, 3, axis=1)))


def test_the_size_of_a_batch_changes_no_bit(tiny):
    images, backbone = pixels(7, 3, 20, 20), open_backbone("tiny")
    assert np.array_equal(backbone.features_of(images, 1), backbone.features_of(images, 7))
    assert backbone.features_of(images[:0]).shape == (0, 16)


def test_several_stand_side_by_side(tiny):
    images = pixels(2, 3, 24, 24)
    both = open_backbone("tiny+other")
    one, other = (open_backbone(name) for name in ("tiny", "other"))
    assert np.array_equal(both.features_of(images), np.hstack([one.features_of(images), other.features_of(images)]))
    assert (both.name, both.features, both.image_size, both.fixed) == ("tiny+other", 32, 24, None)
    assert len({one.fingerprint, other.fingerprint, both.fingerprint, open_backbone("other+tiny").fingerprint}) == 4
    with pytest.raises(SettingError, match="names tiny twice"):
        open_backbone("tiny+tiny")


def test_it_is_opened_again_from_what_a_run_says(tiny, tmp_path, monkeypatch):
    images = pixels(1, 3, 20, 20)
    backbone = open_backbone("tiny+other")
    values = backbone.as_dict()
    assert np.array_equal(backbone_from(values).features_of(images), backbone.features_of(images))
    with pytest.raises(BackboneError, match="of other weights: their fingerprint was 00"):
        backbone_from({**values, "fingerprint": "00"})
    with pytest.raises(BackboneError, match="must say its name, fingerprint and networks"):
        backbone_from({"name": "tiny"})
    monkeypatch.setattr("photoflux.model.backbones.backbones", lambda: {"tiny": tiny})
    with pytest.raises(BackboneError, match=r"with the backbone tiny\+other, which cannot be opened here\. .*'other'"):
        backbone_from(values)


def test_the_graph_is_written_once_and_again_when_it_is_of_other_weights_or_damaged(tiny, tmp_path):
    images = pixels(1, 3, 20, 20)
    expected = open_backbone("tiny").features_of(images)
    path = tmp_path / "cache" / "backbones" / "tiny.onnx"
    good, made = path.read_bytes(), path.stat().st_mtime_ns
    open_backbone("tiny").features_of(images)
    assert path.stat().st_mtime_ns == made
    fingerprint = open_backbone("tiny").fingerprint.encode()
    for damaged in (b"", good[: len(good) // 2], good.replace(fingerprint, b"0" * 64)):
        path.write_bytes(damaged)
        assert np.array_equal(open_backbone("tiny").features_of(images), expected)
        assert path.read_bytes() == good


@pytest.mark.parametrize("package", ["onnxruntime", "onnx"])
def test_a_missing_package_is_said_with_what_to_install(tiny, package, monkeypatch, tmp_path):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else there(name, *rest)
    )
    with pytest.raises(
        BackboneError, match=rf"Python package {package}, which is .*pip install 'photoflux\[transfer\]'"
    ):
        open_backbone("tiny").features_of(pixels(1, 3, 20, 20))
    assert not (tmp_path / "cache" / "backbones" / "tiny.onnx").exists()


def test_images_of_another_type_or_shape_are_refused(tiny):
    backbone = open_backbone("tiny")
    for images in (pixels(1, 2, 8, 8), pixels(3, 8, 8), pixels(1, 3, 8, 8).astype(np.float32)):
        with pytest.raises(BackboneError, match=r"uint8 .N, C, H, W. with 1 or 3 channels; received"):
            backbone.features_of(images)


def test_a_session_has_threads_for_the_cores_that_the_process_is_bound_to(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for bound, threads in ((1, 1), (3, 3), (8, 0)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, bound=bound: set(range(bound)), raising=False)
        assert runtime._threads() == threads
    monkeypatch.delattr(os, "sched_getaffinity")
    assert runtime._threads() == 0
