"""Every public name of the Python package says what it takes, gives and raises."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import photoflux

PUBLIC = [name for name in photoflux.__all__ if name != "__version__"]
FUNCTIONS = [name for name in PUBLIC if inspect.isfunction(getattr(photoflux, name))]
CLASSES = [name for name in PUBLIC if inspect.isclass(getattr(photoflux, name))]


def sections(thing: Any) -> dict[str, str]:
    """Return the sections of a docstring by heading; what stands before the first is under ``""``."""
    first, *rest = re.split(r"^(\w+)\n-{3,}\n", inspect.getdoc(thing) or "", flags=re.MULTILINE)
    return {"": first.strip(), **dict(zip(rest[::2], rest[1::2], strict=True))}


def taken(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def documented(text: str, names: list[str]) -> list[str]:
    """Return those of the names that a section has: `epochs, batch_size : int` has two."""
    return [name for name in names if re.search(rf"^(\w+, )*{name}\b(, \w+)*( : |$)", text, re.MULTILINE)]


def test_all_public_names_are_functions_or_classes():
    assert sorted(FUNCTIONS + CLASSES) == sorted(PUBLIC)
    assert len(FUNCTIONS) > 15 and len(CLASSES) > 15


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_takes_gives_and_raises(name: str):
    function = getattr(photoflux, name)
    said = sections(function)
    arguments = taken(function)
    assert said[""].partition("\n")[0].endswith(".")
    assert documented(said.get("Parameters", ""), arguments) == arguments
    assert ("Returns" in said) == (inspect.signature(function).return_annotation not in (None, "None"))
    assert re.search(r"^\w+Error", said["Raises"], re.MULTILINE)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_what_it_has(name: str):
    cls = getattr(photoflux, name)
    said = sections(cls)
    assert said[""]
    if dataclasses.is_dataclass(cls):
        fields = [field.name for field in dataclasses.fields(cls)]
        assert documented(said["Attributes"], fields) == fields
    elif not issubclass(cls, Exception) or "__init__" in vars(cls):
        arguments = taken(cls)
        assert documented(said.get("Parameters", ""), arguments) == arguments


@pytest.mark.parametrize("name", CLASSES)
def test_a_method_says_what_it_is_given(name: str):
    lacking = []
    for member, value in vars(getattr(photoflux, name)).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if member.startswith("_") or not inspect.isfunction(function):
            continue
        said, arguments = sections(function), taken(function)
        if not said[""] or documented(said.get("Parameters", ""), arguments) != arguments:
            lacking.append(member)
    assert lacking == []
