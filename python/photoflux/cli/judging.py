"""Commands that say how good a run is: scores, thresholds, comparisons, reports, proofs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from photoflux import api
from photoflux.cli.command import DONE, ERROR, REJECTED, command, emit
from photoflux.cli.options import (
    BackboneMean,
    BackboneName,
    BackboneScale,
    Balance,
    Dask,
    Debug,
    DeviceName,
    EngineName,
    Groups,
    ImageSize,
    Json,
    Positive,
    Precision,
    Resplit,
    Schedule,
    Views,
    numbers_of,
)
from photoflux.errors import SettingError
from photoflux.system.names import printable


@command("evaluate")
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="A source as in `prepare`: what the run has not seen of it is scored. (default: the run's data)"
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(help="train, validation, test or all. (default: test, or all of a folder that has no parts)"),
    ] = None,
    engine: EngineName = None,
    device: DeviceName = "cpu",
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Score a run on images that it has not seen, or on a part of its own data."""
    opened = api.load_run(run)
    metrics = api.evaluate(opened, data, part=part, engine=engine, device=device)
    values = {"run": str(run), "part": metrics.part, "classes": opened.classes, "shifts": metrics.shifts}
    values |= metrics.as_dict()
    left_out = f" ({metrics.left_out} left out)" if metrics.left_out else ""
    lines = [
        f"{metrics.part}: {metrics.images} images{left_out}, loss {metrics.loss:.4f}, penalty {metrics.penalty:.4f}, "
        f"accuracy {metrics.accuracy:.4f}, balanced {metrics.balanced_accuracy:.4f}"
    ]
    lines += [
        f"  {name:<16}  " + (f"precision {precision:.3f}  recall {recall:.3f}" if sum(row) else "no images")
        for name, precision, recall, row in zip(
            opened.classes, metrics.precision, metrics.recall, metrics.confusion, strict=True
        )
    ]
    if sorted(metrics.folders) != sorted(opened.classes):
        lines += [
            f"  of folder {name:<12}  {row['images']:.0f} images, accuracy {row['accuracy']:.3f}"
            for name, row in metrics.folders.items()
        ]
    emit(as_json, values, "\n".join(lines))
    return REJECTED if metrics.rejected else DONE


@command("threshold")
def threshold(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run of two classes.")],
    recall: Annotated[float | None, typer.Option(help="The recall to guarantee, between 0 and 1.")] = None,
    precision: Annotated[float | None, typer.Option(help="The precision to guarantee, between 0 and 1.")] = None,
    confidence: Annotated[float, typer.Option(help="The confidence of the guarantee, above 0.5.")] = 0.95,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Choose on the validation part a threshold that guarantees a recall or a precision."""
    found = api.threshold(run, recall=recall, precision=precision, confidence=confidence)
    emit(as_json, found.as_dict(), str(found))
    return DONE


@command("compare")
def compare(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A source as in `prepare`, or a prepared dataset.")],
    variants: Annotated[
        str, typer.Option(help="Names or files, a,my.toml,b; all: the seven of the photo CNN.")
    ] = "all",
    seeds: Annotated[str, typer.Option(help="How many, or which: 1,2,3 or 7, for the seed 7 alone.")] = "5",
    epochs: Annotated[int | None, typer.Option(help="Maximum number of epochs. (default: each variant's)")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Batch size. (default: each variant's)")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Adam's learning rate. (default: each variant's)")] = None,
    balance: Balance = None,
    image_size: ImageSize = None,
    positive: Positive = "auto",
    groups: Groups = None,
    resplit: Resplit = False,
    holdout: Annotated[
        Path | None, typer.Option(help="A second folder, from other sources, to evaluate every variant on.")
    ] = None,
    backbone: BackboneName = None,
    precision: Precision = None,
    views: Views = 0,
    backbone_mean: BackboneMean = None,
    backbone_scale: BackboneScale = None,
    schedule: Schedule = "constant",
    engine: Annotated[str, typer.Option(help="auto, flux or keras.")] = "auto",
    device: DeviceName = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="The comparison's folder: finished fits in it are kept. (default: under runs/)")
    ] = None,
    dask: Dask = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Train variants with the same seeds and splits, and choose one."""
    try:
        numbers = [int(word) for word in seeds.removesuffix(",").split(",")]
    except ValueError:
        raise SettingError(f"`seeds` must be how many, or numbers such as 1,2,3; received: {seeds!r}.") from None
    found = api.compare(
        data,
        variants,
        seeds=numbers if "," in seeds else numbers[0],
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        balance=balance,
        image_size=image_size,
        positive=positive,
        groups=groups,
        resplit=resplit,
        holdout=holdout,
        backbone=backbone,
        precision=precision,
        views=views,
        backbone_mean=numbers_of("backbone_mean", backbone_mean),
        backbone_scale=numbers_of("backbone_scale", backbone_scale),
        schedule=schedule,
        engine=engine,
        device=device,
        out=out,
        dask=dask,
    )
    emit(as_json, found.as_dict(), str(found))
    return REJECTED if found.data["rejected"] else DONE


@command("report")
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run or of a comparison.")],
    lang: Annotated[str, typer.Option(help="en or fr.")] = "en",
    out: Annotated[Path | None, typer.Option(help="The file to write. (default: report.html in RUN)")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Write the report of a run or a comparison: one page that needs nothing else."""
    path = api.report(run, out, lang=lang)
    emit(as_json, {"run": str(run), "report": str(path), "lang": lang}, printable(path))
    return DONE


@command("verify")
def verify(
    variant: Annotated[
        str, typer.Argument(metavar="VARIANT", help="As in `photoflux compare`: a name, several, a file, or all.")
    ] = "all",
    data: Annotated[str, typer.Option(help="A prepared dataset, or a source as in `prepare`.")] = "demo",
    steps: Annotated[int, typer.Option(help="Adam steps of the loss curves, 2 or more.")] = 50,
    image_size: Annotated[int | None, typer.Option(help="Of a folder's or the demo's images. (default: 64)")] = None,
    device: DeviceName = "cpu",
    out: Annotated[Path | None, typer.Option(help="A folder for verify.html.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Prove that Flux and Keras compute the same numbers."""
    found = api.verify(variant, data, steps=steps, image_size=image_size, device=device, out=out)
    emit(as_json, found.as_dict(), str(found))
    return DONE if found.passed else ERROR
