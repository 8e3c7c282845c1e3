"""Ctrl-C, SIGTERM and SIGHUP end a fit at the next batch and keep the run so far, with both engines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import photoflux
from photoflux.comparison import fits
from photoflux.runs.checkpoints import checkpoint_files
from photoflux.runs.progress import Display
from photoflux.system.signals import ENDING, Ended

pytestmark = [
    pytest.mark.usefixtures("undrawn", "one_worker"),
    pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals"),
]
# 11 batches an epoch.
FIT = {"variant": "dense_dropout", "epochs": 2, "batch_size": 8, "progress": False}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    rng = np.random.default_rng(1)
    y = np.arange(120) % 2
    x = rng.integers(0, 100, (120, 8, 8, 1), np.uint8)
    x[y == 1, :4] += 100
    return photoflux.prepare((x, y), tmp_path_factory.mktemp("data") / "prepared", progress=False)


@pytest.fixture(scope="module", params=["flux", "keras"])
def whole(request, prepared, tmp_path_factory):
    """A fit that nothing ends."""
    request.getfixturevalue(request.param)
    return photoflux.train(data=prepared, engine=request.param, out=tmp_path_factory.mktemp("whole") / "r", **FIT)


@pytest.fixture(autouse=True)
def unchanged():
    """Handlers and mask are after each test what they were before."""
    kept = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    before = disposition()
    yield
    assert disposition() == before
    signal.signal(signal.SIGHUP, kept)


def disposition():
    """How the process takes signals."""
    return {n: signal.getsignal(n) for n in (signal.SIGINT, *ENDING)}, signal.pthread_sigmask(signal.SIG_BLOCK, set())


def at_batch(monkeypatch, number, what):
    """Do something after so many batches, while the display is told of one."""
    done = 0

    def batch(self, progress):
        nonlocal done
        done += 1
        if done == number:
            what()

    monkeypatch.setattr(Display, "batch", batch)


def ended_by(number, **options):
    """Train, be ended by a signal, and return the run so far."""
    if number == signal.SIGINT:
        return photoflux.train(**FIT | options)
    with pytest.raises(Ended) as ended:
        photoflux.train(**FIT | options)
    assert ended.value.code == 128 + number
    return photoflux.load_run(options["out"])


def outcome(run):
    history = [line.split(",") for line in (run.path / "history.csv").read_text().splitlines()]
    return run.weights.read_bytes(), [[row[0], *row[2:]] for row in history], run.metrics, run.ended


def cases(*pairs):
    """Parametrise by engines and signals; a fit with Keras takes long."""
    ids = [f"{engine}-{number.name}" for engine, number in pairs]
    return pytest.mark.parametrize(("whole", "number"), pairs, indirect=["whole"], ids=ids)


@pytest.mark.fault("Ctrl-C, SIGTERM or SIGHUP in a fit, its first epoch too", costs="nothing")
@cases(*(("flux", number) for number in (signal.SIGINT, *ENDING)), ("keras", signal.SIGTERM))
def test_a_signal_ends_the_fit_at_the_next_batch_and_keeps_the_run(whole, prepared, tmp_path, monkeypatch, number):
    batches = {signal.SIGINT: 3, signal.SIGTERM: 5, signal.SIGHUP: 14}[number]
    first = batches < 11
    options = {"data": prepared, "engine": whole.engine, "out": tmp_path / "r"}
    with monkeypatch.context() as patch:
        at_batch(patch, batches, lambda: os.kill(os.getpid(), number))
        run = ended_by(number, **options)
    assert (run.ended, run.kept_epoch, len(run.history)) == ("interrupted", 1 - first, 1 - first)
    where = f"in epoch {1 if first else 2}, after batch {batches if first else batches - 11} of 11"
    assert (
        f"It was interrupted {where}: that epoch is unfinished, and the weights are those of that batch." in run.notes
    )
    # What a terminal or a scheduler may not wait for is left out, and can be made later.
    assert (run.path / "report.html").is_file() == (number == signal.SIGINT)
    assert photoflux.evaluate(run, progress=False).images > 0
    (file, *_) = checkpoint_files(run.path)
    assert file.name == f"epoch-00000{1 if first else 2}-batch-{batches % 11:06}.safetensors"
    again = photoflux.train(resume=True, **FIT | options)
    assert outcome(again) == outcome(whole) and again.notes == whole.notes
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@cases(("flux", signal.SIGINT), ("flux", signal.SIGTERM), ("keras", signal.SIGINT))
def test_a_signal_from_elsewhere_while_the_engine_computes(whole, prepared, tmp_path, monkeypatch, number):
    """It comes at any moment: within a batch, a validation, or between."""
    kill = ["sh", "-c", f"sleep 0.05; kill -{int(number)} {os.getpid()}"]
    killers = []
    at_batch(monkeypatch, 1, lambda: killers.append(subprocess.Popen(kill)))
    run = ended_by(number, data=prepared, engine=whole.engine, out=tmp_path / "r", epochs=100_000)
    assert [killer.wait() for killer in killers] == [0]
    assert run.ended == "interrupted" and run.kept_epoch == len(run.history) < 100_000
    assert checkpoint_files(run.path)


@pytest.mark.parametrize("whole", ["flux"], indirect=True)
def test_a_handler_of_the_callers_is_called_when_the_run_is_kept(whole, prepared, tmp_path, monkeypatch):
    kept = []
    theirs = lambda number, frame: kept.append(photoflux.load_run(tmp_path / "r").ended)  # noqa: E731
    before = signal.signal(signal.SIGTERM, theirs)
    try:
        at_batch(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run = photoflux.train(data=prepared, engine=whole.engine, out=tmp_path / "r", **FIT)
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)
    assert kept == ["interrupted"] == [run.ended]


@pytest.mark.parametrize("whole", ["flux"], indirect=True)
def test_a_second_signal_ends_at_once(whole, prepared, tmp_path, monkeypatch):
    """In a notebook, say: the process goes on, and nothing is kept but checkpoints."""

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.6)
        os.kill(os.getpid(), signal.SIGTERM)

    at_batch(monkeypatch, 3, twice)
    with pytest.raises(Ended):
        photoflux.train(data=prepared, engine=whole.engine, out=tmp_path / "r", **FIT)
    assert not (tmp_path / "r" / "run.json").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("whole", ["flux"], indirect=True)
def test_an_error_in_a_callback_restores_the_handlers(whole, prepared, tmp_path, monkeypatch):
    at_batch(monkeypatch, 3, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        photoflux.train(data=prepared, engine=whole.engine, out=tmp_path / "r", **FIT)


# Of 12 batches in all.
@pytest.mark.fault("Ctrl-C or SIGTERM in `photoflux compare`", costs="nothing: the same command goes on within the fit")
def test_a_comparison_ends_within_a_fit_and_goes_on(prepared, keras, tmp_path, monkeypatch):
    options = {"variants": "dense_l2,dense_dropout", "seeds": 1, "epochs": 2, "engine": "keras", "progress": False}
    with monkeypatch.context() as patch:
        done = []

        def batch(self, progress):
            done.append(progress)
            if len(done) == 8:
                os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(fits.FitDisplay, "batch", batch)
        with pytest.raises(Ended):
            photoflux.compare(prepared, out=tmp_path / "c", **options)
    ended = [path for path in (tmp_path / "c" / "runs").iterdir() if checkpoint_files(path)]
    assert len(ended) == 1 and photoflux.load_run(ended[0]).ended == "interrupted"
    found = photoflux.compare(prepared, out=tmp_path / "c", **options)
    assert len(found.results) == 2 and photoflux.load_run(ended[0]).ended == "epochs"


def command(engine, prepared, out, *more):
    words = [sys.executable, "-m", "photoflux", "train", "dense_dropout", str(prepared.path), "--engine", engine]
    return [*words, "--out", str(out), "--batch-size", "8", *more]


def started(words, out, **environment):
    """Start a command, and wait until its fit has begun."""
    environment = {**os.environ, **environment}
    environment.pop("PYTHON_JULIACALL_THREADS", None)  # of this process
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    until = time.monotonic() + 300
    while not (out / "checkpoints" / "fit.json").is_file():
        assert time.monotonic() < until and process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


# Julia has the threads that its user wants.
THREE = {"JULIA_NUM_THREADS": "3"}


# The fit has begun, and Julia may still read or compile.
def test_a_command_that_is_ended_at_its_beginning(whole, prepared, tmp_path):
    out = tmp_path / "r"
    with started(command(whole.engine, prepared, out, "--epochs", "100000"), out, **THREE) as process:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=240)
    assert process.returncode == 143, said
    assert "Ended by SIGTERM: the run so far is kept. It can be resumed." in said
    assert said.splitlines()[-1] == "Ended by SIGTERM." and "Traceback" not in said
    run = photoflux.load_run(out)
    assert run.ended == "interrupted" and checkpoint_files(out)
    assert run.versions.get("threads", "3") == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.fault("a second Ctrl-C in a fit", costs="what was fitted since the last checkpoint")
def test_a_second_ctrl_c_ends_a_command_and_the_next_one_tidies_up(prepared, keras, tmp_path):
    out = tmp_path / "r"
    with started(command("keras", prepared, out, "--epochs", "1000000"), out) as process:
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        process.communicate()
    assert process.returncode in (-signal.SIGINT, 130)
    if process.returncode == -signal.SIGINT:
        assert list(tmp_path.glob(".*.tmp")) and not (out / "run.json").exists()
    photoflux.prepare((np.asarray(prepared.images).transpose(0, 2, 3, 1), prepared.labels), tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} <= {"r", "other"}
