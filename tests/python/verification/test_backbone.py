"""The check of a backbone in a verification: it holds for Flux, and a fault in one block is named."""

from __future__ import annotations

import numpy as np
import pytest

import photoflux
import tiny_backbone
from photoflux.data.shape import Shape
from photoflux.features import open_backbone
from photoflux.verification import verify as module
from photoflux.verification.backbone import activations_of, backbone_check, networks_of

pytest.importorskip("onnx", reason="the extra transfer is not installed")
pytest.importorskip("onnxruntime", reason="the extra transfer is not installed")


@pytest.fixture
def network(tmp_path, monkeypatch):
    row = tiny_backbone.install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("photoflux.model.backbones.backbones", lambda: {"tiny": row})
    (found,) = networks_of(open_backbone("tiny"))
    return found


IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 20, 17), np.uint8)


class Moved:
    """What ONNX Runtime gives, with one number of one part moved."""

    def __init__(self, folded, part, by):
        self.folded, self.part, self.by = folded, part, by

    def activations(self, images):
        found = activations_of(self.folded, images)
        if self.part:
            changed = found[self.part].copy()
            changed.flat[0] += self.by * np.abs(changed).max()
            found[self.part] = changed
        return found


def test_flux_has_the_same_backbone(flux, network):
    check = backbone_check(flux.backbone(network.folded.path, Shape.of(IMAGES)), network, IMAGES)
    assert check.passed
    assert [part.name for part in check.parts] == [
        "stem", *(f"block{number + 1}" for number in range(len(network.folded.blocks))), "features"
    ]  # fmt: skip


@pytest.mark.parametrize("part", ["stem", "block2", "features"])
def test_a_fault_is_named(network, part):
    check = backbone_check(Moved(network.folded, part, 0.001), network, IMAGES)
    assert not check.passed
    assert [one.name for one in check.parts if not one.passed] == [part]
    assert backbone_check(Moved(network.folded, "", 0), network, IMAGES).passed


def test_verify_proves_backbone_and_head(flux, keras, network, monkeypatch):
    row = photoflux.variants()["transfer"]
    monkeypatch.setattr(module, "several_variants", lambda name: [tiny(row)])
    found = photoflux.verify("transfer", "demo", steps=3, image_size=16, progress=False)
    assert found.passed, str(found)
    assert found.proofs[0].checks[0].name == "backbone tiny: every block"


def tiny(row):
    from dataclasses import replace

    return replace(row, backbone="tiny")
