"""Starts ONNX Runtime, or says what to install; what a session is given is set here."""

from __future__ import annotations

import importlib.util
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


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """Return an ONNX Runtime session of a model file, on the CPU, with the runtime's own choice of threads.

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
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # Its exceptions have no base class of their own.
    except Exception as error:
        raise BackboneError(f"{printable(path)} is no ONNX model that ONNX Runtime can run: {error}") from error
