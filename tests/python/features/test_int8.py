"""Eight bits: the features are near those of Float32, by the steps; ranges are measured once and go with the run."""

from __future__ import annotations

import json

import numpy as np
import pytest

import small
from photoflux.errors import BackboneError, SettingError
from photoflux.features import backbone_from, features_dataset, open_backbone
from photoflux.features.folding import folded_weights, read_folded
from photoflux.features.int8 import int8_graph_of, measured, rounded_layers, signed_is_exact
from photoflux.features.runtime import session_of

pytest.importorskip("onnxruntime", reason="features run through onnxruntime, which is not installed")
onnx = pytest.importorskip("onnx", reason="the graph is written with onnx, which is not installed")


@pytest.fixture
def images(tiny, tmp_path):
    return small.prepare(tmp_path / "set", 3, size=16)


def test_the_features_are_near_those_of_float32_and_not_the_same(images):
    plain, int8 = open_backbone("tiny"), open_backbone("tiny", precision="int8").calibrated_on(images)
    exact, rounded = plain.features_of(images.images), int8.features_of(images.images)
    assert (rounded.dtype, rounded.shape, int8.precision) == (np.float32, exact.shape, "int8")
    # Six rounded layers; each is off by half a step, 6/510, and by its weights', half of 1/127 of the largest, which
    # the sums over several channels average out: a few percent of the features.
    assert 0 < np.linalg.norm(rounded - exact) < 0.05 * np.linalg.norm(exact)
    assert np.array_equal(int8.features_of(images.images, 1), rounded)
    with pytest.raises(BackboneError, match="The 8-bit tiny is not calibrated"):
        open_backbone("tiny", precision="int8").features_of(images.images)


def test_ranges_are_the_least_and_greatest_numbers_of_the_layers(tiny):
    folded = read_folded(folded_weights("tiny"))
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (n, 3, 12, 12), dtype=np.uint8) for n in (2, 1)]
    ranges = measured(folded, batches)
    assert list(ranges) == rounded_layers(folded)
    assert list(ranges)[:2] == ["block1.add", "block2.expand"] and list(ranges)[-1] == "top"
    assert all(low == 0 and 0 < high <= 6 for name, (low, high) in ranges.items() if "expand" in name or name == "top")
    assert ranges["block1.add"][0] < 0 < ranges["block1.add"][1]
    apart = [measured(folded, [batch]) for batch in batches]
    for name, limits in ranges.items():
        assert limits == (min(one[name][0] for one in apart), max(one[name][1] for one in apart))


def test_signed_and_unsigned_weights_are_the_same_integers(tiny):
    folded = read_folded(folded_weights("tiny"))
    pixels = np.random.default_rng(1).integers(0, 256, (3, 3, 15, 17), dtype=np.uint8)
    ranges = measured(folded, [pixels])
    graphs = [int8_graph_of(folded, ranges, signed) for signed in (True, False)]
    one, other = ({x.name: onnx.numpy_helper.to_array(x) for x in graph.graph.initializer} for graph in graphs)
    assert list(one) == list(other)
    kernels = [name for name in one if f"{name}.zeros" in one]
    assert "top.kernel" in kernels
    for name in set(one) - {f"{kernel}.zeros" for kernel in kernels}:
        if name in kernels:
            assert (one[name].dtype, other[name].dtype) == (np.int8, np.uint8)
            assert not one[f"{name}.zeros"].any() and (other[f"{name}.zeros"] == 128).all()
            assert np.array_equal(one[name].astype(int), other[name].astype(int) - 128)
        else:
            assert np.array_equal(one[name], other[name])
    if signed_is_exact():
        features = [session_of(graph.SerializeToString()).run(None, {"pixels": pixels})[0] for graph in graphs]
        assert np.array_equal(*features)


def test_this_cpu_adds_products_of_the_chosen_weights_exactly():
    """Two products of 255 and ±127 are beyond 16 bits, in which an x86 CPU without VNNI adds them if one is signed."""
    rng = np.random.default_rng(0)
    rounded = rng.choice([-127, 127], (32, 64, 1, 1))
    images = np.full((1, 64, 5, 5), 255, np.uint8)
    zero = np.int8(0) if signed_is_exact() else np.uint8(128)
    # The step is that of the sums' range, so that each sum has a number of its own; 128 means 0.
    sums = 255 * rounded.sum(axis=(1, 2, 3))
    step = np.float32(np.abs(sums).max() / 127)
    constants = {
        "x.step": np.float32(1),
        "x.zero": np.uint8(0),
        "kernel": (rounded + zero).astype(zero.dtype),
        "kernel.steps": np.ones(32, np.float32),
        "kernel.zeros": np.full(32, zero),
        "step": step,
        "zero": np.uint8(128),
    }
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, images.shape)
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, (1, 32, 5, 5))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("QLinearConv", ["x", *constants], ["y"])],
        "one convolution",
        [x],
        [y],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (found,) = session_of(model.SerializeToString()).run(None, {"x": images})
    expected = np.rint(sums / step) + 128
    assert len(np.unique(expected)) > 10
    assert np.array_equal(found, np.broadcast_to(expected[None, :, None, None], found.shape))


def test_a_dataset_is_made_with_ranges_of_its_training_images_which_are_measured_once(images, monkeypatch, tmp_path):
    found = features_dataset(images, open_backbone("tiny", precision="int8"))
    assert found.path.name.startswith("tiny-int8-")
    backbone = backbone_from(json.loads(json.dumps(found.features["backbone"])))
    assert backbone.precision == "int8"
    assert np.array_equal(backbone.features_of(images.images), found.images[:, :, 0, 0])
    train = images.images[images.indices("train")]
    folded = read_folded(folded_weights("tiny"))
    assert backbone.networks[0].ranges == measured(folded, [train])

    def fail(*arguments):
        raise AssertionError("measured again")

    monkeypatch.setattr("photoflux.features.calibration.measured", fail)
    assert features_dataset(images, open_backbone("tiny", precision="int8")).path == found.path
    # A run has its ranges with it: it needs neither images nor cache.
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "another cache"))
    assert np.array_equal(backbone_from(found.features["backbone"]).features_of(train), backbone.features_of(train))


def test_a_damaged_file_of_ranges_is_measured_again(images, tmp_path):
    before = open_backbone("tiny", precision="int8").calibrated_on(images).fingerprint
    (kept,) = (tmp_path / "cache" / "backbones").glob("tiny-int8-*.json")
    for damaged in ("", "{}", "[]", '{"block1.add": [0]}', kept.read_text().replace("[", "[1", 1)):
        kept.write_text(damaged)
        assert open_backbone("tiny", precision="int8").calibrated_on(images).fingerprint == before


def test_ranges_of_other_layers_are_refused(images):
    values = open_backbone("tiny", precision="int8").calibrated_on(images).as_dict()
    ranges = values["networks"][0]["ranges"]
    for wrong in ({}, {**ranges, "top": [1, 2]}, {**ranges, "top": [0, float("inf")]}, {"stem": [0, 6], **ranges}):
        with pytest.raises(BackboneError, match="ranges of the 8-bit tiny are not those of its layers"):
            backbone_from({**values, "networks": [{**values["networks"][0], "ranges": wrong}]})
    with pytest.raises(BackboneError, match="must say its name, fingerprint"):
        backbone_from({**values, "networks": [{**values["networks"][0], "ranges": [1]}]})


def test_what_has_no_8_bits_is_refused(tiny, tmp_path):
    with pytest.raises(SettingError, match=r"`precision` must be one of float32, int8; received: 'int4'"):
        open_backbone("tiny", precision="int4")
    with pytest.raises(SettingError, match=r"`precision` int8 is for the backbones tiny, other; .*m\.onnx is an ONNX"):
        open_backbone(tmp_path / "m.onnx", precision="int8")
