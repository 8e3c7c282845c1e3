"""Connects to a cluster of dask.distributed and checks its workers; another kind of cluster would be joined here."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from photoflux.errors import ClusterError
from photoflux.system.version import __version__

P = ParamSpec("P")
T = TypeVar("T")

# Of a worker. Julia answers the thread that started it and no other, so all that is done for jobs is done in this one.
THREAD = ThreadPoolExecutor(1, thread_name_prefix="photoflux")
# Seconds to reach the scheduler, and to wait for a worker.
_TIMEOUT = 10


def connect(address: str) -> Any:
    """Return a client of a cluster, a ``distributed.Client``, to be closed.

    Parameters
    ----------
    address : str
        Of its scheduler, such as ``"tcp://10.0.0.1:8786"``.

    Raises
    ------
    ClusterError
        If dask is not installed, there is no scheduler, or no worker, or one has another PhotoFlux.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(
            f"A cluster needs dask.distributed, which cannot be imported ({error}). "
            "Install with: pip install 'photoflux[dask]'."
        ) from error
    try:
        make: Any = Client
        client = make(address, timeout=_TIMEOUT, set_as_default=False)
    # What is no address gives almost any error.
    except Exception as error:
        raise ClusterError(
            f"There is no dask scheduler at {address}: {_first_line(error)}. Start one with `dask scheduler`, and give "
            "the address that it prints, such as tcp://10.0.0.1:8786."
        ) from error
    try:
        _check_workers(client, address)
    except BaseException:
        client.close()
        raise
    return client


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_TIMEOUT)
    except TimeoutError as error:
        raise ClusterError(
            f"The dask scheduler at {address} has no workers. Start some with `dask worker {address} --nthreads 1`."
        ) from error

    # Sent whole, as a function within another is, so that it runs where there is no PhotoFlux too.
    def version() -> str:
        try:
            from photoflux.system.version import __version__ as found
        except ImportError:
            return "none"
        return found

    found = client.run(version, on_error="return")
    others = {worker: str(version) for worker, version in found.items() if version != __version__}
    if others:
        raise ClusterError(other_versions(__version__, others))


def other_versions(own: str, others: dict[str, str]) -> str:
    """Return the message for workers that have another PhotoFlux."""
    listed = ", ".join(f"{version} on {worker}" for worker, version in others.items())
    return f"The workers must have the PhotoFlux of this machine, {own}; found: {listed}. Install it on all of them."


def on_worker(function: Callable[Concatenate[Path, int, P], T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function in the thread of a worker that has the engines; it is called by a task in another thread.

    Its first arguments are a folder that the worker may write to, and how many threads the worker is granted.
    """
    from distributed import get_worker

    worker = get_worker()
    threads = worker.state.nthreads
    # Each worker's Julia would take all cores.
    if "PYTHON_JULIACALL_THREADS" not in os.environ and "JULIA_NUM_THREADS" not in os.environ:
        os.environ["PYTHON_JULIACALL_THREADS"] = str(threads)
    return THREAD.submit(function, Path(worker.local_directory), threads, *arguments, **named).result()


def submit(client: Any, function: Any, *arguments: Any) -> Any:
    """Have a worker call a function, which is not pure; returns the future."""
    with warnings.catch_warnings():
        # Archives' members can be large, and are sent once.
        warnings.filterwarnings("ignore", "Sending large graph")
        return client.submit(function, *arguments, pure=False)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
