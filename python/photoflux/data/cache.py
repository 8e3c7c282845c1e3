"""The user's cache of prepared datasets, keyed by a fingerprint of the source; key and place are set here."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from photoflux.data.prepared import FORMAT, PreparedDataset, open_prepared
from photoflux.errors import DataError
from photoflux.system import atomic, log
from photoflux.system.claims import claim
from photoflux.system.names import user_path

ENVIRONMENT = "PHOTOFLUX_CACHE"


def cache_folder() -> Path:
    """Return PhotoFlux's cache folder: what the environment variable PHOTOFLUX_CACHE names, or the system's place.

    Raises
    ------
    DataError
        If there is no home folder that it could be in.
    """
    import platformdirs

    named = os.environ.get(ENVIRONMENT)
    try:
        folder = user_path(named) if named else platformdirs.user_cache_path("photoflux")
    except RuntimeError:  # of newer platformdirs; earlier ones leave the ~
        folder = Path("~")
    if str(folder).startswith("~"):
        what = f"{ENVIRONMENT} is {named}, and" if named else "The cache is in the home folder, and"
        raise DataError(f"{what} there is no such home folder. {_advice()}")
    return folder


def cache_state() -> tuple[Path | None, str | None]:
    """Return the cache folder, and what keeps it from being used: None where files can be made in it.

    The folder is None where it cannot be known, if there is no home folder.
    """
    try:
        folder = cache_folder()
    except DataError as error:
        return None, str(error)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder, None
    except OSError as error:
        return folder, str(unwritable_cache(folder, error))


def unwritable_cache(folder: Path, error: OSError) -> DataError:
    """Return the error for a cache that cannot be written."""
    return DataError(f"The cache {folder} could not be written: {error.strerror or error}. {_advice()}")


def advice_for(path: Path) -> str:
    """Return what to do where a file or folder cannot be written: in the cache, another cache helps."""
    try:
        cached = path.is_relative_to(os.path.realpath(cache_folder()))
    except DataError:
        cached = False
    return f"Free some space. {_advice()}" if cached else "Free some space or choose another destination."


def _advice() -> str:
    return f"Set the environment variable {ENVIRONMENT} to a folder that can be written."


def writable(folder: Path) -> bool:
    """Say whether files can be made in a folder, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def digest_of(lines: Iterable[object]) -> str:
    """Return the SHA-256 of what is printed of some values, such as the files that a scan found."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(repr(line).encode("utf-8", errors="surrogateescape"))
    return digest.hexdigest()


Place = tuple[str | Path, PreparedDataset | None]


@contextmanager
def place_of(dest: str | Path | None, name: str, key: Callable[[], Any]) -> Iterator[Place]:
    """Give the place of a prepared dataset, and the dataset if the cache has it; if not, the block is to make it there.

    Of two processes that need the same dataset one prepares it, and the other waits.

    Parameters
    ----------
    dest : str or Path, optional
        Where the user wants it, made in any case; None: the cache.
    name : str
        Starts the name of its folder in the cache, for people who look there.
    key : callable
        Returns everything that the dataset depends on, ready for JSON: the files of the source, and the settings.
    """
    if dest is not None:
        yield dest, None
        return
    text = json.dumps([FORMAT, key()], sort_keys=True)
    digest = hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "dataset"
    path = cache_folder() / "prepared" / f"{readable}-{digest[:20]}"
    found = _opened(path)
    with ExitStack() as stack:
        if found is None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(claim(path, wait=math.inf, on_wait=_say_waiting))
            except OSError as error:
                raise unwritable_cache(path.parent, error) from error
            found = _opened(path)
        if found is None:
            # The cache is ours alone, so a damaged entry can be deleted: it is nobody's data.
            atomic.remove(path)
        yield path, found


def _opened(path: Path) -> PreparedDataset | None:
    if not path.exists():
        return None
    try:
        return open_prepared(path)
    except DataError:
        return None


def _say_waiting(holder: str) -> None:
    log.warn(f"The same data is being prepared by {holder}. Waiting until it is done …")
