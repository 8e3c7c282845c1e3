"""Downloads one file: resumes after a cut, verifies the checksum and renames the complete file."""

from __future__ import annotations

import hashlib
import http.client
import math
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from photoflux.data.cache import advice_for
from photoflux.data.checks import OnProgress
from photoflux.errors import DataError
from photoflux.system import log
from photoflux.system.claims import claim

_BLOCK = 1 << 18
_TIMEOUT = 30


def download(url: str, path: Path, *, md5: str, instead: str, on_progress: OnProgress | None = None) -> Path:
    """Download a file unless it is there already.

    The bytes go to ``path + ".part"``, which a later call continues; a file whose md5 is wrong is deleted.

    Parameters
    ----------
    url : str
        An http or https address.
    path : Path
        Where the file goes.
    md5 : str
        What its md5 must be.
    instead : str
        What to do without a network, for the error message.
    on_progress : callable, optional
        Called with (bytes done, bytes in all, what is being done), if the server says how many there are.

    Raises
    ------
    DataError
        If it cannot be downloaded, or is not the file that was expected.
    """
    if path.is_file() and file_md5(path) == md5:
        return path
    part = path.with_name(path.name + ".part")
    try:
        # Of two processes one downloads and the other waits: both would continue the same partial file.
        with claim(path, wait=math.inf, on_wait=_say_waiting):
            if path.is_file() and file_md5(path) == md5:
                return path
            resumed = True
            while resumed:
                # A partial file of another version is worth a second try, from the start.
                resumed = part.exists()
                _fetch(url, part, instead, on_progress)
                found = file_md5(part)
                if found == md5:
                    part.replace(path)
                    return path
                part.unlink()
    except OSError as error:
        raise DataError(f"{path} could not be written: {error.strerror or error}. {advice_for(path)}") from error
    raise DataError(f"{url} is not the file that was expected: its md5 must be {md5}; found {found}. {instead}")


def _say_waiting(holder: str) -> None:
    log.warn(f"The same file is being downloaded by {holder}. Waiting until it is done …")


def file_md5(path: Path) -> str:
    """Return the md5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _fetch(url: str, part: Path, instead: str, on_progress: OnProgress | None) -> None:
    """Append the missing bytes to the partial file; after a cut, continue as long as the server sends something."""
    while True:
        before = _size(part)
        try:
            if _fetch_once(url, part, on_progress):
                return
            problem = "the connection was cut"
        except _NetworkError as error:
            problem = str(error)
        if _size(part) <= before:
            have = f" {before} bytes are kept, and the next try continues there." if before else ""
            raise DataError(f"{url} could not be downloaded: {problem}.{have} {instead}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class _NetworkError(Exception):
    """What the network or the server did, told apart from an OSError of the local disk."""


@contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        raise _NetworkError(f"the server answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _NetworkError(str(getattr(error, "reason", error)) or type(error).__name__) from error


def _fetch_once(url: str, part: Path, on_progress: OnProgress | None) -> bool:
    start = _size(part)
    try:
        with _network():
            if not url.startswith(("http://", "https://")):
                raise ValueError("expected an http or https address")
            request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
            answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
            start = start if answer.status == 206 else 0
            length = answer.headers.get("Content-Length")
            total = start + int(length) if length else 0
    except _NetworkError as error:
        # 416: nothing is left to send; the md5 decides whether what is here is right.
        if start and getattr(error.__cause__, "code", None) == 416:
            return True
        raise
    # Not atomic: the part goes on where it ends, and is renamed when its checksum is right.
    with answer, part.open("ab" if start else "wb") as file:
        while True:
            with _network():
                block = answer.read1(_BLOCK)
            if not block:
                return not total or start >= total
            file.write(block)
            start += len(block)
            if on_progress is not None and total:
                on_progress(start, total, "Downloading")
