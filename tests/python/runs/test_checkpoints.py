"""Fits that are killed, interrupted or damaged go on to the bytes of one that was not, with both engines."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import photoflux
from kills import left_by_kills
from photoflux import DivergedError, EngineError, RunError, SettingError
from photoflux.cli import app
from photoflux.runs.checkpoints import checkpoint_files
from photoflux.runs.progress import Display

pytestmark = pytest.mark.usefixtures("undrawn", "one_worker")
# Dropout, augmentation, early stopping; some 30 batches in all.
FIT = {"variant": "dropout_early_stopping", "epochs": 3, "batch_size": 8, "balance": "augment", "progress": False}
KILLED = """
import json, sys, photoflux
photoflux.train(**json.loads(sys.argv[1]))
"""


class Stopped(Exception):
    """Ends a fit between two batches."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    rng = np.random.default_rng(1)
    y = (np.arange(100) % 5 > 2).astype(int)
    x = rng.integers(0, 100, (100, 12, 10, 3), np.uint8)
    x[y == 0, :, :5] += 120
    x[y == 1, :, 5:] += 120
    return photoflux.prepare((x, y), tmp_path_factory.mktemp("data") / "prepared", progress=False)


@pytest.fixture(scope="module", params=["flux", "keras"])
def whole(request, prepared, tmp_path_factory):
    """A fit that nothing ends."""
    request.getfixturevalue(request.param)
    return photoflux.train(data=prepared, engine=request.param, out=tmp_path_factory.mktemp("whole") / "r", **FIT)


def outcome(run):
    """What must be the same: weights, history but for the seconds, scores."""
    history = [line.split(",") for line in (run.path / "history.csv").read_text().splitlines()]
    return run.weights.read_bytes(), [[row[0], *row[2:]] for row in history], run.metrics, run.kept_epoch, run.ended


def end_after(monkeypatch, batches, data, out, engine, error=Stopped, **options):
    """Have a fit end after so many batches, with a checkpoint after each."""
    done = 0

    def batch(self, progress):
        nonlocal done
        done += 1
        if done == batches:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(Display, "batch", batch)
        with pytest.raises((error, EngineError)):
            photoflux.train(data=data, engine=engine, out=out, checkpoint_minutes=0, **FIT | options)


# Written after each batch, which takes long enough for many moments.
SLOW = """
import json, sys, time, photoflux
from photoflux.runs.progress import Display
Display.batch = lambda self, progress: time.sleep(0.02)
photoflux.api.finish_fit = lambda trained, *_: trained.run
photoflux.train(**json.loads(sys.argv[1]), out=sys.argv[2] + "/r")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="stops a process and sees that it has stopped, as Linux says it")
@pytest.mark.fault("SIGKILL, a crash or a power cut in a fit")
@pytest.mark.fault("SIGKILL while a checkpoint is written")
def test_twenty_kills_at_random_moments(flux, prepared, tmp_path, monkeypatch):
    # Scores and figures, which take most of the time here, are made after the fit.
    monkeypatch.setattr("photoflux.api.finish_fit", lambda trained, *_: trained.run)
    monkeypatch.setattr("photoflux.api._finished", lambda folder, *_: photoflux.load_run(folder))
    whole = photoflux.train(data=prepared, engine="flux", out=tmp_path / "whole", **FIT)
    options = FIT | {"data": str(prepared.path), "engine": "flux", "checkpoint_minutes": 0}
    left = left_by_kills(
        SLOW,
        [json.dumps(options)],
        tmp_path / "killed",
        chance=random.Random(8),
        pause=0.15,
        begun=lambda folder: bool(checkpoint_files(folder / "r")),
    )
    newest = {path.name for folder in left for path in checkpoint_files(folder / "r")[:1]}
    assert len(newest) > 5, "at different moments"
    for folder in left:
        run = photoflux.train(data=prepared, engine="flux", out=folder / "r", resume=True, **FIT)
        assert outcome(run) == outcome(whole)
        assert {path.name for path in folder.iterdir()} == {"r"}
        assert {path.name for path in run.path.iterdir()} == {path.name for path in whole.path.iterdir()}


# Where in its work the process is when it is killed is left to chance, a write of a checkpoint included.
@pytest.mark.fault(
    "SIGKILL, a crash or a power cut in a fit",
    costs="what was fitted since the last checkpoint: an epoch, ten minutes, or fifty times the time of a checkpoint, "
    "whichever is more",
)
@pytest.mark.fault(
    "SIGKILL while a checkpoint is written",
    costs="as in a fit: the one before serves, and what was half written is removed",
)
def test_a_process_killed_at_random_moments(whole, prepared, tmp_path):
    out, moments, told = tmp_path / "r", random.Random(7), 0
    options = FIT | {"data": str(prepared.path), "engine": whole.engine, "out": str(out), "checkpoint_minutes": 0}
    for _ in range(2):
        resume = {"resume": bool(checkpoint_files(out))}
        process = subprocess.Popen([sys.executable, "-c", KILLED, json.dumps(options | resume)], start_new_session=True)
        seen = checkpoint_files(out)[:1]
        until = time.monotonic() + 300
        while checkpoint_files(out)[:1] == seen and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.5))
        told += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert told >= 1
    run = photoflux.train(data=prepared, engine=whole.engine, out=out, resume=True, **FIT)
    assert outcome(run) == outcome(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"r"}
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.path.iterdir()}


@pytest.mark.fault(
    "the newest checkpoint is cut off or changed",
    costs="what was fitted since the one before; a note of the run says so",
)
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:-9] + b"12345" + data[-4:]])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole, prepared, tmp_path, monkeypatch, damage):
    out = tmp_path / "r"
    end_after(monkeypatch, 14, prepared, out, whole.engine)
    newest, before = checkpoint_files(out)
    newest.write_bytes(damage(newest.read_bytes()))
    run = photoflux.train(data=prepared, engine=whole.engine, out=out, resume=True, **FIT)
    assert outcome(run) == outcome(whole)
    (note,) = json.loads((out / "run.json").read_text())["notes"]
    assert f"from the checkpoint {before.name}, because {newest.name} is damaged" in note


@pytest.mark.fault("Ctrl-C, SIGTERM or SIGHUP in a fit, its first epoch too")
def test_an_interrupted_run_is_kept_and_can_go_on(whole, prepared, tmp_path, monkeypatch):
    out, batches = tmp_path / "r", 0

    def batch(self, progress):
        nonlocal batches
        batches += 1
        if batches == 17:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Display, "batch", batch)
        part = photoflux.train(data=prepared, engine=whole.engine, out=out, **FIT)
    assert part.ended == "interrupted"
    assert checkpoint_files(out)
    with pytest.raises(RunError, match=r"has an unfinished run, which can go on from epoch .*--resume"):
        photoflux.train(data=prepared, engine=whole.engine, out=out, **FIT)
    run = photoflux.train(data=prepared, engine=whole.engine, out=out, resume=True, **FIT)
    assert outcome(run) == outcome(whole)
    assert not (out / "checkpoints").exists()


@pytest.mark.fault("other settings than the checkpoint's", costs="nothing: an error shows the difference")
def test_other_settings_are_shown(whole, prepared, tmp_path, monkeypatch):
    out = tmp_path / "r"
    end_after(monkeypatch, 14, prepared, out, whole.engine)
    kept = checkpoint_files(out)
    with pytest.raises(EngineError, match=r"setting +checkpoint +given\n  epochs +3 +5\n  seed +42 +1\n"):
        photoflux.train(data=prepared, engine=whole.engine, out=out, resume=True, seed=1, **FIT | {"epochs": 5})
    other = {"flux": "keras", "keras": "flux"}[whole.engine]
    with pytest.raises(RunError, match=f"is one of the engine {whole.engine}, and this one is {other}"):
        photoflux.train(data=prepared, engine=other, out=out, resume=True, **FIT)
    assert checkpoint_files(out) == kept


def test_without_out_the_newest_of_the_variant_goes_on(whole, prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="runs has no unfinished run of dropout_early_stopping"):
        photoflux.train(data=prepared, engine=whole.engine, resume=True, **FIT)
    end_after(monkeypatch, 14, prepared, None, whole.engine)
    (folder,) = (tmp_path / "runs").iterdir()
    with pytest.raises(RunError, match="runs has no unfinished run of l2"):
        photoflux.train(data=prepared, engine=whole.engine, resume=True, **FIT | {"variant": "l2"})
    run = photoflux.train(data=prepared, engine=whole.engine, resume=True, **FIT)
    assert run.path.resolve() == folder.resolve()
    assert outcome(run) == outcome(whole)


def test_the_command_line(whole, prepared, tmp_path, monkeypatch):
    out = tmp_path / "r"
    words = ["train", FIT["variant"], str(prepared.path), "--engine", whole.engine, "--epochs", "3"]
    words += ["--batch-size", "8", "--balance", "augment", "--out", str(out)]

    def said(code, *more):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == code, done.output
        return done.output

    assert f"There is nothing to resume: {out} has no unfinished run" in said(1, "--resume")
    end_after(monkeypatch, 14, prepared, out, whole.engine)
    assert "Resume it (`--resume`, in Python `resume=True`)" in said(1)
    assert f"The run in {out} goes on from epoch " in said(0, "--resume", "--checkpoint-minutes", "5")
    before = outcome(photoflux.load_run(out))
    assert before == outcome(whole)
    assert f"{out} is finished; there is nothing to resume." in said(0, "--resume")
    assert outcome(photoflux.load_run(out)) == before
    assert "`checkpoint_minutes` must be a finite number, 0 or more" in said(2, "--checkpoint-minutes", "-1")


@pytest.mark.fault("SIGKILL before the first checkpoint", costs="the fit so far: `--resume` begins again and says so")
def test_a_fit_that_was_ended_before_its_first_checkpoint_begins_again(whole, prepared, tmp_path):
    out = tmp_path / "r"
    (out / "checkpoints").mkdir(parents=True)
    about = {"variant": FIT["variant"], "dataset": prepared.fingerprint, "engine": whole.engine}
    (out / "checkpoints" / "fit.json").write_text(json.dumps(about))
    run = photoflux.train(data=prepared, engine=whole.engine, out=out, resume=True, **FIT)
    assert outcome(run) == outcome(whole)


@pytest.mark.fault(
    "SIGKILL after the fit, while it is scored or drawn", costs="nothing: `--resume` makes what is missing"
)
def test_what_the_end_of_the_process_left_out_is_made(whole, prepared, tmp_path):
    out = tmp_path / "r"
    photoflux.train(data=prepared, engine=whole.engine, out=out, **FIT)
    for name in ("report.html", "reference.safetensors", "curves.png"):
        (out / name).unlink()
    photoflux.train(data=prepared, engine=whole.engine, out=out, resume=True, **FIT)
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.path.iterdir()}


@pytest.mark.fault("no room for checkpoints", costs="that the fit cannot be resumed; a note says so")
def test_without_room_there_are_no_checkpoints_and_a_note_says_so(whole, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("photoflux.runs.training.free_bytes", lambda folder: 1_000_000)
    seen = []
    monkeypatch.setattr(Display, "batch", lambda self, progress: seen.append(checkpoint_files(tmp_path / "r")))
    run = photoflux.train(data=prepared, engine=whole.engine, out=tmp_path / "r", checkpoint_minutes=0, **FIT)
    assert outcome(run) == outcome(whole)
    assert seen and not any(seen)
    assert "There is no room for checkpoints, which need up to" in run.notes[0] and "1.0 MB are free" in run.notes[0]


# Weights of 1.1 MB, of which a checkpoint has three to five; and the run, which fits.
@pytest.mark.fault("a checkpoint cannot be written")
def test_a_disk_that_fills_costs_the_checkpoints(whole, prepared, small_disk, monkeypatch):
    disk = small_disk("3m")
    monkeypatch.setattr("photoflux.runs.training.free_bytes", lambda folder: 10**9)
    run = photoflux.train(data=prepared, engine=whole.engine, out=disk.path / "r", checkpoint_minutes=0, **FIT)
    assert outcome(run) == outcome(whole)
    (note,) = run.notes
    assert "A checkpoint could not be written, and the fit went on without" in note and "space" in note
    assert {path.name for path in disk.path.iterdir()} == {"r"}
    assert {path.name for path in run.path.iterdir()} == {path.name for path in whole.path.iterdir()}


@pytest.mark.fault(
    "a disk that vanishes in a fit",
    costs="what was fitted since: when it is back, `--resume` goes on from its checkpoints",
)
def test_a_disk_that_vanishes_costs_what_was_fitted_since(whole, prepared, small_disk, monkeypatch):
    disk, seen = small_disk("20m"), []

    def batch(self, progress):
        seen.append(progress)
        if len(seen) == 14:
            disk.vanish()

    with monkeypatch.context() as patch:
        patch.setattr(Display, "batch", batch)
        with pytest.raises((RunError, EngineError), match=r"(?s)No such file or directory.*Free space"):
            photoflux.train(data=prepared, engine=whole.engine, out=disk.path / "r", checkpoint_minutes=0, **FIT)
    assert not disk.path.exists()
    disk.mend()
    run = photoflux.train(data=prepared, engine=whole.engine, out=disk.path / "r", resume=True, **FIT)
    assert outcome(run) == outcome(whole)


def test_a_failure_leaves_no_folder_without_checkpoints(whole, prepared, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Display, "batch", lambda self, progress: 1 / 0)
        with pytest.raises((ZeroDivisionError, EngineError)):
            photoflux.train(data=prepared, engine=whole.engine, out=tmp_path / "r", **FIT | {"epochs": 1})
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"r"} if checkpoint_files(tmp_path / "r") else set())


# So large a rate that the loss overflows, and in three halvings does not cease to.
@pytest.mark.fault("a loss that is not finite", costs="the epoch; with `halve` the fit goes on")
def test_a_loss_that_is_not_finite_names_files_and_weights(whole, prepared, tmp_path):
    options = {"data": prepared, "engine": whole.engine, "progress": False, "variant": "dense_l2", "epochs": 3}
    with pytest.raises(DivergedError) as caught:
        photoflux.train(**options, learning_rate=1e30, out=tmp_path / "r")
    text, names = str(caught.value), {row["path"] for row in prepared.files()}
    batch, largest = text.partition("In batch ")[2].split(". The largest weights: ")
    assert sum(name in batch for name in names) >= 2
    assert "dense1." in largest and "output." in largest
    with pytest.raises(DivergedError):
        photoflux.train(**options, learning_rate=1e30, on_nonfinite="halve", out=tmp_path / "h")
    run = photoflux.load_run(tmp_path / "h")
    assert run.settings.on_nonfinite == "halve" and run.ended == "diverged"
    assert [note.partition("(")[2][:6] for note in run.notes[:3]] == ["1 of 3", "2 of 3", "3 of 3"]
    assert "the fit went on from the start with the learning rate" in (tmp_path / "h" / "report.html").read_text()
    with pytest.raises(SettingError, match="`on_nonfinite` must be one of stop, halve"):
        photoflux.train(**options, on_nonfinite="half", out=tmp_path / "n")
