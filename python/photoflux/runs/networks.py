"""Turns a file that makes a network into the network: when and by whom a user's Julia file is run is decided here."""

from __future__ import annotations

import dataclasses

from photoflux.data.shape import Shape
from photoflux.engines.base import Engine
from photoflux.engines.flux.engine import FluxEngine
from photoflux.errors import SettingError
from photoflux.model.networks import file_of
from photoflux.model.variant import Variant


def described(variant: Variant, engine: Engine, shape: Shape, classes: int) -> Variant:
    """Return a variant whose network is data; all others are returned as they are.

    A file is run here alone, and only one that a user has named: what a run or a dataset brings is never run.

    Parameters
    ----------
    variant : Variant
        Perhaps one that has the file of a network in place of it.
    engine : Engine
        What runs the file: Flux.
    shape : Shape
        Of an image.
    classes : int
        How many there are.

    Raises
    ------
    SettingError
        If the engine is not Flux.
    EngineError
        If the file cannot be run, or does not make a network for such images.
    """
    file = file_of(variant.chain)
    if file is None:
        return variant
    if not isinstance(engine, FluxEngine):
        raise SettingError(
            f"{variant.made_by} makes a network of Flux's layers, which the engine {engine.name} does not have. "
            "Take the engine flux."
        )
    return dataclasses.replace(variant, chain=engine.network(file.path, file.function, shape, classes))
