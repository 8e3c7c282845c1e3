"""The list of layers of every variant against the documents' shapes, and what is made from it."""

from __future__ import annotations

import numpy as np
import pytest

from photoflux import SettingError, variant, variants
from photoflux.data.shape import Shape
from photoflux.model.layers import layers, penalty_of
from photoflux.model.weights import expected_shapes

# Name, kind, shape of the output, parameters, for images of 180×180×3 and two classes.
PHOTO = [
    ("rescale", "rescaling", (180, 180, 3), 0),
    ("conv1", "convolution", (180, 180, 16), 3 * 3 * 3 * 16 + 16),
    ("pool", "max pooling", (90, 90, 16), 0),
    ("conv2", "convolution", (90, 90, 32), 3 * 3 * 16 * 32 + 32),
    ("conv3", "convolution", (90, 90, 64), 3 * 3 * 32 * 64 + 64),
    ("flatten", "flatten", (518_400,), 0),
    ("dense1", "dense", (128,), 518_400 * 128 + 128),
    ("output", "dense", (1,), 129),
]
PHOTO_DROPOUT = [
    *PHOTO[:3],
    ("pool_dropout", "dropout", (90, 90, 16), 0),
    *PHOTO[3:7],
    ("dense1_dropout", "dropout", (128,), 0),
    PHOTO[7],
]
# On images of the size that their documents have, 10 classes.
MLP = [
    ("rescale", "rescaling", (32, 32, 3), 0),
    ("flatten", "flatten", (3072,), 0),
    ("dense1", "dense", (512,), 3072 * 512 + 512),
    ("dense1_dropout", "dropout", (512,), 0),
    ("dense2", "dense", (256,), 512 * 256 + 256),
    ("dense2_dropout", "dropout", (256,), 0),
    ("output", "dense", (10,), 256 * 10 + 10),
]
DENSE_L2 = [
    ("rescale", "rescaling", (28, 28, 1), 0),
    ("flatten", "flatten", (784,), 0),
    ("dense1", "dense", (128,), 784 * 128 + 128),
    ("output", "dense", (10,), 128 * 10 + 10),
]
DENSE_DROPOUT = [
    ("rescale", "rescaling", (28, 28, 1), 0),
    ("flatten", "flatten", (784,), 0),
    ("dense1", "dense", (64,), 784 * 64 + 64),
    ("dense1_dropout", "dropout", (64,), 0),
    ("dense2", "dense", (64,), 64 * 64 + 64),
    ("dense2_dropout", "dropout", (64,), 0),
    ("output", "dense", (10,), 64 * 10 + 10),
]
TRANSFER = [
    ("standardise", "standardisation", (1, 1, 1280), 0),
    ("flatten", "flatten", (1280,), 0),
    ("output", "dense", (1,), 1281),
]
TRANSFER_MLP = [
    *TRANSFER[:2],
    ("dense1", "dense", (128,), 1280 * 128 + 128),
    ("dense1_dropout", "dropout", (128,), 0),
    ("output", "dense", (1,), 129),
]
MADE_FOR = {"mlp": (Shape(3, 32, 32), 10), "dense_l2": (Shape(1, 28, 28), 10), "dense_dropout": (Shape(1, 28, 28), 10)}
MADE_FOR |= {name: (Shape(1280, 1, 1), 2) for name, v in variants().items() if v.takes_features}
EXPECTED = {name: PHOTO for name in ("baseline", "early_stopping", "l1", "l2", "elastic_net")} | {
    "dropout": PHOTO_DROPOUT,
    "dropout_early_stopping": PHOTO_DROPOUT,
    "mlp": MLP,
    "dense_l2": DENSE_L2,
    "dense_dropout": DENSE_DROPOUT,
    "transfer": TRANSFER,
    "transfer_l1": TRANSFER,
    "transfer_elastic_net": TRANSFER,
    "transfer_mlp": TRANSFER_MLP,
}


def made(name):
    return layers(variant(name), *MADE_FOR.get(name, (Shape(3, 180, 180), 2)))


@pytest.mark.parametrize("name", list(variants()))
def test_layers_of_every_variant(name):
    found = made(name)
    assert [(layer.name, layer.kind, layer.shape, layer.parameters) for layer in found] == EXPECTED[name]
    assert [layer.name for layer in found if layer.relu] == [
        layer.name for layer in found if layer.kernel and layer is not found[-1]
    ]
    for layer in found:
        if layer.kernel:
            assert layer.bias == layer.kernel[-1:] == layer.shape[-1:]
        assert layer.penalty == (variant(name).penalty.get(layer.group, {}) if layer.kernel else {})
        assert layer.rate == (variant(name).dropout[layer.group] if layer.kind == "dropout" else 0)
    groups = {"convolution": "conv", "dense": "hidden"}
    assert [layer.group for layer in found if layer.kernel] == [
        groups[layer.kind] for layer in found if layer.kernel and layer is not found[-1]
    ] + ["output"]


def test_sides_that_are_odd_and_more_classes():
    found = {layer.name: layer for layer in layers(variant("dropout"), Shape(1, 13, 9), 3)}
    assert found["conv1"].kernel == (3, 3, 1, 16)
    assert found["pool"].shape == found["pool_dropout"].shape == (6, 4, 16)
    assert found["dense1"].kernel == (6 * 4 * 64, 128)
    assert (found["output"].kernel, found["output"].bias) == ((128, 3), (3,))


def test_weights_are_named_and_ordered_as_the_layers():
    assert expected_shapes(variant("dropout"), Shape(3, 8, 6), 2) == {
        "conv1.kernel": (3, 3, 3, 16),
        "conv1.bias": (16,),
        "conv2.kernel": (3, 3, 16, 32),
        "conv2.bias": (32,),
        "conv3.kernel": (3, 3, 32, 64),
        "conv3.bias": (64,),
        "dense1.kernel": (4 * 3 * 64, 128),
        "dense1.bias": (128,),
        "output.kernel": (128, 1),
        "output.bias": (1,),
    }
    assert list(expected_shapes(variant("mlp"), Shape(3, 32, 32), 10)) == [
        f"{layer}.{kind}" for layer in ("dense1", "dense2", "output") for kind in ("kernel", "bias")
    ]


def test_a_standardisation_has_statistics_that_are_stored_and_not_trained():
    first = layers(variant("transfer"), Shape(7, 1, 1), 2)[0]
    assert first.statistics == first.stored == {"mean": (7,), "deviation": (7,)}
    assert (first.parameters, first.multiply_adds) == (0, 0)
    assert list(expected_shapes(variant("transfer"), Shape(7, 1, 1), 2).items()) == [
        ("standardise.mean", (7,)),
        ("standardise.deviation", (7,)),
        ("output.kernel", (7, 1)),
        ("output.bias", (1,)),
    ]


def test_images_are_no_features():
    with pytest.raises(SettingError, match="transfer takes the features of a backbone, not images of 8×6×3"):
        layers(variant("transfer"), Shape(3, 8, 6), 2)


def test_penalty_of_is_the_written_out_sum():
    rng, shape = np.random.default_rng(0), Shape(3, 8, 8)
    weights = {name: rng.normal(size=size) for name, size in expected_shapes(variant("l1"), shape, 2).items()}
    convs, dense = [weights[f"conv{number}.kernel"] for number in (1, 2, 3)], weights["dense1.kernel"]
    expected = 0.01 * (dense**2).sum() + sum(0.005 * np.abs(w).sum() + 0.005 * (w**2).sum() for w in convs)
    assert penalty_of(layers(variant("elastic_net"), shape, 2), weights) == pytest.approx(expected, rel=1e-12)
    assert penalty_of(layers(variant("baseline"), shape, 2), weights) == 0


def test_a_shape_knows_its_orders():
    assert (str(Shape(3, 180, 240)), Shape(3, 180, 240).hwc) == ("180×240×3", (180, 240, 3))
    assert Shape.of(np.zeros((7, 5, 1, 2, 3))) == Shape(channels=1, height=2, width=3)
