"""A backbone: one network, or several whose features stand side by side; how one is named and opened is said here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from photoflux.data.checks import check_image_size
from photoflux.data.prepared import PreparedDataset
from photoflux.errors import BackboneError, SettingError, unknown_name
from photoflux.features.calibration import calibrated
from photoflux.features.int8 import Int8Network
from photoflux.features.network import BATCH, Network, PretrainedNetwork
from photoflux.features.onnx_file import OnnxFile, Scaling
from photoflux.model.backbones import backbones
from photoflux.system.names import user_path

PRECISIONS = ("float32", "int8")


class Backbone:
    """Turns images into features.

    Parameters
    ----------
    networks : sequence of Network
        One, or several whose features stand side by side, in this order.
    image_size : int, optional
        Height and width that images are best prepared at, where another than the networks' is wanted.
    precision : str
        ``"int8"``: the networks are rounded to 8 bits by `calibrated_on`, if they are not yet.

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
        ``"float32"`` or ``"int8"``.
    """

    def __init__(self, networks: Sequence[Network], image_size: int | None = None, precision: str = "float32") -> None:
        self.networks = tuple(networks)
        self.name = "+".join(network.name for network in networks)
        self.features = sum(network.features for network in networks)
        trained_on = max((n.image_size for n in networks if n.image_size is not None), default=None)
        self.image_size = trained_on if image_size is None else image_size
        sizes = {network.fixed: network.name for network in networks if network.fixed is not None}
        if len(sizes) > 1:
            found = ", ".join(f"{name} takes {w} × {h}" for (h, w), name in sizes.items())
            raise BackboneError(
                f"The networks of {self.name} take images of different sizes: {found}. A dataset has one size: take "
                "networks of the same size, or of any."
            )
        self.fixed = next(iter(sizes), None)
        if self.fixed is not None:
            if image_size is not None and self.fixed != (image_size, image_size):
                high, wide = self.fixed
                raise BackboneError(
                    f"{self.name} takes images of {wide} × {high}, `image_size` says {image_size}. Leave it out."
                )
            self.image_size = self.fixed[0] if self.fixed[0] == self.fixed[1] else None
        prints = [network.fingerprint for network in networks]
        self.fingerprint = prints[0] if len(prints) == 1 else hashlib.sha256("+".join(prints).encode()).hexdigest()
        self.precision = precision
        self._uncalibrated = precision == "int8" and any(isinstance(n, PretrainedNetwork) for n in networks)

    def calibrated_on(self, prepared: PreparedDataset) -> Backbone:
        """Return the backbone as it computes features: of precision int8, with the ranges of the training images.

        They are measured on up to 256 training images, and kept in the cache. Any other backbone is returned itself.

        Raises
        ------
        BackboneError
            If the backbone does not take such images, or a package is missing.
        DataError
            If the cache cannot be written.
        """
        if not self._uncalibrated:
            return self
        self.check(prepared.images.shape, prepared.images.dtype)
        networks = [calibrated(n, prepared) if isinstance(n, PretrainedNetwork) else n for n in self.networks]
        return Backbone(networks, self.image_size, self.precision)

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
        if self._uncalibrated:
            raise BackboneError(
                f"The 8-bit {self.name} is not calibrated. Take its `calibrated_on(dataset)`, or the backbone that a "
                "features dataset says."
            )
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
                f"{f'Prepare them with the image size {high}' if high == wide else 'Give images of that size'}."
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


def open_backbone(
    spec: str | Path,
    *,
    image_size: int | None = None,
    mean: Scaling | None = None,
    scale: Scaling | None = None,
    precision: str = "float32",
) -> Backbone:
    """Open a backbone by what names it.

    Parameters
    ----------
    spec : str or Path
        A name of the table, such as ``"efficientnet-lite2"``; the path of an image model that ends in ``.onnx``; or
        several joined by ``+``, whose features stand side by side.
    image_size : int, optional
        Height and width of the images that it is given, instead of those that it was trained on.
    mean, scale : float or sequence of three floats, optional
        Of an ONNX file that does not say it: a pixel x, 0 to 255, enters as (x − mean) / scale.
    precision : str
        ``"float32"``, or ``"int8"`` for networks of the table: 8 bits, calibrated on the training images, in less than
        half the time; see `Backbone.calibrated_on`.

    Raises
    ------
    SettingError
        If there is no such backbone, or an argument cannot be used; the message proposes the nearest name.
    BackboneError
        If a package or the weights are not there, or an ONNX file does not fit; the message says what to do.
    DataError
        If the cache cannot be written.
    """
    if image_size is not None:
        check_image_size(image_size)
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    parts = [str(spec)] if isinstance(spec, Path) or Path(spec).is_file() else str(spec).split("+")
    double = [part for part in parts if parts.count(part) > 1]
    if double:
        raise SettingError(f"`backbone` names {double[0]} twice; received: {spec!r}. Name each network once.")
    files = [part for part in parts if _is_file(part)]
    if files and precision != "float32":
        raise SettingError(
            f"`precision` {precision} is for the backbones {', '.join(backbones())}; {files[0]} is an ONNX file, which "
            "is run as it is. Leave it out, or give a file that is quantised already."
        )
    scaling = {"mean": mean, "scale": scale}
    given = [f"`{name}`" for name, value in scaling.items() if value is not None]
    if given and not files:
        raise SettingError(
            f"{' and '.join(given)} can be given of an ONNX file only; {spec} has its own. Leave them out."
        )
    networks = [
        OnnxFile(user_path(part), image_size=image_size, **scaling) if part in files else PretrainedNetwork(part)
        for part in parts
    ]
    return Backbone(networks, image_size, precision)


def _is_file(part: str) -> bool:
    """Say whether a part of a backbone's name means a file, there or not."""
    return part not in backbones() and (part.lower().endswith(".onnx") or "/" in part or user_path(part).is_file())


def backbone_from(values: Mapping[str, Any], folder: Path | None = None) -> Backbone:
    """Open the backbone that a run or a features dataset was made with, from what `Backbone.as_dict` returned.

    Parameters
    ----------
    values : mapping
        Of a run that was fine-tuned it has ``file`` too: the name of the folded weights file in the run's folder.
    folder : Path, optional
        The run's folder.

    Raises
    ------
    BackboneError
        If it is not on this machine, or is another than it was; the message says what to install or give.
    """
    try:
        name, fingerprint, parts = str(values["name"]), values["fingerprint"], list(values["networks"])
        image_size, precision = values["image_size"], values["precision"]
        file = None if folder is None or values.get("file") is None else folder / _own(values["file"])
        opening = [_opening(part, file) for part in parts]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BackboneError(f"A backbone must say its name, fingerprint and networks; received: {values!r}.") from error
    try:
        backbone = Backbone([open_it() for open_it in opening], image_size, precision)
    except (BackboneError, SettingError) as error:
        raise BackboneError(f"It was made with the backbone {name}, which cannot be opened here. {error}") from error
    if backbone.fingerprint != fingerprint:
        raise BackboneError(
            f"It was made with a backbone {name} of other weights: their fingerprint was {fingerprint}, that of "
            f"the {name} of this machine is {backbone.fingerprint}. Install or give the weights that it was made "
            "with, or train again."
        )
    return backbone


def _own(name: str) -> str:
    """Return the name of a file in the run's folder; raise a `ValueError` if it leads elsewhere."""
    if name in ("", "..") or PureWindowsPath(name).name != name:
        raise ValueError(f"{name!r} is no name of a file")
    return name


def _opening(part: Mapping[str, Any], file: Path | None) -> Callable[[], Network]:
    """Return what opens a network again, from what its `as_dict` returned, and its own weights file if it has one."""
    if "path" in part:
        settings = {key: part[key] for key in ("image_size", "mean", "scale")}
        return partial(OnnxFile, Path(part["path"]), **settings)
    name = str(part["name"])
    if "ranges" not in part:
        return partial(PretrainedNetwork, name, file)
    ranges = {layer: (low, high) for layer, (low, high) in part["ranges"].items()}
    return lambda: Int8Network(PretrainedNetwork(name), ranges)
