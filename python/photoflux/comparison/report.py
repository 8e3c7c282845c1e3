"""The report of a comparison as one HTML page; its sections are filled here, the template lays them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from photoflux.comparison import plots
from photoflux.comparison.comparison import Comparison
from photoflux.comparison.decision import CRITERION
from photoflux.comparison.intervals import Interval
from photoflux.comparison.measures import PARTS, PRECISION, VariantResult
from photoflux.data.shape import Shape
from photoflux.reporting.i18n import Translator, translator
from photoflux.reporting.page import Drawing, Table, destination, drawing, environment, write_page
from photoflux.reporting.sentences import regularisation, text_of
from photoflux.reporting.tables import BALANCE

MEASURES = {"loss": "loss", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}


def write_comparison(comparison: Comparison, path: str | Path | None = None, *, lang: str = "en") -> Path:
    """Write a comparison's report, ``report.html`` in its folder unless said otherwise, and return the file.

    Raises
    ------
    RunError
        If the file cannot be written.
    SettingError
        If there is no such language, or `path` is a folder.
    """
    path = destination(comparison.path, path)
    write_page(path, page_of_comparison(comparison, translator(lang)))
    return path


def page_of_comparison(comparison: Comparison, tr: Translator) -> str:
    """Return a comparison's report as HTML."""
    values: dict[str, Any] = {
        "comparison": comparison,
        "reasons": [text_of(sentence, tr) for sentence in comparison.sentences],
        "figures": _key_figures(comparison, tr),
        "intervals": _intervals(comparison, tr),
        "measures": [_measures(comparison, part, tr) for part in comparison.parts],
        "differences": _differences(comparison, tr),
        "fits": _fits(comparison, tr),
        "curves": _curves(comparison, tr),
        "variants": [(row.variant.name, _in_words(comparison, row, tr)) for row in comparison.results],
        "settings": _settings(comparison, tr),
        "versions": sorted(comparison.versions.items()),
    }
    return environment("photoflux.comparison", "").get_template("comparison.html.jinja").render(tr=tr, **values)


def bounds(interval: Interval, tr: Translator, form: str = ".3f") -> str:
    """Return a mean and, where there are any, its bounds."""
    if np.isnan(interval.mean):
        return "–"
    if np.isnan(interval.low):
        return tr.number(interval.mean, form)
    values = {name: tr.number(value, form) for name, value in vars(interval).items()}
    return tr.sentence("{mean} ({low} to {high})", **values)


def _key_figures(comparison: Comparison, tr: Translator) -> list[tuple[str, str]]:
    chosen = comparison.results[comparison.decision.chosen]
    figures = [(tr("chosen"), chosen.variant.name)]
    for part in comparison.parts:
        title = tr.sentence("balanced accuracy, {part}", part=tr(PARTS[part]))
        figures.append((title, tr.percent(chosen.parts[part][CRITERION].mean)))
    return figures


def _intervals(comparison: Comparison, tr: Translator) -> Drawing:
    rows = {
        row.variant.name: {part: row.parts[part][CRITERION] for part in comparison.parts} for row in comparison.results
    }
    return drawing(
        plots.intervals(rows, tr, tr("balanced accuracy")),
        tr("Balanced accuracy of every variant on each part, mean and interval."),
        tr("Balanced accuracy, mean and 95 % interval"),
    )


def _curves(comparison: Comparison, tr: Translator) -> Drawing:
    return drawing(
        plots.histories(comparison.histories, tr),
        tr("Total validation loss of every variant by epoch."),
        tr("Total validation loss, one line per seed"),
    )


def _measures(comparison: Comparison, part: str, tr: Translator) -> Table:
    binary = "recall_at_precision" in comparison.results[0].parts[part]
    names = [*MEASURES, *(["recall_at_precision"] if binary else [])]
    titles = {
        "validation": "Validation part: used for the choice",
        "test": "Test part: evaluated after the choice",
        "holdout": "Second folder: evaluated after the choice",
    }
    head = [tr("variant"), *(tr(MEASURES[name]) for name in MEASURES)]
    if binary:
        head.append(tr.sentence("recall at a precision of {precision:.2f}", precision=PRECISION))
    rows = [[row.variant.name, *(bounds(row.parts[part][name], tr) for name in names)] for row in comparison.results]
    return Table(head, rows, range(1, len(head)), tr(titles[part]))


def _differences(comparison: Comparison, tr: Translator) -> Table:
    reference = comparison.results[comparison.decision.reference].variant.name
    rows = []
    for row in comparison.results:
        if not row.differences:
            continue
        found = [row.differences[part][CRITERION] for part in comparison.parts]
        answers = [tr("detected" if interval.excludes_zero else "not detected") for interval in found]
        cells = [f"{bounds(interval, tr, '+.3f')} {a}" for interval, a in zip(found, answers, strict=True)]
        rows.append([row.variant.name, *cells])
    head = [tr("variant"), *(tr(PARTS[part]) for part in comparison.parts)]
    caption = tr.sentence("Difference in balanced accuracy from {name}, paired by seed and image", name=reference)
    return Table(head, rows, range(1, len(head)), caption)


def _fits(comparison: Comparison, tr: Translator) -> Table:
    titles = {
        "gap": "accuracy gap",
        "best_epoch": "best epoch",
        "overfits_from": "overfits from epoch",
        "seconds": "seconds",
        "nonzero": "non-zero weights",
    }
    forms = {"gap": ".3f", "best_epoch": ".1f", "overfits_from": ".1f", "seconds": ",.0f", "nonzero": ",.0f"}
    rows = [
        [row.variant.name, *(bounds(row.numbers[name], tr, forms[name]) for name in titles)]
        for row in comparison.results
    ]
    return Table([tr("variant"), *(tr(title) for title in titles.values())], rows, range(1, 6))


def _in_words(comparison: Comparison, row: VariantResult, tr: Translator) -> str:
    """Return what the numbers say of one variant."""
    parts = [text_of(("Its regularisation: {recipe}.", {"recipe": regularisation(row.variant)}), tr)]
    start, best = row.numbers["overfits_from"], row.numbers["best_epoch"]
    if np.isnan(start.mean):
        template = "The validation loss is lowest at the last epoch with every seed: no overfitting is seen yet."
    else:
        template = (
            "From epoch {start:.1f} on, on average, the validation loss rises: it overfits; its best epoch is "
            "{best:.1f}."
        )
    parts.append(tr.sentence(template, start=start.mean, best=best.mean))
    template = "Its accuracy on the training part minus that on the validation part is {gap:+.3f}."
    parts.append(tr.sentence(template, gap=row.numbers["gap"].mean))
    if row.differences:
        found = row.differences["test"][CRITERION]
        name = comparison.results[comparison.decision.reference].variant.name
        template = "On the test part no difference from {name} is detected: {mean:+.3f} ({low:+.3f} to {high:+.3f})."
        if found.excludes_zero:
            template = (
                "On the test part its balanced accuracy differs from that of {name} by {mean:+.3f} "
                "({low:+.3f} to {high:+.3f})."
            )
        parts.append(tr.sentence(template, name=name, **vars(found)))
    return " ".join(parts)


def _settings(comparison: Comparison, tr: Translator) -> list[tuple[str, str]]:
    own = tr("each variant's own")
    s, d = comparison.settings, comparison.data
    rate = s["learning_rate"]
    rows = [
        (tr("seeds"), ", ".join(map(str, s["seeds"]))),
        (tr("maximum number of epochs"), own if s["epochs"] is None else str(s["epochs"])),
        (tr("batch size"), own if s["batch_size"] is None else str(s["batch_size"])),
        (tr("optimiser"), own if rate is None else tr.sentence("Adam, learning rate {rate}", rate=rate)),
        *([] if s.get("schedule") is None else [(tr("learning-rate schedule"), s["schedule"])]),
        (tr("class balancing"), own if s["balance"] is None else tr(BALANCE[s["balance"]])),
        (tr("engine"), s["engine"]),
        (tr("data"), d["name"]),
        (tr("classes"), ", ".join(d["classes"])),
        (tr("image size"), str(Shape(*d["image"]))),
    ]
    rows += [(tr(PARTS.get(part, part)), tr.sentence("{n} images", n=count)) for part, count in d["images"].items()]
    rows += [
        (tr.sentence("fingerprint, seed {seed}", seed=str(seed)), fingerprint)
        for seed, fingerprint in zip(s["seeds"], d["fingerprints"], strict=True)
    ]
    return rows
