"""Names of files and folders: compares them in one Unicode form and makes them printable."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from photoflux.errors import PhotoFluxError


def printable(name: str | os.PathLike[str]) -> str:
    r"""Return a name as one line of valid Unicode.

    Bytes that are no UTF-8 become ``\xNN``; line breaks, tabs and other control characters become escapes. A
    backslash stays as it is.

    Examples
    --------
    >>> print(printable("a\tb\udcff.png"))
    a\tb\xff.png
    """
    text = os.fspath(name)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(letter) if unicodedata.category(letter) in _UNSEEN else letter for letter in text)


def quoted(name: str | os.PathLike[str]) -> str:
    """Return `printable` of a name in quotation marks, for a sentence in which a blank at its end is to be seen."""
    return f"'{printable(name)}'"


def first_few(texts: Iterable[str], most: int = 3, between: str = ", ") -> str:
    """Return the first of several texts, and an ellipsis if there are more.

    Examples
    --------
    >>> first_few(["a", "b", "c", "d"])
    'a, b, c, …'
    """
    texts = list(texts)
    return between.join(texts[:most] + ["…"] * (len(texts) > most))


def shown(text: str) -> str:
    """Return a text of several lines as `printable` does one: its line breaks and tabs stay."""
    return "".join(letter if letter in "\n\t" else printable(letter) for letter in text)


def as_json(values: Any, *, indent: int | None = None, only_ascii: bool = False) -> str:
    r"""Return values as JSON that is valid UTF-8: bytes in names that are not UTF-8 become ``\udcNN`` escapes.

    `json.loads` gives the same names back, and `os.fsencode` of them the bytes.
    """
    text = json.dumps(values, indent=indent, ensure_ascii=only_ascii)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def class_name(folder: str) -> str:
    """Return what the class of a folder is called: composed (NFC), one line of valid Unicode, whatever its bytes are.

    Blanks at its ends stay.
    """
    return printable(composed(folder))


def file_stem(name: str) -> str:
    """Return a name as part of a new file's name: printable, without separators, and at most 100 bytes long.

    Examples
    --------
    >>> file_stem("../a:b")
    'a-b'
    """
    text = re.sub(r"[\\/:*?\"<>|]+", "-", printable(name)).lstrip("-. ")
    return text.encode()[:_MOST].decode(errors="ignore").rstrip(". ") or "unnamed"


# Of the 255 bytes that most file systems allow.
_MOST = 100
# Control characters, lone surrogates, line and paragraph separators.
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
_BYTES = range(0xDC80, 0xDD00)  # how Python carries the bytes 80 to FF that are no UTF-8


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code - 0xDC00:02x}" if code in _BYTES else letter.encode("unicode_escape").decode("ascii")


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), in which two that look alike are equal."""
    return unicodedata.normalize("NFC", name)


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` replaced by the home folder; where there is no home it stays."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def reason(error: BaseException) -> str:
    """Return why something failed, in one line of valid Unicode."""
    lines = str(error).strip().splitlines()
    text = printable(lines[0].strip())[:300] if lines else ""
    if isinstance(error, PhotoFluxError):
        return text
    name = type(error).__name__
    return f"{name}: {text}" if text else name
