"""Sentences that are stored as a template with values, so that they can be translated later."""

from __future__ import annotations

from typing import Any

from photoflux.model.variants import Variant
from photoflux.reporting.i18n import ENGLISH, Translator

# A sentence is a template and its values, so that a report can be in another language; a value may be a list of such.
Sentence = tuple[str, dict[str, Any]]


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
