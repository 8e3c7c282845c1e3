"""Writes, replaces and amends the folder of a run, atomically and by one process at a time."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from photoflux.data.labelled import LABELS
from photoflux.errors import RunError
from photoflux.runs.run import COLUMNS, Run
from photoflux.system import atomic, log
from photoflux.system.claims import Busy, claim
from photoflux.system.names import as_json, file_stem

CHECKPOINTS = "checkpoints"  # in a run's folder while it is unfinished
AMEND_SECONDS = 5.0  # another process that changes the same run needs less


@contextmanager
def claimed(path: Path) -> Iterator[Path]:
    """Claim the folder of a run during the block, so that no other fit writes to it.

    Raises
    ------
    RunError
        If another process has it (the message says which, and since when), or it must not or cannot be written.
    """
    check_destination(path)
    with claimed_out(path, unwritable):
        check_destination(path)
        yield path


@contextmanager
def claimed_out(path: Path, unusable: Callable[[Path, OSError], RunError]) -> Iterator[None]:
    """Claim a folder, the `out` of a command, during the block.

    Raises
    ------
    RunError
        If another process has it (the message says which, and since when), or what `unusable` returns if the claim
        cannot be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(claim(path))
        except Busy as busy:
            raise RunError(
                f"`out` {path} is being written by {busy}. Wait until that is done, or choose another folder."
            ) from None
        except OSError as error:
            raise unusable(path, error) from error
        yield


@contextmanager
def claimed_new(title: str) -> Iterator[Path]:
    """Claim a folder under ``runs/`` that does not exist yet, named after a title and the time; see `claimed`."""
    stem = f"{file_stem(title)}-{time.strftime('%Y%m%d-%H%M%S')}"
    for name in [stem] + [f"{stem}-{i}" for i in range(2, 1000)]:
        path = Path("runs") / name
        with ExitStack() as stack:
            try:
                stack.enter_context(claim(path))
            except Busy:
                continue
            except OSError as error:
                raise unwritable(path, error) from error
            # Looked at under the claim: another fit may have had it until now.
            if not os.path.lexists(path):
                yield path
                return
    raise RunError(f"There are too many runs called {stem}. Choose a folder with `out`.")


def unwritable(path: Path, error: OSError, advice: str = "") -> RunError:
    """Return the error for a run that cannot be written."""
    return RunError(
        f"The run could not be written to {path}: {error.strerror or error}. Free space or choose another folder "
        f"with `out`; what was there before is unchanged. {advice}".rstrip()
    )


def check_destination(path: Path) -> None:
    """Refuse a folder to which a run must not be written, before anything is trained.

    Raises
    ------
    RunError
        If `path` is a file, or a folder with other content.
    """
    if path.is_dir() and ((path / "run.json").is_file() or {file.name for file in path.iterdir()} <= {CHECKPOINTS}):
        return
    if path.exists() or path.is_symlink():
        kind = "a folder that is not a run (it has no run.json)" if path.is_dir() else "a file"
        raise RunError(f"`out` must be a new folder or an earlier run; {path} is {kind}. Choose another.")


@contextmanager
def writing(path: Path, *, rescue: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `path` that replaces it when the block ends without an error.

    An earlier run at `path` stays as it was until then, and for good if the block fails or the disk is full. A link
    stays a link.

    Parameters
    ----------
    path : Path
        The run's folder.
    rescue : bool
        Whether weights in the temporary folder are moved, if the block fails, to the cache; the message says
        where they are.

    Raises
    ------
    RunError
        If the folder cannot be made or written, or another process has it.
    """
    with claimed(path):
        place = Path(os.path.realpath(path))
        temporary = atomic.sibling(place)
        try:
            temporary.mkdir(parents=True)
            yield temporary
            if (place / LABELS).is_file():
                # What a person has labelled is not the earlier run's alone.
                shutil.copyfile(place / LABELS, temporary / LABELS)
            atomic.install(temporary, place)
        except BaseException as error:
            kept = _rescued(temporary / "weights.safetensors", path) if rescue else None
            advice = f"The weights are kept in {kept}; `photoflux train … --initial` starts from such a file."
            if isinstance(error, OSError):
                raise unwritable(path, error, advice if kept else "") from error
            if kept:
                log.warn(advice)
            raise
        finally:
            atomic.remove(temporary)


def _rescued(weights: Path, path: Path) -> Path | None:
    """Move the weights of a run that cannot be put in its place `path` into the cache, and return the file.

    The cache may be on another disk than the run. None if there are none, or they could not be moved.
    """
    from photoflux.data.cache import cache_folder

    if not weights.is_file():
        return None
    try:
        folder = cache_folder() / "rescued" / f"{path.name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        folder.mkdir(parents=True)
        # Not atomic: where there is no other way out, half a file, which its reader refuses, is as good as none.
        return Path(shutil.move(weights, folder))
    except Exception:
        return None


def write_description(temporary: Path, run: Run) -> None:
    """Write ``run.json`` and ``history.csv`` into the temporary folder of `writing`."""
    with (temporary / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(asdict(row) for row in run.history)
    saved = replace(run, created=datetime.now(UTC).isoformat(timespec="seconds"))
    (temporary / "run.json").write_text(_text(saved.as_dict()), encoding="utf-8")


def _text(values: dict[str, Any]) -> str:
    return as_json(values, indent=2) + "\n"


def amend(run: Run, **values: Any) -> Run:
    """Change entries of a run's ``run.json`` and return the run with them; no other file is touched.

    The file is written under a temporary name and renamed, and is as it was if that fails.

    Parameters
    ----------
    run : Run
        The run.
    **values
        Attributes of `Run` of the same name.

    Raises
    ------
    RunError
        If the file cannot be read or written.
    """
    path, amended = run.path / "run.json", replace(run, **values)
    entries = {name: value for name, value in amended.as_dict().items() if name in values}
    with ExitStack() as stack:
        try:
            stack.enter_context(claim(run.path, wait=AMEND_SECONDS))
        except Busy as busy:
            raise RunError(
                f"{path} could not be changed: the run is being written by {busy}. It is as it was."
            ) from None
        except OSError:
            pass  # where no claim can be written beside a run, no fit can replace it
        try:
            atomic.write_text(path, _text(json.loads(path.read_text(encoding="utf-8")) | entries))
        except (OSError, ValueError) as error:
            raise RunError(f"{path} could not be changed: {error}. It is as it was.") from error
    return amended
