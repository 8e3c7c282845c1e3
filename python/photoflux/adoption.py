"""Somebody's Keras model of one of our architectures, as a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from photoflux import runs
from photoflux.data.prepared import PreparedDataset, open_prepared
from photoflux.engines.base import Settings
from photoflux.engines.keras import KerasEngine
from photoflux.errors import DataError, RunError, SettingError
from photoflux.finishing import finish
from photoflux.fitting import description_of, origin_of
from photoflux.names import printable, user_path
from photoflux.progress import Display
from photoflux.runs import Run
from photoflux.seen import adopted, write_seen
from photoflux.variants import Variant
from photoflux.variants import variant as variant_of
from photoflux.weights import read_weights_of

UNKNOWN = (
    "It is not known which images the model was trained on: its scores are those of a new model only if the validation "
    "and test images were not among them."
)
MODEL, WEIGHTS = ".keras", ".weights.h5"
Shape = tuple[int, int, int]


def adopt(
    model: str | Path,
    variant: str | Variant,
    out: str | Path | None = None,
    *,
    data: str | Path | PreparedDataset | None = None,
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    scaled: bool = False,
    progress: bool = True,
) -> Run:
    """Make a run of a Keras model that has the layers of a variant, so that Flux evaluates it and trains it further.

    A ``.keras`` file is compared layer by layer with the variant, and then by its outputs. Its layers' names, its
    penalties and its dropout do not matter: the variant's hold from here on. The last layer may have a sigmoid or
    softmax; the run's outputs are the logits under it. No code from the file is executed. A ``.weights.h5`` file has
    shapes only: activations and padding are taken to be the variant's.

    Parameters
    ----------
    model : str or Path
        The ``.keras`` or ``.weights.h5`` file.
    variant : str or Variant
        What it is.
    out : str or Path, optional
        The run's folder; None: a new one under ``runs/``.
    data : str, Path or PreparedDataset, optional
        The prepared dataset that it belongs to; gives the class names, and is scored.
    classes : sequence of str, optional
        The class names, in the order of the outputs, where no `data` is given; of two classes, the model's one output
        is the log-odds of the second. None: "0", "1", …
    image_size, channels : int, optional
        Height and width of the images, and 1 or 3 (the default): for ``.weights.h5`` without `data` only.
    scaled : bool
        Whether the images were divided by 255 before they reached the model; it then has no Rescaling layer.
    progress : bool
        Whether to say on stderr what is done.

    Returns
    -------
    Run
        With no history; its ``initial`` names the file.

    Raises
    ------
    SettingError, DataError
        If an argument or the dataset cannot be used, or does not fit the model.
    RunError
        If the file cannot be read, or is not the variant; the message shows both, side by side.
    EngineError
        If Keras is not installed.
    """
    model, recipe = user_path(model), variant_of(variant)
    kind = _kind_of(model)
    prepared = data if data is None or isinstance(data, PreparedDataset) else open_prepared(data)
    names = _names(classes, prepared)
    shape = _shape_of_weights(kind, prepared, names, image_size, channels)
    title = f"{recipe.name}-{model.name.removesuffix(kind)}"
    place = runs.claimed_new(title) if out is None else runs.claimed(user_path(out))
    with place as folder, KerasEngine() as engine, Display(progress) as display:
        display.say(f"Opening {printable(model)} with Keras")
        with runs.writing(folder) as temporary:
            weights = temporary / "weights.safetensors"
            known = None if names is None else len(names)
            found, count = engine.adopt(recipe, model, weights, scaled=scaled, shape=shape, classes=known)
            description = _described(model, prepared, names, found, count)
            write_seen(temporary, adopted(prepared, model))
            run = Run(
                path=folder,
                engine=engine.name,
                variant=recipe,
                settings=Settings(0, recipe.batch_size, recipe.learning_rate),
                data=description,
                history=[],
                kept_epoch=0,
                ended="adopted",
                seconds=0.0,
                metrics={},
                versions=engine.versions(),
                initial=origin_of(model, read_weights_of(weights, recipe, *found, count)),
                notes=[] if prepared is None else [UNKNOWN],
            )
            runs.write_description(temporary, run)
        return finish(run, engine, prepared, display)


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
        return prepared.channels, prepared.height, prepared.width
    if names is None or image_size is None:
        raise SettingError(
            f"A {WEIGHTS} file does not say what its images and classes are. Give `data`, a prepared dataset, or "
            "`image_size` and `classes`."
        )
    if image_size < 2:
        raise SettingError(f"`image_size` must be 2 or more; received: {image_size!r}.")
    if channels not in (None, 1, 3):
        raise SettingError(f"`channels` must be 1 or 3; received: {channels!r}.")
    return channels or 3, image_size, image_size


def _described(
    model: Path, prepared: PreparedDataset | None, names: list[str] | None, shape: Shape, count: int
) -> dict[str, Any]:
    channels, height, width = shape
    if prepared is not None:
        expected = (len(prepared.classes), prepared.channels, prepared.height, prepared.width)
        if expected != (count, *shape):
            raise DataError(
                f"The dataset {prepared.path} does not fit {model}: the model has {count} classes and images of "
                f"{channels}×{height}×{width} (C×H×W); the dataset has {expected[0]} and "
                f"{'×'.join(map(str, expected[1:]))}. Prepare it again with --image-size, or give another."
            )
        return description_of(prepared)
    names = names or [str(number) for number in range(count)]
    if len(names) != count:
        raise SettingError(f"`classes` must be {count} names, as many as {model} has classes; received: {names!r}.")
    return {
        "name": "no data",
        "path": None,
        "fingerprint": "",
        "classes": names,
        "positive": names[1] if names[0] == f"not {names[1]}" else None,
        "channels": channels,
        "height": height,
        "width": width,
    }
