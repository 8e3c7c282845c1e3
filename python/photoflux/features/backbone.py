"""A backbone: one network, or several whose features stand side by side; how one is named and opened is said here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from photoflux.errors import BackboneError, SettingError
from photoflux.features.network import BATCH, Network, PretrainedNetwork


class Backbone:
    """Turns images into features.

    Parameters
    ----------
    networks : sequence of Network
        One, or several whose features stand side by side, in this order.

    Attributes
    ----------
    name : str
        The names of its networks, joined by ``+``.
    features : int
        Numbers an image: the sum of its networks'.
    image_size : int or None
        The height and width that images of a folder are best prepared at: the largest of its networks'; None where
        none of them says one.
    fixed : tuple of int or None
        Height and width, where it takes no other.
    fingerprint : str
        SHA-256 of all that its features depend on, the pixels aside.
    precision : str
        ``"float32"``.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = tuple(networks)
        self.name = "+".join(network.name for network in networks)
        self.features = sum(network.features for network in networks)
        self.image_size = max((n.image_size for n in networks if n.image_size is not None), default=None)
        sizes = {network.fixed: network.name for network in networks if network.fixed is not None}
        if len(sizes) > 1:
            found = ", ".join(f"{name} takes {w} × {h}" for (h, w), name in sizes.items())
            raise BackboneError(
                f"The networks of {self.name} take images of different sizes: {found}. A dataset has one size: take "
                "networks of the same size, or of any."
            )
        self.fixed = next(iter(sizes), None)
        if self.fixed is not None:
            self.image_size = max(self.fixed)
        prints = [network.fingerprint for network in networks]
        self.fingerprint = prints[0] if len(prints) == 1 else hashlib.sha256("+".join(prints).encode()).hexdigest()
        self.precision = "float32"

    def features_of(self, images: np.ndarray, batch_size: int = BATCH) -> np.ndarray:
        """Return the features of images.

        Parameters
        ----------
        images : numpy.ndarray
            uint8, (N, C, H, W), 0 to 255: RGB, or grey with C = 1, which is repeated to three channels.
        batch_size : int
            Images a run of a network; the features do not depend on it.

        Returns
        -------
        numpy.ndarray
            float32, (N, F).

        Raises
        ------
        BackboneError
            If the images are of another type, shape or size than the networks take, or a feature is not finite.
        """
        self.check(images.shape, images.dtype)
        return np.hstack([network.features_of(images, batch_size) for network in self.networks])

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raise a `BackboneError` unless images of a shape (N, C, H, W) and a type can be given to it."""
        if dtype != np.uint8 or len(shape) != 4 or shape[1] not in (1, 3):
            raise BackboneError(
                f"A backbone takes images as uint8 (N, C, H, W) with 1 or 3 channels; received {dtype} {shape}."
            )
        if self.fixed is not None and shape[2:] != self.fixed:
            high, wide = self.fixed
            raise BackboneError(
                f"{self.name} takes images of {wide} × {high} and no others; these are {shape[3]} × {shape[2]}. "
                f"Prepare them with the image size {high}."
            )

    def as_dict(self) -> dict[str, Any]:
        """Return what it is as plain JSON-ready values, from which `backbone_from` opens it again."""
        return {
            "name": self.name,
            "features": self.features,
            "image_size": self.image_size,
            "fingerprint": self.fingerprint,
            "precision": self.precision,
            "networks": [network.as_dict() for network in self.networks],
        }


def open_backbone(spec: str) -> Backbone:
    """Open a backbone by what names it.

    Parameters
    ----------
    spec : str
        A name of the table, such as ``"efficientnet-lite2"``, or several joined by ``+``.

    Raises
    ------
    SettingError
        If there is no such backbone; the message proposes the nearest.
    BackboneError
        If a package, or the weights that are meant, are not there; the message says what to install.
    DataError
        If the cache cannot be written.
    """
    names = str(spec).split("+")
    double = [name for name in names if names.count(name) > 1]
    if double:
        raise SettingError(f"`backbone` names {double[0]} twice; received: {spec!r}. Name each network once.")
    return Backbone([PretrainedNetwork(name) for name in names])


def backbone_from(values: Mapping[str, Any]) -> Backbone:
    """Open the backbone that a run or a features dataset was made with, from what `Backbone.as_dict` returned.

    Raises
    ------
    BackboneError
        If it is not on this machine, or is another than it was; the message says what to install or give.
    """
    try:
        name, fingerprint, networks = str(values["name"]), values["fingerprint"], values["networks"]
        names = [str(network["name"]) for network in networks]
    except (KeyError, TypeError) as error:
        raise BackboneError(f"A backbone must say its name, fingerprint and networks; received: {values!r}.") from error
    try:
        backbone = Backbone([PretrainedNetwork(name) for name in names])
    except (BackboneError, SettingError) as error:
        raise BackboneError(f"It was made with the backbone {name}, which cannot be opened here. {error}") from error
    if backbone.fingerprint != fingerprint:
        raise BackboneError(
            f"It was made with a backbone {name} of other weights: their fingerprint was {fingerprint}, that of "
            f"the {name} of this machine is {backbone.fingerprint}. Install the version of its package that it was "
            "made with, or train again."
        )
    return backbone
