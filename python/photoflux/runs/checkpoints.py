"""Finds the runs that are unfinished, and says what their checkpoints need; where these lie is changed here."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from photoflux.data.prepared import PreparedDataset
from photoflux.errors import RunError, SettingError
from photoflux.features import Backbone
from photoflux.model.layers import layers
from photoflux.model.variant import Variant
from photoflux.runs.folder import CHECKPOINTS
from photoflux.runs.progress import Display
from photoflux.runs.run import load_run
from photoflux.runs.transfer import TUNING, input_shape
from photoflux.system import atomic
from photoflux.system.json_file import read_object
from photoflux.system.names import as_json, printable

RUNS = Path("runs")
FIT = "fit.json"
_NAME = re.compile(r"epoch-(\d{6,9})-batch-(\d{6,9})\.safetensors")
# Weights, two moments, the last good and the best weights, of four bytes each, in each of the two that are kept and the
# one that is being written.
_BYTES = 4 * 5 * 3


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the checkpoints of the run in a folder, newest first."""
    return [path for _, path in sorted(_places(folder), reverse=True)]


def _places(folder: Path) -> Iterator[tuple[tuple[bool, int, int], Path]]:
    """Yield of each checkpoint whether it is of fine-tuning, which follows the head's fit; epoch, batch, file."""
    for tuning, place in ((False, folder / CHECKPOINTS), (True, folder / CHECKPOINTS / TUNING)):
        with suppress(OSError):
            for path in list(place.iterdir()):
                match = _NAME.fullmatch(path.name)
                if match is not None:
                    yield (tuning, int(match[1]), int(match[2])), path


def where_it_is(folder: Path) -> str:
    """Return how far the unfinished run in a folder has come, in words."""
    (tuning, epoch, batch), _ = max(_places(folder))
    where = f"epoch {epoch}, after batch {batch}" if batch else f"the beginning of epoch {epoch}"
    return f"{where} of fine-tuning" if tuning else where


def check_state(folder: Path, resume: bool) -> None:
    """Refuse to begin a fit where there is an unfinished one, or to resume one where there is none.

    Raises
    ------
    RunError
        If what is in the folder is not what `resume` says.
    """
    unfinished = bool(checkpoint_files(folder)) or begun_fit(folder) is not None
    if resume and not unfinished and not is_finished(folder):
        what = "was interrupted, and has no checkpoints" if (folder / "run.json").is_file() else "has no unfinished run"
        raise RunError(f"There is nothing to resume: {printable(folder)} {what}. Leave out `resume` to begin one.")
    if not resume and checkpoint_files(folder):
        raise RunError(
            f"{printable(folder)} has an unfinished run, which can go on from {where_it_is(folder)}. Resume it "
            f"(`--resume`, in Python `resume=True`), choose another folder with `out`, or remove "
            f"{printable(folder / CHECKPOINTS)} to begin again."
        )


def is_finished(folder: Path) -> bool:
    """Say whether the run in a folder has come to its end."""
    if checkpoint_files(folder) or not (folder / "run.json").is_file():
        return False
    return load_run(folder).ended != "interrupted"


def says_from_where(folder: Path, engine: str, display: Display) -> bool:
    """Say from where an unfinished run goes on, and return whether it has come to its first checkpoint.

    Raises
    ------
    RunError
        If another engine has fitted it.
    """
    begun = begun_fit(folder)
    if begun is not None and begun["engine"] != engine:
        raise RunError(
            f"The unfinished run {printable(folder)} is one of the engine {begun['engine']}, and this one is {engine}. "
            f"Give `engine` {begun['engine']!r}."
        )
    if not checkpoint_files(folder):
        display.say(f"The run in {printable(folder)} was ended before its first checkpoint: it begins again.")
        return False
    display.say(f"The run in {printable(folder)} goes on from {where_it_is(folder)}.")
    return True


def check_minutes(value: float) -> float:
    """Return the minutes between two checkpoints.

    Raises
    ------
    SettingError
        If they are no finite number, 0 or more.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise SettingError(f"`checkpoint_minutes` must be a finite number, 0 or more; received: {value!r}.")
    return float(value)


def newest_unfinished(variant: Variant, prepared: PreparedDataset) -> Path:
    """Return the folder under ``runs/`` in which a variant's fit to a dataset was worked on last, and is unfinished.

    Raises
    ------
    RunError
        If there is none.
    """
    found = []
    for folder in RUNS.iterdir() if RUNS.is_dir() else ():
        begun = begun_fit(folder)
        if begun is not None and (begun["variant"], begun["dataset"]) == (variant.name, prepared.fingerprint):
            newest = max(path.stat().st_mtime for path in (folder / CHECKPOINTS).iterdir())
            found.append((newest, folder))
    if not found:
        raise RunError(
            f"There is nothing to resume: {RUNS} has no unfinished run of {variant.name} on "
            f"{printable(prepared.name)}. Name its folder with `out`, or leave out `resume`."
        )
    return max(found)[1]


def begun_fit(folder: Path) -> dict[str, str] | None:
    """Return of the unfinished fit in a folder its ``variant``, the fingerprint of its ``dataset``, its ``engine``."""
    try:
        values = read_object(folder / CHECKPOINTS / FIT)
        return {name: str(values[name]) for name in ("variant", "dataset", "engine")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def begun(folder: Path, engine: str, variant: Variant, prepared: PreparedDataset) -> Iterator[Path]:
    """Make the folder of a fit's checkpoints and say there what is fitted; one without any is removed after an error.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    place = folder / CHECKPOINTS
    made = not folder.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
        about = {"variant": variant.name, "dataset": prepared.fingerprint, "engine": engine}
        atomic.write_text(place / FIT, as_json(about) + "\n")
        yield place
    except BaseException:
        if not checkpoint_files(folder):
            atomic.remove(place)
            if made:
                with suppress(OSError):
                    folder.rmdir()
        raise


def keep_in(folder: Path, temporary: Path) -> None:
    """Have the checkpoints of a run in the folder that is to replace it too: the same files, where the disk can."""
    if checkpoint_files(folder):
        shutil.copytree(folder / CHECKPOINTS, temporary / CHECKPOINTS, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        # Not atomic: into the temporary folder of the run.
        os.link(source, target)
    except OSError:
        # Not atomic: as above.
        shutil.copyfile(source, target)


def bytes_needed(variant: Variant, prepared: PreparedDataset, backbone: Backbone | None) -> int:
    """Return how much space the checkpoints of a fit need at most."""
    shape = input_shape(variant, prepared.shape, backbone)
    return _BYTES * sum(layer.parameters for layer in layers(variant, shape, len(prepared.classes)))


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk on which a folder is, or would be."""
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(place).free


def bytes_in_words(size: int) -> str:
    """Return a number of bytes in words.

    Examples
    --------
    >>> bytes_in_words(3_982_000_000), bytes_in_words(1_200_000), bytes_in_words(900)
    ('4.0 GB', '1.2 MB', '0.0 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
