"""After the last epoch nothing destroys the weights: what fails is a note, and is made again."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import photoflux
from photoflux import RunError, api
from photoflux.data.shape import Shape
from photoflux.data.writer import FilesWriter
from photoflux.engines.base import Fit
from photoflux.model.history import EpochRow
from photoflux.model.weights import read_weights
from photoflux.reporting import finishing, plots
from photoflux.runs import training
from photoflux.system import atomic
from small import prepare, write_random


class Fake:
    """An engine that trains nothing and has no opinion."""

    name = "keras"

    def versions(self):
        return {"fake": "1"}

    def fit(self, variant, prepared, settings, weights, **options):
        write_random(weights, variant, prepared.shape, len(prepared.classes))
        return Fit([EpochRow(1, 0.5, 1.0, 0.1, 1.1, 0.5, 1.5, 0.1, 1.6, 0.25)], 1, "epochs")

    def load(self, variant, weights, shape, classes):
        outputs = 1 if classes == 2 else classes
        return SimpleNamespace(logits=lambda images, *, batch_size: np.ones((len(images), outputs), np.float32))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset with all three parts."""
    prepared = prepare(tmp_path_factory.mktemp("data") / "d", 2)
    split = np.load(prepared.path / "split.npy")
    split[:3] = split[20:23] = 2
    np.save(prepared.path / "split.npy", split)
    return prepared.path


@pytest.fixture
def fake(monkeypatch):
    engine = Fake()
    monkeypatch.setattr(api, "get_engine", lambda *_: engine)
    return engine


def train(data, out, **options):
    return photoflux.train("dense_l2", data, epochs=1, out=out, **options)


def check_whole(folder):
    """The weights, history and description are there and readable."""
    run = photoflux.load_run(folder)
    assert run.kept_epoch == 1
    assert "dense1.kernel" in read_weights(run.weights)[0]
    return run


EVERYTHING = {
    "run.json",
    "history.csv",
    "weights.safetensors",
    "seen.safetensors",
    "logits.safetensors",
    "reference.safetensors",
    "curves.png",
    "confusion.png",
    "report.html",
}


def content(folder):
    return {path.name for path in folder.iterdir()}


def failing(error):
    def fail(*args, **options):
        raise error

    return fail


UNSCORED = {"logits.safetensors", "reference.safetensors"}
FAULTS = {
    "curves": ("photoflux.reporting.plots.plot_curves", "curves.png", {"curves.png"}),
    "confusion": ("photoflux.reporting.plots.plot_confusion", "confusion.png", {"confusion.png"}),
    "report": ("photoflux.reporting.finishing.report", "report.html", {"report.html"}),
    "logits": ("photoflux.reporting.finishing.logits_of", "Scores", {*UNSCORED, "confusion.png"}),
    "score": ("photoflux.reporting.finishing.metrics_of", "Scores", {*UNSCORED, "confusion.png"}),
    "write": ("photoflux.reporting.finishing.write_arrays", "Scores", UNSCORED),
    "reference": ("photoflux.reporting.finishing.reference_of", "reference.safetensors", {"reference.safetensors"}),
}


@pytest.mark.fault(
    "a failure after the fit, while it is scored or drawn",
    costs="what could not be made; a note says so, and `photoflux report` makes it",
)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "error",
    [RuntimeError("latex could not be found\nin PATH"), OSError(errno.ENOSPC, "No space left"), MemoryError()],
    ids=["any", "disk", "memory"],
)
def test_what_fails_after_the_last_epoch_is_a_note_and_is_made_again(
    fake, data, tmp_path, monkeypatch, caplog, fault, error
):
    place, what, missing = FAULTS[fault]
    monkeypatch.setattr(place, failing(error))
    run = train(data, tmp_path / "r")
    assert content(tmp_path / "r") == EVERYTHING - missing
    assert check_whole(tmp_path / "r").notes == run.notes
    (note,) = run.notes
    assert note.startswith(f"{what} could not be made: ") and "\n" not in note
    assert f"Note: {note}" in caplog.text
    assert note in str(run)

    monkeypatch.undo()
    monkeypatch.setattr(api, "get_engine", lambda *_: fake)
    photoflux.report(tmp_path / "r")
    assert content(tmp_path / "r") == EVERYTHING
    again = check_whole(tmp_path / "r")
    assert again.notes == ([note] if fault == "report" else [])
    assert set(again.metrics.by_part()) == {"train", "validation", "test"}


@pytest.mark.parametrize("place", [fault[0] for fault in FAULTS.values()] + ["photoflux.reporting.finishing.amend"])
def test_ctrl_c_after_the_last_epoch(fake, data, tmp_path, monkeypatch, place):
    calls = []

    def once(*args, **options):
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(place, once)
    run = train(data, tmp_path / "r")
    check_whole(tmp_path / "r")
    assert finishing.was_interrupted(run) == ("amend" not in place)
    assert len(calls) == (2 if "amend" in place else 1)
    monkeypatch.undo()
    monkeypatch.setattr(api, "get_engine", lambda *_: fake)
    photoflux.report(tmp_path / "r")
    assert content(tmp_path / "r") == EVERYTHING
    assert check_whole(tmp_path / "r").notes == []


@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt()])
def test_versions_that_cannot_be_had(fake, data, tmp_path, monkeypatch, error):
    monkeypatch.setattr(fake, "versions", failing(error), raising=False)
    run = train(data, tmp_path / "r")
    assert check_whole(tmp_path / "r").versions == {}
    assert run.notes


@pytest.mark.fault("Ctrl-C or SIGTERM while the run is saved", costs="nothing: it waits until the run is in its place")
@pytest.mark.parametrize("moment", ["description", "place"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_run_is_saved_waits(fake, data, tmp_path, monkeypatch, moment, number):
    module, name = (training, "write_description") if moment == "description" else (atomic, "install")
    real = getattr(module, name)

    def interrupted(*args):
        # As the system calls it. In a process that has Julia, Julia takes a real Ctrl-C.
        signal.getsignal(number)(number, sys._getframe())
        return real(*args)

    def terminated(number, frame):
        raise SystemExit(143)

    # Where Julia runs, as other tests leave it, signals are Julia's.
    monkeypatch.delitem(sys.modules, "juliacall", raising=False)
    before = signal.signal(signal.SIGTERM, terminated)
    monkeypatch.setattr(module, name, interrupted)
    try:
        if number == signal.SIGTERM:
            with pytest.raises(SystemExit):
                train(data, tmp_path / "r")
        else:
            train(data, tmp_path / "r")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert finishing.was_interrupted(check_whole(tmp_path / "r"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.fault(
    "the run cannot be put in its place",
    costs="scores and history; the weights are moved to the cache, and the error says where",
)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_weights_that_cannot_be_put_in_their_place_are_kept(fake, data, tmp_path, monkeypatch, caplog, error):
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(training, "write_description", failing(error))
    with pytest.raises(RunError if isinstance(error, OSError) else type(error)) as caught:
        train(data, tmp_path / "r")
    said = str(caught.value) + caplog.text
    assert "The weights are kept in" in said
    (kept,) = (tmp_path / "cache" / "rescued").glob("r-*/weights.safetensors")
    assert str(kept) in said
    assert "dense1.kernel" in read_weights(kept)[0]
    assert content(tmp_path) == {"cache"}


def test_the_users_matplotlibrc_does_not_matter(data, tmp_path):
    """TeX that is not there, a font that is not there, another format, a size that is none."""
    (tmp_path / "matplotlibrc").write_text(
        "text.usetex: True\nfont.family: No Such Font\nsavefig.format: svg\nsavefig.bbox: tight\nbackend: Cairo\n"
        "figure.autolayout: True\naxes.formatter.use_mathtext: True\nfigure.dpi: 1\n"
    )
    code = (
        "import sys\nfrom pathlib import Path\nfrom photoflux.reporting import plots\n"
        "plots.plot_confusion([[3, 1], [0, 4]], ['50 % & more_', '$x'], 'a_b $ % \\\\', Path(sys.argv[1]))\n"
    )
    environment = {**os.environ, "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "PATH": str(tmp_path)}
    environment.pop("MPLBACKEND", None)
    pictures = []
    for name in ("theirs", "none"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{name}.png")], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        pictures.append((tmp_path / f"{name}.png").read_bytes())
        environment["MATPLOTLIBRC"] = os.devnull
    assert pictures[0] == pictures[1]


def test_names_that_are_not_utf_8(fake, tmp_path):
    odd = os.fsdecode(b"caf\xe9\t")
    images = np.random.default_rng(0).integers(0, 255, (12, 3, 8, 8), np.uint8)
    with FilesWriter(tmp_path / odd, Shape(3, 8, 8)) as writer:
        writer.append(images)
        from photoflux.data.writer import ImageRecord

        prepared = writer.finish(
            name=odd,
            source="tests",
            classes=[odd, "b"],
            labels=np.arange(12) % 2,
            split=np.array([0, 0, 0, 0, 1, 1, 2, 2, 0, 0, 0, 0]),
            files=[ImageRecord(f"{odd}/{i}.png", (odd, "b")[i % 2], "0" * 64, i, 8, 8) for i in range(12)],
            seed=1,
        )
    out = tmp_path / os.fsdecode(b"run\xff")
    run = train(prepared, out)
    assert run.notes == []
    assert content(out) == EVERYTHING
    read = check_whole(out)
    assert read.classes == [odd, "b"]
    assert set(read.metrics.test.folders) == {odd, "b"}
    assert odd in (out / "report.html").read_text(encoding="utf-8") or "caf\\" in (out / "report.html").read_text()
    str(read).encode()
    json.dumps(json.loads((out / "run.json").read_bytes())).encode()
    assert photoflux.load_run(out).data.path == str(prepared.path)


def test_a_figure_is_whole_or_not_there(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    (tmp_path / "c.png").write_bytes(b"earlier")

    def half(self, path, **options):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="No space"):
        plots.plot_confusion([[1, 0], [0, 1]], ["a", "b"], "t", tmp_path / "c.png")
    assert content(tmp_path) == {"c.png"}
    assert (tmp_path / "c.png").read_bytes() == b"earlier"
