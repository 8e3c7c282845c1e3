"""Has fits of a comparison made by the workers of a cluster: what they are told and what they give back is set here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.comparison.fits import Fit, fit_all, kept_run, line_of
from photoflux.comparison.holdout import Holdout
from photoflux.data.prepared import PreparedDataset, open_prepared
from photoflux.engines import get_engine
from photoflux.engines.base import Engine
from photoflux.engines.device import device_of
from photoflux.errors import ClusterError, DataError, PhotoFluxError
from photoflux.features import backbone_from
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.runs.folder import writing
from photoflux.runs.progress import Display
from photoflux.runs.run import load_run
from photoflux.runs.transfer import TransferEngine
from photoflux.system import atomic
from photoflux.system.cluster import connect, on_worker, submit
from photoflux.system.names import printable

_SCORES, _RUNS = "scores", "runs"


@dataclass(frozen=True)
class Task:
    """A fit as a worker is told of it; datasets by their folders, which the workers see too."""

    variant: Variant
    settings: Settings
    data: tuple[Path, str]  # folder and fingerprint
    engine: str
    device: str
    backbone: dict[str, Any] | None
    views: int
    holdout: tuple[Path, str, np.ndarray] | None  # and the positions of the images that are scored


def task_of(fit: Fit, device: str = "cpu") -> Task:
    """Return what a worker is told of a fit."""
    second, engine = fit.holdout, fit.engine
    transfer = engine if isinstance(engine, TransferEngine) else None
    return Task(
        fit.variant,
        fit.settings,
        _place_of(fit.data),
        engine.name,
        device,
        None if transfer is None else transfer.backbone.as_dict(),
        0 if transfer is None else transfer.views,
        None if second is None else (*_place_of(second.prepared), second.chosen),
    )


def _place_of(prepared: PreparedDataset) -> tuple[Path, str]:
    return prepared.path.resolve(), prepared.fingerprint


def fit_there(task: Task) -> dict[str, bytes]:
    """Make a fit in a worker process; return the files of a comparison's folder that it adds."""
    return on_worker(_fit, task)


def _fit(folder: Path, _: int, task: Task) -> dict[str, bytes]:
    data, second = _opened(*task.data), task.holdout
    holdout = None if second is None else Holdout(_opened(*second[:2]), second[2])
    with atomic.scratch("fit", folder) as place, Display(False) as display:
        engine = _engine(task.engine, task.device)
        if task.backbone is not None:
            engine = TransferEngine(engine, backbone_from(task.backbone), display, task.views)
        (place / _RUNS).mkdir()
        list(fit_all([Fit(task.variant, task.settings, data, engine, holdout)], place, display))
        return {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()}


@cache
def _engine(name: str, device: str) -> Engine:
    return get_engine(name, lambda _: None, device_of(device))


def _opened(path: Path, fingerprint: str) -> PreparedDataset:
    try:
        found = open_prepared(path)
    except DataError as error:
        raise ClusterError(
            f"The workers do not see the prepared dataset {printable(path)}: {error} Prepare it with `photoflux "
            "prepare` in a folder that all machines have at the same path, and compare on that."
        ) from None
    if found.fingerprint != fingerprint:
        raise ClusterError(f"The workers have another prepared dataset at {printable(path)}, of other images.")
    return found


def fit_on_cluster(fits: Sequence[Fit], folder: Path, address: str, display: Display, device: str = "cpu") -> None:
    """Have the fits that are not in a comparison's folder made by a cluster; each is put there when it is done.

    Raises
    ------
    ClusterError
        If the cluster cannot be used, or ends; the fits that are done are kept.
    RunError
        If the folder holds a fit of other settings, or cannot be written.
    """
    import distributed

    missing = [fit for fit in fits if kept_run(fit, folder / _RUNS / fit.name) is None]
    if not missing:
        return
    client = connect(address)
    as_completed: Callable[..., Any] = distributed.as_completed
    try:
        futures = {submit(client, fit_there, task_of(fit, device)): fit for fit in missing}
        try:
            with client.as_current():
                for done, future in enumerate(as_completed(futures)):
                    display.step(done, len(missing), "Fits")
                    _put(futures[future], _files_of(futures[future], future, address), folder, display)
        finally:
            client.cancel(list(futures), force=True)
    finally:
        client.close()


def _files_of(fit: Fit, future: Any, address: str) -> dict[str, bytes]:
    from distributed import KilledWorker

    if future.status == "finished":
        files: dict[str, bytes] = future.result()
        return files
    error = future.exception() if future.status == "error" else None
    if isinstance(error, PhotoFluxError):
        raise error
    if isinstance(error, KilledWorker):
        raise ClusterError(
            f"{fit.name} ended the workers that made it, {error.allowed_failures + 1} times, perhaps because memory "
            "ran out. The fits that are done are kept."
        )
    if error is not None:
        raise ClusterError(f"A worker failed at {fit.name}: {type(error).__name__}: {error}") from error
    raise ClusterError(f"The dask scheduler at {address} does not answer any more. The same call goes on from here.")


def _put(fit: Fit, files: dict[str, bytes], folder: Path, display: Display) -> None:
    path = folder / _RUNS / fit.name
    inside = f"{_RUNS}/{fit.name}/"
    (folder / _SCORES).mkdir(exist_ok=True)
    # First the scores: a run that is there is taken for complete.
    scores = f"{_SCORES}/{fit.name}.safetensors"
    with atomic.writing_file(folder / scores) as temporary:
        temporary.write_bytes(files[scores])
    with writing(path) as temporary:
        for name, data in files.items():
            if name.startswith(inside):
                (temporary / name.removeprefix(inside)).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name.removeprefix(inside)).write_bytes(data)
    display.say(line_of(fit, load_run(path)))
