"""Lists files that are never user data (of operating systems and programs); a new pattern is added here."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Any

from photoflux.system.names import first_few

# Systems and programs do not agree on the case of these, so it is not looked at. A class folder must never be here:
# a name that anybody might give to one counts only with what the system puts into it.
_FILES = {
    name.lower(): name
    for name in (
        ".DS_Store", ".directory", "Thumbs.db", "Thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db",
        "desktop.ini", "Picasa.ini", ".picasa.ini", "ZbThumbnail.info", "pspbrwse.jbf", "sthumbs.dat",
        "digikam4.db", "thumbnails-digikam.db", "recognition.db", "similarity.db",
        "SYNOINDEX_MEDIA_INFO", "SynologyPhoto.db", "BridgeCache", "BridgeCacheT", "Folder.htt", "sync.ffs_db",
    )
}  # fmt: skip
_FOLDERS = {
    name.lower(): name
    for name in (
        "@eaDir", "@tmp", "@sharebin", "@Recycle", "@Recently-Snapshot", "@__thumb", ".@__thumb", "#recycle",
        "#snapshot", "~snapshot", ".snapshot", "__MACOSX", ".AppleDouble", ".Trash", ".Trashes", ".thumbnails",
        ".ipynb_checkpoints", ".git", ".picasaoriginals", "$RECYCLE.BIN", "System Volume Information", "lost+found",
        "Network Trash Folder", "Temporary Items", "TheVolumeSettingsFolder", "__pycache__",
        "@sharesnap", "_vti_cnf", "_gsdata_", "recycle.bin",
    )
}  # fmt: skip
# Names with something of their own before or behind what is always the same, and how they are counted.
_FILES_LIKE = (
    (re.compile(r".*:zone\.identifier"), "*:Zone.Identifier"),
    (re.compile(r"~\$.*\.(doc|dot|xls|xlt|ppt|pot|vsd|pub)\w?"), "~$*"),
    (re.compile(r".*@syno(resource|eastream)"), "*@SynoResource"),
    (re.compile(r"adobe bridge cache.*\.bct?"), "Adobe Bridge Cache"),
)
_FOLDERS_LIKE = (
    (re.compile(r".*\.lrdata"), "*.lrdata"),
    (re.compile(r"found\.\d{3}"), "FOUND.*"),
    (re.compile(r".*@synoeastream"), "*@SynoEAStream"),
    (re.compile(r"\.trash-.*"), ".Trash-*"),
)
# Recycle bins of old Windows systems, whose names a class may have (of waste, say): known by what is in them.
_BINS = {"recycler": "RECYCLER", "recycled": "RECYCLED"}
_IN_BINS = ("s-1-", "info2", "desktop.ini")
PREPARED, RUNS, COMPARISONS, FILTERED = OWN = ("prepared datasets", "runs", "comparisons", "filtered piles")
_ICON = "Icon\r"  # what macOS calls the picture of a folder
_SHOWN = 4


def litter(name: str, path: str, *, folder: bool) -> str | None:
    """Return what a file or folder is, for the count, if it is not the user's data.

    Parameters
    ----------
    name, path : str
        Its name and its whole path.
    folder : bool
        Whether it is a folder.
    """
    lower = name.lower()
    if folder:
        if lower in _BINS:
            return _BINS[lower] if _is_bin(path) else None
        return (
            _FOLDERS.get(lower) or _like(lower, _FOLDERS_LIKE) or ("hidden folders" if name.startswith(".") else None)
        )
    if name == _ICON:
        return "Icon"
    known = _FILES.get(lower) or ("._*" if name.startswith("._") else None)
    return known or _like(lower, _FILES_LIKE) or ("hidden files" if name.startswith(".") else None)


def _like(name: str, patterns: tuple[tuple[re.Pattern[str], str], ...]) -> str | None:
    return next((what for pattern, what in patterns if pattern.fullmatch(name)), None)


def own_folder(path: str, names: set[str]) -> str | None:
    """Return what a folder is if PhotoFlux wrote it, known by the names in it, not by its own."""
    if {"meta.json", "images.npy"} <= names:
        return PREPARED
    if {"ledger.sqlite", "filter.json"} <= names:
        return FILTERED
    if "run.json" in names and names & {"weights.safetensors", "history.csv", "logits.safetensors"}:
        return RUNS
    if "runs" in names and _holds_runs(os.path.join(path, "runs")):
        # One that was interrupted has no description yet.
        shown = {name for name in names if litter(name, path, folder=False) is None}
        if "comparison.json" in names or shown <= {"runs", "scores", "report.html"}:
            return COMPARISONS
    return None


class Ignored:
    """The count of what is ignored, in all and by what it is."""

    def __init__(self) -> None:
        self.files = self.folders = 0
        self.names: Counter[str] = Counter()

    def add(self, what: str, *, folder: bool) -> None:
        """Count a file or a folder with all that is in it."""
        self.names[what] += 1
        if folder:
            self.folders += 1
        else:
            self.files += 1

    def __bool__(self) -> bool:
        return bool(self.names)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts, ready for JSON: files, folders, and by what they are, the most first."""
        names = dict(sorted(self.names.items(), key=lambda item: (-item[1], item[0])))
        return {"files": self.files, "folders": self.folders, "names": names}


def ignored_in_words(counts: dict[str, Any] | None) -> str | None:
    """Return one line that says what was ignored, of what `Ignored.as_dict` returned; None of nothing.

    Examples
    --------
    >>> ignored_in_words({"files": 9, "folders": 1, "names": {".DS_Store": 9, "@eaDir": 1}})
    'Ignored: 9 files and 1 folder that are not your images (.DS_Store 9, @eaDir 1).'
    """
    if not counts or not counts["names"]:
        return None
    numbers = [
        f"{count} {what}{'' if count == 1 else 's'}"
        for count, what in ((counts["files"], "file"), (counts["folders"], "folder"))
        if count
    ]
    one = counts["files"] + counts["folders"] == 1
    shown = first_few((f"{name} {count}" for name, count in counts["names"].items()), _SHOWN)
    return f"Ignored: {' and '.join(numbers)} that {'is' if one else 'are'} not your images ({shown})."


def _is_bin(path: str) -> bool:
    return any(name.lower().startswith(_IN_BINS) for name in _names(path))


def _holds_runs(path: str) -> bool:
    return any(os.path.isfile(os.path.join(path, name, "run.json")) for name in _names(path))


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
