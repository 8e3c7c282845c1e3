"""Checks values that were read from a file, whoever wrote it: their types, words and ranges."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, get_type_hints


def check_kind(value: object, kind: Any, name: str) -> None:
    """Raise a `TypeError` unless a value, with all that it holds, is of a type such as ``list[str] | None``."""
    from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

    try:
        check_type(value, kind, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError as error:
        raise TypeError(f"`{name}`: {error}") from error


def check_fields(instance: Any) -> None:
    """Raise a `TypeError` unless every field of a dataclass is of its declared type."""
    hints = get_type_hints(type(instance))
    for field in fields(instance):
        check_kind(getattr(instance, field.name), hints[field.name], field.name)


def check_table(values: Mapping[str, Any] | None, kinds: Mapping[str, Any], name: str = "") -> None:
    """Raise a `TypeError` unless a table, if there is one, has values of these types under these keys."""
    if values is not None:
        for key, kind in kinds.items():
            check_kind(values.get(key), kind, f"{name}.{key}" if name else key)


def check_word(value: str, words: Collection[str], name: str) -> None:
    """Raise a `ValueError` unless a text is one of some words."""
    if value not in words:
        raise ValueError(f"`{name}` must be one of {', '.join(words)}, found {value!r}")


def check_range(value: float, least: float, most: float, name: str) -> None:
    """Raise a `ValueError` unless a number is within a range, its ends included."""
    if not least <= value <= most:
        raise ValueError(f"`{name}` must be from {least} to {most}, found {value}")
