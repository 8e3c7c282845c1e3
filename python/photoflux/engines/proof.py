"""The protocol of a verification, used by `verify` alone: the intermediate numbers that both engines return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.engines.base import Engine
from photoflux.model.layers import Layer, layers
from photoflux.model.variant import Variant


@dataclass(frozen=True)
class TraceRequest:
    """Some steps to run from given weights on given batches, so that two engines can be compared number by number.

    Attributes
    ----------
    variant : Variant
        Architecture, penalty and loss.
    weights : Path
        The initial weights, a safetensors file in Keras layout.
    images : numpy.ndarray
        uint8, (steps, batch, channels, height, width); of a variant that takes features float32, (steps, batch,
        features, 1, 1).
    labels : numpy.ndarray
        int32, (steps, batch), from 0.
    classes : int
        Number of classes; 2 means one output and binary cross-entropy.
    learning_rate : float
        Adam's learning rate.
    masks : mapping of str to numpy.ndarray
        For each dropout layer (``pool_dropout``, ``dense1_dropout``, …) the float32 factors that its input is
        multiplied by, Keras layout, (steps, batch, …features). Empty: dropout is off.
    """

    variant: Variant
    weights: Path
    images: np.ndarray
    labels: np.ndarray
    classes: int
    learning_rate: float
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def layers(self) -> list[Layer]:
        """The variant's layers on these images."""
        return layers(self.variant, Shape.of(self.images), self.classes)


@dataclass(frozen=True)
class Augmentation:
    """One drawn transformation of an image: flips, then rotation, then zoom, about its centre.

    Attributes
    ----------
    flip_x, flip_y : bool
        Mirrored left to right, top to bottom.
    angle : float
        Radians; a positive angle turns the image counter-clockwise.
    zoom : float
        Factor on coordinates: above 1 zooms out, below 1 zooms in.
    """

    flip_x: bool = False
    flip_y: bool = False
    angle: float = 0.0
    zoom: float = 1.0


class ProofEngine(Engine, Protocol):
    """An engine that returns every intermediate number. mypy checks both against it where `verify` uses them."""

    def trace(self, request: TraceRequest) -> dict[str, np.ndarray]:
        """Run the steps of a `TraceRequest` and return every number of them.

        Returns
        -------
        dict of str to numpy.ndarray
            Of the first batch, before any step: ``activation/LAYER``, what each layer but ``flatten`` gives, (batch,
            height, width, channels) or (batch, units), and ``logits`` (batch, outputs). ``loss``, ``penalty``,
            ``total`` (steps,), each before its step. And for each weight NAME, Keras layout: ``initial/NAME``, as the
            engine's model holds it; ``gradient/NAME`` of the first step's total, without an L1 that is a
            proximal step; ``first/NAME``, ``moment1/NAME`` and
            ``moment2/NAME``, the weight and Adam's moments after one step; ``final/NAME``, after the last.
        """
        ...

    def stopping(self, totals: Sequence[float], patience: int) -> tuple[int, int]:
        """Return after which epoch early stopping ends a fit with these validation totals, and the best epoch."""
        ...

    def augmented(self, images: np.ndarray, drawn: Sequence[Augmentation]) -> np.ndarray:
        """Return uint8 images (N, C, H, W) transformed, one `Augmentation` each, as float32."""
        ...

    def pixels(self, prepared: PreparedDataset, chosen: np.ndarray) -> np.ndarray:
        """Return images of a prepared dataset as a fit sees them, float32 (N, C, H, W), 0 to 255, or its features."""
        ...
