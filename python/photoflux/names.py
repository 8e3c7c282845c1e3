"""Names of files and folders: compared in one Unicode form, printed so that every terminal and page can show them."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path


def printable(name: str | os.PathLike[str]) -> str:
    r"""Return a name as one line of valid Unicode.

    Bytes that are no UTF-8 become ``\xNN``; line breaks, tabs and other control characters become escapes. A
    backslash stays as it is.

    Examples
    --------
    >>> print(printable("a\tb\udcff.png"))
    a\tb\xff.png
    """
    return "".join(
        _escaped(letter) if unicodedata.category(letter) in _UNSEEN else letter for letter in os.fspath(name)
    )


def quoted(name: str | os.PathLike[str]) -> str:
    """Return `printable` of a name in quotation marks, for a sentence in which a blank at its end is to be seen."""
    return f"'{printable(name)}'"


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
