"""The Keras engine as PhotoFlux calls it: sends each request to the worker process."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import safetensors.numpy

from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.engines.base import (
    Checkpoints,
    Fit,
    OnBatch,
    OnEpoch,
    OnNote,
    check_batch,
    check_dataset,
    check_images,
    check_inputs,
)
from photoflux.engines.callbacks import NO_HOOKS, Hooks, check_not_given
from photoflux.engines.keras.worker import Message, Worker
from photoflux.engines.proof import Augmentation, TraceRequest
from photoflux.errors import EngineError, SettingError, unknown_name
from photoflux.model.architectures import NETWORK
from photoflux.model.history import BatchProgress, EpochRow
from photoflux.model.layers import outputs_of
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.system import atomic

CHUNK_BYTES = 64 * 2**20
ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}


def why_unavailable() -> str | None:
    """Return why the Keras engine cannot be used here, or None if it can; nothing is imported."""
    missing = [name for name in ("keras", "tensorflow") if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    return (
        f"The engine keras cannot be used: {' and '.join(missing)} {verb} not installed. "
        "Install with: pip install 'photoflux[keras]'"
    )


class KerasEngine:
    """Fits and predicts with Keras on TensorFlow; its worker process starts on first use and ends with `close`.

    Examples
    --------
    >>> with KerasEngine() as engine:  # doctest: +SKIP
    ...     engine.versions()["keras"]
    '3.15.1'
    """

    name = "keras"

    def __init__(self) -> None:
        self._process = Worker("photoflux.engines.keras.server", ENVIRONMENT, "Keras worker process")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker process; the engine stays usable, and starts another when asked for something."""
        self._process.close()

    @property
    def _worker(self) -> Worker:
        if (reason := why_unavailable()) is not None:
            raise EngineError(reason)
        return self._process

    def versions(self) -> dict[str, str]:
        """Return the versions of Keras, TensorFlow, NumPy and Python."""
        return dict(self._worker.hello()["values"])

    def fit(
        self,
        variant: Variant,
        prepared: PreparedDataset,
        settings: Settings,
        weights: Path,
        *,
        initial: Path | None = None,
        on_batch: OnBatch | None = None,
        on_epoch: OnEpoch | None = None,
        on_note: OnNote | None = None,
        checkpoints: Checkpoints | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> Fit:
        """Fit a variant and write the kept weights, as `photoflux.engines.base.Engine.fit` says.

        Ctrl-C, and `on_batch` returning True, end the fit after the batch that is being computed. A variant with a
        patience then keeps its best epoch's weights too, if one was finished.
        """
        check_not_given(self.name, settings, hooks)
        check_dataset(variant, prepared, settings.balance)
        history: list[EpochRow] = []

        def on_event(event: Message) -> bool:
            if event["event"] == "batch":
                return on_batch is not None and bool(on_batch(BatchProgress(**event["values"])))
            if event["event"] == "note":
                if on_note is not None:
                    on_note(event["values"]["note"])
                return False
            history.append(EpochRow(**event["values"]))
            if on_epoch is not None:
                on_epoch(history[-1])
            return False

        values = {
            "variant": _as_sent(variant),
            "prepared": str(prepared.path),
            "settings": asdict(settings),
            "weights": str(weights),
            "initial": None if initial is None else str(initial),
            "batches": on_batch is not None,
            "checkpoints": None if checkpoints is None else asdict(checkpoints) | {"folder": str(checkpoints.folder)},
        }
        done = self._worker.request("fit", values, on_event=on_event, ctrl_c_stops=True)
        return Fit(history, done["kept_epoch"], done["ended"])

    def load(self, variant: Variant, weights: Path, shape: Shape, classes: int) -> KerasModel:
        """Return the model, which stays in the worker process; see `photoflux.engines.base.Engine.load`."""
        values = {"variant": _as_sent(variant), "weights": str(weights), "shape": shape, "classes": int(classes)}
        self._worker.request("load", values)
        return KerasModel(self, values, variant, shape, outputs_of(classes))

    def export(
        self,
        variant: Variant,
        weights: Path,
        shape: Shape,
        classes: int,
        path: Path,
        format: str,
        backbones: Sequence[Path] = (),
    ) -> None:
        """Write the model of a weights file, for images of a shape (C, H, W), as ``"keras"`` or ``"onnx"``.

        `backbones` are the folded weights files of a transfer variant's backbone, whose features stand side by side.
        """
        values = {"weights": str(weights), "shape": shape, "classes": classes, "path": str(path), "format": format}
        values |= {"backbones": [str(backbone) for backbone in backbones]}
        self._worker.request("export", {"variant": _as_sent(variant), **values})

    def import_model(
        self,
        variant: Variant,
        model: Path,
        weights: Path,
        *,
        scaled: bool = False,
        shape: Shape | None = None,
        classes: int | None = None,
    ) -> tuple[Shape, int]:
        """Write the weights of a Keras model of this variant to the file `weights`; nothing in it is executed.

        Parameters
        ----------
        variant : Variant
            What the model must be, layer by layer.
        model : Path
            A ``.keras`` file, or ``.weights.h5`` with `shape` and `classes`.
        weights : Path
            Where the weights go.
        scaled : bool
            Whether the model's images were divided by 255 before they reached it, rather than in a Rescaling layer.
        shape : Shape, optional
            Of the images, for weights without a model.
        classes : int, optional
            Number of classes, for weights without a model.

        Returns
        -------
        tuple
            The images' shape, and the number of classes.
        """
        values = {"model": str(model), "weights": str(weights), "scaled": scaled, "shape": shape, "classes": classes}
        done = self._worker.request("import_model", {"variant": _as_sent(variant), **values})
        return Shape(*done["shape"]), done["classes"]

    def trace(self, request: TraceRequest) -> dict[str, np.ndarray]:
        """Run the steps of a `TraceRequest`, as `photoflux.engines.proof.ProofEngine.trace` says."""
        check_inputs(request.images, request.variant, "steps, batch")
        if request.labels.shape != request.images.shape[:2]:
            raise SettingError(
                f"`labels` must have shape {request.images.shape[:2]} (steps, batch); received: {request.labels.shape}."
            )
        layers = [layer.name for layer in request.layers if layer.kind == "dropout"]
        for name in request.masks:
            if name not in layers:
                raise unknown_name("masks", name, layers)
        values = {
            "variant": _as_sent(request.variant),
            "weights": str(request.weights),
            "classes": request.classes,
            "learning_rate": request.learning_rate,
        }
        masks = {f"mask/{name}": np.asarray(mask, np.float32) for name, mask in request.masks.items()}
        labels = np.asarray(request.labels, np.int32)
        return self.exchange("trace", values, {"images": request.images, "labels": labels, **masks})

    def stopping(self, totals: Sequence[float], patience: int) -> tuple[int, int]:
        """Return where early stopping ends, as `photoflux.engines.proof.ProofEngine.stopping` says."""
        done = self._worker.request("stopping", {"totals": [float(total) for total in totals], "patience": patience})
        return done["ended"], done["best"]

    def augmented(self, images: np.ndarray, drawn: Sequence[Augmentation]) -> np.ndarray:
        """Return transformed images, as `photoflux.engines.proof.ProofEngine.augmented` says."""
        check_images(images, 4, "(N, C, H, W)")
        return self.exchange("augmented", {"drawn": [asdict(a) for a in drawn]}, {"images": images})["images"]

    def pixels(self, prepared: PreparedDataset, chosen: np.ndarray) -> np.ndarray:
        """Return images as a fit sees them, as `photoflux.engines.proof.ProofEngine.pixels` says."""
        indices = {"chosen": np.asarray(chosen, np.int64)}
        return self.exchange("pixels", {"prepared": str(prepared.path)}, indices)["images"]

    def exchange(self, do: str, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Send a request with arrays to the worker process, and return those that it answers with."""
        with atomic.scratch("arrays") as folder:
            question, answer = folder / "question.safetensors", folder / "answer.safetensors"
            contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            # Not atomic: into a scratch folder.
            safetensors.numpy.save_file(contiguous, question)
            self._worker.request(do, {**values, "arrays": str(question), "answer": str(answer)})
            return safetensors.numpy.load_file(answer)


class KerasModel:
    """A model in the worker process; see `photoflux.engines.base.Model`."""

    def __init__(
        self, engine: KerasEngine, values: dict[str, Any], variant: Variant, shape: Shape, outputs: int
    ) -> None:
        self._engine, self._values, self._variant, self._shape, self._outputs = engine, values, variant, shape, outputs

    def logits(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        """Return the logits; see `photoflux.engines.base.Model.logits`."""
        check_batch(images, self._variant, self._shape, batch_size)
        # Whole batches a chunk, so that the answer does not depend on how the images were cut up.
        step = batch_size * max(1, CHUNK_BYTES // (math.prod(self._shape) * batch_size))
        parts = [np.empty((0, self._outputs), np.float32)]
        values = {**self._values, "batch_size": int(batch_size)}
        for start in range(0, len(images), step):
            parts.append(self._engine.exchange("logits", values, {"images": images[start : start + step]})["logits"])
        return np.concatenate(parts)


def _as_sent(variant: Variant) -> dict[str, Any]:
    """Return a variant for the worker; raise a `SettingError` for a network of a user's own."""
    if variant.architecture == NETWORK:
        raise SettingError(
            f"{variant.name} is a network of your own, of Flux's layers, which Keras does not have. It is trained, "
            "evaluated and applied with the engine flux."
        )
    return variant.as_dict()
