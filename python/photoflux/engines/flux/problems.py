"""The errors that explain why Flux cannot be used; their advice is written here."""

from __future__ import annotations

from photoflux.engines.flux.julia_found import LEAST_TEXT, fits, programs, wanted
from photoflux.errors import FluxError

HOW_TO_GET_JULIA = (
    f"Julia {LEAST_TEXT} is needed. With a network connection it is downloaded on first use; otherwise install it "
    "from https://julialang.org/downloads and put `julia` on PATH (`photoflux doctor` shows what is found), or train "
    'with `engine="keras"` (pip install "photoflux[keras]").'
)
_OR_KERAS = '`engine="keras"` trains without Julia.'
ADVICE = {
    "settings": f"Correct it, or unset it so that Julia is found or downloaded. {_OR_KERAS}",
    "juliacall": "`pip install --upgrade --force-reinstall photoflux` installs what fits together. " + _OR_KERAS,
    "no_julia": HOW_TO_GET_JULIA,
    "julia_version": (
        "Install one that fits (https://julialang.org/downloads) and put it on PATH, or name it with "
        f"PYTHON_JULIAPKG_EXE; with a network connection one is downloaded. {_OR_KERAS}"
    ),
    "network": (
        "Start once with a network connection (behind a proxy: HTTPS_PROXY; from a mirror: JULIA_PKG_SERVER). If the "
        "packages are installed already, PYTHON_JULIAPKG_OFFLINE=yes uses them as they are. " + _OR_KERAS
    ),
    "not_writable": (
        "Make it writable, or name folders that are: JULIA_DEPOT_PATH for Julia's packages (otherwise ~/.julia), "
        "PYTHON_JULIAPKG_PROJECT for its project (otherwise in the Python environment, or in the cache), "
        f"PHOTOFLUX_CACHE for our cache. {_OR_KERAS}"
    ),
    "thread": (
        "Call PhotoFlux from the thread that called it first, one call after another; for several at once start "
        'processes, with multiprocessing.get_context("spawn").'
    ),
    "package": "`photoflux doctor --debug` shows all that Julia said. " + _OR_KERAS,
}


def problem(kind: str, message: str, advice: str | None = None) -> FluxError:
    """Return the error of a kind of `photoflux.errors.FLUX_PROBLEMS`, with that kind's advice or the one given."""
    message = message if message[-1] in ".!?…" else f"{message}."
    return FluxError(message, kind, ADVICE[kind] if advice is None else advice)


def not_installed(kind: str, cause: str) -> FluxError:
    """Return the error for a Julia, or packages, that could not be found or installed.

    Parameters
    ----------
    kind : str
        What the attempt failed for: ``"network"``, ``"not_writable"``, ``"package"`` or ``"other"``.
    cause : str
        In words.

    Returns
    -------
    FluxError
        ``"no_julia"`` where there is none at all, whatever the reason; ``"julia_version"`` where
        there is none that fits; else `kind`.
    """
    found = programs()
    if not found:
        return problem("no_julia", f"There is no Julia on this machine, and none could be installed: {cause}")
    # juliapkg takes one that is named by a setting as it is.
    taken = [julia for julia in found if julia.version and fits(julia.version)]
    if not taken:
        there = "; ".join(map(str, found))
        return problem(
            "julia_version",
            f"No Julia that fits is on this machine: found {there}; needed {wanted()}. None was downloaded: {cause}",
        )
    lacks = {"network": "its packages could not be downloaded", "not_writable": "what it needs cannot be written"}
    what = lacks.get(kind, "its packages could not be installed")
    return problem(kind if kind in lacks else "package", f"{taken[0]} is there, but {what}: {cause}")
