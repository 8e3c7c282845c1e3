"""Reads a Keras model as the weights of a variant, if it is that variant. Worker process only.

No code from the file is executed: its description is read as JSON first, and everything in it that is not one of a few
of Keras' own layers is refused before Keras opens it.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from photoflux.data.shape import Shape
from photoflux.engines.keras.models import build_model, get_weights, statistics_of
from photoflux.errors import RunError, side_by_side
from photoflux.model.variant import Variant
from photoflux.model.weights import expected_shapes, metadata_of, write_weights

MAX_CONFIG = 10 * 2**20
# What computes, and what does nothing when a model predicts.
LAYERS = ("Rescaling", "Normalization", "Conv2D", "MaxPooling2D", "Flatten", "Dense", "Activation")
INERT = ("InputLayer", "Dropout", "GaussianNoise", "RandomFlip", "RandomRotation", "RandomZoom")
MODELS = ("Sequential", "Functional")
# Objects that say how a model was or is to be trained, not what it computes.
TRAINING = ("initializers", "regularizers", "constraints", "optimizers", "losses", "metrics")
ACTIVATIONS = ("relu", "linear", "sigmoid", "softmax")
UNSEEN = {
    *("name", "trainable", "dtype", "kernel_initializer", "bias_initializer", "kernel_regularizer", "bias_regularizer"),
    *("activity_regularizer", "kernel_constraint", "bias_constraint", "mean", "variance"),
}
NO_WEIGHTS = {"optimizer", "seed_generator", "generator"}
# Same layers, same weights, same library: two float32 sums of the same terms, on logits of a size of 1 or more. Another
# computation differs by the size of the logits themselves.
TOLERANCE = 1e-4
PROOF_IMAGES = 8


def import_model(request: dict[str, Any]) -> dict[str, Any]:
    """Write the weights of the Keras file ``model`` to the file ``weights``; return image shape and classes."""
    path, variant = Path(request["model"]), Variant.from_dict(request["variant"])
    keras.backend.clear_session()
    if request["shape"] is None:
        ours, shape, classes = _of_model(path, variant, request["scaled"])
    else:
        shape, classes = Shape(*request["shape"]), request["classes"]
        ours = _of_weights(path, variant, shape, classes, request["scaled"])
    write_weights(request["weights"], get_weights(ours), metadata_of(variant, shape, classes))
    return {"shape": list(shape), "classes": classes}


def _of_model(path: Path, variant: Variant, scaled: bool) -> tuple[keras.Model, Shape, int]:
    _refuse_strangers(path)
    try:
        theirs = keras.models.load_model(path, safe_mode=True, compile=False)
    except Exception as error:
        raise RunError(f"Keras cannot open {path}: {_first_line(error)}") from error
    shape = _image_shape(path, theirs)
    layers = [layer for layer in _flat(theirs) if type(layer).__name__ not in INERT]
    classes = _classes_of(path, layers)
    _compare_layers(path, variant, layers, build_model(variant, shape, classes), scaled)
    values = [value for layer in layers for value in _values(layer)]
    weights = dict(zip(expected_shapes(variant, shape, classes), values, strict=True))
    ours = build_model(variant, shape, classes, weights=weights)
    _refuse_nan(path, ours)
    _compare_logits(path, theirs, layers, ours, shape, scaled)
    return ours, shape, classes


def _values(layer: keras.Layer) -> list[np.ndarray]:
    """Return what weights files have of a layer."""
    if isinstance(layer, keras.layers.Normalization):
        return list(statistics_of(layer).values())
    return [np.array(variable) for variable in (layer.kernel, layer.bias)] if layer.weights else []


def _refuse_strangers(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > MAX_CONFIG:
                raise RunError(
                    f"{path} is not a model of a variant: its config.json is larger than {MAX_CONFIG} bytes."
                )
            config = json.loads(archive.read("config.json"))
        parts = list(_parts(config, ("compile_config",)))
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(
            f"{path} cannot be read as a Keras model: {_first_line(error)} A .keras file is what "
            "`model.save('model.keras')` of Keras 3 writes; open older files in Keras and save them again."
        ) from error
    for part in parts:
        kind, module = str(part["class_name"]), part.get("module")
        package, _, group = str(module).partition(".")
        keras_own = package == "keras" and part.get("registered_name") in (None, kind)
        if keras_own and (kind in (*LAYERS, *INERT, *MODELS, "DTypePolicy") or group in TRAINING):
            continue
        if kind == "__keras_tensor__" or (kind == "function" and part.get("config") in ACTIVATIONS):
            continue
        what = "layer or object that no variant has" if keras_own and kind != "Lambda" else "code of its author's"
        settings = part.get("config")
        name = settings.get("name") if isinstance(settings, dict) else settings
        raise RunError(
            f"{path} cannot be imported: its {kind} ({name}) is {what}. A model to import has the layers "
            f"{', '.join(LAYERS)} and what is active in training only ({', '.join(INERT[1:])}). "
            "Nothing from the file was executed."
        )


def _parts(config: Any, left_out: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Yield every object of a model's description that has a class, but for what is left out of the whole.

    That is how the model was compiled, which Keras is not asked for. Within a layer it would read it.
    """
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for key, value in config.items():
            if key not in left_out:
                yield from _parts(value)
    elif isinstance(config, list):
        for value in config:
            yield from _parts(value)


def _flat(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _flat(layer)
        else:
            yield layer


def _image_shape(path: Path, model: keras.Model) -> Shape:
    shape = model.input_shape if model.built and len(model.inputs) == len(model.outputs) == 1 else None
    if not isinstance(shape, tuple) or len(shape) not in (3, 4) or None in shape[1:]:
        raise RunError(
            f"{path} cannot be imported: a model must have one output and one input of images, (N, height, width, "
            f"channels) or (N, height, width), all but N fixed; found: {shape or 'no one fixed input and output'}. "
            "To a model of flat vectors give a keras.Input of images and a Flatten layer, and save it again."
        )
    height, width, *channels = shape[1:]
    return Shape((channels or [1])[0], height, width)


def _classes_of(path: Path, layers: list[keras.Layer]) -> int:
    dense = [layer for layer in layers if type(layer).__name__ == "Dense"]
    units = dense[-1].units if dense else 1
    if units == 2:
        raise RunError(
            f"{path} cannot be imported: its last layer has 2 outputs. PhotoFlux tells two classes apart with one "
            "output, the log-odds of the second class. A new Dense(1), with the second column minus the first of "
            "kernel and bias, predicts the same as a softmax of the two."
        )
    return 2 if units == 1 else units


def _essence(layers: list[keras.Layer]) -> list[dict[str, Any]]:
    """Return what each layer computes; an Activation layer belongs to the linear layer before it."""
    rows: list[dict[str, Any]] = []
    for layer in layers:
        config = {key: value for key, value in layer.get_config().items() if key not in UNSEEN}
        if type(layer).__name__ == "Activation" and rows and rows[-1].get("activation") == "linear":
            rows[-1]["activation"] = config["activation"]
            continue
        if "scale" in config:
            config["scale"] = f"{config['scale']:.6g}"  # 1/255, however it was rounded
        kernel = tuple(layer.kernel.shape) if layer.weights and hasattr(layer, "kernel") else None
        precision = layer.dtype_policy.name
        rows.append({"layer": type(layer).__name__, **config, "kernel": kernel, "precision": precision})
    return rows


def _compare_layers(path: Path, variant: Variant, layers: list[keras.Layer], ours: keras.Model, scaled: bool) -> None:
    found = _essence(layers)
    expected = _essence([layer for layer in ours.layers if type(layer).__name__ not in INERT])
    _check_scaling(path, variant, any(row["layer"] == "Rescaling" for row in found), scaled)
    if scaled:
        expected = expected[1:]
    last = "sigmoid" if expected[-1]["units"] == 1 else "softmax"
    if found and found[-1].get("activation") == last:
        found[-1]["activation"] = "linear"  # our outputs are the logits under it
    if found == expected:
        return
    rows = []
    empty: dict[str, Any] = {}
    for left, right in zip_longest(found, expected, fillvalue=empty):
        differ = [key for key in {**left, **right} if left.get(key) != right.get(key)]
        rows.append((_line(left, differ), _line(right, differ), not differ))
    raise RunError(
        f"{path} is not a model of the variant {variant.name}, and would predict something else with its layers:\n"
        + side_by_side(rows, "in the file", variant.name)
        + f"\nThe last layer may also have the activation {last}."
    )


def _line(row: dict[str, Any], differ: list[str]) -> str:
    """Return a layer with its kernel's shape and, beside another of its kind, the settings in which they differ."""
    if not row:
        return ""
    settings = [] if "layer" in differ else [f"{key}={row.get(key)}" for key in differ if key != "kernel"]
    return " ".join([row["layer"], *([str(row["kernel"])] if row["kernel"] else []), *settings])


def _check_scaling(path: Path, variant: Variant, rescaling: bool, scaled: bool) -> None:
    if variant.takes_features:
        if scaled:
            raise RunError(
                f"{path}: the variant {variant.name} takes features, which are not divided by 255. Leave out `scaled`."
            )
        return
    if rescaling and scaled:
        raise RunError(
            f"{path} has a Rescaling layer, so its images are not divided by 255 before. Leave out `scaled`."
        )
    if not rescaling and not scaled:
        raise RunError(
            f"{path} has no Rescaling layer. If its images were divided by 255 before they reached it, say so with "
            "`scaled` (--scaled): PhotoFlux divides by 255 itself. If it was trained on values of 0 to 255, it cannot "
            "be imported: with its first kernel times 255 it would predict the same, but that kernel's penalty would "
            "be 255 (L1) or 65025 (L2) times as large."
        )


def _compare_logits(
    path: Path, theirs: keras.Model, layers: list[keras.Layer], ours: keras.Model, shape: Shape, scaled: bool
) -> None:
    """Check that both compute the same logits on noise, black and white; their activation is removed for it."""
    count = theirs.input_shape[0] or PROOF_IMAGES
    images = np.random.default_rng(0).integers(0, 256, (count, *shape.hwc)).astype(np.float32)
    images[0] = 0
    images[-1] = 255
    layers[-1].activation = keras.activations.linear
    seen = (images / np.float32(255) if scaled else images).reshape(-1, *theirs.input_shape[1:])
    logits, found = np.array(ours(images, training=False)), np.array(theirs(seen, training=False))
    difference = np.abs(logits - found).max() if logits.shape == found.shape else np.inf
    allowed = TOLERANCE * max(1.0, float(np.abs(logits).max()))
    if not difference <= allowed:  # NaN is not
        raise RunError(
            f"{path} cannot be imported: its layers look like the variant's, but its outputs differ by "
            f"{difference:.3g} (allowed: {allowed:.3g}). It may use a layer twice, or connect them in another way."
        )


def _of_weights(path: Path, variant: Variant, shape: Shape, classes: int, scaled: bool) -> keras.Model:
    if variant.takes_features:
        raise RunError(
            f"{path} does not say by what the features of the variant {variant.name} are standardised. "
            "Save the whole model, `model.save('model.keras')`, and import that file."
        )
    found: list[tuple[str, tuple[int, ...]]] = []
    groups: set[str] = set()

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        parts = name.split("/")
        groups.add(parts[-1])
        if isinstance(item, h5py.Dataset) and not NO_WEIGHTS & set(parts):
            found.append((name, tuple(item.shape)))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, RuntimeError, KeyError) as error:
        raise RunError(
            f"{path} cannot be read as Keras weights: {_first_line(error)} A .weights.h5 file is what "
            "`model.save_weights('model.weights.h5')` of Keras 3 writes."
        ) from error
    expected = expected_shapes(variant, shape, classes)
    if [size for _, size in found] != list(expected.values()):
        # The names differ by nature, so a row is marked for its shapes.
        pairs = zip_longest(found, expected.items(), fillvalue=("", None))
        rows = [(_entry(*left), _entry(*right), left[1] == right[1]) for left, right in pairs]
        raise RunError(
            f"{path} does not fit the variant {variant.name} on images of {shape.height}×{shape.width}, "
            f"{shape.channels} channels, with {classes} classes:\n" + side_by_side(rows, "in the file", "expected")
        )
    _check_scaling(path, variant, "rescaling" in groups, scaled)
    # Without Dropout, whose random state would have to be in the file.
    ours = build_model(variant, shape, classes, masks=())
    try:
        ours.load_weights(path)
    except Exception as error:
        raise RunError(
            f"Keras cannot load {path} into the variant {variant.name}: {_first_line(error)} "
            "Save the whole model, `model.save('model.keras')`, and import that file."
        ) from error
    _refuse_nan(path, ours)
    return ours


def _refuse_nan(path: Path, ours: keras.Model) -> None:
    broken = [name for name, value in get_weights(ours).items() if not np.isfinite(value).all()]
    if broken:
        raise RunError(f"{path} cannot be imported: {', '.join(broken)}: there are values that are NaN or infinite.")


def _entry(name: str, shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else f"{name} {shape}"


def _first_line(error: Exception) -> str:
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return lines[0] if lines[0].endswith(".") else f"{lines[0]}."
