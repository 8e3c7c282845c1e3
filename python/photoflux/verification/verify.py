"""`photoflux.verify`: checks the arguments and proves each variant."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from photoflux.data.preparation import kind_of
from photoflux.data.preparation import prepare as prepare_source
from photoflux.data.prepared import PreparedDataset
from photoflux.engines.device import device_of
from photoflux.engines.flux.engine import FluxEngine
from photoflux.engines.keras.engine import KerasEngine, why_unavailable
from photoflux.errors import BackboneError, EngineError, SettingError
from photoflux.features import features_dataset, open_backbone
from photoflux.model.variant import Variant
from photoflux.model.variants import several_variants, variants
from photoflux.runs.progress import Display
from photoflux.system import log
from photoflux.verification.backbone import IMAGES, backbone_check, networks_of
from photoflux.verification.proof import Prover
from photoflux.verification.verification import Verification, made

# Of what is made of a folder or drawn: at the variants' own 180 a proof of all of them takes hours, not minutes.
IMAGE_SIZE = 64


def verify(
    variant_or_all: str | Path | Variant | Iterable[str | Path | Variant] = "all",
    data: str | Path | PreparedDataset | tuple[np.ndarray, np.ndarray] = "demo",
    *,
    steps: int = 50,
    image_size: int | None = None,
    device: str = "cpu",
    out: str | Path | None = None,
    progress: bool = True,
) -> Verification:
    """Run Flux and Keras from the same weights on the same batches and compare every number.

    Parameters
    ----------
    variant_or_all : str, Path, Variant or iterable
        A variant, several as in `photoflux.compare`, or ``"all"``: those that fit the data. Those on a
        backbone are left out of all, with a note, where it cannot be had.
    data : str, Path, PreparedDataset or tuple
        A prepared dataset, or a source as in `photoflux.prepare`.
    steps : int
        Adam steps of the loss curves, 2 or more.
    image_size : int, optional
        Height and width to which a folder's or the demo's images are resized; 64 unless given.
    device : str
        Where Flux computes, as in `photoflux.train`.
    out : str or Path, optional
        A folder for ``verify.html``: tables, curves and every comparison.
    progress : bool
        Whether to say on stderr what is being done.

    Returns
    -------
    Verification
        ``passed`` says whether every check holds.

    Raises
    ------
    SettingError, DataError
        If an argument or the data cannot be used.
    EngineError
        If one of the two engines is not available: a proof needs both.
    RunError
        If the page cannot be written.
    """
    named = [] if variant_or_all == "all" else several_variants(variant_or_all)
    for own in named:
        if own.chain is not None:
            raise SettingError(
                f"{own.name} is a network of your own, which Keras does not have: there is nothing to compare it with. "
                "Name variants of the table or of a TOML file."
            )
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 2:
        raise SettingError(f"`steps` must be an integer, 2 or more; received: {steps!r}.")
    place = device_of(device)
    if (missing := why_unavailable()) is not None:
        raise EngineError(f"A proof compares Flux with Keras, so it needs both. {missing}")
    if out is not None:
        made(out)  # refused now, not after minutes
    if image_size is None and kind_of(data) in ("folder", "demo"):
        image_size = IMAGE_SIZE
    with Display(progress) as display, KerasEngine() as keras:
        prepared = prepare_source(data, None, image_size=image_size, on_progress=display.step)
        flux = FluxEngine(display.say, place)
        provers: dict[str | None, Prover] = {None: Prover(flux, keras, prepared, steps)}
        features = prepared.features is not None
        chosen = named or [v for v in variants().values() if v.takes_features or not features]
        for backbone in dict.fromkeys(v.backbone for v in chosen if v.backbone is not None):
            try:
                if features:
                    provers[backbone] = provers[None]
                else:
                    provers[backbone] = _prover_on(backbone, flux, keras, prepared, steps, display)
            except BackboneError as error:
                if named:
                    raise
                chosen = [v for v in chosen if v.backbone != backbone]
                log.note(f"the variants on {backbone} are left out. {error}")
        proofs = []
        for number, v in enumerate(chosen, 1):
            title = f"{v.name} ({number} of {len(chosen)})"
            display.say(f"Verifying {title} on {prepared.name}, images of {prepared.height}×{prepared.width} …")
            proofs.append(provers[v.backbone].prove(v))
        found = Verification(
            data=prepared.name,
            shape=prepared.shape,
            classes=len(prepared.classes),
            steps=steps,
            versions={"flux": flux.versions(), "keras": keras.versions()},
            proofs=proofs,
        )
        if out is not None:
            display.say(f"Written: {found.write(out)}")
    return found


def _prover_on(
    name: str, flux: FluxEngine, keras: KerasEngine, prepared: PreparedDataset, steps: int, display: Display
) -> Prover:
    """Return what proves the variants on a backbone: on its features, and the backbone itself in Flux."""
    backbone = open_backbone(name)
    images = np.asarray(prepared.images[np.linspace(0, len(prepared) - 1, num=IMAGES, dtype=int)])
    checks = [
        backbone_check(flux.backbone(network.folded.path, prepared.shape), network, images)
        for network in networks_of(backbone)
    ]
    return Prover(flux, keras, features_dataset(prepared, backbone, on_progress=display.step), steps, checks)
