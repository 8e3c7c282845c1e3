"""Commands that apply a run to images: a few, a pile, those that come over HTTP, and those that a person looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from photoflux import api
from photoflux.cli.command import DONE, REJECTED, command, emit
from photoflux.cli.options import (
    Dask,
    Debug,
    DeviceName,
    EngineName,
    Json,
)
from photoflux.errors import SettingError
from photoflux.runs.shift import Shift
from photoflux.serving.limits import Limits
from photoflux.system import names
from photoflux.system.terminal import say


@command("predict")
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Image files and folders.")],
    engine: EngineName = None,
    device: DeviceName = "cpu",
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Classify images with a trained run."""
    opened = api.load_run(run)
    unlike: list[Shift] = []
    predictions = api.predict(opened, paths, engine=engine, device=device, on_shifts=unlike.extend)
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
    device: DeviceName = "cpu",
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
        device=device,
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
    device: DeviceName = "cpu",
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Answer requests with a run's predictions over HTTP until Ctrl-C or SIGTERM."""
    api.serve(
        run,
        host=host,
        port=port,
        engine=engine,
        device=device,
        workers=workers,
        max_bytes=max_bytes,
        max_images=max_images,
        queue=queue,
        timeout=timeout,
        on_ready=lambda url: emit(as_json, {"run": str(run), "url": url}, f"Serving {names.printable(run)} at {url}"),
    )
    return DONE
