"""`photoflux doctor`: checks what is installed and works; a new dependency gets its check here."""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

from photoflux.data.cache import ENVIRONMENT, cache_state
from photoflux.engines.flux.engine import FluxEngine
from photoflux.engines.flux.julia_found import programs
from photoflux.engines.keras.engine import why_unavailable
from photoflux.errors import FLUX_PROBLEMS, EngineError
from photoflux.model.settings import Settings
from photoflux.model.variants import variant
from photoflux.system import atomic
from photoflux.system.version import __version__

PACKAGES = ("juliacall", "juliapkg", "numpy", "pillow", "scikit-learn", "safetensors", "imagehash", "matplotlib")
KERAS_PACKAGES = ("keras", "tensorflow")
JULIA_PACKAGES = ("PhotoFlux", "Flux", "NNlib", "Optimisers", "Zygote", "PythonCall")
TRAINED, IMAGES, SIZE = "l2", 40, 16

# The packages that are loaded, with their versions and folders, and where Julia keeps things.
LOOK = """
function (names)
    packages = [id.name => (string(pkgversion(m)), something(pkgdir(m), "")) for (id, m) in Base.loaded_modules]
    rows = ["$name\\t$version\\t$folder" for (name, (version, folder)) in packages if name in split(names)]
    places = [joinpath(Sys.BINDIR, Base.julia_exename()), Base.active_project(), join(DEPOT_PATH, '\\t')]
    return join([places; rows], '\\n')
end
"""


def examine(say: Callable[[str], None], debug: bool = False) -> dict[str, Any]:
    """Look at this machine: Julia is started and a batch is trained with Flux, so that what is reported works.

    Parameters
    ----------
    say : callable
        Takes lines for the user.
    debug : bool
        Print all output of Julia on stderr where Flux fails.

    Returns
    -------
    dict
        ``photoflux``, ``python``, ``cores``; ``packages``, the version and folder of each Python package, or None;
        ``cache``: ``path`` (None without a home folder), ``writable``, ``problem`` (why not, or None), and ``named``,
        whether PHOTOFLUX_CACHE names it; ``julia_found``, every Julia program; ``flux``, with ``versions``,
        ``folders``, ``julia``, ``project``, ``depots`` and ``trained``, or with ``kind``
        (`photoflux.errors.FLUX_PROBLEMS`), ``missing`` (why, and what to do) and ``advice``; ``keras``, with
        ``versions`` or ``missing``; ``engine``, what ``"auto"`` takes, or None.
    """
    cache, problem = cache_state()
    report: dict[str, Any] = {
        "photoflux": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "cores": os.cpu_count(),
        "packages": {name: _installed(name) for name in PACKAGES + KERAS_PACKAGES},
        "cache": {
            "path": None if cache is None else str(cache),
            "writable": problem is None,
            "problem": problem,
            "named": bool(os.environ.get(ENVIRONMENT)),
        },
    }
    try:
        report["flux"] = _flux(say)
    except EngineError as error:
        if debug:
            traceback.print_exception(error)
        kind = getattr(error, "kind", "package")
        report["flux"] = {"kind": kind, "missing": str(error), "advice": getattr(error, "advice", "")}
    report["julia_found"] = [{"path": p.path, "where": p.where, "version": p.version} for p in programs()]
    missing = why_unavailable()
    if missing is None:
        there = {name: report["packages"][name] for name in KERAS_PACKAGES}
        report["keras"] = {"versions": {name: found["version"] for name, found in there.items() if found}}
    else:
        report["keras"] = {"missing": missing}
    # As `get_engine` chooses: Keras only where there is no Julia.
    if "versions" in report["flux"]:
        report["engine"] = "flux"
    else:
        keras = report["flux"]["kind"] == "no_julia" and missing is None
        report["engine"] = "keras" if keras else None
    return report


def _installed(name: str) -> dict[str, str] | None:
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:  # TensorFlow's CPU build goes by another name
        return None
    return {"version": found.version, "folder": str(found.locate_file(""))}


def _flux(say: Callable[[str], None]) -> dict[str, Any]:
    engine = FluxEngine(say)
    julia = engine.julia
    lines = str(julia.seval(LOOK)(" ".join(JULIA_PACKAGES))).splitlines()
    program, project, depots = lines[:3]
    packages = {name: (version, folder) for name, version, folder in (line.split("\t") for line in lines[3:])}
    versions = {name.lower(): packages[name][0] for name in JULIA_PACKAGES if name in packages}
    return {
        "versions": engine.versions() | versions,
        "folders": {name.lower(): packages[name][1] for name in JULIA_PACKAGES if name in packages},
        "julia": program,
        "project": project,
        "depots": depots.split("\t"),
        "trained": _train_a_batch(engine),
    }


def _train_a_batch(engine: FluxEngine) -> dict[str, Any]:
    """Train one batch of small random images, by the way that a fit goes."""
    from photoflux.data.sources.arrays import prepare_arrays

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (IMAGES, SIZE, SIZE, 3), np.uint8), np.arange(IMAGES) % 2
    chosen, losses, began = variant(TRAINED), [], time.perf_counter()
    try:
        with atomic.scratch("doctor") as folder:
            prepared = prepare_arrays(images, labels, folder / "prepared")

            def stop(progress: Any) -> bool:
                losses.append(progress.loss)
                return True

            engine.fit(chosen, prepared, Settings(1, 8, chosen.learning_rate), folder / "weights", on_batch=stop)
    except OSError as error:
        raise EngineError(f"No batch could be trained: {error}. TMPDIR names another temporary folder.") from error
    if len(losses) != 1 or not np.isfinite(losses[0]):
        raise EngineError(f"Flux loads, but one batch of {TRAINED} gave the loss {losses}.")
    return {"variant": TRAINED, "batches": 1, "seconds": round(time.perf_counter() - began, 2)}


def as_text(report: dict[str, Any]) -> str:
    """Return what `examine` found as lines of text."""
    packages = {name: found for name, found in report["packages"].items() if found}
    folders: dict[str, list[str]] = {}
    for name, found in packages.items():
        folders.setdefault(found["folder"], []).append(f"{name} {found['version']}")
    cache, flux, keras = report["cache"], report["flux"], report["keras"]
    writes = "can be written" if cache["writable"] else "cannot be written"
    other = ENVIRONMENT + (" names it" if cache["named"] else " names another")
    rows = [
        ("photoflux", f"{report['photoflux']} on Python {report['python']}, {report['cores']} cores"),
        ("python", report["executable"]),
        *(("packages", f"{', '.join(names)} ({folder})") for folder, names in folders.items()),
        ("cache", cache["problem"] if cache["path"] is None else f"{cache['path']} {writes} ({other})"),
    ]
    for found in report["julia_found"]:
        rows.append(("julia", f"{found['version'] or 'no version'} at {found['path']} ({found['where']})"))
    if not report["julia_found"] and "versions" not in flux:
        rows.append(("julia", "not on PATH, and none was downloaded"))
    if "versions" in flux:
        trained = f"trained one batch of {flux['trained']['variant']} in {flux['trained']['seconds']:.1f} s"
        rows += [
            ("flux", f"ready ({_listed(flux['versions'])}); {trained}"),
            ("  julia", flux["julia"]),
            ("  project", flux["project"]),
            ("  depot", ", ".join(flux["depots"])),
            *((f"  {name}", folder) for name, folder in flux["folders"].items() if name in ("photoflux", "flux")),
        ]
    else:
        rows.append(("flux", f"{flux['kind']}: {FLUX_PROBLEMS[flux['kind']]}"))
        rows += [("", line) for line in flux["missing"].splitlines()]
    rows.append(("keras", f"ready ({_listed(keras['versions'])})" if "versions" in keras else keras["missing"]))
    if report["engine"]:
        rows.append(("engine", f"auto takes {report['engine']}"))
    elif flux["kind"] != "no_julia" and "versions" in keras:
        rows.append(("engine", "auto takes none: Julia is there and Flux fails; --engine keras trains with Keras"))
    else:
        rows.append(("engine", "none is available"))
    return "\n".join(f"{name:<10}  {text}" for name, text in rows)


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
