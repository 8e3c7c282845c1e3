"""Starts Julia in this process, once, on first use; nothing else happens here."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from photoflux.errors import EngineError
from photoflux.variants import julia_package

HOW_TO_GET_JULIA = (
    "Julia 1.10 or later is needed. With a network connection it is downloaded on first use; otherwise install it "
    "from https://julialang.org/downloads and put `julia` on PATH (`photoflux doctor` shows what is found), or train "
    'with `engine="keras"` (pip install "photoflux[keras]").'
)
# Read by juliacall when it is imported. Julia must see Ctrl-C, on which a threaded Julia crashes otherwise, and use all
# cores.
DEFAULTS = {"PYTHON_JULIACALL_HANDLE_SIGNALS": "yes", "PYTHON_JULIACALL_THREADS": "auto"}

# In one piece, since each kind of call across the bridge takes a new process a second to compile.
MODULE = """
module PhotoFluxBridge
    let path = %s
        # Behind the active project, whose manifest says where Flux is.
        path in LOAD_PATH || insert!(LOAD_PATH, 2, path)
    end
    using PhotoFlux, PythonCall
    # Julia sees Ctrl-C from now on: as an exception, which a fit catches between two batches, not as the end.
    Base.exit_on_sigint(false)
    const FOLDER = pkgdir(PhotoFlux)
    # A Python function as one that gives Julia values.
    called(f) = (values...) -> pyconvert(Any, f(values...))
end
"""


def start(say: Callable[[str], None]) -> Any:
    """Start Julia, if it does not run yet, and load the package PhotoFlux.

    Parameters
    ----------
    say : callable
        Takes the line that tells the user what is happening.

    Returns
    -------
    juliacall.ModuleValue
        A module of our own in which PhotoFlux and PythonCall are loaded.

    Raises
    ------
    EngineError
        If there is no Julia and none can be downloaded, or the package cannot be loaded.
    """
    if "juliacall" not in sys.modules:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        if "tensorflow" in sys.modules:  # of torch, juliacall warns itself
            warnings.warn(
                "tensorflow was imported before Julia was started; the two can crash in one process. "
                "Start a fit before you import tensorflow.",
                RuntimeWarning,
                stacklevel=2,
            )
        say("Starting Julia (the first time it also installs and compiles its packages, which takes minutes) …")
    return _load()


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Keep stdout for results: juliapkg, and the Julia that it runs to install packages, print to it."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@cache
def _load() -> Any:
    try:
        with _stdout_to_stderr():
            import juliacall
    except BaseException as error:  # juliapkg reports some failures by SystemExit
        if isinstance(error, KeyboardInterrupt):
            raise
        reason = str(error).strip() or type(error).__name__
        raise EngineError(f"Julia could not be started: {reason}. {HOW_TO_GET_JULIA}") from error
    try:
        path = json.dumps(str(julia_package()), ensure_ascii=False).replace("$", "\\$")
        module = juliacall.Main.seval(MODULE % path)
        loaded = Path(str(module.FOLDER)).resolve()
    except juliacall.JuliaError as error:
        raise EngineError(f"Julia started, but its package PhotoFlux could not be loaded: {error}") from error
    if loaded != julia_package().resolve():
        raise EngineError(
            f"The active Julia project has another PhotoFlux, {loaded}, than the one of this Python package, "
            f"{julia_package()}. Remove it there: the package comes with its own."
        )
    return module
