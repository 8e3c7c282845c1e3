"""Commands that prepare data and make runs, and say what they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from photoflux import api, doctor
from photoflux.cli.command import DONE, ERROR, INTERRUPTED, REJECTED, command, emit
from photoflux.cli.options import (
    BackboneMean,
    BackboneName,
    BackboneScale,
    Balance,
    Debug,
    DeviceName,
    Groups,
    ImageSize,
    Json,
    Positive,
    Precision,
    Resplit,
    Schedule,
    Seed,
    Unfreeze,
    Views,
    numbers_of,
)
from photoflux.engines.base import Checkpoints
from photoflux.engines.flux.julia_device import add_device
from photoflux.reporting.finishing import was_interrupted
from photoflux.system.names import printable
from photoflux.system.terminal import say


@command("prepare")
def prepare(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Folder of class folders, CIFAR-10 or idx folder, 'cifar10', 'demo'."),
    ],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The prepared dataset's folder.")],
    positive: Positive = "auto",
    image_size: ImageSize = None,
    seed: Seed = 42,
    groups: Groups = None,
    resplit: Resplit = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Decode, resize and split images into a prepared dataset."""
    prepared = api.prepare(
        source, dest, positive=positive, image_size=image_size, seed=seed, groups=groups, resplit=resplit
    )
    counts = prepared.counts()
    values = {
        "path": str(prepared.path),
        "images": len(prepared),
        "classes": prepared.classes,
        "positive": prepared.positive,
        "image_size": [prepared.height, prepared.width],
        "split": counts,
        "given": prepared.meta.get("split") == "given",
        "rejected": len(prepared.rejected),
    }
    lines = [f"{printable(prepared.path)}: {len(prepared)} images of {prepared.height}×{prepared.width}"]
    lines += [
        f"  {part:<10}  " + ", ".join(f"{name} {count}" for name, count in row.items()) for part, row in counts.items()
    ]
    emit(as_json, values, "\n".join(lines))
    return REJECTED if prepared.rejected else DONE


@command("train")
def train(
    variant: Annotated[
        str, typer.Argument(metavar="VARIANT", help="A name from `photoflux variants`, or your own: my.toml:name.")
    ],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A source as in `photoflux prepare`, or a prepared dataset.")
    ] = "demo",
    engine: Annotated[str, typer.Option(help="auto, flux or keras.")] = "auto",
    device: DeviceName = "cpu",
    tf32: Annotated[bool, typer.Option("--tf32", help="On a GPU: round the factors of products to 10 bits.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Maximum number of epochs. (default: the variant's)")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Batch size. (default: the variant's)")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Adam's learning rate. (default: the variant's)")] = None,
    seed: Seed = 42,
    image_size: ImageSize = None,
    positive: Positive = "auto",
    groups: Groups = None,
    resplit: Resplit = False,
    balance: Balance = None,
    l1: Annotated[float | None, typer.Option(help="L1 coefficient in place of the variant's.")] = None,
    l2: Annotated[float | None, typer.Option(help="L2 coefficient in place of the variant's.")] = None,
    loss: Annotated[str | None, typer.Option(help="cross_entropy or squared_error. (default: the variant's)")] = None,
    initial: Annotated[
        Path | None, typer.Option(help="A run whose weights are the initial weights. (default: drawn from the seed)")
    ] = None,
    backbone: BackboneName = None,
    precision: Precision = None,
    views: Views = 0,
    backbone_mean: BackboneMean = None,
    backbone_scale: BackboneScale = None,
    unfreeze: Unfreeze = 0,
    add_labels: Annotated[
        list[Path] | None,
        typer.Option(help="A folder whose images were labelled with `photoflux review`: they are trained on too."),
    ] = None,
    on_nonfinite: Annotated[
        str, typer.Option(help="A loss that is NaN or infinite: stop, or halve the learning rate, at most three times.")
    ] = "stop",
    schedule: Schedule = "constant",
    max_time: Annotated[
        str | None, typer.Option(help="The fit ends at the first batch after this time: 90s, 30m, 1h30m, or seconds.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. (default: a new one under runs/)")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished run in OUT, or the newest of these under runs/.")
    ] = False,
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Minutes from a checkpoint to the next within an epoch.")
    ] = Checkpoints.minutes,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Train a variant and write a run."""
    prepared_rejected: list[int] = []
    run = api.train(
        variant,
        data,
        engine=engine,
        device=device,
        tf32=tf32,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        image_size=image_size,
        positive=positive,
        groups=groups,
        resplit=resplit,
        balance=balance,
        l1=l1,
        l2=l2,
        loss=loss,
        initial=initial,
        backbone=backbone,
        precision=precision,
        views=views,
        backbone_mean=numbers_of("backbone_mean", backbone_mean),
        backbone_scale=numbers_of("backbone_scale", backbone_scale),
        unfreeze=unfreeze,
        add_labels=add_labels or (),
        on_nonfinite=on_nonfinite,
        schedule=schedule,
        max_time=max_time,
        out=out,
        resume=resume,
        checkpoint_minutes=checkpoint_minutes,
        on_prepared=lambda prepared: prepared_rejected.append(len(prepared.rejected)),
    )
    brief = ("loss", "penalty", "total", "accuracy", "balanced_accuracy")
    values: dict[str, Any] = {
        "engine": run.engine,
        "variant": run.variant.name,
        "data": run.data.name,
        "run": str(run.path),
        "epochs": len(run.history),
        "kept_epoch": run.kept_epoch,
        "ended": run.ended,
        "seconds": round(run.seconds, 3),
        "rejected": sum(prepared_rejected),
        "notes": run.notes,
        **({} if run.backbone is None else {"backbone": run.backbone}),
        **{
            part: {name: value for name, value in metrics.items() if name in brief}
            for part, metrics in run.metrics.as_dict().items()
        },
    }
    emit(as_json, values, str(run))
    if run.ended == "interrupted" or was_interrupted(run):
        return INTERRUPTED
    return REJECTED if sum(prepared_rejected) else DONE


@command("import_keras", "adopt", "import-keras")
def import_keras(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .keras or .weights.h5 file.")],
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="The variant that the model is.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder. (default: a new one under runs/)")] = None,
    data: Annotated[
        Path | None, typer.Option(help="The prepared dataset of the model: gives the class names, and is scored.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Class names without --data: a,b. (default: 0,1,…)")] = None,
    image_size: Annotated[int | None, typer.Option(help="Height and width: .weights.h5 without --data only.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 or 3: .weights.h5 without --data only. (default: 3)")] = None,
    scaled: Annotated[
        bool,
        typer.Option("--scaled", help="Its images are divided by 255 before; it has no Rescaling layer."),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Make a run of a Keras model, for Flux to evaluate, apply and train further."""
    run = api.import_keras(
        model,
        variant,
        out,
        data=data,
        classes=None if classes is None else [name.strip() for name in classes.split(",")],
        image_size=image_size,
        channels=channels,
        scaled=scaled,
    )
    values = {
        "run": str(run.path),
        "variant": run.variant.name,
        "classes": run.classes,
        "metrics": run.metrics.as_dict(),
    }
    emit(as_json, values, str(run))
    return DONE


@command("export")
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write: model.keras or model.onnx.")],
    format: Annotated[str | None, typer.Option(help="keras or onnx. (default: what FILE ends in)")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Write a run as a model that Keras or an ONNX runtime opens without PhotoFlux."""
    opened = api.load_run(run)
    written = api.export(opened, path, format)
    shape, listed = opened.shape, ", ".join(opened.classes)
    values = {"run": str(run), "path": str(written), "input": [None, *shape.hwc], "classes": opened.classes}
    text = f"{printable(written)}: takes N×{shape} images (H×W×C, 0 to 255), returns logits; classes: {listed}"
    emit(as_json, values, text)
    return DONE


@command("variants")
def variants(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A TOML file of your own variants. (default: the table)")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """List the variants."""
    rows = api.variants(file)

    def words(groups: Any) -> str:
        parts = [f"{group} {value}" for group, value in groups.items()]
        return ", ".join(parts).replace("{", "").replace("}", "").replace("'", "") or "none"

    lines = [
        f"{v.name:<23} {v.architecture:<10} penalty {words(v.penalty)}; dropout {words(v.dropout)}; "
        + (f"early stopping after {v.patience}, " if v.patience else "")
        + f"at most {v.epochs} epochs"
        + (f"; for {v.made_for}" if v.made_for else "")
        for v in rows.values()
    ]
    emit(as_json, {name: v.as_dict() for name, v in rows.items()}, "\n".join(lines))
    return DONE


@command("summary")
def summary(
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="As in `photoflux train`, or a run's folder.")],
    image_size: ImageSize = None,
    channels: Annotated[int | None, typer.Option(help="1 or 3. (default: those of the variant's data)")] = None,
    classes: Annotated[int | None, typer.Option(help="2 or more. (default: those of the variant's data)")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Show the layers of a variant or a run: shapes, parameters, memory and multiply-adds."""
    found = api.summary(variant, image_size, channels, classes)
    emit(as_json, found.as_dict(), str(found))
    return DONE


@command("doctor")
def check(
    add: Annotated[str | None, typer.Option(help="Bring a GPU's Julia packages first: cuda, amdgpu or metal.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Show what is installed and where, train one batch with Flux, and say what is missing and how to get it."""
    if add is not None:
        add_device(add, say)
    report = doctor.examine(say, debug)
    emit(as_json, report, doctor.as_text(report))
    return DONE if report["engine"] else ERROR
