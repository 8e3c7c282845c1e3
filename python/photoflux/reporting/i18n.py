"""Translates the texts of a report and writes numbers and dates in the language; a language is added here."""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from photoflux.errors import unknown_name

LANGUAGES = ("en", "fr")
# Keeps a number with its unit, and in French a word with the colon after it, on one line.
NARROW = "\u202f"


@dataclass(frozen=True)
class Translator:
    """Gives a text in one language; the English text is the key.

    Attributes
    ----------
    lang : str
        ``"en"`` or ``"fr"``: the page's ``lang`` attribute.
    entries : mapping of str to str
        The English texts in that language; empty for English.

    Examples
    --------
    >>> tr = translator("fr")
    >>> tr.sentence("{n} of {of} images", n=3, of=12_000)
    '3 sur 12\u202f000 images'
    """

    lang: str
    entries: Mapping[str, str]

    def __call__(self, text: str) -> str:
        """Return the text in this language; as it is where there is no entry."""
        found = re.sub(r"(?<=\d) (?=%)", NARROW, self.entries.get(text, text))
        return re.sub(r" (?=[:;?!»])|(?<=«) ", NARROW, found) if self.lang == "fr" else found

    def sentence(self, template: str, /, **values: Any) -> str:
        """Return a text with its values put in: ``{name}``, or ``{name:.3f}`` as in `str.format`.

        Numbers are written in the language's way, whole ones with their thousands apart.
        """
        return _Sentence(self).vformat(self(template), (), values)

    def number(self, value: float, form: str = ".3f") -> str:
        """Return a number, formatted as `format` does and written in the language's way."""
        return self.localised(format(value, form))

    def percent(self, share: float, digits: int = 1) -> str:
        """Return a share from 0 to 1 as percent."""
        return self.localised(f"{share:.{digits}%}")

    def duration(self, seconds: float) -> str:
        """Return a time as seconds, minutes or hours, whichever reads well."""
        if seconds < 60:
            return self.localised(f"{seconds:.1f}{NARROW}s")
        minutes = round(seconds / 60)
        return f"{minutes}{NARROW}min" if minutes < 60 else f"{minutes // 60}{NARROW}h {minutes % 60:02d}{NARROW}min"

    def date(self, moment: str) -> str:
        """Return an ISO 8601 moment as a date and time; as it is if it is none."""
        try:
            when = datetime.fromisoformat(moment)
        except ValueError:
            return moment
        return (
            f"{when:%d/%m/%Y %H:%M} {when.tzname() or ''}".strip() if self.lang == "fr" else f"{when:%Y-%m-%d %H:%M %Z}"
        )

    def localised(self, number: str) -> str:
        """Return a number that Python has written, in the language's way."""
        if self.lang == "fr":
            number = number.translate({ord(","): NARROW, ord("."): ","})
        return re.sub(r" ?%", f"{NARROW}%", number)


class _Sentence(string.Formatter):
    def __init__(self, tr: Translator) -> None:
        self._tr = tr

    def format_field(self, value: Any, format_spec: str) -> str:
        """Write one value."""
        if not isinstance(value, Real):
            return format(value, format_spec)
        number: Any = value
        return self._tr.number(number, format_spec or ("," if isinstance(value, Integral) else ""))


def translator(lang: str = "en") -> Translator:
    """Return the translator of a language, ``"en"`` or ``"fr"``.

    Raises
    ------
    SettingError
        If it is another.
    """
    if lang not in LANGUAGES:
        raise unknown_name("lang", lang, LANGUAGES)
    return ENGLISH if lang == "en" else Translator(lang, _french())


@cache
def _french() -> Mapping[str, str]:
    with (Path(__file__).parent / "french.toml").open("rb") as file:
        return tomllib.load(file)


ENGLISH = Translator("en", {})
