"""A run's report as HTML, and what a notebook shows of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from photoflux.model.summary import Summary
from photoflux.reporting import plots, tables
from photoflux.reporting.architecture import architecture_svg
from photoflux.reporting.examples import right_examples, worst_errors
from photoflux.reporting.i18n import Translator, translator
from photoflux.reporting.page import Drawing, drawing, rendered
from photoflux.reporting.report_data import PARTS, Evidence, gather
from photoflux.reporting.reproduce import obstacle, prepare_command, train_command
from photoflux.reporting.verdict import interval, verdict
from photoflux.runs.run import Run, summary_of_run
from photoflux.thresholds.calibration import calibrate


def page_of(run: Run, words: Translator) -> str:
    """Return a run's report as HTML."""
    evidence = gather(run, words)
    layers = summary_of_run(run)
    has_test = "test" in run.metrics
    many = len(run.classes) > 2
    values: dict[str, Any] = {
        "run": run,
        "missing": evidence.missing,
        "verdict": verdict(run, words),
        "mood": _mood(run),
        "key": _key(evidence, words),
        "curves": _curves(run, words),
        "parts": tables.parts(run, words),
        "confusion": _confusion(run, words) if has_test else None,
        "classes": tables.classes(run, words) if has_test else None,
        "confused": tables.confused(run, words) if has_test else None,
        "ranking": [] if many else _ranking(evidence, words),
        "threshold": tables.threshold(run, words),
        "calibration": _calibration(evidence, words),
        "folders": tables.folders(evidence, words),
        "errors": worst_errors(evidence, "test", words) if "test" in evidence.scored else None,
        "right": right_examples(evidence, "test", words) if "test" in evidence.scored else [],
        "architecture": _architecture(layers, words),
        "layers": tables.layers(layers, words),
        "settings": tables.settings(run, words),
        "data": tables.data(evidence, words),
        "counts": None,
        "versions": tables.versions(run, words),
        "obstacle": obstacle(run, words),
        "commands": [],
    }
    if evidence.prepared is not None:
        values["counts"] = tables.counts(evidence.prepared, evidence.folders, words)
    if values["obstacle"] is None:
        values["commands"] = [train_command(run), evidence.prepared and prepare_command(evidence.prepared)]
    return rendered("run.html", words, **values)


def brief(run: Run) -> str:
    """Return what a notebook shows of a run: the table of its parts and small learning curves."""
    words = translator()
    curves = []
    if run.history:
        curves = [plots.curves(run.history, run.ended, column, words, (3.6, 2.7)) for column in ("accuracy", "total")]
    drawings = [drawing(figure, said) for figure, said in zip(curves, _said(words), strict=False)]
    return rendered("brief.html", words, head=str(run).splitlines()[0], parts=tables.parts(run, words), curves=drawings)


def _mood(run: Run) -> str:
    """Return whether the run is better than always answering the largest class."""
    if "test" not in run.metrics:
        return ""
    counts = np.asarray(run.metrics["test"]["confusion"])
    low, high = interval(int(np.trace(counts)), int(counts.sum()))
    largest = counts.sum(axis=1).max() / counts.sum()
    return "good" if low > largest else "bad" if high < largest else ""


def _key(evidence: Evidence, words: Translator) -> list[tuple[str, str]]:
    """Return the figures that are looked at first."""
    run, figures = evidence.run, []
    if "test" in run.metrics:
        test = run.metrics["test"]
        figures += [
            (words("test accuracy"), words.percent(test["accuracy"])),
            (words("balanced accuracy"), words.percent(test["balanced_accuracy"])),
            (words("test loss"), words.number(test["loss"])),
        ]
        if run.data["positive"] is not None:
            name = run.classes[1]
            figures += [
                (words.sentence("recall of “{name}”", name=name), words.percent(test["recall"][1])),
                (words.sentence("precision of “{name}”", name=name), words.percent(test["precision"][1])),
            ]
    if run.history:
        figures.append(
            (words("epoch kept"), words.sentence("{kept} of {done}", kept=run.kept_epoch, done=len(run.history)))
        )
    return figures


def _said(words: Translator) -> tuple[str, str]:
    return (
        words("Learning curve: accuracy of training and validation by epoch."),
        words("Learning curve: loss of training and validation by epoch."),
    )


def _curves(run: Run, words: Translator) -> list[Drawing]:
    if not run.history:
        return []
    titles = (words("Accuracy"), words("Loss"))
    return [
        drawing(plots.curves(run.history, run.ended, column, words), said, title)
        for column, said, title in zip(("accuracy", "total"), _said(words), titles, strict=True)
    ]


def _confusion(run: Run, words: Translator) -> Drawing:
    figure = plots.confusion_matrix(run.metrics["test"]["confusion"], run.classes, words)
    said = words("Confusion matrix of the test part; the table of classes has its sums.")
    caption = words(
        "Rows: the true class. Columns: what it was taken for. The stronger the colour of a cell, the larger its share "
        "of the true class."
    )
    return drawing(figure, said, words("Confusion matrix, test"), caption)


def _architecture(layers: Summary, words: Translator) -> Drawing:
    said = words("The layers of the model from the images to the output, with shapes and parameters.")
    return Drawing(architecture_svg(layers, words), said)


def _ranking(evidence: Evidence, words: Translator) -> list[Drawing]:
    """Draw ROC and precision–recall curves of the parts that have images of both classes."""
    parts = {
        part: (evidence.scored[part].labels, evidence.scored[part].probabilities[:, 1])
        for part in PARTS
        if part in evidence.scored and len(np.unique(evidence.scored[part].labels)) == 2
    }
    if not parts:
        return []
    thresholds = {words.sentence("threshold {value:.3g}", value=0.5): 0.5}
    if evidence.run.threshold is not None:
        score = evidence.run.threshold["score"]
        thresholds[words.sentence("the run's threshold, {value:.3g}", value=score)] = score
    titles = {
        "roc": (words("ROC curve"), words("ROC curve: true against false positives as the threshold moves.")),
        "precision_recall": (
            words("Precision and recall"),
            words("Precision against recall as the threshold moves."),
        ),
    }
    return [
        drawing(plots.ranking(kind, parts, thresholds, words), said, title) for kind, (title, said) in titles.items()
    ]


def _calibration(evidence: Evidence, words: Translator) -> list[Drawing]:
    """Draw the reliability of each part, as it is and with a temperature that is fitted on validation."""
    if "validation" not in evidence.scored:
        return []
    found = calibrate({part: (scored.logits, scored.labels) for part, scored in evidence.scored.items()})
    said = words("Reliability curve: the share that came true against the probability that the model gave.")
    titles = [(found.before, words("Calibration, as it is"))]
    if found.temperature is not None:
        title = words.sentence("Calibration, with temperature {value:.3g}", value=found.temperature)
        titles.append((found.after, title))
    return [drawing(plots.calibration_curve(parts, words), said, title) for parts, title in titles]
