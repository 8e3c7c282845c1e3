"""Sentences that are stored as a template with values, so that they can be translated later."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

from photoflux.model.variant import Variant
from photoflux.reporting.i18n import ENGLISH, Translator

# A sentence is a template and its values, so that a report can be in another language; a value may be a list of such.
Sentence = tuple[str, dict[str, Any]]


# How a value may be written: a sign, thousands apart, digits behind the point. A width could fill the memory.
_FORM = re.compile(r"\+?,?(\.[0-9])?[dfg%]?")


def checked_sentence(pair: Sequence[Any]) -> Sentence:
    """Return a sentence that was read from a file.

    Raises
    ------
    TypeError, ValueError
        If it is none, lacks a value, or its template asks for anything but its own values, plainly written: one of
        `str.format` can reach into what Python knows of a value.
    """
    template, values = pair
    if not isinstance(template, str) or not isinstance(values, dict):
        raise TypeError(f"a sentence must be a template and its values, found {str(pair)[:100]}")
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, list):
            checked[name] = [checked_sentence(inner) for inner in value]
        elif isinstance(value, str | int | float):
            checked[name] = value
        else:
            raise TypeError(f"a value of a sentence must be a text, a number or sentences, found {str(value)[:100]}")
    for _, name, form, conversion in string.Formatter().parse(template):
        if name is not None and (name not in checked or conversion or not _FORM.fullmatch(form or "")):
            raise ValueError(f"a sentence cannot be read: {template[:100]!r}")
        if form and isinstance(checked[str(name)], str | list):
            raise ValueError(f"a sentence has a text where a number is to be: {template[:100]!r}")
    return template, checked


def text_of(sentence: Sentence, tr: Translator = ENGLISH) -> str:
    """Return a sentence in a language; its values are translated where they are words."""
    template, values = sentence
    translated: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, list):
            translated[name] = ", ".join(text_of((inner, given), tr) for inner, given in value)
        else:
            translated[name] = tr(value) if isinstance(value, str) else value
    return tr.sentence(template, **translated)


def regularisation(variant: Variant) -> list[Sentence]:
    """Return a variant's regularisation: penalty, dropout, early stopping."""
    parts: list[Sentence] = []
    for group, coefficients in variant.penalty.items():
        for kind, value in coefficients.items():
            values = {"kind": kind.upper(), "value": value, "group": group}
            parts.append(("{kind} penalty {value} on the {group} kernels", values))
    if variant.proximal:
        parts.append(("L1 by proximal steps", {}))
    for group, rate in variant.dropout.items():
        parts.append(("dropout {rate} after the {group} layer", {"rate": rate, "group": group}))
    if variant.patience is not None:
        parts.append(("early stopping with a patience of {n}", {"n": variant.patience}))
    return parts or [("no regularisation", {})]
