"""Makes a backbone's weights file in the cache: torch's tensors in Keras' layouts, with BatchNorm folded into them.

Every convolution of the networks is followed by a BatchNorm, which at inference is a factor and an offset of each
channel: y = γ·(Wx − μ)/√(σ² + ε) + β. The folded kernel is W·γ/√(σ² + ε) and the bias β − μ·γ/√(σ² + ε), computed in
Float64 and rounded once. The classifier behind the features is left out. The file is what Julia and ONNX Runtime read;
its format is in docs/features.md.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from photoflux.data.cache import cache_folder, unwritable_cache
from photoflux.errors import BackboneError, RunError
from photoflux.features.pth import read_pth
from photoflux.model.backbones import Pretrained, pretrained
from photoflux.model.weights import fingerprint_of, write_arrays
from photoflux.system.claims import claim
from photoflux.system.json_file import parse_object
from photoflux.system.kinds import check_fields
from photoflux.system.names import printable

FORMAT = "photoflux-backbone-1"
EPSILON = 1e-3  # of the networks' BatchNorm


@dataclass(frozen=True)
class Block:
    """What the shapes of a block's weights do not say, and what follows from them.

    Attributes
    ----------
    kernel, stride : int
        Of its depthwise convolution.
    residual : bool
        Whether its input is added to its output.
    expand : bool
        Whether it begins with an expansion.
    """

    kernel: int
    stride: int
    residual: bool
    expand: bool


@dataclass(frozen=True)
class Folded:
    """A folded weights file as it is read.

    Attributes
    ----------
    path : Path
        The file.
    name, fingerprint, source : str
        The backbone; the SHA-256 of the tensors; the SHA-256 of the file that they were made from.
    features, image_size : int
        Numbers an image; height and width of the images that it was trained on.
    mean, scale : float
        A pixel x, 0 to 255, enters as (x − mean) / scale.
    blocks : tuple of Block
        First to last.
    """

    path: Path
    name: str
    fingerprint: str
    source: str
    features: int
    image_size: int
    mean: float
    scale: float
    blocks: tuple[Block, ...]

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """The tensors, float32, Keras layouts, in the order of the network.

        Raises
        ------
        BackboneError
            If one is missing, or they are not those of the fingerprint.
        """
        with _reading(self.path), safetensors.safe_open(self.path, framework="numpy") as file:
            weights = {name: file.get_tensor(name) for name in names_of(self.blocks)}
            if fingerprint_of(weights) != self.fingerprint:
                raise ValueError("its tensors are not those of its fingerprint")
        return weights


def folded_weights(name: str) -> Path:
    """Return the folded weights file of a backbone in the cache, made from its package's file if it is not there.

    Parameters
    ----------
    name : str
        Of the table, such as ``"efficientnet-lite2"``.

    Raises
    ------
    SettingError
        If there is no such backbone.
    BackboneError
        If its package is not installed, or its file is another or damaged.
    DataError
        If the cache cannot be written.
    """
    row = pretrained(name)
    path = cache_folder() / "backbones" / f"{name}.safetensors"
    if _is_good(path, row):
        return path
    try:
        # Of two processes that need it one makes it, and the other waits.
        with claim(path, wait=math.inf):
            if not _is_good(path, row):
                _make(path, row)
    except OSError as error:
        raise unwritable_cache(path.parent, error) from error
    return path


def weights_file(row: Pretrained) -> Path:
    """Return the installed file with a backbone's weights, as torch wrote it; the package is not imported.

    Raises
    ------
    BackboneError
        If the package is not installed, or has no such file.
    """
    found = importlib.util.find_spec(row.package.replace("-", "_"))
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder) / "models" / row.file
        if path.is_file():
            return path
    missing = "is not installed" if found is None else f"has no file models/{row.file}"
    raise BackboneError(
        f"The weights of the backbone {row.name} are in the Python package {row.package}, which {missing}. "
        f"Install it: pip install {row.package}"
    )


def read_folded(path: Path) -> Folded:
    """Read the header of a folded weights file; its tensors are read when they are asked for. Nothing is executed.

    Raises
    ------
    BackboneError
        If it is missing, truncated or of another format.
    """
    with _reading(path), safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its header says format = {metadata.get('format')!r}, expected {FORMAT!r}")
        description = parse_object(metadata["description"])
        blocks = tuple(Block(**block) for block in description.pop("blocks"))
        folded = Folded(
            path, fingerprint=metadata["fingerprint"], source=metadata["source"], blocks=blocks, **description
        )
    for part in (folded, *blocks):
        check_fields(part)
    return folded


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(
            f"{printable(path)} cannot be read as the weights of a backbone: {error}. Remove it; it is made again."
        ) from error


def names_of(blocks: Iterable[Block]) -> list[str]:
    """Return the names of the tensors of a network, in its order: each kernel before its bias."""
    parts = ["stem"]
    for number, block in enumerate(blocks, 1):
        parts += [
            f"block{number}.{part}" for part in ("expand", "depthwise", "project") if part != "expand" or block.expand
        ]
    return [f"{part}.{kind}" for part in (*parts, "top") for kind in ("kernel", "bias")]


def fold(tensors: Mapping[str, np.ndarray], halving: Iterable[int]) -> tuple[dict[str, np.ndarray], list[Block]]:
    """Return the folded weights of a network, in its order, and its blocks.

    Parameters
    ----------
    tensors : mapping of str to numpy.ndarray
        torch's, by its names.
    halving : iterable of int
        The blocks, from 1, with stride 2.

    Raises
    ------
    KeyError
        If a tensor is missing.
    """
    weights: dict[str, np.ndarray] = {}
    blocks: list[Block] = []
    halving = set(halving)

    def put(name: str, kernel: str, norm: str) -> None:
        gamma, beta, mean, variance = (
            tensors[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gamma / np.sqrt(variance + EPSILON)
        folded = tensors[f"{kernel}.weight"].astype(np.float64) * factor[:, None, None, None]
        # torch's (out, in, h, w) is (h, w, in, out) in Keras, and of a depthwise convolution (h, w, out, 1).
        axes = (2, 3, 0, 1) if name.endswith("depthwise") else (2, 3, 1, 0)
        weights[f"{name}.kernel"] = np.ascontiguousarray(folded.transpose(axes), np.float32)
        weights[f"{name}.bias"] = (beta - mean * factor).astype(np.float32)

    put("stem", "_conv_stem", "_bn0")
    while f"_blocks.{len(blocks)}._depthwise_conv.weight" in tensors:
        before, name = f"_blocks.{len(blocks)}", f"block{len(blocks) + 1}"
        expand = f"{before}._expand_conv.weight" in tensors
        if expand:
            put(f"{name}.expand", f"{before}._expand_conv", f"{before}._bn0")
        put(f"{name}.depthwise", f"{before}._depthwise_conv", f"{before}._bn1")
        put(f"{name}.project", f"{before}._project_conv", f"{before}._bn2")
        kernel = len(weights[f"{name}.depthwise.kernel"])
        stride = 2 if len(blocks) + 1 in halving else 1
        entering = weights[f"{name}.{'expand' if expand else 'depthwise'}.kernel"].shape[2]
        leaving = len(weights[f"{name}.project.bias"])
        blocks.append(Block(kernel, stride, stride == 1 and entering == leaving, expand))
    put("top", "_conv_head", "_bn1")
    return weights, blocks


def write_folded(path: Path, row: Pretrained, weights: Mapping[str, np.ndarray], blocks: Iterable[Block]) -> None:
    """Write a folded weights file, whole or not at all.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    description: dict[str, Any] = {
        **{key: getattr(row, key) for key in ("name", "features", "image_size", "mean", "scale")},
        "blocks": [vars(block) for block in blocks],
    }
    metadata = {
        "format": FORMAT,
        "name": row.name,
        "fingerprint": fingerprint_of(weights),
        "source": row.sha256,
        "description": json.dumps(description),
    }
    write_arrays(path, weights, metadata)


def _make(path: Path, row: Pretrained) -> None:
    source = weights_file(row)
    with source.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != row.sha256:
        raise BackboneError(
            f"{printable(source)} is not the file that PhotoFlux knows as {row.name}: its SHA-256 is {found}, expected "
            f"{row.sha256}. Install it again: pip install --force-reinstall {row.package}"
        )
    weights, blocks = fold(read_pth(source), row.halving)
    try:
        write_folded(path, row, weights, blocks)
    except RunError as error:
        raise unwritable_cache(path.parent, OSError(str(error.__cause__))) from error


def _is_good(path: Path, row: Pretrained) -> bool:
    """Say whether the cache has the file, of the row's source; its tensors are checked where they are read."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (OSError, safetensors.SafetensorError):
        return False
    return (metadata.get("format"), metadata.get("source")) == (FORMAT, row.sha256)
