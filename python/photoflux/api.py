"""The public Python functions: what a user can call, with which arguments, is changed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.comparison.compare import compare
from photoflux.comparison.comparison import NAME as COMPARISON
from photoflux.comparison.comparison import Comparison, load_comparison
from photoflux.comparison.report import write_comparison
from photoflux.data.checks import check_whole
from photoflux.data.litter import ignored_in_words
from photoflux.data.preparation import Source, homonym, kind_of
from photoflux.data.preparation import prepare as prepare_source
from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.data.walking import is_file
from photoflux.engines import get_engine
from photoflux.engines.base import Checkpoints, Engine, Model
from photoflux.engines.callbacks import hooks_of
from photoflux.engines.device import device_of
from photoflux.engines.keras.engine import KerasEngine, why_unavailable
from photoflux.errors import SettingError
from photoflux.filtering.decision import Filtered
from photoflux.filtering.status import Status, status_of
from photoflux.model.networks import network_file
from photoflux.model.settings import chosen_variant, seconds_of, settings_of
from photoflux.model.summary import Summary
from photoflux.model.summary import summary as summary_of_variant
from photoflux.model.variant import Variant
from photoflux.model.variants import variants
from photoflux.model.weights import read_weights_of
from photoflux.reporting.finishing import complete, draw_calibration, finish, finish_fit
from photoflux.reporting.i18n import translator
from photoflux.reporting.page import destination
from photoflux.reporting.run_report import report as report_run
from photoflux.reviewing.reviewed import Reviewed
from photoflux.reviewing.reviewed import need_libraries as need_libraries_of_review
from photoflux.runs.checkpoints import (
    bytes_in_words,
    bytes_needed,
    check_minutes,
    check_state,
    is_finished,
    newest_unfinished,
    says_from_where,
)
from photoflux.runs.evaluation import Metrics
from photoflux.runs.export import export
from photoflux.runs.folder import claimed, claimed_new
from photoflux.runs.import_keras import import_run, keras_file
from photoflux.runs.networks import described
from photoflux.runs.prediction import Prediction, check_array, expand, predict_files, predictions_of
from photoflux.runs.progress import Display, announce
from photoflux.runs.run import Run, load_run, summary_of_run
from photoflux.runs.scoring import score_selection
from photoflux.runs.selection import select
from photoflux.runs.shift import Observed, Shift, evenly, in_words
from photoflux.runs.training import fit_and_save, initial_weights
from photoflux.runs.transfer import BackboneOptions, engine_of, input_shape, on_backbone, tuned, with_backbone
from photoflux.serving.limits import Limits, need_libraries
from photoflux.system import log
from photoflux.system.names import printable, user_path
from photoflux.thresholds.operating_point import OperatingPoint, choose
from photoflux.verification.verify import verify

__all__ = [
    "Prediction",
    "compare",
    "evaluate",
    "export",
    "filter",
    "import_keras",
    "load_comparison",
    "load_run",
    "predict",
    "prepare",
    "report",
    "review",
    "serve",
    "status",
    "summary",
    "threshold",
    "train",
    "variants",
    "verify",
]


def prepare(
    source: Source,
    dest: str | Path | None = None,
    *,
    positive: str | None = "auto",
    image_size: int | None = None,
    seed: int = 42,
    groups: str | Path | None = None,
    resplit: bool = False,
    progress: bool = True,
) -> PreparedDataset:
    """Turn a source of images into a prepared dataset: decoded, resized, split.

    Parameters
    ----------
    source : str, Path, PreparedDataset or tuple
        A folder of class folders; a folder with CIFAR-10 (python or binary version, archive or files) or MNIST-format
        idx files; ``"cifar10"`` (downloaded); ``"demo"`` (generated images); ``"name:argument"`` of a source that was
        registered with `register_source`; a prepared dataset; or arrays ``(x, y)`` with x (N, H, W, C) or (N, H, W)
        uint8 and y integers from 0.
    dest : str or Path, optional
        Where the dataset goes. None: the user's cache, reused while the source has not changed.
    positive : str or None
        The folder that counts as photo; the others become "not …". ``"auto"``: a folder named Photo, if there is one;
        None: all classes as they are.
    image_size : int, optional
        Height and width, 8 or more. None: the source's own, or 180 for a folder.
    seed : int
        Fixes the split 70 / 10 / 20.
    groups : str or Path, optional
        For a folder: a CSV file with the columns ``path`` (as in ``files.csv``) and ``group``. Images of a group, such
        as those of one source, stay on one side of the split. Every image must be listed.
    resplit : bool
        For a folder that is split already, into folders such as train, val and test that hold the class folders, or in
        each class folder: True pools all images and splits them again; False takes the split as it is.
    progress : bool
        Whether to show a bar on stderr for what takes longer than two seconds.

    Returns
    -------
    PreparedDataset

    Raises
    ------
    DataError, SettingError
        If the source cannot be used; the message says what to do.
    """
    with Display(progress) as display:
        prepared = prepare_source(
            source,
            dest,
            positive=positive,
            image_size=image_size,
            seed=seed,
            groups=groups,
            resplit=resplit,
            on_progress=display.step,
        )
        note = homonym(source)
        if note is not None:
            log.note(note)
        announce(prepared, display)
    return prepared


def train(
    variant: str | Path | Variant = "baseline",
    data: Source = "demo",
    *,
    chain: str | Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    tf32: bool = False,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 42,
    image_size: int | None = None,
    positive: str | None = "auto",
    groups: str | Path | None = None,
    resplit: bool = False,
    balance: str | None = None,
    l1: float | None = None,
    l2: float | None = None,
    loss: str | None = None,
    initial: str | Path | Run | None = None,
    backbone: str | Path | None = None,
    precision: str | None = None,
    views: int = 0,
    backbone_mean: float | Sequence[float] | None = None,
    backbone_scale: float | Sequence[float] | None = None,
    unfreeze: int = 0,
    add_labels: str | Path | Sequence[str | Path] = (),
    on_nonfinite: str = "stop",
    schedule: str = "constant",
    max_time: float | str | None = None,
    callbacks: Sequence[Any] = (),
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_minutes: float = Checkpoints.minutes,
    progress: bool = True,
    on_prepared: Callable[[PreparedDataset], None] | None = None,
) -> Run:
    """Train a variant on a source of images and write a run.

    Ctrl-C ends the fit at the next batch; the run so far is kept and returned, and `resume` goes on with it, as it does
    with a fit whose process was ended in any other way: the result is that of a fit that was not ended, byte for byte
    on the same kind of machine. When the last epoch is over the run is
    written first, and then scored, drawn and reported: what fails there, or is ended by Ctrl-C, is in the run's
    ``notes``, and `report` makes it again.

    Parameters
    ----------
    variant : str, Path or Variant
        A name of the table, a file with one of your own, ``"my.toml"`` or ``"my.toml:name"``, a network of your own,
        ``"my_model.jl:build"``, or a `Variant`; see `variant`.
    data : str, Path, PreparedDataset or tuple
        As `source` of `prepare`.
    chain : str or Path, optional
        A network of your own, ``"my_model.jl:build"``, in place of `variant`: a function of a Julia file, which is run,
        from (width, height, channels) and the number of classes to a ``Flux.Chain`` of Flux's own layers. Its weights
        are drawn from the seed: Glorot-uniform kernels, zero biases.
    engine : str
        ``"auto"`` (Flux; Keras, with a note, if there is no Julia), ``"flux"`` or ``"keras"``.
    device : str
        Where Flux computes: ``"cpu"``, or a GPU, ``"cuda"``, ``"amdgpu"`` or ``"metal"``, whose Julia packages
        `photoflux doctor --add cuda` brings. The numbers are the CPU's but for the rounding of sums; the run says in
        its ``versions`` where it was trained.
    tf32 : bool
        On a GPU: products of the fit may round their factors to 10 bits. Otherwise all is Float32.
    epochs, batch_size, learning_rate : optional
        The variant's own unless given.
    seed : int
        Fixes split, initial weights, batch order, dropout and augmentation.
    image_size : int, optional
        Height and width to which a folder's images are resized; the variant's own unless given.
    positive, groups, resplit : optional
        As in `prepare`.
    balance : str, optional
        ``"none"``, ``"weights"`` or ``"augment"``; None: the variant's own, which is ``"none"`` of images and
        ``"weights"`` on a backbone; see `photoflux.model.settings.Settings`.
    l1, l2 : float, optional
        Coefficient on every kernel that the variant penalises, in place of the table's.
    loss : str, optional
        ``"cross_entropy"`` or ``"squared_error"``, in place of the variant's.
    initial : str, Path or Run, optional
        A run or a weights file that gives the initial weights; None: they are drawn from the seed. It may be of
        another variant, engine or data if the shapes agree. Adam's moments start at zero either way.
    backbone : str or Path, optional
        Of a transfer variant: the network that turns an image into features, a name such as ``"efficientnet-lite1"``,
        several joined by ``+`` (their features side by side), or an ONNX file. None: the variant's own.
    precision : str, optional
        Of the backbone: ``"float32"``, the default, or ``"int8"``, calibrated on the training images.
    views : int
        How many augmented views of each training image (flipped, turned, zoomed) a transfer variant is fitted to too.
    backbone_mean, backbone_scale : float or sequence of float, optional
        Of an ONNX file: it takes (pixels − mean) / scale, of pixels from 0 to 255. None: as its metadata says.
    unfreeze : int
        How many of the last blocks of a transfer variant's backbone are trained on with the head, once this is fitted,
        with a tenth of the learning rate; 0: none. The run then has a backbone of its own. With Flux only.
    add_labels : path or paths
        Folders of filter jobs and runs whose images were labelled with `review`: they are added to the training part,
        and to no other, as `photoflux.data.additions.with_labels` says. The data has the same two classes.
    on_nonfinite : str
        What a loss that is NaN or infinite does: ``"stop"``, an error; ``"halve"``: the fit goes on from the end of the
        last good epoch with half the learning rate, three times at most, and a note of the run says so.
    schedule : str
        What the learning rate is multiplied with before each batch: ``"constant"``, 1; ``"step"``, 0.1 after each third
        of the epochs; ``"cosine"``, ½(1 + cos πp), p the share of all batches that are done; ``"one_cycle"``, up from
        1/25 to 1 over the first 30 %, then down to 4e-6. With Flux only.
    max_time : float or str, optional
        Seconds, or such as ``"90s"``, ``"30m"``, ``"1h30m"``: the fit ends at the first batch that is over then, as if
        a callback had asked for it; of a fit that is resumed with the time of the parts before. With Flux only.
    callbacks : sequence of Callback
        What is told of the fit, may end it and change its learning rate; see `Callback`. With `unfreeze` it is told of
        two fits, one after the other. With Flux only.
    out : str or Path, optional
        The run's folder; None: a new one under ``runs/``. An earlier run there is replaced at the end.
    resume : bool
        Go on with the unfinished run in `out`, or without that with the newest of this variant and data under
        ``runs/``, from its last checkpoint. All else is given as before. A run that is finished is returned.
    checkpoint_minutes : float
        How long after a checkpoint the next is written within an epoch, 0 or more. One is written after each epoch too,
        but none where they would take more than 2 % of the fit's time.
    progress : bool
        Whether to show progress on stderr.
    on_prepared : callable, optional
        Is given the prepared dataset before the fit; its ``rejected`` names the files that were left out.

    Returns
    -------
    Run

    Raises
    ------
    SettingError, DataError, RunError
        If an argument, the data, `initial` or `out` cannot be used, another process writes to `out`, or there is an
        unfinished run that is not to be resumed, or none that is; before anything is trained.
    EngineError
        If the engine is not available or fails, or a run that is to be resumed was begun with other settings, which
        the message shows.
    DivergedError
        If the loss becomes NaN or infinite; the run then holds the last good weights.
    """
    variant = chosen_variant(_named(variant, chain), l1, l2, loss)
    place = device_of(device, tf32)
    if place is not None and unfreeze:
        raise SettingError("`unfreeze` trains a backbone on the CPU only: leave `device` out, or `unfreeze`.")
    options = BackboneOptions(backbone, precision, views, backbone_mean, backbone_scale, unfreeze)
    network = options.open([variant], image_size)
    variant = on_backbone(variant, network)
    settings = settings_of(variant, epochs, batch_size, learning_rate, seed, balance, on_nonfinite, schedule)
    hooks = hooks_of(callbacks, seconds_of(max_time))
    minutes = check_minutes(checkpoint_minutes)
    start = None if initial is None else initial_weights(initial)
    with ExitStack() as stack:
        if out is not None:
            folder = stack.enter_context(claimed(user_path(out)))
            check_state(folder, resume)
        if image_size is None and kind_of(data) == "folder":
            image_size = (network and network.image_size) or variant.image_size
        prepared = prepare(
            data, positive=positive, image_size=image_size, seed=seed, groups=groups, resplit=resplit, progress=progress
        )
        folders = [add_labels] if isinstance(add_labels, str | Path) else list(add_labels)
        if folders:
            prepared = _with_labels(prepared, folders, progress)
        if on_prepared is not None:
            on_prepared(prepared)
        if start is not None and variant.made_by is None:
            # Refused here, not when an engine has started.
            read_weights_of(start, variant, input_shape(variant, prepared.shape, network), len(prepared.classes))
        if out is None and resume:
            folder = stack.enter_context(claimed(newest_unfinished(variant, prepared)))
        elif out is None:
            folder = stack.enter_context(claimed_new(f"{variant.name}-{prepared.name}"))
        display = stack.enter_context(Display(progress))
        chosen = with_backbone(get_engine(engine, display.say, place), network, prepared, display, views, unfreeze)
        variant = described(variant, chosen, prepared.shape, len(prepared.classes))
        if l1 is None and l2 is None:
            variant, note = tuned(chosen, variant, prepared, settings)
            if note:
                display.say(note)
        if resume and is_finished(folder):
            return _finished(folder, chosen, prepared, display)
        resume = resume and says_from_where(folder, chosen.name, display)
        needed = bytes_in_words(bytes_needed(variant, prepared, network))
        display.say(
            f"Training {variant.name} with engine {chosen.name} on {printable(prepared.name)}: "
            f"{len(prepared.indices('train'))} images of {prepared.height}×{prepared.width}, "
            f"{len(prepared.classes)} classes, at most {settings.epochs} epochs; its checkpoints take up to {needed} "
            "of disk space"
        )
        trained = fit_and_save(
            chosen,
            variant,
            prepared,
            settings,
            folder,
            display,
            start,
            resume=resume,
            checkpoint_minutes=minutes,
            hooks=hooks,
        )
        return finish_fit(trained, chosen, prepared)


def _named(variant: str | Path | Variant, chain: str | Path | None) -> str | Path | Variant:
    """Return what is trained: a network of the user's own in place of a variant."""
    if chain is None:
        return variant
    if variant != "baseline":
        raise SettingError(f"Give `variant` or `chain`, not both; received: {variant!r} and {str(chain)!r}.")
    if network_file(chain) is None:
        raise SettingError(
            f"`chain` must name a Julia file and its function, my_model.jl:build; received: {str(chain)!r}."
        )
    return chain


def _finished(folder: Path, engine: Engine, prepared: PreparedDataset, display: Display) -> Run:
    """Return a finished run; what the end of its process kept from being scored, drawn or reported is made."""
    run = load_run(folder)
    display.say(f"{printable(folder)} is finished; there is nothing to resume.")
    if (folder / "report.html").is_file() or run.data.fingerprint != prepared.fingerprint:
        return run
    return finish(run, engine, prepared)


def _with_labels(prepared: PreparedDataset, folders: list[str | Path], progress: bool) -> PreparedDataset:
    """Add labelled images to a dataset, and say what became of them."""
    from photoflux.data.additions import with_labels

    with Display(progress) as display:
        labelled = with_labels(prepared, list(map(user_path, folders)), display.step)
        for note in labelled.warnings[len(prepared.warnings) :]:
            log.note(note)
    return labelled


def evaluate(
    run: str | Path | Run,
    data: Source | None = None,
    *,
    part: str | None = None,
    engine: str | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> Metrics:
    """Score a run on images that it has not seen, or on a part of its own data, dropout off.

    Images that the run was trained on, or whose validation chose its epoch, are left out and counted: by the sha256 of
    their files and of their pixels, those of the runs that its weights come from too. The dataset of the run is never
    split again; if it is gone, it is prepared again from its source.

    Parameters
    ----------
    run : str, Path or Run
        The run.
    data : optional
        As `source` of `prepare`; None: the data that it was trained on. A folder of class folders, or arrays, are
        scored whole, also where a class is missing.
    part : str, optional
        ``"train"``, ``"validation"``, ``"test"`` or ``"all"``. None: ``"test"`` of the run's own data and of any that
        has such a part, else ``"all"``. The run's own training and validation part are scored where they are named.
    engine : str, optional
        As in `train`; None: the run's own, or the other if that is not available.
    device : str
        As in `train`.
    progress : bool
        Whether to show progress on stderr.

    Returns
    -------
    Metrics
        With ``left_out``, how many images were not scored, and ``notes``, which say why and what else is to be known.

    Raises
    ------
    RunError, DataError, SettingError, EngineError
        If the run or the data cannot be used, or do not fit each other, or the run has seen all of the images.
    """
    run = run if isinstance(run, Run) else load_run(run)
    with Display(progress) as display:
        selection = select(run, data, part, display)
        for note in selection.notes:
            log.note(note)
        metrics = score_selection(_engine_of(run, engine, display, device), run, selection)
        for note in metrics.notes[len(selection.notes) :]:
            log.note(note)
        return metrics


def predict(
    run: str | Path | Run,
    images: str | Path | Iterable[str | Path] | np.ndarray,
    *,
    engine: str | None = None,
    device: str = "cpu",
    progress: bool = True,
    on_shifts: Callable[[list[Shift]], None] | None = None,
) -> list[Prediction]:
    """Classify images with a run.

    Up to 300 of the images, evenly from all, are compared with those that the run was trained on; where they are unlike
    these, a warning of the logger "photoflux" says in which respects.

    Parameters
    ----------
    run : str, Path or Run
        The run.
    images : path, paths or numpy.ndarray
        Files and folders (searched through as `prepare` does), or uint8 images (N, H, W, C) of the run's size.
    engine : str, optional
        As in `evaluate`.
    device : str
        As in `train`.
    progress : bool
        Whether to show progress on stderr.
    on_shifts : callable, optional
        Is given the respects in which the images are unlike those of the run, in the end; often none.

    Returns
    -------
    list of Prediction
        One for each image, in the order given (folders sorted); a file that cannot be read has its reason and no label.

    Raises
    ------
    RunError, DataError, EngineError
        If the run cannot be read, a path does not exist, or arrays do not fit.
    """
    run = run if isinstance(run, Run) else load_run(run)
    with Display(progress) as display:
        if isinstance(images, np.ndarray):
            batch = check_array(images, run.shape)
            names = [str(i) for i in range(len(batch))]
            model = _model_of(run, engine, display, device)
            observed = Observed(model, run)
            predictions = predictions_of(model, run, names, batch, observed, evenly(len(batch)))
            found = observed.shifts()
        else:
            files, counts = expand([images] if isinstance(images, str | Path) else images)
            ignored = ignored_in_words(counts)
            if ignored is not None:
                display.say(ignored)
            predictions, found = predict_files(lambda: _model_of(run, engine, display, device), run, files, display)
        for line in in_words(found):
            log.note(line)
        if on_shifts is not None:
            on_shifts(found)
        return predictions


def serve(
    run: str | Path | Run,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    engine: str | None = None,
    device: str = "cpu",
    workers: int | None = None,
    max_bytes: int = Limits.max_bytes,
    max_images: int = Limits.max_images,
    queue: int = Limits.queue,
    timeout: float = Limits.timeout,
    on_ready: Callable[[str], None] | None = None,
    progress: bool = True,
) -> None:
    """Answer requests with a run's predictions over HTTP until SIGINT (Ctrl-C), SIGTERM or SIGHUP.

    ``POST /predict`` takes one or several images as ``multipart/form-data``; ``/health`` and ``/metrics`` are for who
    supervises it. What waits is bounded, and a request beyond it is answered 503. There is no encryption and no
    password: beyond this machine it belongs behind a proxy that has both.

    Parameters
    ----------
    run : str, Path or Run
        The run.
    host : str
        Name or address of this machine to listen at; ``"0.0.0.0"``: all of them.
    port : int
        0 to 65535; 0: any that is free.
    engine : str, optional
        As in `evaluate`.
    device : str
        As in `train`.
    workers : int, optional
        Processes that decode, 1 or more; None: one for each usable core.
    max_bytes : int
        Of the body of a request.
    max_images : int
        That a request may hold, the pages of its files counted.
    queue : int
        Images that may wait for their answer, `max_images` or more.
    timeout : float
        Seconds for a request.
    on_ready : callable, optional
        Is given the URL as soon as requests are taken.
    progress : bool
        Whether to say on stderr what is done.

    Raises
    ------
    SettingError
        If an argument has a value that cannot be used, or this is not the main thread.
    RunError, EngineError
        If the run cannot be read or loaded.
    ServingError
        If a library is missing, the address cannot be had, or the engine has failed meanwhile.
    KeyboardInterrupt, SystemExit
        If a second signal comes before the requests under way are answered.
    """
    from photoflux.data.images.parallel import cores

    limits = Limits(max_bytes, max_images, queue, timeout)
    workers = cores() if workers is None else check_whole("`workers`", workers, 1)
    device_of(device)  # refused before anything is read
    need_libraries()
    # They import libraries of an extra.
    from photoflux.serving.service import serve as serve_run

    run = run if isinstance(run, Run) else load_run(run)
    with Display(progress) as display:
        serve_run(
            run,
            lambda: _model_of(run, engine, display, device),
            host,
            port,
            workers,
            limits,
            on_ready or (lambda url: None),
        )


def filter(
    run: str | Path | Run,
    pile: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    recall: float | None = None,
    threshold: float | None = None,
    how: str = "link",
    workers: int | None = None,
    watch: bool = False,
    engine: str | None = None,
    device: str = "cpu",
    dask: str | None = None,
    progress: bool = True,
) -> Filtered:
    """Take the images of a run's second class, the photographs, out of a pile of any size.

    The job is in the folder `out`: what is found in ``photos`` and ``uncertain``, ``results.csv`` and
    ``results.parquet``, and the ledger. However it ends, the same call goes on where it stopped, and the results are
    those of a job that was never stopped. What has changed since, a file, the run or its threshold, is done again.

    Parameters
    ----------
    run : str, Path or Run
        A run of two classes.
    pile : path or paths
        Folders, zip and tar archives, and image files, which are only read. Each page of a TIFF or PDF is an item.
    out : str or Path
        The job's folder: a new one, or that of an earlier start.
    recall : float, optional
        The recall to guarantee, between 0 and 1, as in `threshold`, with a confidence of 0.95.
    threshold : float, optional
        The score from which an image is a photograph, 0 to 1. With neither: the run's own threshold, or 0.5.
    how : str
        ``"link"``: hard links to the files, and copies where the system makes none; ``"copy"``; or ``"list"``: only
        the results.
    workers : int, optional
        Processes that decode; None: one for each core.
    watch : bool
        Whether to go on with files that arrive, until Ctrl-C.
    engine : str, optional
        As in `evaluate`.
    device : str
        As in `train`; with `dask`, of each worker.
    dask : str, optional
        The address of the scheduler of a dask.distributed cluster, whose workers score then. They must have this
        PhotoFlux, and the pile at the same paths. The results are the same.
    progress : bool
        Whether to show progress on stderr.

    Returns
    -------
    Filtered

    Raises
    ------
    RunError, DataError, SettingError, EngineError
        If the run, the pile or `out` cannot be used, or another process works in `out`.
    ClusterError
        If the cluster cannot be used, or ends.
    """
    from photoflux.filtering.filter import filter_pile
    from photoflux.filtering.station import loaded

    device_of(device)  # refused before anything is read
    run = run if isinstance(run, Run) else load_run(run)
    with Display(progress) as display:
        return filter_pile(
            run,
            [pile] if isinstance(pile, str | Path) else list(pile),
            user_path(out),
            lambda: _model_of(run, engine, display, device),
            recall=recall,
            threshold=threshold,
            how=how,
            workers=workers,
            watch=watch,
            display=display,
            dask=dask,
            load_there=partial(loaded, engine=engine, device=device),
        )


def review(
    folder: str | Path,
    *,
    decision: str | None = None,
    everything: bool = False,
    port: int = 0,
    on_ready: Callable[[str], None] | None = None,
    progress: bool = True,
) -> Reviewed:
    """Show images on a web page of this machine, to be labelled by keys, until SIGINT (Ctrl-C), SIGTERM or SIGHUP.

    Of a filter job these are the uncertain ones, those nearest to the threshold first, while the job runs too. Of a run
    they are the likely label errors of its data: the images of the validation and test part on which it is wrong, those
    with the largest data loss first. A label is kept at once, in the job's ledger or in the run's ``labels.sqlite``;
    ``add_labels`` of `train` uses them. The page is served at 127.0.0.1 only, to whoever has the address that is given
    to `on_ready`. Where there is nothing to label, nothing is served.

    Parameters
    ----------
    folder : str or Path
        The folder of a filter job, or of a run of two classes.
    decision : str, optional
        Of a job: show the images of this decision, a class, instead of the uncertain ones.
    everything : bool
        Whether to show all images that have a score.
    port : int
        0 to 65535; 0: any that is free.
    on_ready : callable, optional
        Is given the URL when the page is served.
    progress : bool
        Whether to show progress on stderr.

    Returns
    -------
    Reviewed

    Raises
    ------
    DataError, RunError, SettingError
        If the folder or an argument cannot be used, or this is not the main thread.
    ServingError
        If a library is missing, or the port cannot be had.
    """
    need_libraries_of_review()
    # They import libraries of an extra.
    from photoflux.reviewing.review import review as review_folder

    with Display(progress) as display:
        return review_folder(user_path(folder), decision, everything, port, on_ready or (lambda url: None), display)


def status(out: str | Path) -> Status:
    """Say how far a filter job is, while it runs and after.

    Parameters
    ----------
    out : str or Path
        The job's folder.

    Returns
    -------
    Status

    Raises
    ------
    DataError
        If it is not the folder of a job.
    """
    return status_of(user_path(out))


def threshold(
    run: str | Path | Run,
    *,
    recall: float | None = None,
    precision: float | None = None,
    confidence: float = 0.95,
) -> OperatingPoint:
    """Choose the threshold of a run of two classes that guarantees a recall or a precision, and store it in the run.

    The threshold is chosen on the validation part, from the logits that the run keeps, by the methods of
    `photoflux.thresholds.choice.recall_rank` (the highest score that keeps a recall) and
    `photoflux.thresholds.choice.precision_threshold` (the lowest that is shown to keep a precision). It is written into
    the run's ``run.json`` in place of an earlier one, and `photoflux.predict` applies it. A temperature is fitted and
    stored too, and ``calibration.png`` is drawn; the temperature does not change the threshold, since it keeps the
    order of the scores, and no prediction uses it.

    Parameters
    ----------
    run : str, Path or Run
        A run of two classes, whose prepared dataset is still there.
    recall, precision : float, optional
        One of the two, above 0 and below 1: the recall or the precision of the second class to guarantee.
    confidence : float
        Above 0.5 and below 1: the confidence of the guarantee, over the draw of the validation images.

    Returns
    -------
    OperatingPoint
        With the run that has the threshold; prints as text.

    Raises
    ------
    SettingError
        If not exactly one of the two is given, a value is out of range, or the run has more than two classes.
    DataError
        If there are too few validation images for the guarantee; the message says how many would do. Or if the run's
        dataset is gone or another. The run stays as it was.
    RunError
        If the run cannot be read or written, or holds no logits.
    """
    run = run if isinstance(run, Run) else load_run(run)
    with Display() as display:
        found = choose(run, recall, precision, confidence, display)
    return replace(found, notes=[*found.notes, *draw_calibration(found.run, found.calibration)])


def import_keras(
    model: str | Path,
    variant: str | Path | Variant,
    out: str | Path | None = None,
    *,
    data: str | Path | PreparedDataset | None = None,
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    scaled: bool = False,
    progress: bool = True,
) -> Run:
    """Make a run of a Keras model that has the layers of a variant, so that Flux evaluates it and trains it further.

    A ``.keras`` file is compared layer by layer with the variant, and then by its outputs. Its layers' names, its
    penalties and its dropout do not matter: the variant's hold from here on. The last layer may have a sigmoid or
    softmax; the run's outputs are the logits under it. No code from the file is executed. A ``.weights.h5`` file has
    shapes only: activations and padding are taken to be the variant's.

    Parameters
    ----------
    model : str or Path
        The ``.keras`` or ``.weights.h5`` file.
    variant : str or Variant
        What it is.
    out : str or Path, optional
        The run's folder; None: a new one under ``runs/``.
    data : str, Path or PreparedDataset, optional
        The prepared dataset that it belongs to; gives the class names, and is scored.
    classes : sequence of str, optional
        The class names, in the order of the outputs, where no `data` is given; of two classes, the model's one output
        is the log-odds of the second. None: "0", "1", …
    image_size, channels : int, optional
        Height and width of the images, and 1 or 3 (the default): for ``.weights.h5`` without `data` only.
    scaled : bool
        Whether the images were divided by 255 before they reached the model; it then has no Rescaling layer.
    progress : bool
        Whether to say on stderr what is done.

    Returns
    -------
    Run
        With no history; its ``initial`` names the file.

    Raises
    ------
    SettingError, DataError
        If an argument or the dataset cannot be used, or does not fit the model.
    RunError
        If the file cannot be read, or is not the variant; the message shows both, side by side.
    EngineError
        If Keras is not installed.
    """
    file = keras_file(model, variant, data, classes, image_size, channels, scaled)
    place = claimed_new(file.title) if out is None else claimed(user_path(out))
    with place as folder, KerasEngine() as engine, Display(progress) as display:
        display.say(f"Opening {printable(file.path)} with Keras")
        return finish(import_run(file, engine, folder), engine, file.prepared)


def summary(
    variant: str | Path | Variant | Run,
    image_size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
) -> Summary:
    """Return the layers of a variant or a run, with shapes, parameters, memory and multiply-adds.

    Nothing is started, but for a network of your own: its file is run.

    Parameters
    ----------
    variant : str, Path, Variant or Run
        As in `train`, or a run or its folder.
    image_size : int, optional
        Height and width of the images, 8 or more. None: the variant's own.
    channels : int, optional
        1 (grey) or 3 (RGB). None: those of the data for which the variant was made.
    classes : int, optional
        2 or more; 2 have one output. None: those of the data for which the variant was made.

    Returns
    -------
    Summary

    Raises
    ------
    SettingError
        If there is no such variant, an argument cannot be used, or one is given although a run has its own.
    RunError
        If the run cannot be read.

    Examples
    --------
    >>> summary("dense_l2").parameters
    101770
    """
    if isinstance(variant, str | Path) and variant not in variants() and user_path(variant).is_dir():
        variant = load_run(variant)
    if isinstance(variant, Run):
        run = variant
        for name, value in (("image_size", image_size), ("channels", channels), ("classes", classes)):
            if value is not None:
                raise SettingError(f"`{name}` comes from the run {run.path}. Leave it out, or name a variant.")
        return summary_of_run(run)
    return summary_of_variant(variant, image_size, channels, classes, _described)


def _described(variant: Variant, shape: Shape, classes: int) -> Variant:
    if variant.made_by is None:
        return variant
    with Display(True) as display:
        return described(variant, get_engine("flux", display.say), shape, classes)


def report(source: str | Path | Run | Comparison, path: str | Path | None = None, *, lang: str = "en") -> Path:
    """Write the report of a run or a comparison: one page that needs nothing else, for a screen, a phone or paper.

    It says in words what the numbers say, with curves, tables, errors and their images, settings, versions and the
    command that reproduces it. Scores, logits and figures that a run lacks are made first, if its data is there.

    Parameters
    ----------
    source : str, Path, Run or Comparison
        The run or the comparison.
    path : str or Path, optional
        The file to write; None: ``report.html`` in its folder.
    lang : str
        ``"en"`` or ``"fr"``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    RunError
        If it cannot be read or the file cannot be written.
    SettingError
        If there is no such language, or `path` is a folder.
    """
    if not isinstance(source, Run | Comparison):
        source = load_comparison(source) if is_file(user_path(source) / COMPARISON) else load_run(source)
    if isinstance(source, Run):
        translator(lang), destination(source.path, path)  # refused before anything is made
        run = source
        with Display() as display:
            source = complete(run, lambda: _engine_of(run, None, display), display)
        return report_run(source, path, lang=lang)
    return write_comparison(source, path, lang=lang)


def _engine_of(run: Run, engine: str | None, display: Display, device: str = "cpu") -> Engine:
    """Return the engine asked for, or the run's own; both read the same weights, so another will do."""
    place = device_of(device)
    if engine is None and place is None and run.engine == "keras" and why_unavailable() is None:
        engine = "keras"
    return engine_of(get_engine(engine or "auto", display.say, place), run, display)


def _model_of(run: Run, engine: str | None, display: Display, device: str = "cpu") -> Model:
    return _engine_of(run, engine, display, device).load(run.variant, run.weights, run.shape, len(run.classes))
