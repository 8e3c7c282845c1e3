"""Says where the picture of an item goes: the tree of the pile again, with names that any system takes."""

from __future__ import annotations

import hashlib
import os
from pathlib import PurePosixPath

from photoflux.filtering.ledger import SourceKey
from photoflux.system.names import composed, printable

# Of the 255 bytes of a name and the 4,096 of a path that most systems allow.
_MOST_NAME, _MOST_PATH = 200, 1000
_MARK = 10


def root_labels(roots: list[str]) -> dict[str, str]:
    """Return the folder for each folder of the pile: its name, and a mark where two have the same.

    Examples
    --------
    >>> root_labels(["/a/scans", "/b/photos"])
    {'/a/scans': 'scans', '/b/photos': 'photos'}
    """
    names = {root: _safe(PurePosixPath(root).name or "root") for root in roots}
    folded = [composed(name).casefold() for name in names.values()]
    return {
        root: name if folded.count(composed(name).casefold()) == 1 else f"{name}~{_mark(root)}"
        for root, name in names.items()
    }


def place_of(label: str, below: str, key: SourceKey, page: int, suffix: str) -> tuple[str, str]:
    """Return the plain place of an item's picture, relative to ``photos``, and the one for where that is taken.

    The plain place is that of the source below its root, and of a member below its archive. A name that had to be
    changed (control characters, bytes that are not UTF-8, too long), a member that comes a second time, or that leads
    out of its archive, has a mark, so that no two items have the same place whatever their order is.

    Parameters
    ----------
    label, below : str
        The folder of the root, which may be empty, and the path of the file below it.
    key : SourceKey
        The source.
    page : int
        0, or the page.
    suffix : str
        What the name of a page ends in, such as ``".png"``.
    """
    parts = [part for part in (label, *below.split("/")) if part]
    inner = PurePosixPath(key.member.replace("\\", "/")).parts if key.member else ()
    safe = [_safe(part) for part in inner if part not in ("/", "..", ".")]
    changed = key.nth > 0 or (bool(inner) and list(key.member.split("/")) != safe)
    whole = [*map(_safe, parts), *safe] or ["unnamed"]
    changed = changed or whole[: len(parts)] != parts
    *folders, name = whole
    stem, ending = _split(name)
    if page:
        stem, ending = f"{name}-page-{page:04}", suffix
    if len(f"{stem}{ending}".encode()) > _MOST_NAME:
        stem, ending, changed = _cut(stem, _MOST_NAME - 40), _cut(ending, 20), True
    mark = f"~{_mark(key.path, key.member, key.nth, page)}"
    if len("/".join(whole).encode()) > _MOST_PATH:
        folders, changed = [folders[0], "long-paths"] if folders else ["long-paths"], True
    marked = "/".join([*folders, f"{stem}{mark}{ending}"])
    return marked if changed else "/".join([*folders, f"{stem}{ending}"]), marked


def _safe(name: str) -> str:
    # Nearly all are; the other way is slow.
    plain = name.isascii() and name.isprintable()
    text = (name if plain else printable(name)).replace("/", "-").rstrip(" ") or "unnamed"
    if text in (".", ".."):
        return "dots"
    if len(text.encode()) <= _MOST_NAME:
        return text
    stem, ending = _split(text)
    return f"{_cut(stem, _MOST_NAME - 40)}~{_mark(name)}{_cut(ending, 20)}"


def _split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    return path.stem, path.suffix


def _cut(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore")


def _mark(*parts: object) -> str:
    data = b"\0".join(os.fsencode(str(part)) for part in parts)
    return hashlib.sha256(data).hexdigest()[:_MARK]
