"""The product: the Julia package in this process, through juliacall."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.engines import bridge
from photoflux.engines.base import Augmentation, BatchProgress, EpochRow, Fit, OnBatch, OnEpoch, Settings, TraceRequest
from photoflux.errors import DivergedError, EngineError
from photoflux.variants import Variant

# What crosses the bridge: JSON and paths in, a callback a batch, NumPy arrays out.
GLUE = f"""
const SHOWN = ({", ".join(f":{field.name}" for field in fields(BatchProgress))})
"""
GLUE += """
function fit(spec, folder, weights, settings, initial, on_batch, on_epoch)
    v = PhotoFlux.variant_from_json(spec)
    data = PhotoFlux.open_dataset(folder)
    keep(run) = PhotoFlux.write_weights(weights, run.model, run.input; metadata=PhotoFlux.weights_metadata(run))
    run = try
        PhotoFlux.train(v, data; PhotoFlux.settings_from_json(settings)..., initial,
            on_batch=so_far -> pyconvert(Bool, on_batch(so_far[SHOWN]...)), on_epoch=row -> on_epoch(row...))
    catch err
        err isa PhotoFlux.DivergedError && keep(err.run)
        rethrow()
    end
    keep(run)
    return run.kept_epoch, string(run.ended)
end

function loaded(spec, weights, width, height, channels, classes)
    model = PhotoFlux.build_model(PhotoFlux.variant_from_json(spec), (width, height, channels), classes)
    return PhotoFlux.load_weights!(model, weights, (width, height, channels))
end

array(x, ::Val{N}) where {N} = pyconvert(Array{UInt8,N}, x)
"""


@cache
def _with_glue(module: Any) -> Any:
    module.seval(f"begin {GLUE} end")
    return module


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
        return _with_glue(bridge.start(self._say))

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
        history: list[EpochRow] = []

        def batch_done(*values: Any) -> bool:
            return on_batch is not None and bool(on_batch(BatchProgress(*values)))

        def epoch_done(*values: Any) -> None:
            history.append(EpochRow(*values))
            if on_epoch is not None:
                on_epoch(history[-1])

        with _translated(self.julia, weights):
            kept_epoch, ended = self.julia.fit(
                json.dumps(variant.as_dict()),
                str(prepared.path),
                str(weights),
                json.dumps(asdict(settings)),
                None if initial is None else str(initial),
                batch_done,
                epoch_done,
            )
        return Fit(history, int(kept_epoch), str(ended))  # type: ignore[arg-type]

    def logits(
        self, variant: Variant, weights: Path, images: np.ndarray, classes: int, *, batch_size: int = 32
    ) -> np.ndarray:
        """Return the logits; see `photoflux.engines.base.Engine.logits`."""
        _, channels, height, width = images.shape
        julia = self.julia
        with _translated(julia, weights):
            spec = json.dumps(variant.as_dict())
            model = julia.loaded(spec, str(weights), width, height, channels, classes)
            parts = [
                np.array(
                    julia.PhotoFlux.logits(model, self._array(images[i : i + batch_size]), batch_size=batch_size)
                ).T
                for i in range(0, len(images), batch_size)
            ]
        return np.concatenate(parts) if parts else np.zeros((0, 1 if classes == 2 else classes), np.float32)

    def trace(self, request: TraceRequest) -> dict[str, np.ndarray]:
        """Return every number of some steps; see `photoflux.engines.base.Engine.trace`."""
        julia = self.julia
        with _translated(julia, request.weights):
            masks = julia.seval("Dict{String,Array{Float32}}()")
            for name, mask in request.masks.items():
                masks[name] = julia.pyconvert(julia.Array, np.asarray(mask, np.float32).T)
            numbers = julia.PhotoFlux.trace(
                julia.PhotoFlux.variant_from_json(json.dumps(request.variant.as_dict())),
                str(request.weights),
                self._array(request.images),
                julia.pyconvert(julia.Array, np.asarray(request.labels, np.int32).T),
                request.classes,
                learning_rate=request.learning_rate,
                masks=masks,
            )
            return {str(name): np.array(array).T.copy() for name, array in numbers}

    def stopping(self, totals: Sequence[float], patience: int) -> tuple[int, int]:
        """Return where early stopping ends; see `photoflux.engines.base.Engine.stopping`."""
        ended, best = self.julia.PhotoFlux.stopping_epochs(np.asarray(totals, np.float64), patience)
        return int(ended), int(best)

    def augmented(self, images: np.ndarray, drawn: Sequence[Augmentation]) -> np.ndarray:
        """Return transformed images; see `photoflux.engines.base.Engine.augmented`."""
        julia = self.julia
        flips = [np.array([getattr(a, name) for a in drawn], bool) for name in ("flip_x", "flip_y")]
        factors = [np.array([getattr(a, name) for a in drawn], np.float32) for name in ("angle", "zoom")]
        with _translated(julia):
            return np.array(julia.PhotoFlux.augmented(self._array(images), *flips, *factors)).T.copy()

    def pixels(self, prepared: PreparedDataset, chosen: np.ndarray) -> np.ndarray:
        """Return images as a fit sees them; see `photoflux.engines.base.Engine.pixels`."""
        julia = self.julia
        with _translated(julia):
            return np.array(julia.PhotoFlux.pixels(str(prepared.path), np.asarray(chosen) + 1)).T.copy()

    def _array(self, images: np.ndarray) -> Any:
        """Return a Julia array of the same bytes: C order (N, C, H, W) is column order W×H×C×N."""
        x = np.ascontiguousarray(images).T
        return self.julia.array(x, self.julia.Val(x.ndim))


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
