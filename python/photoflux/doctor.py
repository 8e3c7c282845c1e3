"""What is installed, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from importlib import metadata
from typing import Any

from photoflux.engines.flux import FluxEngine
from photoflux.engines.keras import why_unavailable
from photoflux.errors import EngineError


def examine(say: Callable[[str], None]) -> dict[str, Any]:
    """Look at this machine; Julia is really started, so that what is reported works.

    Parameters
    ----------
    say : callable
        Takes lines for the user.

    Returns
    -------
    dict
        ``photoflux``, ``python``, ``cores``; ``julia_on_path``; ``flux`` and ``keras``, each with ``versions`` or with
        ``missing`` (why, and how to get it); ``engine``, what ``"auto"`` takes, or None.
    """
    report: dict[str, Any] = {
        "photoflux": metadata.version("photoflux"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "julia_on_path": os.environ.get("PYTHON_JULIACALL_EXE") or shutil.which("julia"),
    }
    try:
        report["flux"] = {"versions": FluxEngine(say).versions()}
    except EngineError as error:
        report["flux"] = {"missing": str(error)}
    missing = why_unavailable()
    if missing is None:
        versions = {name: metadata.version(name) for name in ("keras", "tensorflow") if _installed(name)}
        report["keras"] = {"versions": versions}
    else:
        report["keras"] = {"missing": missing}
    report["engine"] = next((name for name in ("flux", "keras") if "versions" in report[name]), None)
    return report


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:  # TensorFlow's CPU build goes by another name
        return False
    return True


def as_text(report: dict[str, Any]) -> str:
    """Return what `examine` found as lines for a person."""
    lines = [
        f"photoflux   {report['photoflux']} on Python {report['python']}, {report['cores']} cores",
        f"julia       {report['julia_on_path'] or 'not on PATH'}",
    ]
    for name in ("flux", "keras"):
        versions = report[name].get("versions", {})
        text = ", ".join(f"{key} {value}" for key, value in versions.items())
        lines.append(f"{name:<10}  " + (f"ready ({text})" if versions else f"missing: {report[name]['missing']}"))
    lines.append(f"engine      auto takes {report['engine']}" if report["engine"] else "engine      none can be had")
    return "\n".join(lines)
