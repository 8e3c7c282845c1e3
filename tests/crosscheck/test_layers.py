"""The two lists of layers, Julia's and Python's, are one: names, kinds, order, shapes, penalties and dropout."""

from __future__ import annotations

import json
from typing import Any

import pytest

from photoflux.data.shape import Shape
from photoflux.model.architectures import ARCHITECTURES, dropout_groups, penalty_groups
from photoflux.model.layers import Layer, layers
from photoflux.model.variant import Variant
from photoflux.model.variants import variant, variants

SHAPES = [Shape(3, 20, 14), Shape(1, 9, 7)]
FEATURES = [Shape(1280, 1, 1), Shape(7, 1, 1)]
PENALTY = ("l1", "l2")
# One of each architecture with all that can be asked of it.
MINE = [
    Variant("mine", "photo_cnn", (9, 5), 1, 1, 0.1, 8, "", {"conv": {"l1": 0.1}, "output": {"l2": 0.2}}, {"pool": 0.1}),
    Variant("mine", "transfer", (9,), 1, 1, 0.1, 8, "", {"hidden": {"l1": 0.1}}, {"hidden": 0.1}, backbone="a+b"),
    Variant("mine", "dense", (), 1, 1, 0.1, 8, "", {"output": {"l1": 0.1, "l2": 0.2}}),
]


def keras_kernel(weight: tuple[int, ...]) -> tuple[int, ...]:
    """A kernel's shape in Keras' layout of one in Flux': (kw, kh, in, out) or (out, in)."""
    return (weight[1], weight[0], *weight[2:]) if len(weight) == 4 else weight[::-1]


def of_julia(flux: Any, v: Variant, shape: Shape, classes: int) -> list[Layer]:
    package = flux.julia.PhotoFlux
    size = (shape.width, shape.height, shape.channels)
    found = package.layers(package.variant_from_json(json.dumps(v.as_dict())), size, classes)
    return [
        Layer(
            name=str(layer.name),
            kind=str(layer.kind),
            # (width, height, channels) there.
            shape=tuple(layer.shape) if len(layer.shape) == 1 else (layer.shape[1], layer.shape[0], layer.shape[2]),
            kernel=keras_kernel(tuple(layer.weight)),
            relu=bool(layer.relu),
            penalty=dict(zip(PENALTY, package.coefficients(layer.penalty), strict=True)),
            rate=float(layer.rate),
        )
        for layer in found
    ]


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("v", [*variants().values(), *MINE], ids=lambda v: f"{v.name}-{v.architecture}")
def test_both_lists_are_the_same(v, number, classes, flux):
    shape = (FEATURES if v.takes_features else SHAPES)[number]
    ours, theirs = layers(v, shape, classes), of_julia(flux, v, shape, classes)
    assert [layer.name for layer in theirs] == [layer.name for layer in ours]
    for mine, other in zip(ours, theirs, strict=True):
        fields = ("kind", "shape", "kernel", "relu")
        assert [getattr(other, name) for name in fields] == [getattr(mine, name) for name in fields]
        # Float32 there.
        coefficients = {name: mine.penalty.get(name, 0.0) for name in PENALTY}
        assert other.penalty == pytest.approx(coefficients, rel=1e-7)
        assert other.rate == pytest.approx(mine.rate, rel=1e-7)


def test_the_variants_and_architectures_are_the_same(flux):
    package = flux.julia.PhotoFlux
    assert [str(v.name) for v in package.variants()] == list(variants())
    assert {str(name) for name in package.GROUPS_OF} == set(ARCHITECTURES)
    for name in ARCHITECTURES:
        groups = package.GROUPS_OF[name]
        assert list(map(str, groups.penalty)) == penalty_groups(name, (1,))
        assert list(map(str, groups.dropout)) == dropout_groups(name, (1,))
    assert all(str(package.variant(name).architecture) == variant(name).architecture for name in variants())
