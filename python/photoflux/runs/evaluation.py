"""Computes losses, accuracy, confusion matrix and errors by folder from logits; a metric is added here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from photoflux.model.variant import Variant


@dataclass(frozen=True)
class Metrics:
    """What a model scores on one part of a dataset, dropout off.

    Attributes
    ----------
    loss, penalty, total : float
        Mean data loss over images, the penalty of the weights, and their sum.
    accuracy, balanced_accuracy : float
        The share of images classified correctly, and the mean of that share over classes, both 0 to 1.
    images : int
        How many images were scored.
    confusion : list of list of int
        ``confusion[i][j]``: images of class i predicted as class j.
    precision, recall : list of float
        Of each class, 0 to 1; 0 where no image was predicted as the class, or it has no image.
    folders : dict of str to dict
        For each folder class its ``images`` and the ``accuracy`` on them: where the errors of a binary model come from.
    part : str
        Which part was scored: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
    left_out : int
        How many images of the part were not scored, because the weights had seen them.
    notes : list of str
        Notes on the score: what was left out and why, classes without an image.
    rejected : int
        How many files of other data than the run's own could not be read.
    shifts : list of dict
        In which respects images of other data are unlike those of the run, see `photoflux.runs.shift.Shift`.
    """

    loss: float
    penalty: float
    total: float
    accuracy: float
    balanced_accuracy: float
    images: int
    confusion: list[list[int]]
    precision: list[float]
    recall: list[float]
    folders: dict[str, dict[str, float]] = field(default_factory=dict)
    part: str = ""
    left_out: int = 0
    notes: list[str] = field(default_factory=list)
    rejected: int = 0
    shifts: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics as plain JSON-ready values; ``shifts`` only where there are any."""
        return {name: value for name, value in asdict(self).items() if name != "shifts" or value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metrics:
        """Return what `as_dict` gave; an earlier PhotoFlux wrote none of those with a default.

        Parameters
        ----------
        values : mapping of str to any
            The values by name.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            If a value is missing or is not of its kind.
        """
        given = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        numbers = ("loss", "penalty", "total", "accuracy", "balanced_accuracy")
        return cls(**given | {name: float(values[name]) for name in numbers})


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the probability of every class, (N, classes) float32, of logits (N, outputs).

    One output is the log-odds of the second of two classes (logistic function); several are softmaxed.
    """
    from scipy.special import softmax

    p: np.ndarray = softmax(_class_logits(logits), axis=1).astype(np.float32)
    return p


def _class_logits(logits: np.ndarray) -> np.ndarray:
    """Return logits of every class, (N, classes) float64; of one output those of two classes are 0 and it."""
    z = logits.astype(np.float64)
    return np.concatenate([np.zeros_like(z), z], axis=1) if z.shape[1] == 1 else z


def decisions(logits: np.ndarray) -> np.ndarray:
    """Return the class of each row of logits: the largest, or for one output 1 where it is above 0."""
    return (logits[:, 0] > 0).astype(np.int32) if logits.shape[1] == 1 else logits.argmax(axis=1).astype(np.int32)


def data_loss(loss: str, logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of `image_losses`, in float64."""
    return float(image_losses(loss, logits, labels).mean())


def image_losses(loss: str, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the data loss of each image, (N,) float64.

    Parameters
    ----------
    loss : str
        ``"cross_entropy"``, −log p(label); or ``"squared_error"``, 0.5·mean((p − onehot)²), where for one output p
        is the probability of the second class alone.
    logits : numpy.ndarray
        (N, outputs).
    labels : numpy.ndarray
        Integers from 0, (N,).
    """
    from scipy.special import expit, log_softmax, softmax

    losses: np.ndarray
    if loss == "squared_error":
        z = logits.astype(np.float64)
        p, target = (expit(z), labels[:, None]) if z.shape[1] == 1 else (softmax(z, axis=1), np.eye(z.shape[1])[labels])
        losses = 0.5 * np.mean((p - target) ** 2, axis=1)
    else:
        losses = -log_softmax(_class_logits(logits), axis=1)[np.arange(len(labels)), labels]
    return losses


def score(
    variant: Variant, logits: np.ndarray, labels: np.ndarray, classes: int, penalty: float, folders: Sequence[str] = ()
) -> Metrics:
    """Score logits against labels.

    Parameters
    ----------
    variant : Variant
        Says which data loss.
    logits : numpy.ndarray
        (N, outputs).
    labels : numpy.ndarray
        Integers from 0, (N,).
    classes : int
        How many classes there are.
    penalty : float
        The penalty of the weights.
    folders : sequence of str
        The folder class of each image, or nothing.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    taken = decisions(logits)
    names = list(range(classes))
    precision, recall, _, support = precision_recall_fscore_support(labels, taken, labels=names, zero_division=0)
    right = taken == labels
    of_folder = np.asarray(folders)
    loss = data_loss(variant.loss, logits, labels)
    return Metrics(
        loss=loss,
        penalty=penalty,
        total=loss + penalty,
        accuracy=float(right.mean()),
        balanced_accuracy=float(recall[support > 0].mean()),
        images=len(labels),
        confusion=confusion_matrix(labels, taken, labels=names).tolist(),
        precision=precision.tolist(),
        recall=recall.tolist(),
        folders={
            str(name): {"images": int((of_folder == name).sum()), "accuracy": float(right[of_folder == name].mean())}
            for name in np.unique(of_folder)
        },
    )
