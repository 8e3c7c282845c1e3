"""The Flux engine: calls the Julia package through juliacall."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.engines.base import Fit, OnBatch, OnEpoch, check_batch, check_dataset, check_images, check_inputs
from photoflux.engines.flux import bridge
from photoflux.engines.flux.plain_paths import plain_paths
from photoflux.engines.proof import Augmentation, TraceRequest
from photoflux.errors import DivergedError, EngineError
from photoflux.model.history import BatchProgress, EpochRow
from photoflux.model.layers import outputs_of
from photoflux.model.settings import Settings
from photoflux.model.variants import Variant


class FluxEngine:
    """Fits and predicts with Flux.jl in this process.

    Parameters
    ----------
    say : callable
        Takes the line that tells the user that Julia starts.
    """

    name = "flux"

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    @property
    def julia(self) -> Any:
        """The Julia module; Julia starts on first use."""
        return bridge.start(self._say)

    def versions(self) -> dict[str, str]:
        """Return the versions of Julia, Flux and the bridge."""
        julia = self.julia
        packages = ("Flux", "NNlib", "Optimisers", "Zygote")
        found = {name.lower(): str(julia.PhotoFlux.package_version(name)) for name in packages}
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
    ) -> Fit:
        """Fit a variant; see `photoflux.engines.base.Engine.fit`."""
        check_dataset(variant, prepared, settings.balance)
        history: list[EpochRow] = []

        def batch_done(*values: Any) -> bool:
            return on_batch is not None and bool(on_batch(BatchProgress(*values)))

        def epoch_done(*values: Any) -> None:
            history.append(EpochRow(*values))
            if on_epoch is not None:
                on_epoch(history[-1])

        julia = self.julia
        places = plain_paths(prepared.path, weights, *(() if initial is None else (initial,)))
        with places as (data, target, *start), _translated(julia, weights):
            kept_epoch, ended = julia.PhotoFlux.engine_fit(
                json.dumps(variant.as_dict()),
                data,
                target,
                json.dumps(asdict(settings)),
                start[0] if start else None,
                julia.called(batch_done),
                julia.called(epoch_done),
            )
        return Fit(history, int(kept_epoch), str(ended))  # type: ignore[arg-type]

    def load(self, variant: Variant, weights: Path, shape: Shape, classes: int) -> FluxModel:
        """Return the model, which stays in Julia; see `photoflux.engines.base.Engine.load`."""
        julia = self.julia
        with plain_paths(weights) as (source,), _translated(julia, weights):
            spec = json.dumps(variant.as_dict())
            model = julia.PhotoFlux.engine_load(spec, source, classes, shape.width, shape.height, shape.channels)
        return FluxModel(julia, model, variant, shape, outputs_of(classes))

    def trace(self, request: TraceRequest) -> dict[str, np.ndarray]:
        """Return every number of some steps; see `photoflux.engines.proof.ProofEngine.trace`."""
        check_inputs(request.images, request.variant, "steps, batch")
        julia = self.julia
        with plain_paths(request.weights) as (source,), _translated(julia, request.weights):
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
        with _translated(julia):
            return np.array(julia.PhotoFlux.augmented(self._array(images), *flips, *factors)).T.copy()

    def pixels(self, prepared: PreparedDataset, chosen: np.ndarray) -> np.ndarray:
        """Return images as a fit sees them; see `photoflux.engines.proof.ProofEngine.pixels`."""
        julia = self.julia
        with plain_paths(prepared.path) as (data,), _translated(julia):
            return np.array(julia.PhotoFlux.pixels(data, np.asarray(chosen) + 1)).T.copy()

    def _array(self, images: np.ndarray) -> Any:
        """Return a Julia array of the same bytes: C order (N, C, H, W) is column order W×H×C×N."""
        return self.julia.pyconvert(self.julia.Array, np.ascontiguousarray(images).T)


class FluxModel:
    """A chain in Julia; see `photoflux.engines.base.Model`."""

    def __init__(self, julia: Any, model: Any, variant: Variant, shape: Shape, outputs: int) -> None:
        self._julia, self._model, self._variant, self._shape, self._outputs = julia, model, variant, shape, outputs

    def logits(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        """Return the logits; see `photoflux.engines.base.Model.logits`."""
        check_batch(images, self._variant, self._shape, batch_size)
        # Julia takes both by address and keeps neither. C order (N, C, H, W) is column order W×H×C×N.
        images, found = np.ascontiguousarray(images), np.empty((len(images), self._outputs), np.float32)
        channels, height, width = self._shape
        with _translated(self._julia):
            self._julia.PhotoFlux.engine_logits_b(
                found.ctypes.data, self._model, images.ctypes.data, width, height, channels, len(images), batch_size
            )
        return found


@contextmanager
def _translated(julia: Any, weights: Path | None = None) -> Iterator[None]:
    """Turn Julia's exceptions into ours, so that a user sees the message and no Julia stack trace."""
    import juliacall

    try:
        yield
    except juliacall.JuliaError as error:
        exception = error.exception
        if julia.isa(exception, julia.InterruptException):
            raise KeyboardInterrupt from None
        message = str(julia.sprint(julia.showerror, exception))
        if julia.isa(exception, julia.PhotoFlux.DivergedError):
            raise DivergedError(f"{message} They are in {weights}.") from None
        user_errors = (julia.ArgumentError, julia.DimensionMismatch, julia.SystemError)
        if any(julia.isa(exception, kind) for kind in user_errors):
            raise EngineError(message.partition(": ")[2] or message) from None
        raise EngineError(f"Julia failed: {message}") from error
