"""The user's cache of prepared datasets, each under a fingerprint of its source."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from photoflux.data.prepared import FORMAT, PreparedDataset, open_prepared
from photoflux.errors import DataError

ENVIRONMENT = "PHOTOFLUX_CACHE"


def cache_folder() -> Path:
    """Return PhotoFlux's cache folder: what the environment variable PHOTOFLUX_CACHE names, or the system's place."""
    import platformdirs

    named = os.environ.get(ENVIRONMENT)
    return Path(named).expanduser() if named else platformdirs.user_cache_path("photoflux")


def writable(folder: Path) -> bool:
    """Say whether files can be made in a folder, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def cached(name: str, key: Any, make: Callable[[Path], PreparedDataset]) -> PreparedDataset:
    """Return the prepared dataset of a key from the cache, made now if it is not there or is damaged.

    Parameters
    ----------
    name : str
        Starts the name of its folder, for people who look into the cache.
    key : JSON-ready value
        Everything that the dataset depends on: the files of the source, and the settings.
    make : callable
        Makes the dataset at the path that it is given.
    """
    text = json.dumps([FORMAT, key], sort_keys=True)
    digest = hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "dataset"
    path = cache_folder() / "prepared" / f"{readable}-{digest[:20]}"
    if path.exists():
        try:
            return open_prepared(path)
        except DataError:
            # The cache is ours alone, so a damaged entry is not somebody's data.
            shutil.rmtree(path, ignore_errors=True)
    return make(path)
