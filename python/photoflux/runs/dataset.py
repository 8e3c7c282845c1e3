"""Opens the prepared dataset of a run, or prepares it again from its source."""

from __future__ import annotations

from typing import Any

from photoflux.data.preparation import prepare_again
from photoflux.data.prepared import PreparedDataset, open_prepared
from photoflux.errors import DataError
from photoflux.runs.progress import Display
from photoflux.runs.run import Run
from photoflux.system.names import printable


class DatasetChangedError(DataError):
    """There is a dataset, or a source, but no longer the one that the run was trained on."""


def dataset_of(run: Run, display: Display) -> PreparedDataset:
    """Return the prepared dataset that a run was trained on, prepared again if it is gone.

    Whatever is returned has the run's fingerprint: the same pixels, labels and split.

    Parameters
    ----------
    run : Run
        The run.
    display : Display
        Says that and from what it is prepared again, and shows the progress.

    Raises
    ------
    DataError
        If it is gone, or is another, and cannot be prepared again; the message says why and what can be done.
    """
    path, source = run.data.path, run.data.made_from
    if path is None and source is None:
        raise DataError(
            f"The run {printable(run.path)} does not say where its prepared dataset is. Give the data to evaluate it "
            "on, or train with `photoflux train`."
        )
    changed = False
    gone = "Its prepared dataset was in memory only"
    if path is not None:
        try:
            prepared = open_prepared(path)
        except DataError:
            gone = f"The prepared dataset of the run {printable(run.path)} is not usable at {printable(path)} any more"
        else:
            if prepared.fingerprint == run.data.fingerprint:
                return prepared
            changed = True
            gone = (
                f"The dataset {printable(path)} is no longer the one that the run {printable(run.path)} was trained on "
                "(its fingerprint is another)"
            )
    if source is None:
        raise _error(changed)(
            f"{gone}, and the run does not say what it was made from. Prepare that one again and give it as the data, "
            "or train again."
        )
    name = _name(source)
    display.say(f"{gone}. It is prepared again from {name}, with the seed {source.get('seed')} of its split.")
    try:
        prepared = prepare_again(source, display.step)
    except DataError as error:
        raise _error(changed)(f"{gone}, and it cannot be prepared again from {name}. {error}") from error
    if prepared.fingerprint != run.data.fingerprint:
        raise DatasetChangedError(
            f"{gone}, and {name} is no longer what the run was trained on: prepared again with the same settings it "
            f"has another fingerprint, with {len(prepared)} images where there were {run.data.images or '?'}. "
            "Images were added, removed or changed since. `photoflux evaluate RUN --data FOLDER` scores those that the "
            "run has not seen; or train again."
        )
    return prepared


def _error(changed: bool) -> type[DataError]:
    return DatasetChangedError if changed else DataError


def _name(source: dict[str, Any]) -> str:
    """Return how messages call a source."""
    return printable(source.get("path") or str(source.get("kind")))
