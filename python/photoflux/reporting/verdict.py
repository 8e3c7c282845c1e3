"""The sentences at the top of a run's report, made from its numbers."""

from __future__ import annotations

import numpy as np

from photoflux.model.history import overfitting_starts
from photoflux.reporting.i18n import Translator
from photoflux.runs.evaluation import Metrics
from photoflux.runs.run import Run

LEVEL = 0.95


def verdict(run: Run, tr: Translator) -> list[str]:
    """Return short paragraphs made from a run's numbers: test scores, the most frequent confusion, how the fit went."""
    test = run.metrics.test
    paragraphs = [] if test is None else [_score(run, test, tr), _classes(run, test, tr)]
    if run.history:
        paragraphs.append([*_ending(run, tr), *_overfitting(run, tr)])
    elif run.ended == "adopted":
        paragraphs.append([tr("It was imported from a Keras model, not trained here: there are no learning curves.")])
    return [" ".join(sentences) for sentences in paragraphs if sentences]


def accuracy_interval(test: Metrics) -> tuple[float, float, float]:
    """Return the bounds of the accuracy, and the share of the largest class, all 0 to 1."""
    counts = np.asarray(test.confusion)
    images = int(counts.sum())
    return *interval(int(np.trace(counts)), images), float(counts.sum(axis=1).max() / images)


def interval(right: int, of: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share, 0 to 1.

    (E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.) It takes the
    images to be independent.
    """
    from scipy.stats import binomtest

    found = binomtest(right, of).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def _score(run: Run, test: Metrics, tr: Translator) -> list[str]:
    sizes = [sum(row) for row in test.confusion]
    low, high, largest = accuracy_interval(test)
    values = {
        "images": sum(sizes),
        "accuracy": test.accuracy,
        "low": low,
        "high": high,
        "balanced": test.balanced_accuracy,
        "largest": largest,
        "name": run.classes[sizes.index(max(sizes))],
    }
    sentences = [
        tr.sentence(
            "On the {images} images of the test part, which it had not seen, its accuracy is {accuracy:.1%} (95 % "
            "interval {low:.1%} to {high:.1%}); averaged over the classes it is {balanced:.1%} (balanced accuracy).",
            **values,
        )
    ]
    template = "No difference is detected from always predicting “{name}”, which would be correct for {largest:.1%}."
    if low > largest:
        template = "That is more than always predicting “{name}”, which would be correct for {largest:.1%}."
    elif high < largest:
        template = "That is less than always predicting “{name}”, which would be correct for {largest:.1%}."
    return [*sentences, tr.sentence(template, **values)]


def _classes(run: Run, test: Metrics, tr: Translator) -> list[str]:
    """Return recall and precision of the positive class, and which other folder is most often predicted as it."""
    positive = run.data.positive
    if positive is None:
        worst = min(range(len(run.classes)), key=lambda i: test.recall[i])
        template = "The class with the lowest recall is “{name}”: {recall:.1%}."
        return [tr.sentence(template, name=run.classes[worst], recall=test.recall[worst])]
    template = (
        "It finds {recall:.1%} of the images of “{name}” (recall), and {precision:.1%} of its predictions of “{name}” "
        "are correct (precision)."
    )
    sentences = [tr.sentence(template, recall=test.recall[1], precision=test.precision[1], name=positive)]
    if not any(row[1] for row in test.confusion):
        template = "It predicts “{name}” for no image, and so finds none of the {images}."
        sentences = [tr.sentence(template, name=positive, images=sum(test.confusion[1]))]
    chosen = run.threshold or {}
    kept = chosen.get("test")
    if kept and kept["recall"]["value"] is not None and kept["precision"]["value"] is not None:
        template = "At the run's threshold of {score:.3g} the recall is {recall:.1%} and the precision {precision:.1%}."
        shares = {"recall": kept["recall"]["value"], "precision": kept["precision"]["value"]}
        sentences.append(tr.sentence(template, score=chosen["score"], **shares))
    others = {name: row for name, row in test.folders.items() if name != positive}
    if len(others) < 2:
        return sentences
    name, row = min(others.items(), key=lambda item: item[1]["accuracy"])
    if row["accuracy"] == 1:
        if any(row[1] for row in test.confusion):
            template = "No image of the other folders is predicted as “{positive}”."
            sentences.append(tr.sentence(template, positive=positive))
        return sentences
    template = (
        "Of the other folders, “{name}” is most often predicted as “{positive}”: {wrong} of {images} images "
        "({share:.1%})."
    )
    share = 1 - row["accuracy"]
    wrong = round(share * row["images"])
    values = {"name": name, "positive": positive, "wrong": wrong, "images": int(row["images"]), "share": share}
    return [*sentences, tr.sentence(template, **values)]


def _ending(run: Run, tr: Translator) -> list[str]:
    done, kept = len(run.history), run.kept_epoch
    values = {"done": done, "kept": kept, "of": run.settings.epochs, "patience": run.variant.patience}
    template = {
        "early_stopping": "It stopped early, after {done} of at most {of} epochs, when the total validation loss had "
        "not fallen for {patience} epochs; the weights of epoch {kept} are kept.",
        "stopped": "It was stopped after {done} of at most {of} epochs, by a callback or its time budget; the weights "
        "of epoch {kept} are kept.",
        "interrupted": "It was interrupted after {done} of {of} epochs; the weights of epoch {kept} are kept.",
        "diverged": "The loss became infinite or NaN after {done} of {of} epochs; the weights of epoch {kept} "
        "are kept.",
    }.get(
        run.ended,
        "It was trained for one epoch."
        if done == 1
        else "It was trained for all {done} epochs; the weights of epoch {kept} are kept.",
    )
    return [tr.sentence(template, **values)]


def _overfitting(run: Run, tr: Translator) -> list[str]:
    if len(run.history) < 2:
        return [tr("One epoch does not tell whether it overfits.")]
    start = overfitting_starts(run.history)
    lowest = min(run.history, key=lambda row: row.validation_loss)
    last, kept = run.history[-1], run.history[max(run.kept_epoch, 1) - 1]
    values = {
        "lowest": lowest.epoch,
        "from_validation": lowest.validation_loss,
        "to_validation": last.validation_loss,
        "from_train": lowest.train_loss,
        "to_train": last.train_loss,
    }
    if start != start:
        template = "The validation loss is lowest at the last epoch: no overfitting is seen, more epochs may help."
    elif last.train_loss < lowest.train_loss:
        values["start"] = int(start)
        template = (
            "From epoch {start} on it overfits: the validation loss rises from {from_validation:.3f} to "
            "{to_validation:.3f} at the last epoch, while the training loss falls from {from_train:.3f} to "
            "{to_train:.3f}."
        )
    else:
        template = (
            "The validation loss is lowest at epoch {lowest} and ends at {to_validation:.3f}; as the training loss "
            "does not fall after it, this is not overfitting."
        )
    gap = {
        "kept": kept.epoch,
        "train": kept.train_accuracy,
        "validation": kept.validation_accuracy,
        "points": 100 * (kept.train_accuracy - kept.validation_accuracy),
    }
    return [
        tr.sentence(template, **values),
        tr.sentence(
            "At epoch {kept} the accuracy is {train:.1%} in training and {validation:.1%} in validation: a gap of "
            "{points:+.1f} points.",
            **gap,
        ),
    ]
