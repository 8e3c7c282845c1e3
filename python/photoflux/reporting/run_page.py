"""Fills the template of a run's report; a section is added here and in ``templates/run.html.jinja``."""

from __future__ import annotations

from typing import Any

import numpy as np

from photoflux.model.summary import Summary
from photoflux.reporting import plots, tables
from photoflux.reporting.architecture import draw_architecture
from photoflux.reporting.examples import correct_examples, worst_errors
from photoflux.reporting.i18n import Translator
from photoflux.reporting.page import Drawing, drawing, rendered
from photoflux.reporting.report_data import PARTS, ReportData, gather
from photoflux.reporting.reproduce import prepare_command, train_command, why_not
from photoflux.reporting.verdict import accuracy_interval, verdict
from photoflux.runs.run import Run, summary_of_run
from photoflux.thresholds.calibration import calibrate


def page_of(run: Run, tr: Translator) -> str:
    """Return a run's report as HTML."""
    report_data = gather(run, tr)
    layers = summary_of_run(run)
    many = len(run.classes) > 2
    values: dict[str, Any] = {
        "run": run,
        "missing": report_data.missing,
        "verdict": verdict(run, tr),
        "rating": _rating(run),
        "figures": _key_figures(report_data, tr),
        "curves": curves(run, tr),
        "parts": tables.parts(run, tr),
        "confusion": _confusion(run, tr),
        "classes": tables.classes(run, tr),
        "confused": tables.confused(run, tr),
        "ranking": [] if many else _ranking(report_data, tr),
        "threshold": tables.threshold(run, tr),
        "promised": _promised(run),
        "calibration": _calibration(report_data, tr),
        "folders": tables.folders(report_data, tr),
        "errors": worst_errors(report_data, "test", tr) if "test" in report_data.scored else None,
        "correct": correct_examples(report_data, "test", tr) if "test" in report_data.scored else [],
        "architecture": architecture(layers, tr),
        "layers": tables.layers(layers, tr),
        "settings": tables.settings(run, tr),
        "data": tables.data(report_data, tr),
        "counts": None,
        "versions": tables.versions(run, tr),
        "why_not": why_not(run, tr),
        "commands": [],
    }
    if report_data.prepared is not None:
        values["counts"] = tables.counts(report_data.prepared, report_data.folders, tr)
    if values["why_not"] is None:
        values["commands"] = [train_command(run), report_data.prepared and prepare_command(report_data.prepared)]
    return rendered("run.html", tr, **values)


def _promised(run: Run) -> dict[str, Any]:
    """Return what the run's threshold promises; an earlier PhotoFlux did not say all of it."""
    said = {name: value for name, value in (run.threshold or {}).items() if value is not None}
    return {"positive": run.classes[1], "confidence": 0.95} | said


def _rating(run: Run) -> str:
    """Return whether the run is better than always answering the largest class."""
    if run.metrics.test is None:
        return ""
    low, high, largest = accuracy_interval(run.metrics.test)
    return "good" if low > largest else "bad" if high < largest else ""


def _key_figures(report_data: ReportData, tr: Translator) -> list[tuple[str, str]]:
    """Return the key figures of the run."""
    run, figures = report_data.run, []
    test = run.metrics.test
    if test is not None:
        figures += [
            (tr("test accuracy"), tr.percent(test.accuracy)),
            (tr("balanced accuracy"), tr.percent(test.balanced_accuracy)),
            (tr("test loss"), tr.number(test.loss)),
        ]
        if run.data.positive is not None:
            name = run.classes[1]
            figures += [
                (tr.sentence("recall of “{name}”", name=name), tr.percent(test.recall[1])),
                (tr.sentence("precision of “{name}”", name=name), tr.percent(test.precision[1])),
            ]
    if run.history:
        figures.append((tr("epoch kept"), tr.sentence("{kept} of {done}", kept=run.kept_epoch, done=len(run.history))))
    return figures


def curves(run: Run, tr: Translator, size: tuple[float, float] = (4.6, 3.3)) -> list[Drawing]:
    """Draw the learning curves of accuracy and loss, sizes in inches; none if there is no history."""
    if not run.history:
        return []
    accuracy, loss = (plots.curves(run.history, run.ended, column, tr, size) for column in ("accuracy", "total"))
    return [
        drawing(accuracy, tr("Learning curve: accuracy of training and validation by epoch."), tr("Accuracy")),
        drawing(loss, tr("Learning curve: loss of training and validation by epoch."), tr("Loss")),
    ]


def _confusion(run: Run, tr: Translator) -> Drawing | None:
    if run.metrics.test is None:
        return None
    figure = plots.confusion_matrix(run.metrics.test.confusion, run.classes, tr)
    alt = tr("Confusion matrix of the test part; the table of classes has its sums.")
    caption = tr(
        "Rows: true class. Columns: predicted class. The stronger the colour of a cell, the larger its share of the "
        "true class."
    )
    return drawing(figure, alt, tr("Confusion matrix, test"), caption)


def architecture(layers: Summary, tr: Translator) -> Drawing:
    """Draw the layers."""
    alt = tr("The layers of the model from the images to the output, with shapes and parameters.")
    return drawing(draw_architecture(layers, tr), alt)


def _ranking(report_data: ReportData, tr: Translator) -> list[Drawing]:
    """Draw ROC and precision–recall curves of the parts that have images of both classes."""
    parts = {
        part: (report_data.scored[part].labels, report_data.scored[part].probabilities[:, 1])
        for part in PARTS
        if part in report_data.scored and len(np.unique(report_data.scored[part].labels)) == 2
    }
    if not parts:
        return []
    thresholds = {tr.sentence("threshold {value:.3g}", value=0.5): 0.5}
    if report_data.run.threshold is not None:
        score = report_data.run.threshold["score"]
        thresholds[tr.sentence("the run's threshold, {value:.3g}", value=score)] = score
    titles = {
        "roc": (
            tr("ROC curve"),
            tr("ROC curve: true positive rate against false positive rate as the threshold varies."),
        ),
        "precision_recall": (
            tr("Precision and recall"),
            tr("Precision against recall as the threshold varies."),
        ),
    }
    return [drawing(plots.ranking(kind, parts, thresholds, tr), alt, title) for kind, (title, alt) in titles.items()]


def _calibration(report_data: ReportData, tr: Translator) -> list[Drawing]:
    """Draw the reliability of each part, without and with a temperature that is fitted on validation."""
    if "validation" not in report_data.scored:
        return []
    found = calibrate({part: (scored.logits, scored.labels) for part, scored in report_data.scored.items()})
    alt = tr("Reliability diagram: observed frequency against predicted probability.")
    titles = [(found.before, tr("Calibration, without temperature"))]
    if found.temperature is not None:
        title = tr.sentence("Calibration, with temperature {value:.3g}", value=found.temperature)
        titles.append((found.after, title))
    return [drawing(plots.calibration_curve(parts, tr), alt, title) for parts, title in titles]
