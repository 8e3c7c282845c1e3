"""English and French: numbers, spaces, and that no text is forgotten."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from jinja2 import nodes

import photoflux
from photoflux import SettingError
from photoflux.reporting.i18n import ENGLISH, translator
from photoflux.reporting.page import environment

PACKAGE = Path(photoflux.__file__).parent
FRENCH = translator("fr")


def test_numbers_are_written_in_the_language():
    assert (ENGLISH.number(1234.5, ",.2f"), FRENCH.number(1234.5, ",.2f")) == ("1,234.50", "1\u202f234,50")
    assert (ENGLISH.percent(0.1234), FRENCH.percent(0.1234)) == ("12.3\u202f%", "12,3\u202f%")
    assert FRENCH.sentence("{n} of {of} {name}", n=1000, of=np.int64(2500), name="a.b,c") == (
        "1\u202f000 of 2\u202f500 a.b,c"
    )
    assert FRENCH.sentence("{x:+.1%} and {y:g} and {z}", x=0.5, y=np.float64(0.25), z=0.001) == (
        "+50,0\u202f% and 0,25 and 0,001"
    )
    assert ENGLISH.sentence("{name}", name="{x}") == "{x}"


def test_french_has_narrow_spaces_before_its_signs():
    assert FRENCH("That is more than always predicting “{name}”, which would be correct for {largest:.1%}.").startswith(
        "C'est plus que de toujours prédire «\u202f{name}\u202f»"
    )
    assert FRENCH.sentence("{part}: AUC {area:.3f}", part="test", area=0.5) == "test\u202f: AUC 0,500"
    assert ENGLISH("a : b") == "a : b"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.2 s"), (59.94, "59.9 s"), (61, "1 min"), (3599, "1 h 00 min"), (5400, "1 h 30 min")]
)
def test_durations(seconds, text):
    assert ENGLISH.duration(seconds).replace("\u202f", " ") == text


def test_dates():
    assert ENGLISH.date("2025-03-04T05:06:07+00:00") == "2025-03-04 05:06 UTC"
    assert FRENCH.date("2025-03-04T05:06:07+00:00") == "04/03/2025 05:06 UTC"
    assert FRENCH.date("some day") == "some day"


def test_another_language_is_refused():
    with pytest.raises(SettingError, match="`lang` must be one of en, fr; received: 'de'"):
        translator("de")


def texts_of(call):
    """The literal first argument of ``tr("…")`` or ``tr.sentence("…", …)``, or both of a choice."""
    named = isinstance(call.func, ast.Name) and call.func.id == "tr"
    if not call.args or not (named or (isinstance(call.func, ast.Attribute) and call.func.attr == "sentence")):
        return []
    first = call.args[0]
    choices = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
    return [choice.value for choice in choices if isinstance(choice, ast.Constant)]


def marked():
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            yield from ((path.name, text) for text in texts_of(call))
        if path.name in ("decision.py", "sentences.py"):
            # A sentence there is a template beside its values.
            for pair in (node for node in ast.walk(tree) if isinstance(node, ast.Tuple) and len(node.elts) == 2):
                template = pair.elts[0]
                if isinstance(template, ast.Constant) and "{" in str(template.value):
                    yield path.name, template.value
    templates = environment()
    for path in sorted(
        [*(PACKAGE / "reporting" / "templates").glob("*.jinja"), *(PACKAGE / "comparison").glob("*.jinja")]
    ):
        for call in templates.parse(path.read_text(encoding="utf-8")).find_all(nodes.Call):
            translated = call.node.name == "tr" if isinstance(call.node, nodes.Name) else call.node.attr == "sentence"
            if translated and isinstance(call.args[0], nodes.Const):
                yield path.name, call.args[0].value


def test_every_text_has_its_french():
    found = list(marked())
    assert len(found) > 80
    assert {(place, text) for place, text in found if text not in FRENCH.entries} == set()


def test_no_french_is_left_of_a_text_that_is_gone():
    used = {text for _, text in marked()}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert set(FRENCH.entries) - used == set()


def test_a_translation_has_the_values_of_its_text():
    def values(text):
        return sorted(re.findall(r"\{[^}]*\}", text))

    assert {text for text, french in FRENCH.entries.items() if values(text) != values(french)} == set()
