"""The table of faults: what the page has is what the tests declare, and a run writes only what it has shown."""

from __future__ import annotations

import subprocess
import sys

import pytest

import faults

OTHER_CONFTEST = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from faults import name_faults, write_page

def pytest_collection_modifyitems(items):
    name_faults(items)

def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(write_page(terminalreporter.stats, Path({page!r}), Path({folder!r})))
"""
OTHER_SUITE = """
import pytest

@pytest.mark.fault("b")
@pytest.mark.fault("A disk is full", costs="nothing")
def test_one():
    pass

@pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.fault("b", costs="a note"))])
def test_two(x):
    pass

@pytest.mark.fault("late", costs="much", shown_by="other.jl")
def test_three():
    assert False

@pytest.mark.fault("not on the page", costs="much")
@pytest.mark.fault("on the page", costs="little")
def test_four():
    pass
"""


def test_the_page_has_what_the_tests_declare():
    page = faults.PAGE.read_text(encoding="utf-8")
    rows = faults.rows_of(faults.declared())
    assert faults.rows_in(page) == rows, "`pytest --write-faults` writes the rows of the tests that it runs"
    assert len(rows) >= 14


def test_a_run_writes_what_it_has_shown(tmp_path):
    page, suite = tmp_path / "page.md", tmp_path / "test_it.py"
    old = "| late | much | `other.jl` |\n| on the page | much | `gone` |\n| removed | a note | `test_one` |\n"
    page.write_text(f"Before\n\n{faults.HEAD}{old}\nAfter\n\nEnd\n")
    tests = str(faults.ROOT / "tests")
    (tmp_path / "conftest.py").write_text(OTHER_CONFTEST.format(tests=tests, page=str(page), folder=str(tmp_path)))
    suite.write_text(OTHER_SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-n2", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run([*command, "-k", "not four"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "page.md: 2 faults shown, 1 failed" in done.stdout, done.stdout + done.stderr
    rows = "| b | a note | `test_one`, `test_two` |\n| A disk is full | nothing | `test_one` |\n"
    rows += "| on the page | little | `test_four` |\n"
    assert page.read_text() == f"Before\n\n{faults.HEAD}{rows}\nAfter\n\nEnd\n"


@pytest.mark.parametrize("costs", [(None,), ("a", "b")])
def test_a_fault_has_one_cost(costs):
    marks = [faults.Declared("f", cost, f"test_{number}", "test") for number, cost in enumerate(costs)]
    with pytest.raises(ValueError, match="One test must say what 'f' costs"):
        faults.rows_of(marks)
