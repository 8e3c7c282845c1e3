"""`photoflux.compare`: checks the arguments, trains, measures and decides; the order of these steps is set here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.comparison.comparison import Comparison
from photoflux.comparison.decision import decide, sentences
from photoflux.comparison.fits import Fit, fit_all, measure
from photoflux.comparison.holdout import Holdout, second_folder
from photoflux.comparison.measures import results_of
from photoflux.comparison.report import write_comparison
from photoflux.comparison.spreading import fit_on_cluster
from photoflux.data.checks import check_seed
from photoflux.data.preparation import Source, homonym, kind_of
from photoflux.data.preparation import prepare as prepare_source
from photoflux.data.prepared import PreparedDataset
from photoflux.engines import get_engine
from photoflux.engines.device import device_of
from photoflux.errors import DataError, RunError, SettingError
from photoflux.features import Backbone
from photoflux.model.layers import layers
from photoflux.model.settings import settings_of
from photoflux.model.variant import Variant
from photoflux.model.variants import several_variants
from photoflux.model.variants import variants as table
from photoflux.reporting.reproduce import command_line, numbers_text
from photoflux.runs.folder import claimed_new, claimed_out
from photoflux.runs.networks import described
from photoflux.runs.progress import Display, announce
from photoflux.runs.strength import strength_of
from photoflux.runs.transfer import BackboneOptions, input_shape, on_backbone, tuned, with_backbone
from photoflux.system import atomic, log
from photoflux.system.names import printable, reason, user_path

ALL = "all"
Names = str | Path | Variant | Iterable[str | Path | Variant]
MOST_SEEDS = 1000  # more is a seed that was given in place of a number of seeds


def compare(
    data: Source,
    variants: Names = ALL,
    *,
    seeds: int | Sequence[int] = 5,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    balance: str | None = None,
    image_size: int | None = None,
    positive: str | None = "auto",
    groups: str | Path | None = None,
    resplit: bool = False,
    holdout: str | Path | None = None,
    backbone: str | Path | None = None,
    precision: str | None = None,
    views: int = 0,
    backbone_mean: float | Sequence[float] | None = None,
    backbone_scale: float | Sequence[float] | None = None,
    schedule: str = "constant",
    engine: str = "auto",
    device: str = "cpu",
    out: str | Path | None = None,
    dask: str | None = None,
    progress: bool = True,
) -> Comparison:
    """Train variants with the same seeds, splits and batch orders, and choose one on the validation part.

    Finished fits stay in `out`; the same call, interrupted or with more variants or seeds, goes on from there. A
    source is split again for each seed; a prepared dataset keeps its split. The choice is by the one-standard-error
    rule (`photoflux.comparison.decision.decide`); the test part is evaluated after it.

    Parameters
    ----------
    data : str, Path, PreparedDataset or tuple
        As `source` of `photoflux.prepare`.
    variants : str, Path, Variant or iterable
        Which, as `photoflux.variant` takes them, on the command line with commas; a file of your own without a name
        stands for all of its variants. ``"all"``: the seven of the photo CNN. The first, or ``"baseline"`` if it is
        among them, is what the others are compared to.
    seeds : int or sequence of int
        How many (1, 2, … are taken) or which.
    epochs, batch_size, learning_rate : optional
        Each variant's own unless given.
    balance, positive
        As in `photoflux.train`.
    image_size : int, optional
        Height and width of a folder's images, for the variants that read pixels; None: the variants' own. A backbone
        gets its own size.
    groups : str or Path, optional
        As in `photoflux.prepare`: whole groups are kept on one side of each split.
    resplit : bool
        As in `photoflux.prepare`; a folder's own split is the same for every seed.
    holdout : str or Path, optional
        A second folder of the same classes, from other sources: every variant is evaluated on it too. Images that
        any of the fits trains or validates on are left out and counted; a class may be missing.
    backbone, precision, views, backbone_mean, backbone_scale
        Of the transfer variants, as in `photoflux.train`.
    schedule : str
        As in `photoflux.train`, of every fit.
    engine, device : str
        As in `photoflux.train`; with `dask`, of each worker.
    out : str or Path, optional
        The comparison's folder; None: a new one under ``runs/``.
    dask : str, optional
        The address of the scheduler of a dask.distributed cluster, whose workers make the fits. They must have this
        PhotoFlux, the engine, and the prepared datasets at the same paths. The results are the same.
    progress : bool
        Whether to show progress on stderr.

    Returns
    -------
    Comparison
        Prints as a table and the decision in words; shows as a table in a notebook.

    Raises
    ------
    SettingError, DataError, RunError, EngineError
        If an argument, the data or `out` cannot be used; before anything is trained.
    ClusterError
        If the cluster cannot be used, or ends; the fits that are done are kept.
    """
    options = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "balance": balance,
        "image_size": image_size,
        "positive": {"auto": None, None: "none"}.get(positive, positive),
        "groups": groups,
        "resplit": resplit or None,
        "holdout": holdout,
        "backbone": backbone,
        "precision": precision,
        "views": views or None,
        "backbone_mean": numbers_text(backbone_mean),
        "backbone_scale": numbers_text(backbone_scale),
        "schedule": None if schedule == "constant" else schedule,
        "engine": None if engine == "auto" else engine,
        "device": None if device == "cpu" else device,
        "out": out,
    }
    if not isinstance(variants, str | Path | Variant):
        variants = list(variants)
    compared, numbers, place = _compared(variants), _seeds(seeds), device_of(device)
    asked = BackboneOptions(backbone, precision, views, backbone_mean, backbone_scale)
    network = asked.open(compared, None)
    compared = [on_backbone(variant, network) for variant in compared]
    settings = {
        (variant.name, seed): settings_of(variant, epochs, batch_size, learning_rate, seed, balance, schedule=schedule)
        for seed in numbers
        for variant in compared
    }
    with _folder(out) as folder, Display(progress) as display:
        sizes = _sizes(compared, image_size, network, kind_of(data))

        def split_of(size: int | None) -> list[PreparedDataset]:
            return [
                prepare_source(
                    data,
                    None,
                    positive=positive,
                    image_size=size,
                    seed=seed,
                    groups=groups,
                    resplit=resplit,
                    on_progress=display.step,
                )
                for seed in numbers
            ]

        split_by_size = {size: split_of(size) for size in dict.fromkeys(sizes)}
        split = split_by_size[sizes[0]]
        _check_same_parts(split_by_size.values())
        note = homonym(data)
        if note is not None:
            log.note(note)
        _announce(split, numbers, display)
        second_by_size = {
            size: None if holdout is None else second_folder(holdout, prepared, display)
            for size, prepared in split_by_size.items()
        }
        second = second_by_size[sizes[0]]
        chosen_engine = get_engine(engine, display.say, place)
        compared = [
            described(variant, chosen_engine, split_by_size[size][0].shape, len(split[0].classes))
            for variant, size in zip(compared, sizes, strict=True)
        ]
        weights = [
            sum(layer.parameters for layer in layers(variant, shape, len(split[0].classes)))
            for variant in compared
            for shape in (input_shape(variant, split[0].shape, network),)
        ]
        display.say(
            f"Comparing {len(compared)} variants × {len(numbers)} seeds on {split[0].name} in {printable(folder)}; the "
            f"runs take {4e-9 * len(numbers) * sum(weights):.1f} GB there."
        )
        fits = []
        for number, seed in enumerate(numbers):
            for variant, size in zip(compared, sizes, strict=True):
                own, prepared = settings[variant.name, seed], split_by_size[size][number]
                fitting = chosen_engine
                if variant.takes_features:
                    fitting = with_backbone(chosen_engine, network, prepared, display, views)
                    variant, _ = tuned(fitting, variant, prepared, own)
                fits.append(Fit(variant, own, prepared, fitting, second_by_size[size]))
        if dask is not None:
            fit_on_cluster(fits, folder, dask, display, device)
        done = list(fit_all(fits, folder, display))
        display.say("Measuring and resampling")
        measured = [
            [measure(fit, run, folder) for fit, run in done if fit.variant.name == variant.name] for variant in compared
        ]
    names = [variant.name for variant in compared]
    reference = names.index("baseline") if "baseline" in names else 0
    # The choice sees the validation part alone; the test part and the second folder are evaluated afterwards.
    decision = decide(results_of(compared, measured, reference, ("validation",)), weights, reference)
    parts = ("validation", "test") if second is None else ("validation", "test", "holdout")
    rows = results_of(compared, measured, reference, parts)
    best = int(np.argmax(rows[decision.chosen].per_seed["validation"]))
    of_chosen = [run for fit, run in done if fit.variant.name == compared[decision.chosen].name]
    run = of_chosen[best]
    strengths = [coefficient for one in of_chosen if (coefficient := strength_of(one.variant)) is not None]
    threshold = None if len(run.classes) > 2 else (run.threshold or {"score": 0.5})["score"]
    found = Comparison(
        path=folder,
        data=_described(split, second),
        settings={
            "seeds": numbers,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "balance": balance,
            "schedule": None if schedule == "constant" else schedule,
            "engine": chosen_engine.name,
        },
        results=rows,
        decision=decision,
        sentences=sentences(decision, rows, weights, len(numbers), run.settings.learning_rate, threshold, strengths),
        run=run.path,
        histories={
            name: [[row.validation_total for row in run.history] for fit, run in done if fit.variant.name == name]
            for name in names
        },
        versions=chosen_engine.versions(),
        command=_command(split[0] if kind_of(data) == "arrays" else data, _words(variants, compared), numbers, options),
    )
    found.write()
    try:
        write_comparison(found)
    except Exception as error:  # a page is not worth the fits
        log.note(f"no report was made: {reason(error)} `photoflux report {printable(folder)}` tries again.")
    return found


def _compared(given: Names) -> list[Variant]:
    if isinstance(given, str) and given == ALL:
        return [variant for variant in table().values() if variant.architecture == "photo_cnn"]
    compared = several_variants(given)
    names = [variant.name for variant in compared]
    if len(compared) < 2 or len(set(names)) < len(names):
        raise SettingError(f"`variants` must be 2 or more different ones, or 'all'; received: {', '.join(names)!r}.")
    return compared


def _words(given: Names, compared: Sequence[Variant]) -> str:
    """Return how the command line is told which variants."""
    if given == ALL:
        return ",".join(variant.name for variant in compared)
    several = [given] if isinstance(given, str | Path | Variant) else given
    return ",".join(each.name if isinstance(each, Variant) else str(each) for each in several)


def _sizes(
    compared: Sequence[Variant], image_size: int | None, network: Backbone | None, kind: str
) -> list[int | None]:
    """Return the image size for each variant; a source that is no folder has its own.

    Raises
    ------
    SettingError
        If none is given and the variants that read pixels are made for different ones.
    """
    if kind != "folder":
        return [image_size] * len(compared)
    own = {variant.image_size for variant in compared if not variant.backbone}
    if image_size is None and len(own) > 1:
        made_for = " and ".join(map(str, sorted(own)))
        raise SettingError(f"The variants are made for images of {made_for} pixels. Choose with `image_size`.")
    of_backbone = network and network.image_size
    return [(of_backbone if variant.backbone else image_size) or variant.image_size for variant in compared]


def _check_same_parts(splits: Iterable[Sequence[PreparedDataset]]) -> None:
    """Raise a `DataError` unless images of every size are split alike, which what is compared rests on."""
    first, *others = [[(list(p.labels), list(p.split)) for p in split] for split in splits]
    if any(other != first for other in others):
        raise DataError(
            "Images of the size for the variants and of the size for the backbone are not split alike, so their scores "
            "cannot be compared. Give one prepared dataset."
        )


def _seeds(given: int | Sequence[int]) -> list[int]:
    if isinstance(given, int | np.integer):
        if isinstance(given, bool) or not 1 <= given <= MOST_SEEDS:
            raise SettingError(
                f"`seeds` must be how many, 1 to {MOST_SEEDS}, or a list of seeds; received: {given!r}. "
                "A single seed N is [N], on the command line `N,`."
            )
        return list(range(1, int(given) + 1))
    numbers = [check_seed(seed) for seed in given] if isinstance(given, Iterable) else []
    if not numbers or len(set(numbers)) < len(numbers):
        raise SettingError(f"`seeds` must be how many, 1 to {MOST_SEEDS}, or different seeds; received: {given!r}.")
    return numbers


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    """Claim the comparison's folder during the block."""
    with ExitStack() as stack:
        if out is None:
            folder = stack.enter_context(claimed_new("comparison"))
        else:
            folder = user_path(out)
            stack.enter_context(claimed_out(folder, _unusable))
        if folder.is_dir() and not atomic.is_empty(folder) and not (folder / "runs").is_dir():
            raise RunError(
                f"`out` must be a new folder or an earlier comparison; {printable(folder)} holds something else."
            )
        try:
            (folder / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(folder, error) from error
        yield folder


def _unusable(folder: Path, error: OSError) -> RunError:
    return RunError(f"{printable(folder)} cannot be made: {error.strerror}. Choose another folder with `out`.")


def _announce(split: Sequence[PreparedDataset], seeds: Sequence[int], display: Display) -> None:
    """Print the warnings of the datasets: all of the first, of the others what their split adds."""
    announce(split[0], display)
    said = set(split[0].warnings)
    for seed, prepared in zip(seeds[1:], split[1:], strict=True):
        for warning in prepared.warnings:
            if warning not in said:
                log.warn(f"Note, seed {seed}: {warning}")
        said |= set(prepared.warnings)


def _described(split: Sequence[PreparedDataset], holdout: Holdout | None) -> dict[str, Any]:
    first = split[0]
    return {
        "name": first.name,
        "classes": first.classes,
        "positive": first.positive,
        "image": list(first.shape),
        "images": {part: len(first.indices(part)) for part in ("train", "validation", "test")}
        | ({} if holdout is None else {"holdout": len(holdout.chosen)}),
        "fingerprints": [prepared.fingerprint for prepared in split],
        "holdout": None if holdout is None else holdout.prepared.name,
        "holdout_left_out": 0 if holdout is None else holdout.left_out,
        "rejected": len(first.rejected) + (0 if holdout is None else len(holdout.prepared.rejected)),
    }


def _command(data: Any, variants: str, seeds: Sequence[int], options: dict[str, Any]) -> str:
    source = data.path if isinstance(data, PreparedDataset) else data
    words = ["photoflux", "compare", str(source), "--variants", variants]
    counted = list(seeds) == list(range(1, len(seeds) + 1))
    words += ["--seeds", str(len(seeds)) if counted else ",".join(map(str, seeds)) + "," * (len(seeds) == 1)]
    return command_line(words, options)
