"""The Flux engine: calls the Julia package through juliacall."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.engines.base import (
    Checkpoints,
    Fit,
    OnBatch,
    OnEpoch,
    OnNote,
    check_batch,
    check_batch_size,
    check_dataset,
    check_images,
    check_images_of,
    check_inputs,
)
from photoflux.engines.callbacks import NO_HOOKS, Hooks
from photoflux.engines.device import Device
from photoflux.engines.flux import bridge
from photoflux.engines.flux.callbacks import Callbacks
from photoflux.engines.flux.plain_paths import plain_paths
from photoflux.engines.flux.translation import translated
from photoflux.engines.proof import Augmentation, TraceRequest
from photoflux.errors import SettingError
from photoflux.model.layers import outputs_of
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant


class FluxEngine:
    """Fits and predicts with Flux.jl in this process.

    Parameters
    ----------
    say : callable
        Takes the line that tells the user that Julia starts.
    device : Device, optional
        The GPU that fits, predicts and traces; None: the CPU.
    """

    name = "flux"

    def __init__(self, say: Callable[[str], None], device: Device | None = None) -> None:
        self._say, self._device = say, device

    @property
    def julia(self) -> Any:
        """The Julia module; Julia starts on first use."""
        return bridge.start(self._say)

    def versions(self) -> dict[str, str]:
        """Return the versions of Julia, Flux and the bridge, and the device where that is not the CPU."""
        julia = self.julia
        packages = ("Flux", "NNlib", "Optimisers", "Zygote")
        found = {name.lower(): str(julia.PhotoFlux.package_version(name)) for name in packages}
        if self._device is not None:
            with translated(julia):
                card = str(julia.PhotoFlux.engine_device(self._device.name))
            found["device"] = f"{self._device.name} ({card}){', TF32' if self._device.tf32 else ''}"
        return {"julia": str(julia.VERSION), **found, "threads": str(julia.Threads.nthreads())}

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
        """Fit a variant; see `photoflux.engines.base.Engine.fit`."""
        check_dataset(variant, prepared, settings.balance)
        told = Callbacks(on_batch, on_epoch, on_note, hooks=hooks, variant=variant, settings=settings)
        julia, kept = self.julia, [] if checkpoints is None else [checkpoints.folder]
        places = plain_paths(prepared.path, weights, *kept, *(() if initial is None else (initial,)))
        with places as (data, target, *start), translated(julia, weights, prepared):
            folder = start.pop(0) if kept else None
            kept_epoch, ended = julia.PhotoFlux.engine_fit(
                json.dumps(variant.as_dict()),
                data,
                target,
                _keywords(settings, checkpoints, folder, hooks, self._settings),
                start[0] if start else None,
                julia.called(told.batch),
                julia.called(told.epoch),
                julia.called(told.note),
                julia.called(told.stopped),
                julia.called(told.hook) if told.has_hooks else None,
                told.every_batch,
            )
        return told.fit(int(kept_epoch), str(ended))

    def fine_tune(
        self,
        variant: Variant,
        prepared: PreparedDataset,
        settings: Settings,
        weights: Path,
        backbone: Path,
        tuned: Path,
        *,
        unfreeze: int,
        on_batch: OnBatch | None = None,
        on_epoch: OnEpoch | None = None,
        on_images: Callable[[int, int], bool] | None = None,
        on_note: OnNote | None = None,
        checkpoints: Checkpoints | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> Fit:
        """Train the last blocks of a backbone and the head that was fitted to its features.

        Parameters
        ----------
        variant : Variant
            Of the head.
        prepared : PreparedDataset
            The images.
        settings : Settings
            Those of the head's fit; all is trained with a tenth of the learning rate.
        weights : Path
            The head's weights file; those that are kept are written to it.
        backbone : Path
            The folded weights file of the backbone (`photoflux.features.folded_weights`).
        tuned : Path
            The folded weights file to write.
        unfreeze : int
            How many of the last blocks are trained, 1 to all of them.
        on_batch, on_epoch, on_note, checkpoints, hooks
            As in `fit`; what the frozen blocks make of the images is computed again where a fit is resumed.
        on_images : callable, optional
            Called with (images done, images in all) while the frozen blocks are computed; if it returns True, nothing
            is trained, and what there was is written.

        Returns
        -------
        Fit
            The kept epoch is 0, and head and backbone are as they were, where no epoch lowered the validation loss.

        Raises
        ------
        EngineError
            If a file cannot be read or written, or `unfreeze` is out of range.
        DivergedError
            If the loss becomes NaN or infinite; both files then hold the last good weights.
        """
        if self._device is not None:
            raise SettingError("`unfreeze` trains a backbone on the CPU only: leave `device` out, or `unfreeze`.")
        told = Callbacks(on_batch, on_epoch, on_note, on_images, hooks=hooks, variant=variant, settings=settings)
        julia, kept = self.julia, [] if checkpoints is None else [checkpoints.folder]
        places = plain_paths(prepared.path, weights, backbone, tuned, *kept)
        with places as (data, head, source, target, *folder), translated(julia, weights, prepared):
            kept_epoch, ended = julia.PhotoFlux.engine_fine_tune(
                json.dumps(variant.as_dict()),
                data,
                head,
                source,
                _keywords(settings, checkpoints, folder[0] if folder else None, hooks, {}),
                unfreeze,
                head,
                target,
                julia.called(told.batch),
                julia.called(told.epoch),
                julia.called(told.note),
                julia.called(told.images),
                julia.called(told.stopped),
                julia.called(told.hook) if told.has_hooks else None,
                told.every_batch,
            )
        return told.fit(int(kept_epoch), str(ended))

    def load(self, variant: Variant, weights: Path, shape: Shape, classes: int) -> FluxModel:
        """Return the model, which stays in Julia; see `photoflux.engines.base.Engine.load`."""
        julia = self.julia
        with plain_paths(weights) as (source,), translated(julia, weights):
            spec = json.dumps(variant.as_dict())
            sizes = shape.width, shape.height, shape.channels
            model = julia.PhotoFlux.engine_load(spec, source, classes, *sizes, *self._placed)
        return FluxModel(julia, model, variant, shape, outputs_of(classes))

    def network(self, path: Path, function: str, shape: Shape, classes: int) -> dict[str, Any]:
        """Run a Julia file of the user's, and return the network that a function of it makes, as data.

        Parameters
        ----------
        path : Path
            The file.
        function : str
            It is called with (width, height, channels) and `classes`, and returns a ``Flux.Chain``.
        shape : Shape
            Of an image.
        classes : int
            How many there are, 2 or more.

        Returns
        -------
        dict
            See `photoflux.model.networks.parts_of`.

        Raises
        ------
        EngineError
            If the file cannot be run, has no such function, or what it makes is no network of Flux's own layers from
            such images to logits; the message says which layer.
        """
        julia, sizes = self.julia, (shape.width, shape.height, shape.channels)
        with plain_paths(path) as (source,), translated(julia):
            found: dict[str, Any] = json.loads(str(julia.PhotoFlux.engine_network(source, function, *sizes, classes)))
        return found

    def backbone(self, path: Path, shape: Shape) -> FluxBackbone:
        """Return a backbone as a chain in Julia, for images of one shape.

        Parameters
        ----------
        path : Path
            Its folded weights file, ending in ``.safetensors`` (`photoflux.features.folded_weights`).
        shape : Shape
            Of the images: any height and width, 3 channels, or 1 that is repeated.

        Raises
        ------
        EngineError
            If the file is missing or not the weights of a backbone.
        """
        julia = self.julia
        with plain_paths(path) as (source,), translated(julia, path):
            return FluxBackbone(julia, julia.PhotoFlux.engine_backbone(source, shape.width, shape.height), shape)

    def trace(self, request: TraceRequest) -> dict[str, np.ndarray]:
        """Return every number of some steps; see `photoflux.engines.proof.ProofEngine.trace`."""
        check_inputs(request.images, request.variant, "steps, batch")
        julia = self.julia
        with plain_paths(request.weights) as (source,), translated(julia, request.weights):
            masks = julia.seval("Dict{String,Array{Float32}}()")
            for name, mask in request.masks.items():
                masks[name] = julia.pyconvert(julia.Array, np.asarray(mask, np.float32).T)
            numbers = julia.PhotoFlux.trace(
                julia.PhotoFlux.variant_from_json(json.dumps(request.variant.as_dict())),
                source,
                self._array(request.images),
                julia.pyconvert(julia.Array, np.asarray(request.labels, np.int32).T),
                request.classes,
                learning_rate=request.learning_rate,
                masks=masks,
                **({} if self._device is None else {"device": self._device.name}),
            )
            return {str(name): np.array(array).T.copy() for name, array in numbers}

    def stopping(self, totals: Sequence[float], patience: int) -> tuple[int, int]:
        """Return where early stopping ends; see `photoflux.engines.proof.ProofEngine.stopping`."""
        ended, best = self.julia.PhotoFlux.stopping_epochs(np.asarray(totals, np.float64), patience)
        return int(ended), int(best)

    def augmented(self, images: np.ndarray, drawn: Sequence[Augmentation]) -> np.ndarray:
        """Return transformed images; see `photoflux.engines.proof.ProofEngine.augmented`."""
        check_images(images, 4, "(N, C, H, W)")
        julia = self.julia
        flips = [np.array([getattr(a, name) for a in drawn], bool) for name in ("flip_x", "flip_y")]
        factors = [np.array([getattr(a, name) for a in drawn], np.float32) for name in ("angle", "zoom")]
        with translated(julia):
            return np.array(julia.PhotoFlux.augmented(self._array(images), *flips, *factors)).T.copy()

    def pixels(self, prepared: PreparedDataset, chosen: np.ndarray) -> np.ndarray:
        """Return images as a fit sees them; see `photoflux.engines.proof.ProofEngine.pixels`."""
        julia = self.julia
        with plain_paths(prepared.path) as (data,), translated(julia):
            return np.array(julia.PhotoFlux.pixels(data, np.asarray(chosen) + 1)).T.copy()

    @property
    def _settings(self) -> dict[str, Any]:
        """What a fit is told of the device."""
        return {} if self._device is None else {"device": self._device.name, "tf32": self._device.tf32}

    @property
    def _placed(self) -> tuple[str, ...]:
        """The name of the device, where it is not the CPU, as a last argument."""
        return () if self._device is None else (self._device.name,)

    def _array(self, images: np.ndarray) -> Any:
        """Return a Julia array of the same bytes: C order (N, C, H, W) is column order W×H×C×N."""
        return self.julia.pyconvert(self.julia.Array, np.ascontiguousarray(images).T)


class FluxModel:
    """A chain in Julia; see `photoflux.engines.base.Model`, and `SharesCores` there."""

    threads = 0

    def __init__(self, julia: Any, model: Any, variant: Variant, shape: Shape, outputs: int) -> None:
        self._julia, self._model, self._variant, self._shape, self._outputs = julia, model, variant, shape, outputs

    def logits(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        """Return the logits; see `photoflux.engines.base.Model.logits`."""
        check_batch(images, self._variant, self._shape, batch_size)
        # Julia takes both by address and keeps neither. C order (N, C, H, W) is column order W×H×C×N.
        images, found = np.ascontiguousarray(images), np.empty((len(images), self._outputs), np.float32)
        channels, height, width = self._shape
        with translated(self._julia):
            # Python's other threads go on meanwhile: nothing of Python is called in there.
            self._julia.PhotoFlux.engine_logits_b._jl_call_nogil(
                found.ctypes.data,
                self._model,
                images.ctypes.data,
                width,
                height,
                channels,
                len(images),
                batch_size,
                self.threads,
            )
        return found


class FluxBackbone:
    """A backbone in Julia, which turns images into features.

    Attributes
    ----------
    features : int
        Numbers an image.
    """

    def __init__(self, julia: Any, backbone: Any, shape: Shape) -> None:
        self._julia, self._backbone, self._shape = julia, backbone, shape
        self.features = int(julia.PhotoFlux.engine_feature_count(backbone))

    def features_of(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        """Return the features, float32 (N, F), of images, uint8 (N, C, H, W), so many at a time.

        Raises
        ------
        SettingError
            If the images are not of the backbone's shape, or `batch_size` is below 1.
        """
        check_images_of(images, self._shape)
        check_batch_size(batch_size)
        found = np.empty((len(images), self.features), np.float32)
        with self._given(images) as (address, *sizes):
            self._julia.PhotoFlux.engine_features_b(found.ctypes.data, self._backbone, address, *sizes, batch_size)
        return found

    def activations(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return what every part of the network makes of images, by its name, in order.

        ``"stem"`` and ``"block1"``, ``"block2"``, … are float32 (N, C, H, W), and ``"features"`` is float32 (N, F).

        Raises
        ------
        SettingError
            If the images are not of the backbone's shape.
        """
        check_images_of(images, self._shape)
        with self._given(images) as given:
            found = self._julia.PhotoFlux.engine_activations(self._backbone, *given)
            return {str(name): np.array(array).T.copy() for name, array in found}

    @contextmanager
    def _given(self, images: np.ndarray) -> Iterator[tuple[int, ...]]:
        """Give Julia's address of the images, their width, height and channels, and how many they are."""
        images = np.ascontiguousarray(images)
        channels, height, width = self._shape
        with translated(self._julia):
            yield images.ctypes.data, width, height, channels, len(images)


def _keywords(
    settings: Settings, checkpoints: Checkpoints | None, folder: str | None, hooks: Hooks, placed: Mapping[str, Any]
) -> str:
    """Return the keywords of a fit in Julia as JSON; `folder` is that of the checkpoints as Julia can read it."""
    kept = {
        "checkpoints": folder,
        "resume": checkpoints is not None and checkpoints.resume,
        "checkpoint_minutes": float(checkpoints.minutes if checkpoints is not None else Checkpoints.minutes),
    }
    budget = {} if hooks.max_time is None else {"max_time": hooks.max_time}
    return json.dumps(asdict(settings) | kept | budget | dict(placed))
