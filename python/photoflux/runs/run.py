"""A run: what its folder holds and how it is loaded; a new entry of ``run.json`` is added here."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photoflux.data.checks import LARGEST
from photoflux.data.prepared import MADE_FROM
from photoflux.data.shape import Shape
from photoflux.errors import RunError, SettingError
from photoflux.model.history import EpochRow
from photoflux.model.layers import outputs_of
from photoflux.model.settings import OWN_SCHEDULE, Settings, settings_of
from photoflux.model.summary import Summary, summary_of
from photoflux.model.variant import Variant
from photoflux.runs.description import RunData, RunMetrics, TrainMetrics
from photoflux.runs.evaluation import Metrics
from photoflux.system.json_file import read_object
from photoflux.system.kinds import check_fields, check_range, check_table, check_word
from photoflux.system.names import printable, user_path

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
LOGITS = "logits.safetensors"
# Words and tables of ``run.json``, with what must be there.
_ENGINES = ("flux", "keras")
_ENDS = ("epochs", "early_stopping", "stopped", "interrupted", "diverged", "adopted")
_INITIAL = {"path": str | None, "fingerprint": str}
_PROMISES = ("recall", "precision")
_THRESHOLD = {
    "score": float, "promise": str, "value": float, "positive": str | None, "confidence": float | None,
    "validation": dict[str, Any] | None, "test": dict[str, Any] | None,
}  # fmt: skip
_MEASURED = {"images": int, "taken": int, "recall": dict[str, Any], "precision": dict[str, Any]}
_SHARE = {"value": float | None, "low": float, "high": float}
_BACKBONE = {
    "name": str, "features": int, "fingerprint": str, "precision": str, "remaining": int | None,
    "networks": list[dict[str, Any]] | None, "image_size": int | None, "views": int | None, "unfrozen": int | None,
    "file": str | None,
}  # fmt: skip
_FOLDER = {"images": float, "accuracy": float}
_MOST_CLASSES, _MOST_FEATURES, _MOST_IMAGES = 100_000, 1_000_000, 1 << 53
COLUMNS = tuple(column.name for column in fields(EpochRow))


@dataclass(frozen=True)
class Run:
    """One training, as its folder holds it.

    Attributes
    ----------
    path : Path
        The folder.
    engine : str
        ``"flux"`` or ``"keras"``: what trained it.
    variant : Variant
        The variant, with the penalty and loss that were used.
    settings : Settings
        Epochs, batch size, learning rate, seed, balance, schedule.
    data : RunData
        The prepared dataset: its name, place, classes, the shape of its images, and what it was prepared from.
    history : list of EpochRow
        A row per finished epoch.
    kept_epoch : int
        The epoch whose weights were kept; 0 if none was finished.
    ended : str
        ``"epochs"``, ``"early_stopping"``, ``"stopped"`` (by a callback or `max_time`), ``"interrupted"``,
        ``"diverged"``, or ``"adopted"`` (imported from Keras).
    seconds : float
        How long the fit took.
    metrics : RunMetrics
        ``train``, ``validation`` and ``test``, each None where it was not computed: ``run.metrics.test.accuracy``.
    versions : dict
        Of what computed it.
    created : str
        When it was saved, ISO 8601, UTC.
    backbone : dict or None
        Of a transfer variant, what made the features: ``name``, ``features`` (how many), ``precision``, ``views``
        (augmented views of each training image), with proximal steps ``remaining`` (how many features have a weight
        that is not 0), after fine-tuning ``unfrozen`` (how many blocks were trained) and ``file`` (the backbone's
        weights in the run's folder), and what else `photoflux.features.backbone_from` takes.
    initial : dict or None
        Where the initial weights came from: the ``path`` of a run, weights file or Keras file, and the ``fingerprint``
        (`photoflux.model.weights.fingerprint_of`) of its weights; None: drawn from the seed.
    threshold : dict or None
        The ``score`` from which an image counts as the second of two classes, and what it guarantees, as
        `photoflux.threshold` chose it; None: the more probable class.
    temperature : float or None
        What the logits would have to be divided by to be calibrated on validation; predictions do not use it.
    notes : list of str
        What a user should know of the run, such as images that its scores leave out, or a figure that was not made.
    """

    path: Path
    engine: str
    variant: Variant
    settings: Settings
    data: RunData
    history: list[EpochRow]
    kept_epoch: int
    ended: str
    seconds: float
    metrics: RunMetrics
    versions: dict[str, str]
    created: str = ""
    backbone: dict[str, Any] | None = None
    initial: dict[str, Any] | None = None
    threshold: dict[str, Any] | None = None
    temperature: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.path / "weights.safetensors"

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the labels."""
        return list(self.data.classes)

    @property
    def shape(self) -> Shape:
        """Channels, height and width of the images."""
        return self.data.shape

    @property
    def input_shape(self) -> Shape:
        """What its layers take: `shape`, or of a transfer variant the features as an image of 1×1."""
        return self.shape if self.backbone is None else Shape(int(self.backbone["features"]), 1, 1)

    def logits(self, part: str) -> np.ndarray:
        """Return the logits of the validation or test part, (N, outputs) float32, in the order of its images.

        The order is that of `PreparedDataset.indices`; dropout was off.

        Parameters
        ----------
        part : str
            ``"validation"`` or ``"test"``.

        Raises
        ------
        RunError
            If the run has none: Julia or an earlier PhotoFlux wrote it, or it was imported without data.
        """
        import numpy as np
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            found: np.ndarray = load_file(self.path / LOGITS)[part]
            if found.dtype != np.float32 or found.shape != (len(found), outputs_of(len(self.classes))):
                raise ValueError(f"it holds {found.dtype} of the shape {found.shape}")
            return found
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"The run {self.path} has no logits of its {part} part ({LOGITS}: {error}). "
                "Train it again with `photoflux train`."
            ) from error

    def as_dict(self) -> dict[str, Any]:
        """Return what ``run.json`` says: plain JSON-ready values."""
        return {
            "format": FORMAT,
            "engine": self.engine,
            "variant": self.variant.as_dict(),
            "settings": self.settings.as_dict(),
            "data": self.data.as_dict(),
            "versions": self.versions,
            "kept_epoch": self.kept_epoch,
            "ended": self.ended,
            "seconds": self.seconds,
            "metrics": self.metrics.as_dict(),
            "created": self.created,
            **({} if self.backbone is None else {"backbone": self.backbone}),
            "initial": self.initial,
            "threshold": self.threshold,
            "temperature": self.temperature,
            "notes": self.notes,
        }

    def __str__(self) -> str:
        words = {
            "early_stopping": ", stopped early", "stopped": ", stopped by a callback", "interrupted": ", interrupted",
            "diverged": ", diverged",
        }  # fmt: skip
        head = f"Run {printable(self.path)}: {self.variant.name} on {printable(self.data.name)}, "
        head += f"engine {self.engine}, "
        head += "imported" if self.ended == "adopted" else f"{len(self.history)} epochs{words.get(self.ended, '')}"
        if self.initial is not None:
            head += f" from {printable(self.initial['path'] or 'a run in memory')}"
        if self.kept_epoch and len(self.history) > 1:
            head += f", epoch {self.kept_epoch} kept"
        lines = [head] + [
            f"  {part:<10}  loss {m.loss:.4f}  penalty {m.penalty:.4f}  accuracy {m.accuracy:.4f}"
            + (f"  balanced {m.balanced_accuracy:.4f}" if isinstance(m, Metrics) else "")
            for part, m in self.metrics.by_part().items()
        ]
        if self.data.split == "given":
            lines.append("  split       the folder's own parts")
        if self.backbone is not None:
            line = "  backbone    {name} ({precision}), {features} features".format(**self.backbone)
            remaining = self.backbone.get("remaining")
            lines.append(line + ("" if remaining is None else f", {remaining} of them with a weight that is not 0"))
        if self.threshold is not None:
            lines.append("  threshold   {score:.6g}, for a {promise} of {value:g} or more".format(**self.threshold))
        lines += [f"  note        {note}" for note in self.notes]
        return "\n".join(lines)


def load_run(path: str | Path) -> Run:
    """Open a run folder, whichever of Python and Julia wrote it. No code from it is executed.

    Parameters
    ----------
    path : str or Path
        The folder.

    Returns
    -------
    Run

    Raises
    ------
    RunError
        If it is not a run, or a file in it cannot be read.
    """
    folder = user_path(path)
    if not (folder / "run.json").is_file():
        state = "it has no run.json" if folder.is_dir() else "there is no such folder"
        raise RunError(f"{folder} is not a run: {state}. `photoflux train` makes one.")
    try:
        values = read_object(folder / "run.json")
        if values.get("format") != FORMAT:
            raise RunError(
                f"{folder} has run format {values.get('format')!r}; this PhotoFlux reads {FORMAT}. Update photoflux."
            )
        history, kept = read_history(folder / "history.csv"), values["kept_epoch"]
        metrics, threshold = values.get("metrics"), values.get("threshold")
        if threshold is not None:
            # Refused here, not in the middle of a prediction.
            threshold |= {"score": float(threshold["score"]), "value": float(threshold["value"])}
        run = Run(
            path=folder,
            engine=values["engine"],
            variant=Variant.from_dict(values["variant"]),
            settings=Settings(**values["settings"]),
            data=RunData.from_dict(values["data"]),
            history=history,
            kept_epoch=kept,
            ended=values["ended"],
            seconds=values["seconds"],
            # Julia writes none.
            metrics=RunMetrics(TrainMetrics.of(history, kept)) if metrics is None else RunMetrics.from_dict(metrics),
            versions=values["versions"],
            created=values.get("created", ""),
            backbone=values.get("backbone"),
            initial=values.get("initial"),
            threshold=threshold,
            temperature=values.get("temperature"),
            notes=values.get("notes", []),
        )
        _check(run)
        return run
    except SettingError as error:
        raise RunError(f"The run {folder} cannot be read: {error}") from error
    # Arithmetic of numbers without bounds, and brackets in brackets without end, overflow.
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RunError(f"The run {folder} cannot be read: {type(error).__name__}: {str(error)[:500]}.") from error


def _check(run: Run) -> None:
    """Raise a `TypeError` or `ValueError` that names the value of a run which is not of its kind, or out of range."""
    for part in (run, run.data, run.settings, *run.metrics.by_part().values()):
        check_fields(part)
    # An imported run says 0: nobody knows.
    unchecked: dict[str, Any] = {"epochs": 1} if run.ended == "adopted" else {}
    if run.settings.schedule == OWN_SCHEDULE:
        unchecked["schedule"] = "constant"
    settings_of(run.variant, **asdict(run.settings) | unchecked)
    check_table(run.initial, _INITIAL, "initial")
    check_table(run.data.made_from, MADE_FROM, "made_from")
    check_table(run.backbone, _BACKBONE, "backbone")
    if run.threshold is not None:
        _check_threshold(run.threshold)
    for metrics in filter(None, (run.metrics.validation, run.metrics.test)):
        _check_metrics(metrics, len(run.classes))
    check_word(run.engine, _ENGINES, "engine")
    check_word(run.ended, _ENDS, "ended")
    check_range(run.kept_epoch, 0, len(run.history), "kept_epoch")
    check_range(len(run.classes), 2, _MOST_CLASSES, "classes")
    check_range(run.input_shape.channels, 1, _MOST_FEATURES, "channels")
    for side in run.shape[1:]:
        check_range(side, 1, LARGEST, "height, width")


def _check_threshold(threshold: dict[str, Any]) -> None:
    check_table(threshold, _THRESHOLD, "threshold")
    check_word(threshold["promise"], _PROMISES, "promise")
    check_range(threshold["score"], 0, 1, "score")
    for part in ("validation", "test"):
        measured = threshold.get(part)
        if measured:
            check_table(measured, _MEASURED, part)
            for share in ("recall", "precision"):
                check_table(measured[share], _SHARE, share)


def _check_metrics(metrics: Metrics, classes: int) -> None:
    for folder in metrics.folders.values():
        check_table(folder, _FOLDER, "folders")
    rows: list[list[Any]] = [metrics.precision, metrics.recall, metrics.confusion, *metrics.confusion]
    if any(len(row) != classes for row in rows):
        raise ValueError(f"`confusion`, `precision` and `recall` must be of {classes} classes")
    for count in (metrics.images, *(count for row in metrics.confusion for count in row)):
        check_range(count, 0, _MOST_IMAGES, "images, confusion")


def read_history(path: Path) -> list[EpochRow]:
    """Return the rows of a ``history.csv``.

    Raises
    ------
    OSError, ValueError, TypeError
        If it cannot be read, or is none.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except csv.Error as error:
        raise ValueError(f"{path.name} is no CSV file: {error}") from error
    return [EpochRow(int(row.pop("epoch")), **{name: float(value) for name, value in row.items()}) for row in rows]


def summary_of_run(run: Run) -> Summary:
    """Return the summary of a run's variant on images of its size."""
    return summary_of(run.variant, run.input_shape, len(run.classes), run.settings.batch_size)
