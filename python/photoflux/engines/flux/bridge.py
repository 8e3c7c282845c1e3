"""Starts Julia in this process, once, on first use; settings of juliacall are changed here."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from photoflux.engines.flux.causes import kind_of, root_cause
from photoflux.engines.flux.julia_setup import environment, settle
from photoflux.engines.flux.problems import problem
from photoflux.model.variants import julia_package
from photoflux.system import atomic
from photoflux.system.signals import Ended, held, kept_from_julia
from photoflux.system.streams import stdout_to_stderr

# Read by juliacall when it is imported. A threaded Julia crashes without its handlers: its threads stop by a fault that
# it catches. Ctrl-C, and what else ends a process, is Python's nevertheless.
DEFAULTS = {"PYTHON_JULIACALL_HANDLE_SIGNALS": "yes"}
THREADS = re.compile(r"(auto|[1-9]\d*)(,(auto|\d+))?")

# Process and thread that have started Julia.
_owner: list[Any] = []

# In one piece, since each kind of call across the bridge takes a new process a second to compile.
MODULE = """
module PhotoFluxBridge
    let path = %s
        # Behind the active project, whose manifest says where Flux is.
        path in LOAD_PATH || insert!(LOAD_PATH, 2, path)
    end
    # A Julia that compiles the package says on stderr why it cannot, and this one only that it has failed.
    open(log -> redirect_stderr(() -> @eval(using PhotoFlux), log), %s, "w")
    using PythonCall
    # Where others have started Julia it sees Ctrl-C: as an exception, which a fit catches between two batches.
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
    FluxError
        If that is not possible; its kind is one of `photoflux.errors.FLUX_PROBLEMS`.
    """
    if "juliacall" not in sys.modules:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        _settle_threads()
        if "tensorflow" in sys.modules:  # of torch, juliacall warns itself
            warnings.warn(
                "tensorflow was imported before Julia was started; the two can crash in one process. "
                "Start a fit before you import tensorflow.",
                RuntimeWarning,
                stacklevel=2,
            )
        say("Starting Julia (the first time it also installs and compiles its packages, which takes minutes) …")
    check_caller()
    theirs, first = "juliacall" in sys.modules, not _package.cache_info().currsize
    if first:
        # Around the loading too: where Julia sends its stderr elsewhere and back, it moves descriptor 2.
        with stdout_to_stderr():
            _import_juliacall(say)
            # Whoever else has started it will have done so where a program begins.
            _owner[:] = os.getpid(), threading.main_thread() if theirs else threading.current_thread()
            with held():  # an exception in Python code that Julia calls while it loads would be lost
                _package()
    module = _package()
    if theirs and first:
        _warn_of_options(module)
    return module


def check_caller() -> None:
    """Refuse a call from another thread, or a forked process, than the one that has started Julia.

    There it would wait for ever: Julia's collector of garbage waits for a thread that is not Julia's, and a forked
    process has none of the threads that Julia waits for.

    Raises
    ------
    FluxError
        Of the kind ``"thread"``.
    """
    if not _owner:
        return
    process, thread = _owner
    if process != os.getpid():
        raise problem("thread", f"Julia runs in the process {process}, from which this one, {os.getpid()}, was forked")
    if thread is not threading.current_thread():
        raise problem(
            "thread",
            f"Julia was started by the thread {thread.name} and answers no other; this is "
            f"{threading.current_thread().name}",
        )


def _settle_threads() -> None:
    """Let Julia use all cores where the user has not said how many threads it is to have."""
    for name in ("PYTHON_JULIACALL_THREADS", "JULIA_NUM_THREADS"):
        given = os.environ.get(name, "")
        if given and not THREADS.fullmatch(given):  # Julia would end the process
            raise problem("settings", f"{name} must be auto or a number of threads; it is {given!r}.", "Correct it.")
        if given:
            return
    os.environ["PYTHON_JULIACALL_THREADS"] = "auto"


def _import_juliacall(say: Callable[[str], None]) -> None:
    if "juliacall" in sys.modules:
        return
    with environment(settle(say)):
        try:
            with kept_from_julia():
                import juliacall
        except (KeyboardInterrupt, Ended):  # juliacall itself may raise a SystemExit
            raise
        except ModuleNotFoundError as error:
            raise problem("juliacall", f"Python's package {error.name} is not installed") from error
        except ValueError as error:
            raise problem("settings", f"juliacall refuses a setting: {error}") from error
        except BaseException as error:
            # Julia itself has said more on stderr.
            line = traceback.extract_tb(error.__traceback__)[-1].line
            text = str(error).strip() or f"{type(error).__name__}, {line}"
            raise problem("juliacall", f"Julia could not be started in this process: {text}") from error
    assert juliacall.CONFIG


@cache
def _package() -> Any:
    import juliacall

    if not hasattr(juliacall, "Main"):
        raise problem("settings", "juliacall was imported without a Julia: PYTHON_JULIACALL_INIT is no")
    path = julia_package()
    with _log() as log:
        try:
            module = juliacall.Main.seval(MODULE % (_literal(path), _literal(log)))
        except juliacall.JuliaError as error:
            said = juliacall.Base.sprint(juliacall.Base.showerror, error.exception)
            output = f"{log.read_text(encoding='utf-8', errors='replace')}\nERROR: {said}"
            kind = "not_writable" if kind_of(output) == "not_writable" else "package"
            cause = root_cause(output)
            failure = problem(kind, f"Julia started, but its package PhotoFlux could not be loaded: {cause}")
            failure.add_note(output)  # for `--debug`
            raise failure from error
        _repeat(log)
    loaded = Path(str(module.FOLDER)).resolve()
    if loaded != path.resolve():
        raise problem(
            "package",
            f"The active Julia project has another PhotoFlux, {loaded}, than the one of this Python package, {path}",
            "Remove it there: the package comes with its own.",
        )
    return module


def _repeat(log: Path) -> None:
    """Write on stderr what Julia said while it loaded the package; that it cannot be shown is no reason to fail."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
            sys.stderr.flush()


def _literal(path: Path) -> str:
    """Return a path as a Julia string."""
    return json.dumps(str(path), ensure_ascii=False).replace("$", "\\$")


@contextmanager
def _log() -> Iterator[Path]:
    """Yield an empty file, or the null device where there is no place for one."""
    with ExitStack() as stack:
        try:
            log = stack.enter_context(atomic.scratch("log")) / "log"
            # Not atomic: into a scratch folder.
            log.touch()
        except OSError:
            log = Path(os.devnull)
        yield log


def _warn_of_options(module: Any) -> None:
    """Say what a Julia that was started before us was started without."""
    threads = int(module.Threads.nthreads())
    lacks = []
    if threads == 1 and (os.cpu_count() or 1) > 1:
        lacks.append("with one thread, so that a fit uses one core (PYTHON_JULIACALL_THREADS=auto takes all)")
    if threads > 1 and not module.seval("Base.JLOptions().handle_signals != 0"):
        lacks.append(
            "with several threads and without its handling of signals, so that the process can crash, at Ctrl-C above "
            "all (PYTHON_JULIACALL_HANDLE_SIGNALS=yes)"
        )
    if lacks:
        warnings.warn(
            f"Julia was started before PhotoFlux, {' and '.join(lacks)}. Set the variable before juliacall is "
            "imported, or let PhotoFlux start Julia.",
            RuntimeWarning,
            stacklevel=3,
        )
