"""A backbone of three blocks in a package of its own: torch's file written without torch, and its network in NumPy."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from photoflux.model.backbones import Pretrained

STORAGES = {"float32": "FloatStorage", "int64": "LongStorage", "float64": "DoubleStorage", "float16": "HalfStorage"}
WIDTHS = ((8, False, 8, 3), (8, True, 12, 3), (12, True, 12, 5))  # input, expanded, output and kernel of each block
FEATURES = 16


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """The weights of the tiny network, by torch's names: BatchNorms with statistics far from 0 and 1."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}

    def put(kernel: str, norm: str, out: int, into: int, size: int) -> None:
        found[f"{kernel}.weight"] = rng.normal(0, 1 / np.sqrt(into * size * size), (out, into, size, size))
        found[f"{norm}.weight"] = rng.uniform(0.5, 1.5, out)
        found[f"{norm}.bias"] = rng.normal(0.5, 0.5, out)
        found[f"{norm}.running_mean"] = rng.normal(0, 0.3, out)
        found[f"{norm}.running_var"] = rng.uniform(0.01, 2, out)

    put("_conv_stem", "_bn0", WIDTHS[0][0], 3, 3)
    for number, (into, expand, out, kernel) in enumerate(WIDTHS):
        block = f"_blocks.{number}"
        wide = 2 * into if expand else into
        if expand:
            put(f"{block}._expand_conv", f"{block}._bn0", wide, into, 1)
        put(f"{block}._depthwise_conv", f"{block}._bn1", wide, 1, kernel)
        put(f"{block}._project_conv", f"{block}._bn2", out, wide, 1)
    put("_conv_head", "_bn1", FEATURES, WIDTHS[-1][2], 1)
    found = {name: value.astype(np.float32) for name, value in found.items()}
    return {**found, "_bn0.num_batches_tracked": np.array(7), "_fc.weight": np.ones((5, FEATURES), np.float32)}


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _whole(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)


def _tuple(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def named(module: str, name: str) -> bytes:
    """The opcodes that ask for a name."""
    return f"c{module}\n{name}\n".encode()


def tensor(key: str, kind: str, count: int, offset: int, shape, strides, zipped: bool = False) -> bytes:
    """The opcodes of a tensor that is a view of a storage."""
    where = (_text("storage"), named("torch", kind), _text(key), _text("cpu"), _whole(count))
    storage = _tuple(*where, *(() if zipped else (b"N",))) + b"Q"
    numbers = (_tuple(*map(_whole, shape)), _tuple(*map(_whole, strides)))
    hooks = named("collections", "OrderedDict") + b")R"
    return (
        named("torch._utils", "_rebuild_tensor_v2") + _tuple(storage, _whole(offset), *numbers, b"\x89", hooks) + b"R"
    )


def dictionary(entries: dict[str, bytes]) -> bytes:
    """The opcodes of torch's state dictionary, which sets an attribute on it."""
    pairs = b"".join(_text(name) + value for name, value in entries.items())
    return named("collections", "OrderedDict") + b")R(" + pairs + b"u" + b"}" + _text("_metadata") + b"}sb"


def pth(body: bytes, storages: dict[str, np.ndarray], zipped: bool = False) -> bytes:
    """A torch file with a pickle's opcodes and the storages that it asks for."""
    if zipped:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
            archive.writestr("archive/byteorder", "little")
            for key, values in storages.items():
                archive.writestr(f"archive/data/{key}", values.tobytes())
        return file.getvalue()
    magic = b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
    system = b"}" + _text("little_endian") + b"\x88s"
    keys = b"](" + b"".join(map(_text, storages)) + b"e"
    pickles = b"".join(b"\x80\x02" + part + b"." for part in (magic, _whole(1001), system, body, keys))
    return pickles + b"".join(struct.pack("<q", values.size) + values.tobytes() for values in storages.values())


def pth_of(arrays: dict[str, np.ndarray], zipped: bool = False, channels_last: bool = False) -> bytes:
    """A torch file of arrays; those of four dimensions with the strides of (h, w, in, out), if so asked."""
    storages, entries = {}, {}
    for number, (name, value) in enumerate(arrays.items()):
        axes = (2, 3, 1, 0) if channels_last and value.ndim == 4 else tuple(range(value.ndim))
        stored = np.ascontiguousarray(value.transpose(axes)) if value.ndim else value
        strides = [0] * value.ndim
        for position, axis in enumerate(axes):
            strides[axis] = stored.strides[position] // stored.itemsize
        storages[str(number)] = stored
        kind = STORAGES[str(value.dtype)]
        entries[name] = tensor(str(number), kind, stored.size, 0, value.shape, strides, zipped)
    return pth(dictionary(entries), storages, zipped)


def install(folder: Path, name: str = "tiny", seed: int = 0, image_size: int = 20) -> Pretrained:
    """Write a package with the tiny weights into a folder, which is to be on the path, and return its row."""
    package = folder / f"{name}_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('it need not be imported')\n")
    data = pth_of(tensors(seed), channels_last=True)
    (package / "models" / "tiny.pth").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return Pretrained(name, FEATURES, image_size, f"{name}-weights", "tiny.pth", digest, 127, 128, (2,))


def _convolution(x: np.ndarray, kernel: np.ndarray, stride: int, depthwise: bool) -> np.ndarray:
    """Cross-correlation of (C, H, W) with torch's (out, in, k, k), zero padding as TensorFlow's ``same``."""
    size = kernel.shape[2]
    padding = [(0, 0)]
    for side in x.shape[1:]:
        whole = max((-(-side // stride) - 1) * stride + size - side, 0)
        padding.append((whole // 2, whole - whole // 2))
    windows = sliding_window_view(np.pad(x, padding), (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum(
        "chwij,cij->chw" if depthwise else "chwij,ocij->ohw", windows, kernel[:, 0] if depthwise else kernel
    )


def features(weights: dict[str, np.ndarray], images: np.ndarray, halving: tuple[int, ...] = (2,)) -> np.ndarray:
    """The features in Float64, with the BatchNorms as they are in training's file: (N, F)."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def layer(x, kernel, norm, stride=1, relu6=True):
        y = _convolution(x, w[f"{kernel}.weight"], stride, kernel.endswith("depthwise_conv"))
        gamma, beta, mean, variance = (
            w[f"{norm}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        y = gamma * (y - mean) / np.sqrt(variance + 1e-3) + beta
        return np.clip(y, 0, 6) if relu6 else y

    rows = []
    for image in images:
        x = layer((image.astype(np.float64) - 127) / 128, "_conv_stem", "_bn0", 2)
        for number in range(sum(name.endswith("_project_conv.weight") for name in w)):
            block, entered = f"_blocks.{number}", x
            stride = 2 if number + 1 in halving else 1
            if f"{block}._expand_conv.weight" in w:
                x = layer(x, f"{block}._expand_conv", f"{block}._bn0")
            x = layer(x, f"{block}._depthwise_conv", f"{block}._bn1", stride)
            x = layer(x, f"{block}._project_conv", f"{block}._bn2", relu6=False)
            if stride == 1 and x.shape == entered.shape:
                x = x + entered
        rows.append(layer(x, "_conv_head", "_bn1").mean(axis=(1, 2)))
    return np.stack(rows)
