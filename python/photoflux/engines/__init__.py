"""Engines fit and predict; which one is used is chosen here."""

from __future__ import annotations

from collections.abc import Callable

from photoflux.engines.base import Engine
from photoflux.errors import EngineError, FluxError, unknown_name

ENGINES = ("auto", "flux", "keras")


def get_engine(name: str, say: Callable[[str], None]) -> Engine:
    """Return a started engine.

    Parameters
    ----------
    name : str
        ``"flux"``, ``"keras"``, or ``"auto"``: Flux, or Keras where there is no Julia and none can be installed.
    say : callable
        Takes lines for the user: what is starting, and which engine was taken instead and why.

    Raises
    ------
    SettingError
        If there is no such engine.
    EngineError
        If it is not available; ``"flux"`` never falls back, and ``"auto"`` does not where a Julia is there and fails.
    """
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    if name != "keras":
        from photoflux.engines.flux.engine import FluxEngine

        flux = FluxEngine(say)
        try:
            _ = flux.julia
        except FluxError as error:
            if name == "flux" or error.kind != "no_julia":
                raise
            no_flux = str(error)
        else:
            return flux
    from photoflux.engines.keras.engine import KerasEngine, why_unavailable

    no_keras = why_unavailable()
    if name == "auto":
        if no_keras is not None:
            raise EngineError(f"No engine is available. Flux: {no_flux} Keras: {no_keras}")
        say(f"Flux is not available, so Keras trains instead. {no_flux}")
    elif no_keras is not None:
        raise EngineError(no_keras)
    return KerasEngine()
