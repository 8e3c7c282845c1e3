"""`photoflux.export`: writes a run as a model file that opens without PhotoFlux."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from photoflux.engines.keras.engine import KerasEngine
from photoflux.errors import EngineError, RunError, SettingError, unknown_name
from photoflux.features import backbone_from
from photoflux.features.classifier import write_classifier
from photoflux.features.network import PretrainedNetwork
from photoflux.model.layers import layers
from photoflux.model.weights import read_weights_of
from photoflux.runs.progress import Display
from photoflux.runs.run import Run, load_run
from photoflux.system.names import user_path

FORMATS = ("keras", "onnx")


def export(run: str | Path | Run, path: str | Path, format: str | None = None, *, progress: bool = True) -> Path:
    """Write a run's model as a file that opens in Keras or an ONNX runtime, no PhotoFlux installed.

    The model takes images (N, H, W, C) of float32, 0 to 255, and returns logits: with two classes one number, the
    log-odds of the second (its probability is the logistic function of it), else one number a class (softmax).

    Parameters
    ----------
    run : str, Path or Run
        The run, of whichever engine.
    path : str or Path
        The file. It is written under a temporary name beside it and renamed once; a file there is replaced.
    format : str, optional
        ``"keras"`` or ``"onnx"``; None: what the file's suffix says.
    progress : bool
        Whether to say on stderr what is done.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SettingError
        If `format` is neither, or the suffix is another.
    RunError
        If the run cannot be read or the file cannot be written.
    EngineError
        If Keras, or what its ONNX exporter needs, is not installed.
    """
    run = run if isinstance(run, Run) else load_run(run)
    path = user_path(path)
    kind = _format_of(path, format)
    if path.is_dir():
        raise RunError(
            f"`path` must be a file; {path} is a folder. Give a name in it, such as {path / 'model'}.{kind}."
        )
    if not path.parent.is_dir():
        raise RunError(f"There is no folder {path.parent}. Make it, or choose another place for {path.name}.")
    if run.variant.chain is not None:
        raise SettingError(
            f"{run.variant.name} is a network of your own, of which no Keras model and no ONNX file can be made. "
            "Its weights are in weights.safetensors, and its layers in run.json."
        )
    if run.backbone is not None:
        _export_transfer(run, path, kind, progress)
        return path
    missing = [name for name in ("onnx", "tf2onnx") if kind == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise EngineError(
            f"A model cannot be exported as ONNX: {' and '.join(missing)} not installed. "
            "Install with: pip install 'photoflux[onnx]'"
        )
    with KerasEngine() as engine, Display(progress) as display:
        display.say(f"Exporting {run.path} with Keras")
        engine.export(run.variant, run.weights, run.shape, len(run.classes), path, kind)
    return path


def _export_transfer(run: Run, path: Path, kind: str, progress: bool) -> None:
    """Write backbone and head as one model: ONNX by itself, Keras through Keras."""
    assert run.backbone is not None
    backbone, classes = backbone_from(run.backbone, run.path), len(run.classes)
    if kind == "onnx":
        weights = read_weights_of(run.weights, run.variant, run.input_shape, classes)
        write_classifier(path, backbone, layers(run.variant, run.input_shape, classes), weights, run.shape)
        return
    folded = [network.folded.path for network in backbone.networks if isinstance(network, PretrainedNetwork)]
    if len(folded) < len(backbone.networks) or backbone.precision != "float32":
        raise SettingError(
            f"The backbone {backbone.name} ({backbone.precision}) is an ONNX graph, of which no Keras model can be "
            "made. Export the run as model.onnx."
        )
    with KerasEngine() as engine, Display(progress) as display:
        display.say(f"Exporting {run.path} with Keras")
        engine.export(run.variant, run.weights, run.shape, classes, path, kind, folded)


def _format_of(path: Path, format: str | None) -> str:
    suffix = path.suffix.removeprefix(".")
    if format is not None and format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if suffix not in FORMATS or format not in (None, suffix):
        wanted = " or ".join(f".{name}" for name in FORMATS if format in (None, name))
        raise SettingError(f"`path` must end in {wanted}; received: {str(path)!r}.")
    return suffix
