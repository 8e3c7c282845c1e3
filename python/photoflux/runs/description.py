"""The data and scores of a run as types; how they are written in ``run.json`` is changed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.model.history import EpochRow
from photoflux.runs.evaluation import Metrics


@dataclass(frozen=True)
class TrainMetrics:
    """The training part: the kept epoch's running means, while the weights change, with dropout.

    Attributes
    ----------
    loss, penalty, total : float
        Mean data loss over images, the penalty of the weights, and their sum.
    accuracy : float
        The share of images classified correctly, 0 to 1.
    """

    loss: float
    penalty: float
    total: float
    accuracy: float

    @classmethod
    def of(cls, history: Sequence[EpochRow], kept_epoch: int) -> TrainMetrics | None:
        """Return those of the kept epoch; None if no epoch was finished."""
        if not history:
            return None
        row = history[max(kept_epoch, 1) - 1]
        return cls(row.train_loss, row.train_penalty, row.train_total, row.train_accuracy)


@dataclass(frozen=True)
class RunMetrics:
    """What a run scores on each part of its data; None where that was not computed.

    Attributes
    ----------
    train : TrainMetrics or None
        The kept epoch's running means.
    validation, test : Metrics or None
        As `photoflux.evaluate` gives them, dropout off.
    """

    train: TrainMetrics | None = None
    validation: Metrics | None = None
    test: Metrics | None = None

    def by_part(self) -> dict[str, TrainMetrics | Metrics]:
        """Return those that there are, by the name of the part: train, validation, test."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {part: metrics for part, metrics in found.items() if metrics is not None}

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values; a part without metrics is left out."""
        return {
            part: metrics.as_dict() if isinstance(metrics, Metrics) else asdict(metrics)
            for part, metrics in self.by_part().items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunMetrics:
        """Return what `as_dict` gave.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            If a value is missing or is not of its kind.
        """
        train = values.get("train")
        names = ("loss", "penalty", "total", "accuracy")
        scored = {part: Metrics.from_dict(values[part]) for part in ("validation", "test") if part in values}
        return cls(TrainMetrics(*(float(train[name]) for name in names)) if train else None, **scored)


@dataclass(frozen=True)
class RunData:
    """What a run says of the prepared dataset that it was trained on.

    Attributes
    ----------
    name, fingerprint : str
        The dataset's; "no data" and "" if it was imported without one.
    classes : list of str
        The class names, in the order of the labels.
    shape : Shape
        Channels, height and width of the images.
    path : str or None
        Where the prepared dataset is; None if that is not known.
    positive : str or None
        The folder that counts as the second of two classes; None if the classes are the folders.
    seed : int or None
        That of the split; None if an earlier PhotoFlux wrote the run.
    images : int or None
        How many the dataset has; None if that is not known.
    made_from : dict or None
        What it was prepared from, see `photoflux.data.preparation.prepare_again`; None if that is not known.
    groups : str or None
        The sha256 of the file of groups that the split kept together; None if there was none.
    split : str
        ``"given"`` if the folder's own parts are the split, else ``"made"``.
    notes : list of str
        The notes of the dataset.
    """

    name: str
    fingerprint: str
    classes: list[str]
    shape: Shape
    path: str | None = None
    positive: str | None = None
    seed: int | None = None
    images: int | None = None
    made_from: dict[str, Any] | None = None
    groups: str | None = None
    split: str = "made"
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, prepared: PreparedDataset) -> RunData:
        """Return what a run says of a prepared dataset."""
        return cls(
            name=prepared.name,
            path=str(prepared.path.resolve()),
            fingerprint=prepared.fingerprint,
            seed=prepared.meta["seed"],
            images=len(prepared),
            made_from=prepared.meta.get("made_from"),
            groups=prepared.meta.get("groups"),
            split=prepared.meta.get("split") or "made",
            notes=prepared.warnings,
            classes=prepared.classes,
            positive=prepared.positive,
            shape=prepared.shape,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values; of a dataset that is not known, what would be said of one is left out."""
        known = () if self.images is None else ("seed", "images", "made_from", "groups", "split", "notes")
        order = ("name", "path", "fingerprint", *known, "classes", "positive")
        return {name: getattr(self, name) for name in order} | self.shape._asdict()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunData:
        """Return what `as_dict` gave, or Julia or an earlier PhotoFlux wrote, who say less.

        Raises
        ------
        KeyError, TypeError, ValueError
            If a value is missing or is not of its kind.
        """
        given = {name: values[name] for name in cls.__dataclass_fields__ if values.get(name) is not None}
        shape = Shape(*(int(values[name]) for name in Shape._fields))
        return cls(**given | {"classes": values["classes"], "shape": shape})
