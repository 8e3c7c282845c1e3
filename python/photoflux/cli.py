"""The command line: options, output on stdout, messages on stderr and exit codes are changed here."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from photoflux import api, doctor
from photoflux.errors import PhotoFluxError, SettingError
from photoflux.reporting.finishing import was_interrupted
from photoflux.runs.shift import Shift
from photoflux.serving.limits import Limits
from photoflux.system import names
from photoflux.system.signals import Ended, unwinding
from photoflux.system.streams import open_closed_descriptors
from photoflux.system.terminal import release, result, say
from photoflux.system.version import __version__

DONE, ERROR, USAGE, REJECTED, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    name="photoflux",
    help="Train, evaluate and apply image classifiers on Flux.jl.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

P = ParamSpec("P")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[int, typer.Option(help="Fixes split, weights, batch order, dropout and augmentation.")]
ImageSize = Annotated[int | None, typer.Option(help="Height and width in pixels, 8 or more. (default: the variant's)")]
Positive = Annotated[
    str, typer.Option(help="The folder that counts as photo; 'none' keeps all classes; 'auto' takes a folder Photo.")
]
Groups = Annotated[
    Path | None, typer.Option(help="CSV with the columns path and group: a group stays on one side of the split.")
]
Resplit = Annotated[
    bool, typer.Option("--resplit", help="Pool the parts of a folder that is split already, and split it again.")
]
Balance = Annotated[str | None, typer.Option(help="none, weights or augment. (default: the variant's)")]
BackboneName = Annotated[
    str | None,
    typer.Option(
        "--backbone", help="Of transfer variants: a name, A+B, or a file model.onnx. (default: the variant's)"
    ),
]
Precision = Annotated[str | None, typer.Option(help="Of the backbone: float32 or int8. (default: float32)")]
Views = Annotated[int, typer.Option(help="Augmented views of each training image for transfer variants.")]
Numbers = "One number, or three: red,green,blue."
BackboneMean = Annotated[
    str | None, typer.Option(help=f"Of model.onnx, which takes (pixels - mean) / scale, pixels 0 to 255. {Numbers}")
]
Unfreeze = Annotated[int, typer.Option(help="Of transfer variants: train the backbone's last N blocks too.")]
BackboneScale = Annotated[str | None, typer.Option(help=f"Of model.onnx, see --backbone-mean. {Numbers}")]
EngineName = Annotated[str | None, typer.Option("--engine", help="auto, flux or keras. (default: the run's)")]
Dask = Annotated[str | None, typer.Option("--dask", metavar="ADDRESS", help="Work on the cluster of a dask scheduler.")]


def command(name: str, *aliases: str) -> Callable[[Callable[P, int]], Callable[P, None]]:
    """Register a function as a command, with hidden aliases; it returns the exit code, its errors are one message."""

    def register(function: Callable[P, int]) -> Callable[P, None]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                with unwinding():
                    code = function(*args, **kwargs)
            except Exception as error:
                if kwargs.get("debug"):
                    traceback.print_exc()
                known = isinstance(error, PhotoFluxError | OSError)
                hint = "" if known else "\nThis is a bug in PhotoFlux; `--debug` shows where."
                say(f"Error: {error if known else f'{type(error).__name__}: {error}'}{hint}")
                code = USAGE if isinstance(error, SettingError) else ERROR
            except KeyboardInterrupt:
                say("Interrupted.")
                code = INTERRUPTED
            except Ended as ended:
                say(f"Ended by {ended.signal}.")
                code = ended.number
            raise typer.Exit(code)

        app.command(name)(run)
        for alias in aliases:
            app.command(alias, hidden=True)(run)
        return run

    return register


def emit(as_json: bool, values: Any, text: str) -> None:
    """Print the result on stdout, as one JSON object or as text."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if as_json:
        result(names.as_json(values, only_ascii=encoding.lower().replace("-", "") != "utf8"))
    else:  # a terminal of few letters shows the others as escapes
        result(names.shown(text).encode(encoding, "backslashreplace").decode(encoding))


def _numbers(argument: str, text: str | None) -> float | list[float] | None:
    """Return what was typed for the numbers of the colours: one, or one each."""
    if text is None:
        return None
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        raise SettingError(f"`{argument}` must be one number, or three with commas; received: {text!r}.")
    return numbers[0] if len(numbers) == 1 else numbers


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
    lines = [f"{prepared.path}: {len(prepared)} images of {prepared.height}×{prepared.width}"]
    lines += [
        f"  {part:<10}  " + ", ".join(f"{name} {count}" for name, count in row.items()) for part, row in counts.items()
    ]
    emit(as_json, values, "\n".join(lines))
    return REJECTED if prepared.rejected else DONE


@command("train")
def train(
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="A name from `photoflux variants`.")],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A source as in `photoflux prepare`, or a prepared dataset.")
    ] = "demo",
    engine: Annotated[str, typer.Option(help="auto, flux or keras.")] = "auto",
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
    out: Annotated[Path | None, typer.Option(help="The run's folder. (default: a new one under runs/)")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Train a variant and write a run."""
    prepared_rejected: list[int] = []
    run = api.train(
        variant,
        data,
        engine=engine,
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
        backbone_mean=_numbers("backbone_mean", backbone_mean),
        backbone_scale=_numbers("backbone_scale", backbone_scale),
        unfreeze=unfreeze,
        add_labels=add_labels or (),
        out=out,
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
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Score a run on images that it has not seen, or on a part of its own data."""
    opened = api.load_run(run)
    metrics = api.evaluate(opened, data, part=part, engine=engine)
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


@command("predict")
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Image files and folders.")],
    engine: EngineName = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Classify images with a trained run."""
    opened = api.load_run(run)
    unlike: list[Shift] = []
    predictions = api.predict(opened, paths, engine=engine, on_shifts=unlike.extend)
    values = {
        "run": str(run),
        "threshold": opened.threshold and opened.threshold["score"],
        "predictions": [
            {"path": p.path, "label": p.label, "probabilities": dict(p.probabilities), "rejected": p.rejected}
            for p in predictions
        ],
        "shifts": [shift.as_dict() for shift in unlike],
    }
    lines = [
        f"{names.printable(p.path)}\t{names.printable(p.label)}\t{p.probabilities[p.label]:.4f}"
        if p.label is not None
        else f"{names.printable(p.path)}\trejected\t{names.printable(p.rejected or '')}"
        for p in predictions
    ]
    emit(as_json, values, "\n".join(lines))
    return REJECTED if any(p.rejected for p in predictions) else DONE


@command("serve")
def serve(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    host: Annotated[str, typer.Option(help="Name or address of this machine; 0.0.0.0: all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free; it is printed.")] = 8000,
    workers: Annotated[int | None, typer.Option(help="Processes that decode. (default: one a core)")] = None,
    max_bytes: Annotated[int, typer.Option(help="Of the body of a request.")] = Limits.max_bytes,
    max_images: Annotated[int, typer.Option(help="Of a request, pages counted.")] = Limits.max_images,
    queue: Annotated[int, typer.Option(help="Images that may wait; beyond them: 503.")] = Limits.queue,
    timeout: Annotated[float, typer.Option(help="Seconds for a request.")] = Limits.timeout,
    engine: EngineName = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Answer requests with a run's predictions over HTTP until Ctrl-C or SIGTERM."""
    api.serve(
        run,
        host=host,
        port=port,
        engine=engine,
        workers=workers,
        max_bytes=max_bytes,
        max_images=max_images,
        queue=queue,
        timeout=timeout,
        on_ready=lambda url: emit(as_json, {"run": str(run), "url": url}, f"Serving {run} at {url}"),
    )
    return DONE


@command("filter")
def filter(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run of two classes.")],
    pile: Annotated[list[Path], typer.Argument(metavar="PILE", help="Folders, zip and tar archives, image files.")],
    out: Annotated[Path, typer.Option(help="The job's folder; an earlier job there goes on.")],
    recall: Annotated[float | None, typer.Option(help="The recall to guarantee, between 0 and 1.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="The score from which an image is taken. (default: the run's, or 0.5)")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Hard links in DIR/photos. (default)")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copies in DIR/photos.")] = False,
    only_list: Annotated[bool, typer.Option("--list", help="Only the results, no pictures.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes that decode. (default: one for each core)")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with files that arrive, until Ctrl-C.")] = False,
    engine: EngineName = None,
    dask: Dask = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Take the photographs out of a pile; a job that was stopped goes on."""
    chosen = [how for how, given in (("link", link), ("copy", copy), ("list", only_list)) if given]
    if len(chosen) > 1:
        raise SettingError(f"Give one of --link, --copy and --list; received: {', '.join(chosen)}.")
    found = api.filter(
        run,
        pile,
        out,
        recall=recall,
        threshold=threshold,
        how=chosen[0] if chosen else "link",
        workers=workers,
        watch=watch,
        engine=engine,
        dask=dask,
    )
    emit(as_json, found.as_dict(), str(found))
    return REJECTED if found.counts.get("failed") else DONE


@command("status")
def status(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a filter job.")],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Show how far a filter job is: counts, rate, time left, and errors by kind."""
    found = api.status(out)
    emit(as_json, found.as_dict(), str(found))
    return DONE


@command("review")
def review(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a filter job, or of a run.")],
    decision: Annotated[
        str | None, typer.Option(help="Of a job: show the images of this decision. (default: uncertain)")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every image that has a score.")] = False,
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Label uncertain images, or likely label errors of a run's data, on a local web page, until Ctrl-C."""
    served = False

    def ready(url: str) -> None:
        nonlocal served
        served = True
        emit(as_json, {"folder": str(folder), "url": url}, f"Open {url} in a browser on this machine; Ctrl-C ends it.")

    found = api.review(folder, decision=decision, everything=everything, port=port, on_ready=ready)
    if as_json and served:  # whose one object was the address
        say(str(found))
    else:
        emit(as_json, found.as_dict(), str(found))
    return DONE


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
    text = f"{written}: takes N×{shape} images (H×W×C, 0 to 255), returns logits; classes: {listed}"
    emit(as_json, values, text)
    return DONE


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


@command("verify")
def verify(
    variant: Annotated[
        str, typer.Argument(metavar="VARIANT", help="A name from `photoflux variants`, or all.")
    ] = "all",
    data: Annotated[str, typer.Option(help="A prepared dataset, or a source as in `prepare`.")] = "demo",
    steps: Annotated[int, typer.Option(help="Adam steps of the loss curves, 2 or more.")] = 50,
    image_size: Annotated[int | None, typer.Option(help="Of a folder's or the demo's images. (default: 64)")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for verify.html.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Prove that Flux and Keras compute the same numbers."""
    found = api.verify(variant, data, steps=steps, image_size=image_size, out=out)
    emit(as_json, found.as_dict(), str(found))
    return DONE if found.passed else ERROR


@command("compare")
def compare(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A source as in `prepare`, or a prepared dataset.")],
    variants: Annotated[str, typer.Option(help="Names, a,b,c; all: the seven of the photo CNN.")] = "all",
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
    engine: Annotated[str, typer.Option(help="auto, flux or keras.")] = "auto",
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
        backbone_mean=_numbers("backbone_mean", backbone_mean),
        backbone_scale=_numbers("backbone_scale", backbone_scale),
        engine=engine,
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
    emit(as_json, {"run": str(run), "report": str(path), "lang": lang}, str(path))
    return DONE


@command("variants")
def variants(as_json: Json = False, debug: Debug = False) -> int:
    """List the variants."""
    rows = api.variants()

    def words(groups: Any) -> str:
        parts = [f"{group} {value}" for group, value in groups.items()]
        return ", ".join(parts).replace("{", "").replace("}", "").replace("'", "") or "none"

    lines = [
        f"{v.name:<23} {v.architecture:<10} penalty {words(v.penalty)}; dropout {words(v.dropout)}; "
        + (f"early stopping after {v.patience}, " if v.patience else "")
        + f"at most {v.epochs} epochs; for {v.made_for}"
        for v in rows.values()
    ]
    emit(as_json, {name: v.as_dict() for name, v in rows.items()}, "\n".join(lines))
    return DONE


@command("summary")
def summary(
    variant: Annotated[
        str, typer.Argument(metavar="VARIANT", help="A name from `photoflux variants`, or a run's folder.")
    ],
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
def check(as_json: Json = False, debug: Debug = False) -> int:
    """Show what is installed and where, train one batch with Flux, and say what is missing and how to get it."""
    report = doctor.examine(say, debug)
    emit(as_json, report, doctor.as_text(report))
    return DONE if report["engine"] else ERROR


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Train, evaluate and apply image classifiers on Flux.jl."""
    if version:
        result(__version__)
        raise typer.Exit(DONE)


def main() -> None:
    """Run the command line."""
    # What a file or a library would be given instead of a stream that is closed.
    open_closed_descriptors()
    try:
        app(args=sys.argv[1:])
    finally:
        release()
