"""Engines fit and predict; which one is used is chosen here."""

from __future__ import annotations

from collections.abc import Callable

from photoflux.engines.base import Engine
from photoflux.engines.device import Device
from photoflux.errors import EngineError, FluxError, SettingError, unknown_name
from photoflux.system import log

ENGINES = ("auto", "flux", "keras")


def get_engine(name: str, say: Callable[[str], None], device: Device | None = None) -> Engine:
    """Return a started engine.

    Parameters
    ----------
    name : str
        ``"flux"``, ``"keras"``, or ``"auto"``: Flux, or Keras where there is no Julia and none can be installed.
    say : callable
        Takes lines for the user: what is starting.
    device : Device, optional
        The GPU on which Flux computes; there is no other engine then. None: the CPU.

    Raises
    ------
    SettingError
        If there is no such engine, or a device is named for Keras.
    EngineError
        If it is not available; ``"flux"`` never falls back, and ``"auto"`` does not where a Julia is there and fails.
    """
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    if device is not None and name == "keras":
        raise SettingError(f"`device` is of the engine flux; received {device.name} with the engine keras.")
    if name != "keras":
        from photoflux.engines.flux.engine import FluxEngine

        flux = FluxEngine(say, device)
        try:
            _ = flux.julia
        except FluxError as error:
            if name == "flux" or device is not None or error.kind != "no_julia":
                raise
            no_flux = str(error)
        else:
            return flux
    from photoflux.engines.keras.engine import KerasEngine, why_unavailable

    no_keras = why_unavailable()
    if name == "auto":
        if no_keras is not None:
            raise EngineError(f"No engine is available. Flux: {no_flux} Keras: {no_keras}")
        log.warn(f"Flux is not available, so Keras trains instead. {no_flux}")
    elif no_keras is not None:
        raise EngineError(no_keras)
    return KerasEngine()
