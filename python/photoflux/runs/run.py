"""A run as it is on disk: what its folder holds, how it is written and loaded."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photoflux.data.shape import Shape
from photoflux.errors import RunError
from photoflux.model.history import EpochRow
from photoflux.model.settings import Settings
from photoflux.model.summary import Summary, summary_of
from photoflux.model.variants import Variant
from photoflux.runs.description import RunData, RunMetrics, TrainMetrics
from photoflux.runs.evaluation import Metrics
from photoflux.system import atomic
from photoflux.system.claims import Busy, claim
from photoflux.system.names import as_json, file_stem, printable, user_path
from photoflux.system.terminal import say

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
LOGITS = "logits.safetensors"
COLUMNS = tuple(column.name for column in fields(EpochRow))
AMEND_SECONDS = 5.0  # another process that changes the same run needs less


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
        The recipe, with the penalty and loss that were used.
    settings : Settings
        Epochs, batch size, learning rate, seed, balance.
    data : RunData
        The prepared dataset: its name, place, classes, the shape of its images, and what it was prepared from.
    history : list of EpochRow
        A row per finished epoch.
    kept_epoch : int
        The epoch whose weights were kept; 0 if none was finished.
    ended : str
        ``"epochs"``, ``"early_stopping"``, ``"interrupted"``, ``"diverged"``, or ``"adopted"`` (not trained here).
    seconds : float
        How long the fit took.
    metrics : RunMetrics
        ``train``, ``validation`` and ``test``, each None where it was not computed: ``run.metrics.test.accuracy``.
    versions : dict
        Of what computed it.
    created : str
        When it was saved, ISO 8601, UTC.
    initial : dict or None
        Where the first weights came from: the ``path`` of a run, weights file or Keras file, and the ``fingerprint``
        (`photoflux.model.weights.fingerprint_of`) of its weights; None: drawn from the seed.
    threshold : dict or None
        The ``score`` from which an image counts as the second of two classes, and what it promises, as
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

    def logits(self, part: str) -> np.ndarray:
        """Return the logits of the validation or test part, (N, outputs) float32, in the order of its images.

        The order is that of `PreparedDataset.indices`; dropout was off.

        Raises
        ------
        RunError
            If the run has none: Julia or an earlier PhotoFlux wrote it, or it was adopted without data.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(self.path / LOGITS)[part]
        except (OSError, SafetensorError, KeyError) as error:
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
            "settings": asdict(self.settings),
            "data": self.data.as_dict(),
            "versions": self.versions,
            "kept_epoch": self.kept_epoch,
            "ended": self.ended,
            "seconds": self.seconds,
            "metrics": self.metrics.as_dict(),
            "created": self.created,
            "initial": self.initial,
            "threshold": self.threshold,
            "temperature": self.temperature,
            "notes": self.notes,
        }

    def __str__(self) -> str:
        words = {"early_stopping": ", stopped early", "interrupted": ", interrupted", "diverged": ", diverged"}
        head = f"Run {printable(self.path)}: {self.variant.name} on {printable(self.data.name)}, "
        head += f"engine {self.engine}, "
        head += "adopted" if self.ended == "adopted" else f"{len(self.history)} epochs{words.get(self.ended, '')}"
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
        if self.threshold is not None:
            lines.append("  threshold   {score:.6g}, for a {promise} of {value:g} or more".format(**self.threshold))
        lines += [f"  note        {note}" for note in self.notes]
        return "\n".join(lines)


@contextmanager
def claimed(path: Path) -> Iterator[Path]:
    """Have the folder of a run for the time of the block, so that no other fit writes to it.

    Raises
    ------
    RunError
        If another process has it (the message says which, and since when), or it must not or cannot be written.
    """
    with ExitStack() as stack:
        check_destination(path)
        try:
            stack.enter_context(claim(path))
        except Busy as busy:
            raise RunError(
                f"`out` {path} is being written by {busy}. Wait until that is done, or choose another folder."
            ) from None
        except OSError as error:
            raise unwritable(path, error) from error
        check_destination(path)
        yield path


@contextmanager
def claimed_new(title: str) -> Iterator[Path]:
    """Have a folder under ``runs/`` that does not exist yet, named after a title and the time; see `claimed`."""
    stem = f"{file_stem(title)}-{time.strftime('%Y%m%d-%H%M%S')}"
    for name in [stem] + [f"{stem}-{i}" for i in range(2, 1000)]:
        path = Path("runs") / name
        with ExitStack() as stack:
            try:
                stack.enter_context(claim(path))
            except Busy:
                continue
            except OSError as error:
                raise unwritable(path, error) from error
            # Looked at under the claim: another fit may have had it until now.
            if not os.path.lexists(path):
                yield path
                return
    raise RunError(f"There are too many runs called {stem}. Choose a folder with `out`.")


def unwritable(path: Path, error: OSError, advice: str = "") -> RunError:
    """Return the error for a run that cannot be written."""
    return RunError(
        f"The run could not be written to {path}: {error.strerror or error}. Free space or choose another folder "
        f"with `out`; what was there before is unchanged. {advice}".rstrip()
    )


def check_destination(path: Path) -> None:
    """Refuse a folder to which a run must not be written, before anything is trained.

    Raises
    ------
    RunError
        If `path` is a file, or a folder with other content.
    """
    if path.is_dir() and ((path / "run.json").is_file() or not any(path.iterdir())):
        return
    if path.exists() or path.is_symlink():
        kind = "a folder that is not a run (it has no run.json)" if path.is_dir() else "a file"
        raise RunError(f"`out` must be a new folder or an earlier run; {path} is {kind}. Choose another.")


@contextmanager
def writing(path: Path, *, rescue: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `path` that replaces it, whole, when the block ends without an error.

    An earlier run at `path` stays as it was until then, and for good if the block fails or the disk is full. A link
    stays a link.

    Parameters
    ----------
    path : Path
        The run's folder.
    rescue : bool
        Whether weights that are in the temporary folder when the block fails are moved to the cache; the message says
        where they are.

    Raises
    ------
    RunError
        If the folder cannot be made or written, or another process has it.
    """
    with claimed(path):
        place = Path(os.path.realpath(path))
        temporary = atomic.sibling(place)
        try:
            temporary.mkdir(parents=True)
            yield temporary
            atomic.install(temporary, place)
        except BaseException as error:
            kept = _rescued(temporary / "weights.safetensors", path) if rescue else None
            advice = f"The weights are kept in {kept}; `photoflux train … --initial` starts from such a file."
            if isinstance(error, OSError):
                raise unwritable(path, error, advice if kept else "") from error
            if kept:
                say(advice)
            raise
        finally:
            atomic.remove(temporary)


def _rescued(weights: Path, path: Path) -> Path | None:
    """Move the weights of a run that cannot be put in its place `path` into the cache, and return the file.

    The cache may be on another disk than the run. None if there are none, or they could not be moved.
    """
    from photoflux.data.cache import cache_folder

    if not weights.is_file():
        return None
    try:
        folder = cache_folder() / "rescued" / f"{path.name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        folder.mkdir(parents=True)
        return Path(shutil.move(weights, folder))
    except Exception:
        return None


def write_description(folder: Path, run: Run) -> None:
    """Write ``run.json`` and ``history.csv`` into a folder."""
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(asdict(row) for row in run.history)
    saved = replace(run, created=datetime.now(UTC).isoformat(timespec="seconds"))
    atomic.write_text(folder / "run.json", _as_json(saved.as_dict()))


def _as_json(values: dict[str, Any]) -> str:
    return as_json(values, indent=2) + "\n"


def amend(run: Run, **values: Any) -> Run:
    """Change entries of a run's ``run.json`` and return the run with them; no other file is touched.

    The file is written under a temporary name and renamed, and is as it was if that fails.

    Parameters
    ----------
    run : Run
        The run.
    **values
        Attributes of `Run` of the same name.

    Raises
    ------
    RunError
        If the file cannot be read or written.
    """
    path, amended = run.path / "run.json", replace(run, **values)
    entries = {name: value for name, value in amended.as_dict().items() if name in values}
    with ExitStack() as stack:
        try:
            stack.enter_context(claim(run.path, wait=AMEND_SECONDS))
        except Busy as busy:
            raise RunError(
                f"{path} could not be changed: the run is being written by {busy}. It is as it was."
            ) from None
        except OSError:
            pass  # where no claim can be written beside a run, no fit can replace it
        try:
            atomic.write_text(path, _as_json(json.loads(path.read_text(encoding="utf-8")) | entries))
        except (OSError, ValueError) as error:
            raise RunError(f"{path} could not be changed: {error}. It is as it was.") from error
    return amended


def load_run(path: str | Path) -> Run:
    """Open a run folder, whichever of Python and Julia wrote it. No code from it is executed.

    Parameters
    ----------
    path : str or Path
        The folder.

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
        values = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise RunError(
                f"{folder} has run format {values.get('format')!r}; this PhotoFlux reads {FORMAT}. Update photoflux."
            )
        history, kept = read_history(folder / "history.csv"), values["kept_epoch"]
        metrics, threshold = values.get("metrics"), values.get("threshold")
        if threshold is not None:
            # Refused here, not in the middle of a prediction.
            threshold |= {"score": float(threshold["score"]), "value": float(threshold["value"])}
            threshold["promise"] = str(threshold["promise"])
        return Run(
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
            initial=values.get("initial"),
            threshold=threshold,
            temperature=values.get("temperature"),
            notes=[str(note) for note in values.get("notes", [])],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"The run {folder} cannot be read: {type(error).__name__}: {error}.") from error


def read_history(path: Path) -> list[EpochRow]:
    """Return the rows of a ``history.csv``."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [EpochRow(int(row.pop("epoch")), **{name: float(value) for name, value in row.items()}) for row in rows]


def summary_of_run(run: Run) -> Summary:
    """Return the summary of a run's variant on images of its size."""
    return summary_of(run.variant, run.shape, len(run.classes), run.settings.batch_size)
