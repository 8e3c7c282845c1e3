"""Starts ONNX Runtime, or says what to install; what a session is given is set here."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from photoflux.errors import BackboneError
from photoflux.system.names import printable

if TYPE_CHECKING:
    import onnxruntime


def need(package: str) -> None:
    """Raise a `BackboneError` unless a package of the extra ``transfer`` is installed."""
    if importlib.util.find_spec(package) is None:
        raise BackboneError(
            f"Features need the Python package {package}, which is not installed. "
            "Install what they need: pip install 'photoflux[transfer]'"
        )


def session_of(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Return an ONNX Runtime session of a model, a file or its bytes, on the cores of the CPU that this process has.

    Raises
    ------
    BackboneError
        If onnxruntime is not installed or does not load, or the file is no model that it can run.
    """
    need("onnxruntime")
    try:
        import onnxruntime
    except ImportError as error:
        raise BackboneError(
            f"The Python package onnxruntime is installed and does not load: {error}. Install it again: "
            "pip install --force-reinstall onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they come as exceptions too
    options.intra_op_num_threads = _threads()
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    # Its exceptions have no base class of their own.
    except Exception as error:
        what = "What PhotoFlux wrote" if isinstance(model, bytes) else printable(model)
        raise BackboneError(f"{what} is no ONNX model that ONNX Runtime can run: {error}") from error


def _threads() -> int:
    """Return how many threads a session gets: one for each core that the process is bound to; 0: the runtime's choice.

    Its choice counts all cores of the machine, and threads that share a core wait for each other by spinning.
    """
    if not hasattr(os, "sched_getaffinity"):
        return 0
    bound = len(os.sched_getaffinity(0))
    return bound if bound < (os.cpu_count() or 1) else 0
