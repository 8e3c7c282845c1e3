"""The checks of one variant, each computed by both engines; a new check is added here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.data.prepared import PreparedDataset
from photoflux.engines.proof import Augmentation, ProofEngine, TraceRequest
from photoflux.model.layers import STATISTICS
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.model.variants import variants
from photoflux.model.weights import metadata_of, read_weights, write_weights
from photoflux.runs.evaluation import decisions, probabilities
from photoflux.runs.scoring import logits_of
from photoflux.system import atomic
from photoflux.verification import inputs, tolerances
from photoflux.verification.checks import Check, Part, compare

Numbers = dict[str, np.ndarray]

BATCH = 16
HISTORIES, HISTORY_EPOCHS, PATIENCE = 40, 30, 5
SEED = 42


@dataclass(frozen=True)
class Curves:
    """The total loss before each step in both engines, and how far apart the two may be there, all (steps,)."""

    ours: np.ndarray
    theirs: np.ndarray
    tolerance: np.ndarray


@dataclass(frozen=True)
class Proof:
    """What was found of a variant; `left_out` images of the first batch were left out of its gradient."""

    variant: Variant
    checks: list[Check]
    curves: Curves
    left_out: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every check did."""
        return all(check.passed for check in self.checks)


class Prover:
    """Runs Flux, which is proved, and Keras, the reference, on one dataset; the loss curves are of `steps` steps.

    `checks` are those of the backbone, where the dataset holds its features; they stand before the others.

    What does not depend on the variant is done once.
    """

    def __init__(
        self,
        flux: ProofEngine,
        keras: ProofEngine,
        prepared: PreparedDataset,
        steps: int,
        checks: Sequence[Check] = (),
    ) -> None:
        self.flux, self.keras, self.prepared, self.steps, self._of_backbone = flux, keras, prepared, steps, checks

    def prove(self, v: Variant) -> Proof:
        """Run every check of a variant."""
        began = time.perf_counter()
        with atomic.scratch("verify") as folder:
            request = inputs.request_from(v, self.prepared, folder, self.steps, BATCH, SEED)
            ours = self.flux.trace(request)
            theirs = self.keras.trace(request)
            first, one, other, kept = self._first_step(request, ours, theirs)
            noise = noise_of(self.keras, request, folder)
            curves = curves_of(request, ours, theirs, noise)
            checks = [
                *self._of_backbone,
                round_trip(request, ours, theirs),
                activations(request, ours, theirs),
                losses(request, ours, theirs),
                gradients(first, one, other),
                adam(first, one, other),
                trajectory(curves, ours, theirs, noise),
                self._evaluation(request, ours, folder),
                *self._independent,
            ]
        return Proof(v, checks, curves, int((~kept).sum()), time.perf_counter() - began)

    def _first_step(
        self, request: TraceRequest, ours: Numbers, theirs: Numbers
    ) -> tuple[TraceRequest, Numbers, Numbers, np.ndarray]:
        """Return the first step with the images on which both engines are on one side of every kink, and which.

        A smaller batch may be rounded otherwise, so it is checked again.
        """
        first, kept = request, np.ones(request.images.shape[1], bool)
        while True:
            alike = inputs.decided_alike(first, ours, theirs)
            if alike.all() or not alike.any():
                return first, ours, theirs, kept
            kept[kept] = alike
            first = inputs.first_step(request, kept)
            ours, theirs = self.flux.trace(first), self.keras.trace(first)

    def _evaluation(self, request: TraceRequest, numbers: Numbers, folder: Path) -> Check:
        v, prepared = request.variant, self.prepared
        part = next(part for part in ("test", "validation", "train") if len(prepared.indices(part)))
        chosen = prepared.indices(part)
        trained = folder / "trained.safetensors"
        metadata = metadata_of(v, prepared.shape, request.classes)
        write_weights(trained, _named(numbers, "final"), metadata)
        ours, theirs = (
            logits_of(engine.load(v, trained, prepared.shape, len(prepared.classes)), prepared, chosen)
            for engine in (self.flux, self.keras)
        )
        return evaluation(request, prepared.labels[chosen], ours, theirs, part)

    @cached_property
    def _independent(self) -> list[Check]:
        features = self.prepared.features is not None
        return [self._stopping(), self._standardisation() if features else self._augmentation(), self._pixels()]

    def _stopping(self) -> Check:
        rng = np.random.default_rng([SEED, 4])
        # Falling at first, then noise; rounded, so that many epochs are as good as the best and none better.
        slope = np.exp(-np.arange(HISTORY_EPOCHS) / 4)
        histories = [np.round(slope + 0.1 * rng.random(HISTORY_EPOCHS), 2) for _ in range(HISTORIES)]
        answers = [[engine.stopping(h.tolist(), PATIENCE) for h in histories] for engine in (self.flux, self.keras)]
        ours, theirs = (np.array(answer) for answer in answers)
        return Check(
            "early stopping",
            f"none: the same epochs, in {HISTORIES} histories of validation losses",
            [compare(name, ours[:, i], theirs[:, i], 0) for i, name in enumerate(("stopping epoch", "best epoch"))],
        )

    def _standardisation(self) -> Check:
        """Compare what each engine measures on the training part before a fit of a variant that takes features."""
        v, settings = variants()["transfer"], Settings(1, 32, 0.001, SEED)
        with atomic.scratch("standardisation") as folder:
            found = []
            for engine in (self.flux, self.keras):
                path = folder / f"{engine.name}.safetensors"
                engine.fit(v, self.prepared, settings, path)
                found.append(read_weights(path)[0])
        names = [f"standardise.{kind}" for kind in STATISTICS]
        ours, theirs = found
        parts = [compare(name, ours[name], theirs[name], tolerances.EPS * np.abs(theirs[name])) for name in names]
        return Check("mean and deviation of the training part", "eps·value: float64, rounded once", parts)

    def _augmentation(self) -> Check:
        rng = np.random.default_rng([SEED, 5])
        count = min(8, len(self.prepared))
        images = self.prepared.images[np.sort(rng.choice(len(self.prepared), count, replace=False))]
        angles, zooms = rng.uniform(-0.2 * np.pi, 0.2 * np.pi, count), rng.uniform(0.9, 1.1, count)
        draws = {
            "flips": [Augmentation(bool(i & 1), bool(i & 2)) for i in range(count)],
            "rotation": [Augmentation(angle=float(angle)) for angle in angles],
            "zoom": [Augmentation(zoom=float(zoom)) for zoom in zooms],
        }
        height, width = self.prepared.height, self.prepared.width
        parts = []
        for name, drawn in draws.items():
            ours, theirs = (engine.augmented(images, drawn) for engine in (self.flux, self.keras))
            parts.append(compare(name, ours, theirs, 0 if name == "flips" else tolerances.interpolated(height, width)))
        # Three layers interpolate three times and blur; ours interpolates once. On a ramp interpolation is exact, and
        # the middle is never mapped from beyond the edge, so there the two must agree.
        both = [Augmentation(*flips) for flips in ((False, False), (True, False), (False, True), (True, True))]
        drawn = [
            Augmentation(a.flip_x, a.flip_y, float(angle), float(zoom))
            for a, angle, zoom in zip(both * 2, np.resize(angles, 8), np.resize(zooms, 8), strict=True)
        ]
        ours, theirs = (engine.augmented(_ramps(len(drawn)), drawn) for engine in (self.flux, self.keras))
        middle = slice(20, 44)
        # Each layer rounds its coordinates anew.
        allowed = 3 * tolerances.interpolated(64, 64)
        parts.append(compare("all three, on ramps", ours[..., middle, middle], theirs[..., middle, middle], allowed))
        why = "255·eps·8·(pixels a side + 1): coordinates of 8 operations, up to 255 a pixel; flips: none"
        return Check("augmentation", why, parts)

    def _pixels(self) -> Check:
        from photoflux.data.images.decoding import decode_file
        from photoflux.data.preparation import prepare
        from photoflux.data.sources.demo import write_demo_folder

        rng = np.random.default_rng([SEED, 6])
        chosen = np.sort(rng.choice(len(self.prepared), min(64, len(self.prepared)), replace=False))
        parts = [self._same_pixels("dataset", self.prepared, chosen)]
        with atomic.scratch("pixels") as folder:
            files = write_demo_folder(folder / "files", images_per_class=4)
            made = prepare(files, folder / "made", image_size=50)
            everything = np.arange(len(made))
            parts.append(self._same_pixels("JPEG and PNG files, resized", made, everything))
            decoded = [decode_file(files / row["path"], made.shape).images[0].pixels for row in made.files()]
            parts.append(compare("a file, read for a prediction", made.images, np.stack(decoded), 0))
        return Check("pixels", "none: bit-equal", parts)

    def _same_pixels(self, name: str, prepared: PreparedDataset, chosen: np.ndarray) -> Part:
        ours, theirs = (engine.pixels(prepared, chosen) for engine in (self.flux, self.keras))
        return compare(name, ours, theirs, 0)


def _ramps(count: int) -> np.ndarray:
    """Return images of 64×64 that rise evenly to the right, downwards and both, (count, 3, 64, 64) of uint8."""
    y, x = np.mgrid[:64, :64]
    return np.tile(np.stack([2 * x, 2 * y, x + y]).astype(np.uint8), (count, 1, 1, 1))


def _named(numbers: Numbers, prefix: str) -> Numbers:
    return {name.partition("/")[2]: value for name, value in numbers.items() if name.startswith(f"{prefix}/")}


def _magnitude(array: np.ndarray) -> float:
    return max(float(np.abs(array).max(initial=0)), 1e-6)


def round_trip(request: TraceRequest, ours: Numbers, theirs: Numbers) -> Check:
    """Compare the weights that each engine's model holds with the file that they were read from."""
    stored, _ = read_weights(request.weights)
    parts = [
        compare(f"{name} in {engine}", _named(numbers, "initial").get(name, np.empty(0)), value, 0)
        for name, value in stored.items()
        for engine, numbers in (("Flux", ours), ("Keras", theirs))
    ]
    return Check("weights there and back", "none: bit-equal", parts)


def activations(request: TraceRequest, ours: Numbers, theirs: Numbers) -> Check:
    """Compare what each layer gives for the first batch, layer by layer to the logits."""
    terms = tolerances.terms_before(request)
    a, b = _named(ours, "activation"), _named(theirs, "activation")
    parts = [
        compare(layer, a.get(layer, np.empty(0)), value, tolerances.summed(terms[layer], _magnitude(value)))
        for layer, value in b.items()
    ]
    return Check("activations of every layer", "6·√n·eps·largest, n the terms summed on the way there", parts)


def losses(request: TraceRequest, ours: Numbers, theirs: Numbers) -> Check:
    """Compare data loss, penalty and total of the first batch."""
    n = tolerances.terms_before(request)["output"]
    # The loss changes by no more than the logits do, however large it is itself.
    data = tolerances.summed(n, _magnitude(theirs["logits"]))
    extra = tolerances.summed(tolerances.weights_of(request), float(theirs["penalty"][0]))
    allowed = {"loss": data, "penalty": extra, "total": data + extra}
    parts = [compare(name, ours[name][:1], theirs[name][:1], allowed[name]) for name in allowed]
    return Check("data loss, penalty, total", "6·√n·eps·logit, and 6·√n·eps·penalty with n weights", parts)


def gradients(request: TraceRequest, ours: Numbers, theirs: Numbers) -> Check:
    """Compare the gradient of the first batch's total for every weight."""
    a, b = _named(ours, "gradient"), _named(theirs, "gradient")
    parts = [
        compare(name, a.get(name, np.empty(0)), value, _allowed_gradient(request, name, value))
        for name, value in b.items()
    ]
    return Check(
        "gradient of every weight", "6·√n·eps·largest, n the terms forward, back, and over images and places", parts
    )


def _allowed_gradient(request: TraceRequest, name: str, theirs: np.ndarray) -> float:
    return tolerances.summed(tolerances.terms_of_gradient(request, name.partition(".")[0]), _magnitude(theirs))


def adam(request: TraceRequest, ours: Numbers, theirs: Numbers) -> Check:
    """Compare every weight after one step of Adam, and the two moments."""
    parts = []
    for name, g in _named(theirs, "gradient").items():
        allowed = _allowed_gradient(request, name, g)
        stepped, reference = ours[f"first/{name}"], theirs[f"first/{name}"]
        own = ours[f"gradient/{name}"]
        if stepped.shape == reference.shape == own.shape == g.shape:
            slack = tolerances.adam_step(own, g, allowed, request.learning_rate, reference)
            if l1 := _proximal_l1(request, name):
                start = theirs[f"initial/{name}"]
                slack = slack + tolerances.proximal_step(own, g, allowed, request.learning_rate, l1, start)
        else:
            slack = np.zeros(())
        parts.append(compare(name, stepped, reference, slack))
        # m = (1 − β₁)·g and v = (1 − β₂)·g² differ as g does, and are rounded a few times.
        largest = _magnitude(g)
        for number, (decay, power) in enumerate(((tolerances.BETA1, 1), (tolerances.BETA2, 2)), 1):
            tolerance = (1 - decay) * (power * largest ** (power - 1) * allowed + 4 * tolerances.EPS * largest**power)
            key = f"moment{number}/{name}"
            parts.append(compare(f"{name}, moment {number}", ours[key], theirs[key], tolerance))
    name = "one step of Adam, and the proximal one" if request.variant.proximal else "one step of Adam"
    return Check(name, "what the gradient's tolerance moves a step by, + 8·eps·rate + 2·eps·weight", parts)


def _proximal_l1(request: TraceRequest, name: str) -> float:
    """Return the L1 coefficient that a weight's proximal step has; 0 where it has none."""
    if not request.variant.proximal or not name.endswith(".kernel"):
        return 0.0
    return next(x.penalty.get("l1", 0.0) for x in request.layers if f"{x.name}.kernel" == name)


def noise_of(keras: ProofEngine, request: TraceRequest, folder: Path) -> list[Numbers]:
    """Return the totals and last weights that Keras computes with other roundings, `tolerances.SAMPLES` times.

    Past the first step a bound of the operations says nothing: at every kink that rounding alone crosses, a term of the
    gradient comes or goes, and Adam turns small gradients into whole steps. How much that makes is measured.
    """
    return [
        {key: value for key, value in keras.trace(moved).items() if key == "total" or key.startswith("final/")}
        for moved in inputs.rounded_otherwise(request, folder, tolerances.SAMPLES)
    ]


def curves_of(request: TraceRequest, ours: Numbers, theirs: Numbers, noise: Sequence[Numbers]) -> Curves:
    """Return the totals, and the most that Keras differs from itself by with other roundings, times `BEYOND`."""
    n = tolerances.terms_before(request)["output"]
    apart = np.maximum.accumulate(np.max([np.abs(x["total"] - theirs["total"]) for x in noise], axis=0))
    floor = np.array([tolerances.summed(n, max(1.0, float(total))) for total in theirs["total"]])
    return Curves(ours["total"], theirs["total"], tolerances.BEYOND * apart + floor)


def trajectory(curves: Curves, ours: Numbers, theirs: Numbers, noise: Sequence[Numbers]) -> Check:
    """Compare the loss curves, and the weights after the last step by their root mean square."""
    parts = [compare(f"total loss, {len(curves.theirs)} steps", curves.ours, curves.theirs, curves.tolerance)]
    last = _named(theirs, "final")
    spread = {name: max(_rms(x[f"final/{name}"] - value) for x in noise) for name, value in last.items()}
    # A bias of one number can end near by chance, so no weight's tolerance is below the mean of all.
    least = float(np.mean(list(spread.values())))
    for name, value in last.items():
        final = ours[f"final/{name}"]
        apart = _rms(final - value) if final.shape == value.shape else float("inf")
        allowed = tolerances.BEYOND * max(spread[name], least)
        relative = apart / max(_rms(value), 1e-12)
        parts.append(Part(f"{name} at the end, RMS", apart, relative, allowed, apart <= allowed))
    why = (
        f"{tolerances.BEYOND:.0f} × the most that Keras differs from itself by in {tolerances.SAMPLES} runs whose "
        "start is moved by the activations' tolerance"
    )
    return Check("loss curve and last weights", why, parts)


def _rms(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def evaluation(request: TraceRequest, labels: Any, ours: np.ndarray, theirs: np.ndarray, part: str) -> Check:
    """Compare the probabilities and the decisions for a whole part of the data."""
    from sklearn.metrics import confusion_matrix

    n = tolerances.terms_before(request)["output"]
    # A probability changes by no more than its logit does.
    allowed = tolerances.summed(n, _magnitude(theirs))
    p, q = (probabilities(logits) for logits in (ours, theirs))
    classes = list(range(request.classes))
    one, other = (confusion_matrix(labels, decisions(logits), labels=classes) for logits in (ours, theirs))
    parts = [compare("probabilities", p, q, allowed), compare("confusion matrix", one, other, 0)]
    return Check(f"evaluation of {len(ours)} {part} images", "6·√n·eps·logit; the confusion matrix: none", parts)
