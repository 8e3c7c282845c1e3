"""`photoflux.import_keras`: makes a run of a Keras model that has one of our architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from photoflux.data.prepared import PreparedDataset, open_prepared
from photoflux.data.shape import Shape
from photoflux.engines.keras.engine import KerasEngine
from photoflux.errors import DataError, RunError, SettingError
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.model.variants import variant as variant_of
from photoflux.model.weights import read_weights_of
from photoflux.runs.description import RunData, RunMetrics
from photoflux.runs.folder import write_description, writing
from photoflux.runs.run import Run
from photoflux.runs.seen import imported, write_seen
from photoflux.runs.training import origin_of
from photoflux.system.names import user_path

UNKNOWN = (
    "It is not known which images the model was trained on: its scores are those of a new model only if the validation "
    "and test images were not among them."
)
MODEL, WEIGHTS = ".keras", ".weights.h5"


@dataclass(frozen=True)
class KerasFile:
    """A Keras file, and what it was said to be, checked as far as that is possible before Keras starts.

    Attributes
    ----------
    path : Path
        A ``.keras`` or ``.weights.h5`` file.
    variant : Variant
        What it is.
    prepared : PreparedDataset or None
        The data that it belongs to.
    classes : list of str or None
        The class names; None: numbered.
    shape : tuple of int or None
        Channels, height and width of the images; None where the file says it.
    scaled : bool
        Whether the images were divided by 255 before they reached the model.
    """

    path: Path
    variant: Variant
    prepared: PreparedDataset | None
    classes: list[str] | None
    shape: Shape | None
    scaled: bool

    @property
    def title(self) -> str:
        """What a run of it is called."""
        return f"{self.variant.name}-{self.path.name.removesuffix(MODEL).removesuffix(WEIGHTS)}"


def keras_file(
    model: str | Path,
    variant: str | Path | Variant,
    data: str | Path | PreparedDataset | None,
    classes: Sequence[str] | None,
    image_size: int | None,
    channels: int | None,
    scaled: bool,
) -> KerasFile:
    """Return the arguments of `photoflux.import_keras`, checked; it raises what that does."""
    path, chosen = user_path(model), variant_of(variant)
    kind = _kind_of(path)
    prepared = data if data is None or isinstance(data, PreparedDataset) else open_prepared(data)
    names = _names(classes, prepared)
    shape = _shape_of_weights(kind, prepared, names, image_size, channels)
    return KerasFile(path, chosen, prepared, names, shape, scaled)


def import_run(file: KerasFile, engine: KerasEngine, folder: Path) -> Run:
    """Write a Keras file as a run, not scored yet.

    Raises
    ------
    RunError
        If the file cannot be read, or is not the variant.
    SettingError, DataError
        If the classes or the dataset do not fit it.
    """
    variant, names = file.variant, file.classes
    with writing(folder) as temporary:
        weights = temporary / "weights.safetensors"
        known = None if names is None else len(names)
        found, count = engine.import_model(
            variant, file.path, weights, scaled=file.scaled, shape=file.shape, classes=known
        )
        write_seen(temporary, imported(file.prepared, file.path))
        run = Run(
            path=folder,
            engine=engine.name,
            variant=variant,
            settings=Settings(0, variant.batch_size, variant.learning_rate),
            data=_described(file.path, file.prepared, names, found, count),
            history=[],
            kept_epoch=0,
            ended="adopted",
            seconds=0.0,
            metrics=RunMetrics(),
            versions=engine.versions(),
            initial=origin_of(file.path, read_weights_of(weights, variant, found, count)),
            notes=[] if file.prepared is None else [UNKNOWN],
        )
        write_description(temporary, run)
    return run


def _kind_of(model: Path) -> str:
    kind = next((suffix for suffix in (MODEL, WEIGHTS) if model.name.endswith(suffix)), None)
    if model.is_dir() or not model.exists():
        state = "a folder" if model.is_dir() else "no such file"
        raise RunError(f"`model` must be a {MODEL} or {WEIGHTS} file; {model} is {state}.")
    if kind is None:
        raise SettingError(
            f"`model` must be a {MODEL} or {WEIGHTS} file; received: {model}. Open it in Keras 3 and save it again: "
            "`keras.models.load_model(…).save('model.keras')`."
        )
    return kind


def _names(classes: Sequence[str] | None, prepared: PreparedDataset | None) -> list[str] | None:
    if classes is None:
        return None if prepared is None else prepared.classes
    if prepared is not None:
        raise SettingError("`classes` come from `data` where it is given. Leave one of the two out.")
    names = list(classes)
    if isinstance(classes, str) or len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise SettingError(f"`classes` must be 2 or more different names; received: {classes!r}.")
    return names


def _shape_of_weights(
    kind: str,
    prepared: PreparedDataset | None,
    names: list[str] | None,
    image_size: int | None,
    channels: int | None,
) -> Shape | None:
    """Return what a weights file does not say: channels, height and width; None for a model, which says it."""
    given = [name for name, value in (("image_size", image_size), ("channels", channels)) if value is not None]
    if given and (kind == MODEL or prepared is not None):
        source = "the model" if kind == MODEL else "`data`"
        raise SettingError(f"`{given[0]}` comes from {source}. Leave it out.")
    if kind == MODEL:
        return None
    if prepared is not None:
        return prepared.shape
    if names is None or image_size is None:
        raise SettingError(
            f"A {WEIGHTS} file does not say what its images and classes are. Give `data`, a prepared dataset, or "
            "`image_size` and `classes`."
        )
    if image_size < 2:
        raise SettingError(f"`image_size` must be 2 or more; received: {image_size!r}.")
    if channels not in (None, 1, 3):
        raise SettingError(f"`channels` must be 1 or 3; received: {channels!r}.")
    return Shape(channels or 3, image_size, image_size)


def _described(
    model: Path, prepared: PreparedDataset | None, names: list[str] | None, shape: Shape, count: int
) -> RunData:
    if prepared is not None:
        if (len(prepared.classes), prepared.shape) != (count, shape):
            raise DataError(
                f"The dataset {prepared.path} does not fit {model}: the model has {count} classes and images of "
                f"{'×'.join(map(str, shape))} (C×H×W); the dataset has {len(prepared.classes)} and "
                f"{'×'.join(map(str, prepared.shape))}. Prepare it again with --image-size, or give another."
            )
        return RunData.of(prepared)
    names = names or [str(number) for number in range(count)]
    if len(names) != count:
        raise SettingError(f"`classes` must be {count} names, as many as {model} has classes; received: {names!r}.")
    return RunData("no data", "", names, shape, positive=names[1] if names[0] == f"not {names[1]}" else None)
