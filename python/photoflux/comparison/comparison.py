"""The result of a comparison: its text, its table in a notebook and ``comparison.json`` are defined here."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.comparison.decision import CRITERION, Decision
from photoflux.comparison.intervals import Interval
from photoflux.comparison.measures import PARTS, VariantResult
from photoflux.data.shape import Shape
from photoflux.errors import RunError
from photoflux.reporting.page import Table, notebook_html
from photoflux.reporting.sentences import Sentence, text_of
from photoflux.system.atomic import write_text
from photoflux.system.names import as_json, printable, user_path

NAME = "comparison.json"
FORMAT = 1
WIDTH = 128


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
        (likewise), ``engine``.
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
        console = Console(file=text, width=WIDTH, highlight=False, color_system=None)
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
        seen = self.data.get("holdout_left_out", 0)
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

    Raises
    ------
    RunError
        If it is none, or it cannot be read.
    """
    folder = user_path(path)
    try:
        values = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise RunError(
                f"{printable(folder)} has comparison format {values.get('format')!r}; this PhotoFlux reads {FORMAT}. "
                "Update photoflux."
            )
        return Comparison(
            path=folder,
            results=[VariantResult.from_dict(row) for row in values["standings"]],
            decision=Decision(**values["decision"]),
            sentences=[_sentence(pair) for pair in values["sentences"]],
            run=folder / "runs" / Path(values["run"]).name,
            **{name: values[name] for name in ("data", "settings", "histories", "versions", "command")},
        )
    except FileNotFoundError as error:
        raise RunError(
            f"{printable(folder)} is not a comparison: it has no {NAME}. `photoflux compare` makes one."
        ) from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RunError(
            f"The comparison {printable(folder)} cannot be read: {type(error).__name__}: {error}."
        ) from error


def _sentence(pair: list[Any]) -> Sentence:
    template, values = pair
    return template, {
        name: [_sentence(inner) for inner in value] if isinstance(value, list) else value
        for name, value in values.items()
    }


def interval_text(interval: Interval, signed: bool = False) -> str:
    """Return a mean with its bounds, three digits each."""
    form = "+.3f" if signed else ".3f"
    if np.isnan(interval.mean):
        return "–"
    if np.isnan(interval.low):
        return f"{interval.mean:{form}}"
    return f"{interval.mean:{form}} ({interval.low:{form}}, {interval.high:{form}})"
