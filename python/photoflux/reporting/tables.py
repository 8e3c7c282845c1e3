"""The tables of a run's report; a column is added here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from photoflux.data.prepared import SPLITS, PreparedDataset
from photoflux.model.settings import Settings
from photoflux.model.summary import Summary, penalty_text
from photoflux.model.variant import LOSSES
from photoflux.reporting.i18n import Translator
from photoflux.reporting.page import Table
from photoflux.reporting.report_data import ReportData
from photoflux.reporting.sentences import regularisation, text_of
from photoflux.runs.evaluation import Metrics
from photoflux.runs.run import Run
from photoflux.system.names import printable

# Rows of a table of classes, and of pairs that are confused.
MOST, PAIRS = 100, 10
BALANCE = {
    "none": "none",
    "weights": "class weights in the loss",
    "augment": "augmented copies of the smaller classes",
}


def parts(run: Run, tr: Translator) -> Table:
    """Return loss, penalty and accuracy of each part."""
    titles = ("part", "loss", "penalty", "total", "accuracy", "balanced accuracy")
    rows = []
    for part, metrics in run.metrics.by_part().items():
        losses = [tr.number(loss, ".4f") for loss in (metrics.loss, metrics.penalty, metrics.total)]
        shares = [metrics.accuracy, metrics.balanced_accuracy if isinstance(metrics, Metrics) else None]
        rows.append([tr(part), *losses, *("–" if share is None else tr.percent(share) for share in shares)])
    return Table([tr(title) for title in titles], rows, range(1, len(titles)))


def classes(run: Run, tr: Translator) -> Table | None:
    """Return precision and recall of each class on the test part; None if that was not scored."""
    test = run.metrics.test
    if test is None:
        return None
    of_class = zip(run.classes, test.confusion, test.precision, test.recall, strict=True)
    rows = [
        [name, tr.number(sum(counts), ","), tr.percent(precision), tr.percent(recall)]
        for name, counts, precision, recall in of_class
    ]
    head = [tr(title) for title in ("class", "images", "precision", "recall")]
    return Table(head, rows[:MOST], range(1, 4))


def confused(run: Run, tr: Translator) -> Table | None:
    """Return the pairs of classes that are confused most on the test part; None for two classes, or no error."""
    if run.metrics.test is None:
        return None
    counts, names = run.metrics.test.confusion, run.classes
    pairs = [(counts[i][j], i, j) for i in range(len(names)) for j in range(len(names)) if i != j and counts[i][j]]
    if len(names) == 2 or not pairs:
        return None
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    rows = [
        [names[i], names[j], tr.number(count, ","), tr.percent(count / sum(counts[i]))] for count, i, j in pairs[:PAIRS]
    ]
    head = [tr(title) for title in ("true class", "predicted class", "images", "share of the true class")]
    return Table(head, rows, (2, 3))


def folders(report_data: ReportData, tr: Translator) -> Table | None:
    """Return how much of each folder of the test part is predicted as the positive class; None if there are no others.

    The counts need no dataset; with it, and a threshold in the run, a column has the share predicted at that threshold.
    """
    run = report_data.run
    positive, found = run.data.positive, {} if run.metrics.test is None else run.metrics.test.folders
    if positive is None or len(found) < 2:
        return None
    titles = ["folder", "images", "predicted “{name}”", "share of the folder", "errors"]
    at_threshold: dict[str, float] = {}
    if run.threshold is not None and "test" in report_data.scored:
        scored = report_data.scored["test"]
        predicted, of_folder = scored.probabilities[:, 1] >= run.threshold["score"], report_data.folders[scored.indices]
        at_threshold = {name: float(predicted[of_folder == name].mean()) for name in found}
        titles.append("share at the threshold")
    rows = []
    for name, row in sorted(found.items(), key=lambda item: (item[0] != positive, item[1]["accuracy"])):
        images, right = int(row["images"]), round(row["accuracy"] * row["images"])
        hits = right if name == positive else images - right
        counted = [tr.number(n, ",") for n in (images, hits, images - right)]
        cells = [name, *counted[:2], tr.percent(hits / images), counted[2]]
        rows.append([*cells, tr.percent(at_threshold[name])] if at_threshold else cells)
    return Table([tr.sentence(title, name=positive) for title in titles], rows, range(1, len(titles)))


def threshold(run: Run, tr: Translator) -> Table | None:
    """Return what the run's threshold does on each part; None if it has none."""
    if run.threshold is None:
        return None

    def share(row: dict[str, Any]) -> str:
        if row["value"] is None:
            return "–"
        bounds = [tr.percent(row[name]) for name in ("low", "high")]
        return tr.sentence("{share:.1%} ({low} to {high})", share=row["value"], low=bounds[0], high=bounds[1])

    rows = []
    for part in ("validation", "test"):
        found = run.threshold.get(part)
        if found:
            counted = [tr.number(found[name], ",") for name in ("images", "taken")]
            rows.append([tr(part), *counted, share(found["recall"]), share(found["precision"])])
    titles = ("part", "images", "predicted positive", "recall", "precision")
    return Table([tr(title) for title in titles], rows, range(1, len(titles)))


def settings(run: Run, tr: Translator) -> list[tuple[str, str]]:
    """Return how the run was fitted: names and values."""
    variant, chosen = run.variant, run.settings
    rows = [
        (tr("variant"), variant.name),
        (tr("engine"), run.engine),
        (tr("regularisation"), "; ".join(text_of(item, tr) for item in regularisation(variant))),
        (tr("loss"), tr(LOSSES[variant.loss])),
    ]
    if run.backbone is not None:
        rows.append((tr("backbone"), _backbone(run.backbone, tr)))
    if run.ended != "adopted":
        rows += [
            (tr("optimiser"), _optimiser(chosen, tr)),
            (tr("batch size"), tr.number(chosen.batch_size, ",")),
            (tr("maximum number of epochs"), tr.number(chosen.epochs, ",")),
            (tr("class balancing"), tr(BALANCE[chosen.balance])),
            (tr("seed"), str(chosen.seed)),
        ]
    return [*rows, (tr("initial weights"), _origin(run, tr))]


def _optimiser(chosen: Settings, tr: Translator) -> str:
    if chosen.schedule == "constant":
        return tr.sentence("Adam, learning rate {rate}", rate=chosen.learning_rate)
    template = "Adam, learning rate {rate} times the schedule “{schedule}”"
    return tr.sentence(template, rate=chosen.learning_rate, schedule=chosen.schedule)


def _backbone(backbone: Mapping[str, Any], tr: Translator) -> str:
    parts = [f"{backbone['name']} ({backbone['precision']})", tr.sentence("{n} features", n=backbone["features"])]
    if backbone.get("remaining") is not None:
        parts.append(tr.sentence("{n} of them with a weight that is not 0", n=backbone["remaining"]))
    if backbone["views"]:
        parts.append(tr.sentence("{n} augmented views of each training image", n=backbone["views"]))
    if backbone.get("unfrozen"):
        parts.append(tr.sentence("its last {n} blocks fine-tuned", n=backbone["unfrozen"]))
    return ", ".join(parts)


def _origin(run: Run, tr: Translator) -> str:
    if run.initial is None:
        return tr("drawn from the seed")
    place = run.initial["path"] or tr("a run in memory")
    return tr.sentence("{place}, fingerprint {fingerprint}", place=place, fingerprint=run.initial["fingerprint"])


def layers(summary: Summary, tr: Translator) -> Table:
    """Return shape, parameters, multiply-adds and, where there is any, penalty of each layer."""
    titles = ["layer", "kind", "output shape", "parameters", "multiply-adds"]
    penalties = [tr.localised(penalty_text(layer.penalty)) for layer in summary.layers]
    rows = []
    for layer in summary.layers:
        shape = "×".join(tr.number(side, ",") for side in layer.shape)
        sums = [tr.number(number, ",") for number in (layer.parameters, layer.multiply_adds)]
        rows.append([layer.name, tr(layer.kind), shape, *sums])
    rows.append([tr("total"), "", "", *(tr.number(n, ",") for n in (summary.parameters, summary.multiply_adds))])
    if any(penalties):
        titles.append("penalty")
        rows = [[*row, penalty] for row, penalty in zip(rows, [*penalties, ""], strict=True)]
    return Table([tr(title) for title in titles], rows, (2, 3, 4))


def data(report_data: ReportData, tr: Translator) -> list[tuple[str, str]]:
    """Return what the run was trained on: names and values."""
    run, prepared = report_data.run, report_data.prepared
    rows = [
        (tr("name"), run.data.name),
        (tr("prepared dataset"), run.data.path or tr("not known")),
        (tr("fingerprint"), run.data.fingerprint or tr("not known")),
        (tr("images (height × width × channels)"), str(run.shape)),
    ]
    if run.data.positive is not None:
        rows.append((tr("positive class"), run.data.positive))
    if prepared is not None:
        left_out = len(prepared.rejected)
        listed = tr("none")
        if left_out:
            listed = tr.sentence("{n}, listed in {file}", n=left_out, file=prepared.path / "rejected.csv")
        rows.append((tr("rejected files"), listed))
        if prepared.meta.get("groups"):
            rows.append((tr("groups.csv, groups kept together (sha256)"), prepared.meta["groups"]))
        if prepared.meta.get("split") == "given":
            rows.append((tr("split"), tr("the folder's own parts")))
        rows += [(tr("note"), printable(note)) for note in prepared.warnings]
    return rows


def counts(prepared: PreparedDataset, folder_of: np.ndarray, tr: Translator) -> Table:
    """Return how many images each class, or each folder class where there are others, has in each part."""
    names, codes = np.unique(folder_of.astype(str), return_inverse=True)
    rows = [(str(name), prepared.split[codes == code]) for code, name in enumerate(names[:MOST])]
    cells = []
    for name, split in [*rows, (tr("total"), prepared.split)]:
        sizes = [*np.bincount(split, minlength=len(SPLITS)), len(split)]
        cells.append([name, *(tr.number(int(size), ",") for size in sizes)])
    head = [tr("folder"), *(tr(part) for part in SPLITS), tr("total")]
    return Table(head, cells, range(1, len(head)))


def versions(run: Run, tr: Translator) -> list[tuple[str, str]]:
    """Return what computed it, when and for how long."""
    rows = [(name, str(version)) for name, version in run.versions.items()]
    if run.created:
        rows.append((tr("saved"), tr.date(run.created)))
    if run.seconds:
        rows.append((tr("the fit took"), tr.duration(run.seconds)))
    return rows
