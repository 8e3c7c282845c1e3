"""The result of a comparison: its text, its table in a notebook and ``comparison.json`` are defined here."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.comparison.decision import CRITERION, Decision
from photoflux.comparison.intervals import Interval
from photoflux.comparison.measures import OF_IMAGES, OF_SEEDS, PARTS, VariantResult
from photoflux.data.shape import Shape
from photoflux.errors import RunError, SettingError
from photoflux.model.settings import SCHEDULES
from photoflux.model.variant import BALANCES
from photoflux.reporting.page import Table, notebook_html
from photoflux.reporting.sentences import Sentence, checked_sentence, text_of
from photoflux.system.atomic import write_text
from photoflux.system.json_file import read_object
from photoflux.system.kinds import check_fields, check_range, check_table, check_word
from photoflux.system.names import as_json, printable, user_path

NAME = "comparison.json"
FORMAT = 1
WIDTH = 128
# What its tables say.
_DATA = {
    "name": str, "classes": list[str], "positive": str | None, "image": list[int], "images": dict[str, int],
    "fingerprints": list[str], "holdout": str | None, "holdout_left_out": int | None, "rejected": int | None,
}  # fmt: skip
_SETTINGS = {
    "seeds": list[int], "epochs": int | None, "batch_size": int | None, "learning_rate": float | None,
    "balance": str | None, "schedule": str | None, "engine": str,
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Variants trained with the same seeds on the same splits, and the one that was chosen.

    Attributes
    ----------
    path : Path
        Its folder: ``comparison.json``, the runs in ``runs/``, ``report.html``.
    data : dict
        ``name``, ``classes``, ``positive``, ``image`` (channels, height, width), ``images`` (how many of each part,
        first seed), ``fingerprints`` (one per seed), ``holdout`` (the second folder's name, or None),
        ``holdout_left_out`` (how many of its images are not scored, because a fit sees them), ``rejected`` (how many
        files were left out).
    settings : dict
        ``seeds``, ``epochs`` (None: each variant's own), ``batch_size``, ``learning_rate``, ``balance``
        (likewise), ``schedule`` (None: constant), ``engine``.
    results : list of VariantResult
        A variant each: means, intervals, differences.
    decision : Decision
        The choice, made on the validation part.
    sentences : list
        Why, as templates with their values; `reasons` is the text.
    run : Path
        The run to use: of the chosen variant's fits the one with the highest balanced accuracy on validation.
    histories : dict of str to list
        For each variant its fits' total validation losses by epoch, one list per seed.
    versions : dict
        Of what computed it.
    command : str
        The command that makes it again.
    """

    path: Path
    data: dict[str, Any]
    settings: dict[str, Any]
    results: list[VariantResult]
    decision: Decision
    sentences: list[Sentence]
    run: Path
    histories: dict[str, list[list[float]]]
    versions: dict[str, str]
    command: str

    @property
    def chosen(self) -> str:
        """The name of the variant that was chosen."""
        return self.results[self.decision.chosen].variant.name

    @property
    def reasons(self) -> str:
        """The choice in words."""
        return " ".join(text_of(sentence) for sentence in self.sentences)

    @property
    def parts(self) -> list[str]:
        """The parts that there are, of validation, test and holdout."""
        return [part for part in PARTS if part in self.results[0].parts]

    def __str__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table as TextTable

        text = io.StringIO()
        console = Console(file=text, width=WIDTH, highlight=False, markup=False, color_system=None)
        console.print(self.heading, soft_wrap=True)
        table = TextTable(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("variant", no_wrap=True)
        for title in self.titles:
            table.add_column(title, justify="right")
        for row in self.rows():
            table.add_row(*row)
        console.print(table)
        console.print(self.reasons, soft_wrap=True)
        console.print(f"Use: {printable(self.run)}", soft_wrap=True)
        return text.getvalue().rstrip()

    @property
    def heading(self) -> str:
        """What was compared on what, in words."""
        counts = ", ".join(f"{n} {part}" for part, n in self.data["images"].items())
        seen = self.data.get("holdout_left_out") or 0
        there = seen + self.data["images"].get("holdout", 0)
        left_out = f" ({seen} of {there} images of the second folder left out: the fits see them)" if seen else ""
        return (
            f"{len(self.results)} variants × {len(self.settings['seeds'])} seeds on {self.data['name']}: images of "
            f"{Shape(*self.data['image'])}; {counts}{left_out}; engine {self.settings['engine']}. Balanced accuracy, "
            f"mean and 95 % interval; test difference: less {self.results[self.decision.reference].variant.name}'s."
        )

    @property
    def titles(self) -> list[str]:
        """The titles of the columns of `rows`, the variant's own left out."""
        return [*self.parts, "test difference", "gap", "best epoch", "overfits from", "time"]

    def rows(self) -> list[list[str]]:
        """Return the table's cells as text, one row per variant."""
        reference, rows = self.results[self.decision.reference], []
        for result in self.results:
            marks = ("*" if result is self.results[self.decision.chosen] else "") + result.variant.name
            cells = [interval_text(result.parts[part][CRITERION]) for part in self.parts]
            difference = "reference"
            if result is not reference:
                difference = interval_text(result.differences["test"][CRITERION], signed=True)
            n = result.numbers
            overfits = "not seen" if np.isnan(n["overfits_from"].mean) else f"{n['overfits_from'].mean:.1f}"
            cells += [difference, f"{n['gap'].mean:.3f}", f"{n['best_epoch'].mean:.1f}", overfits]
            rows.append([marks, *cells, f"{n['seconds'].mean:.0f} s"])
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "format": FORMAT,
            "data": self.data,
            "settings": self.settings,
            "chosen": self.chosen,
            "run": str(self.run),
            "reasons": self.reasons,
            "sentences": [list(sentence) for sentence in self.sentences],
            "decision": asdict(self.decision),
            "standings": [result.as_dict() for result in self.results],
            "histories": self.histories,
            "versions": self.versions,
            "command": self.command,
        }

    def write(self) -> None:
        """Write ``comparison.json``.

        Raises
        ------
        RunError
            If it cannot be written.
        """
        try:
            write_text(self.path / NAME, as_json(self.as_dict(), indent=2) + "\n")
        except OSError as error:
            raise RunError(f"{self.path / NAME} cannot be written: {error}.") from error

    def _repr_html_(self) -> str:
        table = Table(["variant", *self.titles], self.rows(), range(1, len(self.titles) + 1))
        return notebook_html(self.heading, [table], conclusion=self.reasons)


def load_comparison(path: str | Path) -> Comparison:
    """Open a comparison's folder.

    Parameters
    ----------
    path : str or Path
        The folder.

    Returns
    -------
    Comparison

    Raises
    ------
    RunError
        If it is none, or it cannot be read.
    """
    folder = user_path(path)
    try:
        values = read_object(folder / NAME)
        if values.get("format") != FORMAT:
            raise RunError(
                f"{printable(folder)} has comparison format {values.get('format')!r}; this PhotoFlux reads {FORMAT}. "
                "Update photoflux."
            )
        found = Comparison(
            path=folder,
            results=[VariantResult.from_dict(row) for row in values["standings"]],
            decision=Decision(**values["decision"]),
            sentences=[checked_sentence(pair) for pair in values["sentences"]],
            run=folder / "runs" / Path(values["run"]).name,
            **{name: values[name] for name in ("data", "settings", "histories", "versions", "command")},
        )
        _check(found)
        return found
    except FileNotFoundError as error:
        raise RunError(
            f"{printable(folder)} is not a comparison: it has no {NAME}. `photoflux compare` makes one."
        ) from error
    except SettingError as error:
        raise RunError(f"The comparison {printable(folder)} cannot be read: {error}") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RunError(
            f"The comparison {printable(folder)} cannot be read: {type(error).__name__}: {str(error)[:500]}."
        ) from error


def _check(found: Comparison) -> None:
    """Raise a `TypeError` or `ValueError` unless all that the text and the report show is there and of its kind."""
    for part in (found, found.decision, *found.results):
        check_fields(part)
    check_table(found.data, _DATA, "data")
    check_table(found.settings, _SETTINGS, "settings")
    if found.settings["balance"] is not None:
        check_word(found.settings["balance"], BALANCES, "balance")
    if found.settings.get("schedule") is not None:
        check_word(found.settings["schedule"], SCHEDULES, "schedule")
    d, last = found.decision, len(found.results) - 1
    for position in (d.chosen, d.best, d.reference, *d.candidates):
        check_range(position, 0, last, "decision")
    check_range(len(found.data["image"]), 3, 3, "the numbers of image")
    check_range(len(found.data["fingerprints"]), len(found.settings["seeds"]), len(found.settings["seeds"]), "seeds")
    measures = found.results[0].parts["test"].keys()
    for result in found.results:
        rows = list(result.parts.values())
        if result.differences or result is not found.results[d.reference]:
            rows += [result.differences[part] for part in found.parts]
        for interval in (*result.numbers.values(), *(interval for row in rows for interval in row.values())):
            check_fields(interval)
        if result.parts.keys() != found.results[0].parts.keys() or not {"validation", "test"} <= result.parts.keys():
            raise ValueError(f"`parts` of {result.variant.name} are {', '.join(result.parts)}")
        if any(not set(OF_IMAGES) <= row.keys() for row in rows) or not set(OF_SEEDS) <= result.numbers.keys():
            raise ValueError(f"{result.variant.name} has not all measures")
        if any(row.keys() != measures for row in result.parts.values()):
            raise ValueError(f"the parts of {result.variant.name} have not the same measures")
    if not any(losses for fits in found.histories.values() for losses in fits):
        raise ValueError("`histories` are empty")


def interval_text(interval: Interval, signed: bool = False) -> str:
    """Return a mean with its bounds, three digits each."""
    form = "+.3f" if signed else ".3f"
    if np.isnan(interval.mean):
        return "–"
    if np.isnan(interval.low):
        return f"{interval.mean:{form}}"
    return f"{interval.mean:{form}} ({interval.low:{form}}, {interval.high:{form}})"
