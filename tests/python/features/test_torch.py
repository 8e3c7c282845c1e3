"""Against torch: its reading of the files, and its network with BatchNorms; in a process without Julia."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

import tiny_backbone
from photoflux.errors import BackboneError
from photoflux.features import open_backbone
from photoflux.features.folding import weights_file
from photoflux.features.pth import read_pth
from photoflux.model.backbones import backbones

pytest.importorskip("onnxruntime", reason="features run through onnxruntime, which is not installed")
pytest.importorskip("onnx", reason="the graph is written with onnx, which is not installed")

# A Python with torch: it need not be the one of the tests, and must not be this process, in which Julia may run.
PYTHON = os.environ.get("PHOTOFLUX_TORCH_PYTHON") or (sys.executable if importlib.util.find_spec("torch") else None)

NETWORK = """
import sys
import numpy as np, torch
import torch.nn.functional as F

torch.backends.mkldnn.enabled = False
w = torch.load(sys.argv[1], weights_only=True, map_location="cpu")
np.savez(sys.argv[3] + ".tensors.npz", **{name: value.numpy() for name, value in w.items()})
w = {name: value.double() for name, value in w.items()}
halving = {int(number) for number in sys.argv[4].split(",")}

def layer(x, kernel, norm, stride=1, relu6=True):
    weight = w[kernel + ".weight"]
    size, groups = weight.shape[2], len(weight) if "depthwise" in kernel else 1
    pads = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in x.shape[2:]]
    x = F.pad(x, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2))
    x = F.conv2d(x, weight, None, stride, 0, 1, groups)
    norms = [w[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    x = F.batch_norm(x, *norms, eps=1e-3)
    return F.relu6(x) if relu6 else x

x = (torch.from_numpy(np.load(sys.argv[2])).double() - 127) / 128
x = layer(x, "_conv_stem", "_bn0", 2)
number = 0
while f"_blocks.{number}._project_conv.weight" in w:
    block, entered, stride = f"_blocks.{number}", x, 2 if number + 1 in halving else 1
    if block + "._expand_conv.weight" in w:
        x = layer(x, block + "._expand_conv", block + "._bn0")
    x = layer(x, block + "._depthwise_conv", block + "._bn1", stride)
    x = layer(x, block + "._project_conv", block + "._bn2", relu6=False)
    if stride == 1 and x.shape == entered.shape:
        x = x + entered
    number += 1
np.save(sys.argv[3], layer(x, "_conv_head", "_bn1").mean((2, 3)).numpy())
"""


def compared_with_torch(tmp_path, name, file, halving, size):
    if PYTHON is None:
        pytest.skip("torch is not installed; PHOTOFLUX_TORCH_PYTHON may name a Python that has it")
    rng = np.random.default_rng(3)
    # Smooth images, as photographs are: noise alone would leave most features at 0.
    rough = rng.uniform(0, 255, (2, 3, 6, 6)).repeat(-(-size // 6), 2).repeat(-(-size // 6), 3)[:, :, :size, :size]
    images = np.clip(rough + rng.normal(0, 10, rough.shape), 0, 255).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    made = tmp_path / "features.npy"
    command = [PYTHON, "-c", NETWORK, file, tmp_path / "images.npy", made, ",".join(map(str, halving))]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(command, check=True, timeout=300, env=environment)
    with np.load(f"{made}.tensors.npz") as theirs:
        ours = read_pth(file)
        assert set(ours) == set(theirs)
        for key, value in ours.items():
            assert (value.dtype, value.shape) == (theirs[key].dtype, theirs[key].shape), key
            assert np.array_equal(value, theirs[key]), key
    return open_backbone(name).features_of(images), np.load(made)


def test_a_tiny_file_and_its_features_are_as_torch_has_them(tiny, tmp_path):
    file = weights_file(tiny)
    ours, theirs = compared_with_torch(tmp_path, "tiny", file, tiny.halving, 20)
    assert np.abs(ours - theirs).max() < 3e-4  # as in test_backbone
    images = np.load(tmp_path / "images.npy")
    # The NumPy network of the tests is the same function, both in Float64.
    assert np.abs(tiny_backbone.features(tiny_backbone.tensors(), images) - theirs).max() < 1e-12


@pytest.mark.parametrize("name", list(backbones()))
def test_the_features_are_as_torch_computes_them(name, tmp_path):
    row = backbones()[name]
    try:
        file = weights_file(row)
    except BackboneError as error:
        pytest.skip(str(error))
    ours, theirs = compared_with_torch(tmp_path, name, file, row.halving, row.image_size // 2 + 1)
    # 21 blocks of three layers in Float32 against Float64. A layer's sum of up to 1152 terms has a relative error of
    # about √1152·2⁻²⁴ = 2e-6 of its largest value, below 6 after ReLU6; 64 layers add up to 64·6·2e-6 = 8e-4 at most.
    assert theirs.max() > 1 and (theirs > 0.01).mean() > 0.1
    assert np.abs(ours - theirs).max() < 8e-4
