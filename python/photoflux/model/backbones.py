"""The table of pretrained backbones; a new backbone is a new row of ``julia/backbones.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from photoflux.errors import unknown_name
from photoflux.model.variants import julia_package


@dataclass(frozen=True)
class Pretrained:
    """A row of the table: where a backbone's weights are, and what the network expects.

    Attributes
    ----------
    name : str
        Its name.
    features : int
        Numbers an image.
    image_size : int
        Height and width of the images that it was trained on; it takes others.
    package, file, sha256 : str
        The Python package with the weights, their file in its folder ``models``, and that file's SHA-256.
    mean, scale : float
        A pixel x, 0 to 255, enters the network as (x − mean) / scale.
    halving : tuple of int
        The blocks, from 1, with stride 2; the others have stride 1.
    """

    name: str
    features: int
    image_size: int
    package: str
    file: str
    sha256: str
    mean: float
    scale: float
    halving: tuple[int, ...]


@cache
def backbones() -> Mapping[str, Pretrained]:
    """Return the table: a mapping of name to `Pretrained`, in the order of ``julia/backbones.toml``.

    Examples
    --------
    >>> backbones()["efficientnet-lite2"].image_size
    260
    """
    with (julia_package() / "julia" / "backbones.toml").open("rb") as file:
        rows = tomllib.load(file)
    return MappingProxyType(
        {name: Pretrained(name, **{**row, "halving": tuple(row["halving"])}) for name, row in rows.items()}
    )


def pretrained(name: str) -> Pretrained:
    """Return the backbone of that name.

    Raises
    ------
    SettingError
        If there is none; the message proposes the nearest.
    """
    if name not in backbones():
        raise unknown_name("backbone", name, backbones())
    return backbones()[name]
