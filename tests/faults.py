"""The table of faults in docs/reliability.md: a test declares the fault that it injects, and its run writes the row.

``@pytest.mark.fault("SIGKILL in a fit", costs="what was fitted since the last checkpoint")`` is a row, which names the
test. Several tests may show one fault; then one of them says what it costs. A test that runs others, such as the Julia
suite, names the one that shows the fault: ``shown_by="checkpoints.jl"``. `pytest --write-faults` writes the rows whose
tests passed; `test_faults.py` compares the page with what is declared.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
HEAD = "| fault | what it costs | shown by |\n|---|---|---|\n"

ARTICLE = re.compile("^(an?|the) ")
PROPERTY = "fault"  # of a report


@dataclass(frozen=True)
class Declared:
    """One mark: a fault, what it costs unless another mark says that, and the test that shows it."""

    fault: str
    costs: str | None
    shown_by: str
    test: str  # that has the mark


def declared(folder: Path = ROOT / "tests") -> list[Declared]:
    """Return the marks of all test files in a folder; no file is run.

    Raises
    ------
    ValueError
        If a mark is not written out as literals at a test.
    """
    return [row for path in sorted(folder.rglob("test_*.py")) for row in _of_file(path)]


def _of_file(path: Path) -> Iterator[Declared]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in (node for mark in function.decorator_list for node in ast.walk(mark)):
            if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.fault"):
                continue
            (fault,) = map(ast.literal_eval, call.args)
            named = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
            yield Declared(fault, named.get("costs"), named.get("shown_by", function.name), function.name)


def rows_of(marks: Iterable[Declared]) -> dict[str, str]:
    """Return the rows of the table by fault, in the order of the alphabet, articles aside.

    Raises
    ------
    ValueError
        If no mark of a fault says what it costs, or two say different things.
    """
    found: dict[str, list[Declared]] = {}
    for mark in marks:
        found.setdefault(mark.fault, []).append(mark)
    rows = {}
    for fault, group in sorted(found.items(), key=lambda pair: ARTICLE.sub("", pair[0].casefold())):
        costs = {mark.costs for mark in group} - {None}
        if len(costs) != 1:
            raise ValueError(f"One test must say what {fault!r} costs; found: {sorted(map(str, costs))}.")
        shown = ", ".join(f"`{name}`" for name in sorted({mark.shown_by for mark in group}))
        rows[fault] = f"| {fault} | {costs.pop()} | {shown} |"
    return rows


def rows_in(page: str) -> dict[str, str]:
    """Return the rows of a page's table by fault."""
    table = page.partition(HEAD)[2].partition("\n\n")[0]
    return {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()}


def with_rows(page: str, rows: Iterable[str]) -> str:
    """Return a page with other rows in its table."""
    before, head, after = page.partition(HEAD)
    if not head:
        raise ValueError("The page has no table of faults.")
    return before + head + "".join(f"{row}\n" for row in rows) + "\n" + after.partition("\n\n")[2]


def after_run(page: str, marks: Iterable[Declared], passed: set[str], failed: set[str]) -> str:
    """Return a page with the rows whose tests passed in this run; those that did not run stay as the page has them.

    Parameters
    ----------
    page : str
        The page's text.
    marks : iterable of Declared
        Those of all tests.
    passed, failed : set of str
        The faults of tests that passed, and of those that did not, in this run.
    """
    old = rows_in(page)
    rows = [row for fault, row in rows_of(marks).items() if fault not in failed and (fault in passed or fault in old)]
    return with_rows(page, rows)


def name_faults(items: Iterable[Any]) -> None:
    """Have the report of each test name the faults that it injects."""
    for item in items:
        item.user_properties += [(PROPERTY, mark.args[0]) for mark in item.iter_markers("fault")]


def write_page(stats: dict[str, list[Any]], page: Path = PAGE, folder: Path = ROOT / "tests") -> str:
    """Write the table after a run, and return the line that says so.

    Parameters
    ----------
    stats : dict
        The terminal reporter's reports, by outcome; see `name_faults`.
    page, folder : Path
        The page, and where the tests are.
    """
    passed, failed = (
        {
            str(value)
            for outcome in outcomes
            for report in stats.get(outcome, [])
            for name, value in report.user_properties
            if name == PROPERTY
        }
        for outcomes in (("passed",), ("failed", "error"))
    )
    page.write_text(after_run(page.read_text(encoding="utf-8"), declared(folder), passed, failed), encoding="utf-8")
    return f"{page.name}: {len(passed - failed)} faults shown, {len(failed)} failed"
