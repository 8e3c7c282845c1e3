"""A network of a user's own, as Julia describes it: what a description must be, and its layers, are read here."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photoflux.errors import SettingError
from photoflux.system.names import printable, user_path

# Of a description: layers in all, one in another, and numbers along an axis.
_MOST_LAYERS, _MOST_NESTED, _MOST_UNITS, _MOST_AXES = 1000, 16, 10**12, 5
_MEASURED = ("mean", "variance")  # arrays that a fit measures, and no gradient changes
_TABLE = "It is what `photoflux train my_model.jl:build` writes; train again."


@dataclass(frozen=True)
class NetworkFile:
    """A function of a Julia file that makes a network; the file is run only where a user names it.

    Attributes
    ----------
    path : Path
        The file.
    function : str
        Is called with (width, height, channels) and the number of classes, and returns a ``Flux.Chain``.
    """

    path: Path
    function: str

    def as_chain(self) -> dict[str, str]:
        """Return what stands for the network's description until Julia has made it."""
        return {"file": str(self.path), "function": self.function}


def network_file(name: str | os.PathLike[str]) -> NetworkFile | None:
    """Return the file and function of ``my_model.jl:build``; None of what names no Julia file.

    Raises
    ------
    SettingError
        If the file is missing, or no function is named.
    """
    parts = re.fullmatch(r"(.*\.jl)(?::(.*))?", os.fspath(name), re.DOTALL | re.IGNORECASE)
    if parts is None:
        return None
    path, function = user_path(parts[1]), parts[2]
    shown = printable(parts[1])
    if not function or not re.fullmatch(r"[^\W\d]\w*", function):
        raise SettingError(f"Say which function of {shown} makes the network, as in {shown}:build; received: {name}.")
    if not path.is_file():
        raise SettingError(f"There is no file {shown}. Name a Julia file and its function, as in my_model.jl:build.")
    return NetworkFile(path.absolute(), function)


def file_of(chain: Mapping[str, Any] | None) -> NetworkFile | None:
    """Return the file that a network is still to be made from; None where it is described or there is none."""
    if chain is None or chain.keys() != {"file", "function"}:
        return None
    return NetworkFile(Path(chain["file"]), chain["function"])


@dataclass(frozen=True)
class Part:
    """A layer of a described network that has no others in it.

    Attributes
    ----------
    name : str
        The names of the layers that it is in and its own, joined by points.
    kind : str
        Flux's name of it, such as ``"BatchNorm"``.
    output : tuple of int
        What it makes of an image: (height, width, channels) or (units,).
    arrays : mapping of str to tuple of int
        Name and shape of its arrays in weights files.
    details : str
        What it is made with, in words.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    arrays: Mapping[str, tuple[int, ...]]
    details: str


def parts_of(chain: Mapping[str, Any]) -> list[Part]:
    """Return the layers of a described network, first to last.

    Raises
    ------
    SettingError
        If it is not a description.
    """
    found = list(_parts(chain, "", 0))
    if not found or len(found) > _MOST_LAYERS:
        raise SettingError(f"A network's description must have 1 to {_MOST_LAYERS} layers. {_TABLE}")
    return found


def _parts(chain: Mapping[str, Any], place: str, depth: int) -> Iterator[Part]:
    if not isinstance(chain, Mapping) or not isinstance(chain.get("layer"), str) or depth > _MOST_NESTED:
        raise SettingError(f"A network's description must name each of its layers. {_TABLE}")
    inner = chain.get("layers")
    if inner is None:
        yield _part(chain, place)
        return
    if not isinstance(inner, Sequence) or isinstance(inner, str):
        raise SettingError(f"`layers` of a network's description must be pairs of a name and a layer. {_TABLE}")
    for pair in inner:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not re.fullmatch(r"\w+", str(pair[0])):
            raise SettingError(f"`layers` of a network's description must be pairs of a name and a layer. {_TABLE}")
        yield from _parts(pair[1], f"{place}.{pair[0]}" if place else str(pair[0]), depth + 1)


def _part(layer: Mapping[str, Any], name: str) -> Part:
    arrays = layer.get("arrays")
    if not isinstance(arrays, Sequence) or not all(isinstance(a, Sequence) and len(a) == 2 for a in arrays):
        raise SettingError(f"`arrays` of {name} must be pairs of a name and a shape. {_TABLE}")
    shapes = {str(array): _sizes(name, shape) for array, shape in arrays}
    try:
        details = _details(layer)
    except (KeyError, TypeError, ValueError) as error:
        raise SettingError(
            f"The layer {name} must be described by what Flux makes it with: {error!r}. {_TABLE}"
        ) from None
    return Part(name, str(layer["layer"]), _sizes(name, layer.get("output")), shapes, details)


def _sizes(name: str, shape: object) -> tuple[int, ...]:
    if (
        not isinstance(shape, Sequence)
        or not 1 <= len(shape) <= _MOST_AXES
        or not all(type(n) is int and 1 <= n <= _MOST_UNITS for n in shape)
    ):
        raise SettingError(f"The sizes of {name} must be whole numbers, 1 or more; received: {shape!r}. {_TABLE}")
    return tuple(shape)


def _details(layer: Mapping[str, Any]) -> str:
    words = []
    if layer["layer"] in ("Conv", "CrossCor", "Convolution"):
        width, height, *_ = layer["size"]
        words.append(f"{height}×{width}")
    if "window" in layer:
        words.append("×".join(str(side) for side in reversed(layer["window"])))
    stride = layer.get("stride", 1)
    sides = {stride} if isinstance(stride, int) else set(stride)
    if sides not in ({1}, set(layer.get("window", ()))):
        words.append(f"stride {stride if isinstance(stride, int) else '×'.join(map(str, reversed(stride)))}")
    if layer.get("groups", 1) != 1:
        words.append(f"{layer['groups']} groups")
    if "rate" in layer:
        words.append(f"{layer['rate']:g} in training")
    if layer.get("activation", "identity") != "identity":
        words.append(str(layer["activation"]))
    return ", ".join(words)


def trained(arrays: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many numbers of arrays a fit trains; those that it measures are not among them."""
    return sum(math.prod(shape) for name, shape in arrays.items() if name not in _MEASURED)


def measured(arrays: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the arrays that a fit measures and does not train."""
    return {name: shape for name, shape in arrays.items() if name in _MEASURED}
