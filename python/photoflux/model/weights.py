"""Reads and writes weights files: safetensors, Float32, with the names and layout that both engines use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from photoflux.data.shape import Shape
from photoflux.errors import RunError, side_by_side
from photoflux.model.layers import layers
from photoflux.model.variant import Variant
from photoflux.system import atomic
from photoflux.system.names import printable, user_path

FORMAT = "photoflux-weights-1"


def expected_shapes(variant: Variant, shape: Shape, classes: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of a variant on images of a shape, first layer to last.

    Examples
    --------
    >>> from photoflux.model.variants import variant
    >>> expected_shapes(variant("dense_l2"), Shape(1, 28, 28), 10)["dense1.kernel"]
    (784, 128)
    """
    return {
        f"{layer.name}.{kind}": size for layer in layers(variant, shape, classes) for kind, size in layer.stored.items()
    }


def metadata_of(variant: Variant, shape: Shape, classes: int) -> dict[str, str]:
    """Return what the header of a weights file says about the model."""
    return {
        "format": FORMAT,
        "variant": variant.name,
        "architecture": variant.architecture,
        "classes": str(classes),
        "input": ",".join(map(str, shape)),
    }


def read_weights(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a weights file; nothing in it is executed.

    Returns
    -------
    weights : dict of str to numpy.ndarray
        float32, Keras layout, the names of `expected_shapes`.
    metadata : dict of str to str
        What `metadata_of` describes.

    Raises
    ------
    RunError
        If the file is missing, truncated, or not a weights file of PhotoFlux.
    """
    path = user_path(path)
    if not path.is_file():
        raise RunError(f"There is no weights file {path}. Give the weights.safetensors of a run.")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise RunError(
                    f"{path} is a safetensors file of something else: its header must say format = {FORMAT!r}, "
                    f"found: {metadata.get('format')!r}. Give the weights.safetensors of a run."
                )
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read as a weights file: {error}. It is truncated or not a safetensors file; "
            "take another copy, or train again."
        ) from error
    for name, value in weights.items():
        if value.dtype != np.float32:
            raise RunError(f"{path}: the weight {name} must be float32, found: {value.dtype}.")
        if not np.isfinite(value).all():
            raise RunError(f"{path}: the weight {name} has values that are not finite (NaN or infinite). Train again.")
    return weights, metadata


def read_arrays(path: Path, known: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file of a run whose header says a format; nothing in it is executed.

    Returns
    -------
    arrays : dict of str to numpy.ndarray
        By name.
    metadata : dict of str to str
        The header.

    Raises
    ------
    RunError
        If it cannot be read, or is of another format.
    """
    arrays, metadata = read_any_arrays(path)
    if metadata.get("format") != known:
        raise RunError(f"{printable(path)} has the format {metadata.get('format')!r}; this PhotoFlux reads {known}.")
    return arrays, metadata


def read_any_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file of a run or comparison whose header says no format; see `read_arrays`."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> RunError:
    """Return the error for a file of a run whose content cannot be used."""
    return RunError(f"{printable(path)} cannot be read: {error}. Take another copy of the run.")


def write_weights(path: str | Path, weights: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a weights file, as `write_arrays` does, in Float32."""
    write_arrays(path, {name: np.asarray(value, dtype=np.float32) for name, value in weights.items()}, metadata)


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file under a temporary name and rename it once: an older file stays complete or is replaced.

    Raises
    ------
    RunError
        If it cannot be written; what was there before is untouched.
    """
    path = user_path(path)
    whole = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    try:
        with atomic.writing_file(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            safetensors.numpy.save_file(whole, temporary, metadata=None if metadata is None else dict(metadata))
            if metadata is not None:
                _sort_metadata(temporary)
            temporary.chmod(mode)  # safetensors makes files for the owner only
    except (safetensors.SafetensorError, OSError) as error:
        raise RunError(f"{path} cannot be written: {error}. Free space or choose another folder.") from error


def _sort_metadata(temporary: Path) -> None:
    """Write the metadata of a safetensors file again, by name: the library's order is another one each time."""
    with temporary.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogateescape")
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))


def read_weights_of(path: str | Path, variant: Variant, shape: Shape, classes: int) -> dict[str, np.ndarray]:
    """Read a weights file that must fit a variant, a shape of images and a number of classes.

    Raises
    ------
    RunError
        If the file cannot be read, or is one of another variant, shape or number of classes; the message shows
        the shapes expected and found.
    """
    weights, metadata = read_weights(path)
    expected = expected_shapes(variant, shape, classes)
    found = {name: value.shape for name, value in weights.items()}
    if expected != found:

        def entry(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
            return f"{name} {shapes[name]}" if name in shapes else ""

        names = {**expected, **dict(sorted(found.items()))}
        rows = [(entry(found, n), entry(expected, n), found.get(n) == expected.get(n)) for n in names]
        raise RunError(
            f"{path} holds weights of another model: variant {metadata.get('variant', '?')}, "
            f"input {metadata.get('input', '?')} (C,H,W), {metadata.get('classes', '?')} classes; expected variant "
            f"{variant.name}, input {','.join(map(str, shape))}, {classes} classes.\n"
            + side_by_side(rows, "in the file", "expected")
        )
    return {name: weights[name] for name in expected}


def fingerprint_of(weights: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of weights in the order given (`read_weights_of`: first layer to last, kernel before bias)."""
    digest = hashlib.sha256()
    for value in weights.values():
        digest.update(np.ascontiguousarray(value, dtype="<f4").tobytes())
    return digest.hexdigest()


def remaining_features(variant: Variant, weights: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Return how many features a variant that takes them still uses, and how many there are.

    Parameters
    ----------
    variant : Variant
        One that takes features.
    weights : mapping of str to numpy.ndarray
        Its named weights. A feature is used if any of its weights in the first Dense layer is not 0.

    Examples
    --------
    >>> from photoflux.model.variants import variant
    >>> remaining_features(variant("transfer_l1"), {"output.kernel": np.float32([[0.5], [0], [-0.1]])})
    (2, 3)
    """
    kernel = weights["dense1.kernel" if variant.hidden else "output.kernel"]
    return int(np.any(kernel != 0, axis=1).sum()), len(kernel)
