"""Joins a backbone to an engine: heads are fitted on its features, and images are predicted from their pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.data.checks import check_whole
from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.engines.base import Checkpoints, Engine, Fit, Model, OnBatch, OnEpoch, OnNote
from photoflux.engines.callbacks import NO_HOOKS, Hooks
from photoflux.engines.flux.engine import FluxEngine
from photoflux.errors import SettingError
from photoflux.features import Backbone, backbone_from, features_dataset, open_backbone
from photoflux.features.network import PretrainedNetwork
from photoflux.model.backbones import backbones
from photoflux.model.history import BatchProgress, EpochRow
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.model.variants import variants
from photoflux.model.weights import read_weights_of, remaining_features
from photoflux.runs.progress import Display
from photoflux.runs.run import Run
from photoflux.runs.strength import cross_validated
from photoflux.system.signals import asked, end_if_asked

TUNED = "backbone.safetensors"  # in a run's folder, the weights of a backbone that was fine-tuned
TUNING = "fine-tuning"  # in the folder of a fit's checkpoints, those of what follows the head's fit


@dataclass(frozen=True)
class BackboneOptions:
    """What a user says of the backbone of transfer variants; an option that is not given is None or 0.

    Attributes
    ----------
    backbone : str, Path or None
        A name, names joined by ``+``, or an ONNX file; None: the variant's own.
    precision : str or None
        ``"float32"`` or ``"int8"``; None: float32.
    views : int
        Augmented views of each training image, 0 or more.
    mean, scale : float, sequence of float or None
        Of an ONNX file: its input is (pixels − mean) / scale, of pixels from 0 to 255.
    unfreeze : int
        How many of the backbone's last blocks are trained on with the head; 0: none.
    """

    backbone: str | Path | None = None
    precision: str | None = None
    views: int = 0
    mean: float | Sequence[float] | None = None
    scale: float | Sequence[float] | None = None
    unfreeze: int = 0

    def open(self, chosen: Iterable[Variant], image_size: int | None) -> Backbone | None:
        """Return the backbone of the transfer variants among those chosen; None if there are none.

        Raises
        ------
        SettingError
            If an option is given that no variant needs, the variants have different backbones, or so many blocks
            cannot be unfrozen.
        BackboneError
            If the backbone cannot be had; the message says what to install or give.
        """
        own = dict.fromkeys(variant.backbone for variant in chosen if variant.backbone)
        if not own:
            for name, value in dataclasses.asdict(self).items():
                if value not in (None, 0):
                    known = ", ".join(name for name, variant in variants().items() if variant.backbone)
                    option = {"mean": "backbone_mean", "scale": "backbone_scale"}.get(name, name)
                    raise SettingError(f"`{option}` is for the variants on a backbone only: {known}.")
            return None
        if len(own) > 1 and self.backbone is None:
            raise SettingError(f"The variants have different backbones: {', '.join(own)}. Choose with `backbone`.")
        backbone = open_backbone(
            next(iter(own)) if self.backbone is None else self.backbone,
            image_size=image_size,
            mean=self.mean,
            scale=self.scale,
            precision=self.precision or "float32",
        )
        _check_unfreeze(self.unfreeze, backbone)
        return backbone


def _check_unfreeze(unfreeze: int, backbone: Backbone) -> None:
    """Raise a `SettingError` unless so many of a backbone's last blocks can be trained."""
    if check_whole("`unfreeze`", unfreeze, 0) == 0:
        return
    network = backbone.networks[0]
    if len(backbone.networks) > 1 or backbone.precision != "float32" or not isinstance(network, PretrainedNetwork):
        raise SettingError(
            f"`unfreeze` trains one backbone of the table, {', '.join(backbones())}, in float32; received: "
            f"{backbone.name} in {backbone.precision}. Leave out `unfreeze`, or choose another `backbone`."
        )
    blocks = len(network.folded.blocks)
    if unfreeze > blocks:
        raise SettingError(f"`unfreeze` must be 0 to {blocks}, the blocks of {backbone.name}; received: {unfreeze}.")


def on_backbone(variant: Variant, backbone: Backbone | None) -> Variant:
    """Return a transfer variant as one on this backbone; others are returned as they are."""
    if backbone is None or not variant.takes_features:
        return variant
    return dataclasses.replace(variant, backbone=backbone.name)


class TransferModel:
    """A backbone and a head, from pixels to logits; see `photoflux.engines.base.Model`."""

    def __init__(self, engine: TransferEngine, head: Model) -> None:
        self.engine, self.head = engine, head
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def logits(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        """Return the logits; see `photoflux.engines.base.Model.logits`."""
        features = self.engine.backbone.features_of(images, batch_size=batch_size)
        self._last = (images, features)
        return self.head.logits(features[:, :, None, None], batch_size=batch_size)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the backbone's features of images, (N, F): those that `logits` has just computed of this array."""
        if self._last is not None and self._last[0] is images:
            return self._last[1]
        return self.engine.backbone.features_of(images)


class TransferEngine:
    """An engine whose transfer variants read images; their features are computed once a dataset.

    Variants without a backbone go to the engine as they are.

    Parameters
    ----------
    engine : Engine
        Fits and applies the heads.
    backbone : Backbone
        Makes the features.
    display : Display
        Shows the progress of the features.
    views : int
        Augmented views of each training image that a fit sees too.
    unfreeze : int
        How many of the backbone's last blocks a fit trains on with the head, once this is fitted; the engine then has
        the changed backbone, and its weights are beside the head's.
    """

    def __init__(self, engine: Engine, backbone: Backbone, display: Display, views: int = 0, unfreeze: int = 0) -> None:
        self.engine, self.backbone, self.views, self.unfreeze = engine, backbone, views, unfreeze
        self.name = engine.name
        self.tuned = False
        self._display = display

    def versions(self) -> dict[str, str]:
        """Return the versions of what computes, the backbone's runtime among them."""
        return self.engine.versions() | {"onnxruntime": version("onnxruntime")}

    def features(self, prepared: PreparedDataset, views: int = 0, seed: int = 0) -> PreparedDataset:
        """Return the features dataset of a prepared dataset, computed if it is not there yet."""

        def on_progress(done: int, total: int, what: str) -> None:
            end_if_asked()
            self._display.step(done, total, what, rated="images")

        return features_dataset(prepared, self.backbone, views=views, seed=seed, on_progress=on_progress)

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
        data = self.features(prepared, self.views, settings.seed) if variant.takes_features else prepared
        fit = self.engine.fit(
            variant,
            data,
            settings,
            weights,
            initial=initial,
            on_batch=on_batch,
            on_epoch=on_epoch,
            on_note=on_note,
            checkpoints=_in(checkpoints, "."),
            hooks=hooks,
        )
        if not self.unfreeze or fit.ended in ("interrupted", "stopped"):
            return fit
        if hooks.max_time is not None:
            # What the head's fit has left of it; the first batch ends a fit that has none.
            left = hooks.max_time - sum(row.seconds for row in fit.history)
            hooks = dataclasses.replace(hooks, max_time=max(left, 1e-3))
        return self._fine_tune(
            fit, variant, prepared, settings, weights, on_batch, on_epoch, on_note, checkpoints, hooks
        )

    def _fine_tune(
        self,
        fit: Fit,
        variant: Variant,
        prepared: PreparedDataset,
        settings: Settings,
        weights: Path,
        on_batch: OnBatch | None,
        on_epoch: OnEpoch | None,
        on_note: OnNote | None,
        checkpoints: Checkpoints | None,
        hooks: Hooks,
    ) -> Fit:
        """Train the last blocks and a fitted head on; the epochs are counted on from those of the head's fit."""
        engine, network, before = self.engine, self.backbone.networks[0], len(fit.history)
        assert isinstance(engine, FluxEngine) and isinstance(network, PretrainedNetwork)
        tuned, history = weights.with_name(TUNED), list(fit.history)

        def batch_done(progress: BatchProgress) -> bool:
            later = dataclasses.replace(progress, epoch=before + progress.epoch, epochs=before + progress.epochs)
            return on_batch is not None and on_batch(later)

        def epoch_done(row: EpochRow) -> None:
            history.append(dataclasses.replace(row, epoch=before + row.epoch))
            if on_epoch is not None:
                on_epoch(history[-1])

        def images_done(done: int, total: int) -> bool:
            self._display.step(done, total, f"Frozen blocks of {self.backbone.name}", rated="images")
            return bool(asked())

        self._display.say(
            f"Fine-tuning the last {self.unfreeze} of {len(network.folded.blocks)} blocks of {self.backbone.name} and "
            "the head, with a tenth of the learning rate"
        )
        try:
            more = engine.fine_tune(
                variant,
                prepared,
                settings,
                weights,
                network.folded.path,
                tuned,
                unfreeze=self.unfreeze,
                on_batch=batch_done,
                on_epoch=epoch_done,
                on_images=images_done,
                on_note=on_note,
                checkpoints=_in(checkpoints, TUNING),
                hooks=hooks,
            )
        finally:
            if tuned.is_file():
                self.backbone, self.tuned = Backbone([PretrainedNetwork(network.name, tuned)], None, "float32"), True
        kept = before + more.kept_epoch if more.kept_epoch else fit.kept_epoch
        return Fit(history, kept, more.ended)

    def load(self, variant: Variant, weights: Path, shape: Shape, classes: int) -> Model:
        """Return the model of a weights file; see `photoflux.engines.base.Engine.load`."""
        if not variant.takes_features:
            return self.engine.load(variant, weights, shape, classes)
        return TransferModel(
            self, self.engine.load(variant, weights, input_shape(variant, shape, self.backbone), classes)
        )


def _in(checkpoints: Checkpoints | None, name: str) -> Checkpoints | None:
    """Return where a part of a fit keeps its checkpoints: it goes on if it has any, and may have none yet."""
    if checkpoints is None:
        return None
    folder = checkpoints.folder / name
    resume = checkpoints.resume and folder.is_dir() and any(folder.glob("*.safetensors"))
    return dataclasses.replace(checkpoints, folder=folder, resume=resume)


def input_shape(variant: Variant, shape: Shape, backbone: Backbone | None) -> Shape:
    """Return what a variant's layers take where there are images of a shape: these, or the features of a backbone."""
    return Shape(backbone.features, 1, 1) if variant.takes_features and backbone is not None else shape


def backbone_of(engine: Engine) -> Backbone | None:
    """Return the backbone that an engine is joined to; None without one."""
    return engine.backbone if isinstance(engine, TransferEngine) else None


def with_backbone(
    engine: Engine,
    backbone: Backbone | None,
    prepared: PreparedDataset,
    display: Display,
    views: int = 0,
    unfreeze: int = 0,
) -> Engine:
    """Return the engine for fits to a dataset, joined to a backbone if there is one, which is calibrated if need be.

    Raises
    ------
    SettingError
        If blocks are to be unfrozen and the engine is not Flux.
    """
    if unfreeze and not isinstance(engine, FluxEngine):
        raise SettingError(
            f"`unfreeze` is done by the engine flux alone; this one is {engine.name}. Leave it out, or install Julia "
            "(`photoflux doctor` says how)."
        )
    if backbone is None:
        return engine
    return TransferEngine(engine, backbone.calibrated_on(prepared), display, views, unfreeze)


def tuned(engine: Engine, variant: Variant, prepared: PreparedDataset, settings: Settings) -> tuple[Variant, str]:
    """Return a transfer variant with the L2 coefficient that `cross_validated` chooses, and what to say of it.

    Any other variant, and one whose coefficient is not the table's, is returned as it is.
    """
    own = variants().get(variant.name)
    if not isinstance(engine, TransferEngine) or own is None or own.penalty != variant.penalty:
        return variant, ""
    return cross_validated(variant, engine.features(prepared), prepared, settings)


def backbone_entry(engine: Engine, variant: Variant, weights: Path, classes: int) -> dict[str, Any] | None:
    """Return what a run says of the backbone, and of the features that its weights use; None without one."""
    if not isinstance(engine, TransferEngine) or not variant.takes_features:
        return None
    entry = engine.backbone.as_dict() | {"views": engine.views}
    if engine.tuned:
        entry |= {"unfrozen": engine.unfreeze, "file": TUNED}
    if variant.proximal:
        shape = Shape(engine.backbone.features, 1, 1)
        entry["remaining"], _ = remaining_features(variant, read_weights_of(weights, variant, shape, classes))
    return entry


def engine_of(engine: Engine, run: Run, display: Display) -> Engine:
    """Return the engine that applies a run, its backbone included where it has one.

    Raises
    ------
    BackboneError
        If the run's backbone is not on this machine, or is another.
    """
    if run.backbone is None:
        return engine
    return TransferEngine(engine, backbone_from(run.backbone, run.path), display)
