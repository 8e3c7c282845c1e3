"""Training, evaluating and predicting from Python, with both engines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photoflux
from photoflux import DataError, DivergedError, EngineError, RunError, SettingError
from photoflux.data.sources.demo import write_demo_folder
from photoflux.engines.flux.problems import problem

pytestmark = pytest.mark.usefixtures("one_worker")


@pytest.fixture(scope="module")
def arrays():
    """Bright on the left or bright on the right: learnable in a few steps, and unlike when mirrored or turned."""
    rng = np.random.default_rng(1)
    y = np.arange(60) % 2
    x = rng.integers(0, 100, (60, 12, 10, 3), np.uint8)
    x[y == 0, :, :5] += 120
    x[y == 1, :, 5:] += 120
    return x, y


@pytest.fixture(params=["flux", "keras"])
def engine(request):
    request.getfixturevalue(request.param)
    return request.param


@pytest.fixture
def trained(engine, arrays, tmp_path):
    return photoflux.train(
        "baseline", arrays, engine=engine, epochs=6, batch_size=8, out=tmp_path / "run", progress=False
    )


def test_a_run_is_trained_evaluated_and_applied(trained, engine, arrays):
    x, y = arrays
    assert trained.engine == engine
    assert len(trained.history) == 6
    assert trained.history[-1].train_total < trained.history[0].train_total
    assert trained.metrics.test.accuracy >= 0.9
    files = {"run.json", "history.csv", "weights.safetensors", "seen.safetensors", "logits.safetensors"}
    files |= {"reference.safetensors"}
    files |= {"report.html", "curves.png", "confusion.png"}
    assert {p.name for p in trained.path.iterdir()} == files
    for name in ("curves.png", "confusion.png"):
        with Image.open(trained.path / name) as picture:
            assert min(picture.size) > 300
    read = photoflux.load_run(trained.path)
    assert read.history == trained.history
    again = photoflux.evaluate(read, progress=False)
    assert again.accuracy == trained.metrics.test.accuracy
    assert again.loss == pytest.approx(trained.metrics.test.loss, rel=1e-6, abs=1e-9)
    predictions = photoflux.predict(read, x, progress=False)
    assert np.mean([int(p.label) == label for p, label in zip(predictions, y, strict=True)]) >= 0.9
    assert all(sum(p.probabilities.values()) == pytest.approx(1, rel=1e-6) for p in predictions)


def test_evaluation_is_the_training_logs(trained):
    last = trained.history[-1]
    validation = trained.metrics.validation
    # The same sums in batches of another size, in Float32: a logit of size 10 or so is off by some 10·eps.
    assert validation.total == pytest.approx(last.validation_total, rel=1e-5, abs=1e-6)
    assert validation.accuracy == last.validation_accuracy


def test_what_one_engine_trained_the_other_predicts(trained, arrays, flux, keras):
    ours = photoflux.predict(trained.path, arrays[0], engine="flux", progress=False)
    theirs = photoflux.predict(trained.path, arrays[0], engine="keras", progress=False)
    for a, b in zip(ours, theirs, strict=True):
        assert a.probabilities["1"] == pytest.approx(b.probabilities["1"], abs=1e-5)


def test_the_same_seed_gives_the_same_run(engine, arrays, tmp_path):
    runs = [
        photoflux.train("dropout", arrays, engine=engine, epochs=1, seed=seed, out=tmp_path / str(i), progress=False)
        for i, seed in enumerate((1, 1, 2))
    ]
    first, same, other = (run.weights.read_bytes()[-4000:] for run in runs)
    assert first == same != other


@pytest.mark.parametrize("balance", ["weights", "augment"])
def test_balance(engine, balance, arrays, tmp_path):
    x, y = arrays
    keep = (y == 0) | (np.arange(60) < 24)
    out = tmp_path / "r"
    run = photoflux.train(
        "dense_l2", (x[keep], y[keep]), engine=engine, epochs=2, balance=balance, out=out, progress=False
    )
    assert run.settings.balance == balance


def test_a_loss_that_is_not_finite_keeps_the_last_good_weights(engine, arrays, tmp_path):
    with pytest.raises(DivergedError, match=r"in epoch \d+, batch \d+.*learning_rate"):
        photoflux.train(
            "dense_l2", arrays, engine=engine, epochs=3, learning_rate=1e30, out=tmp_path / "r", progress=False
        )
    run = photoflux.load_run(tmp_path / "r")
    assert run.ended == "diverged"
    assert all(
        np.isfinite(list(p.probabilities.values())).all() for p in photoflux.predict(run, arrays[0], progress=False)
    )


def test_folders_of_images(engine, tmp_path):
    source = tmp_path / "scans"
    write_demo_folder(source, images_per_class=12)
    (source / "Photo" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    run = photoflux.train("l2", source, engine=engine, epochs=1, image_size=16, out=tmp_path / "run", progress=False)
    assert run.classes == ["not Photo", "Photo"]
    assert set(run.metrics.test.folders) == {"Photo", "Painting", "Schematics", "Sketch", "Text"}
    predictions = photoflux.predict(run, source / "Photo", progress=False)
    assert len(predictions) == 13
    assert [Path(p.path).name for p in predictions if p.rejected] == ["broken.jpg"]
    one = next(p for p in predictions if not p.rejected)
    assert one.label in run.classes
    again = photoflux.predict(run, [one.path], progress=False)
    assert [p.path for p in again] == [one.path]
    # A batch of one is summed in another order.
    assert again[0].probabilities["Photo"] == pytest.approx(one.probabilities["Photo"], abs=1e-6)


def test_early_stopping_keeps_the_best_epoch(engine, arrays, tmp_path):
    run = photoflux.train(
        "early_stopping", arrays, engine=engine, epochs=25, learning_rate=0.03, batch_size=8, out=tmp_path / "r",
        progress=False,
    )  # fmt: skip
    totals = [row.validation_total for row in run.history]
    assert run.kept_epoch == int(np.argmin(totals)) + 1
    assert run.metrics.validation.total == pytest.approx(min(totals), rel=1e-5, abs=1e-6)
    if run.ended == "early_stopping":
        assert len(run.history) == run.kept_epoch + 5


BAD_SETTINGS = [
    ({"variant": "l3"}, "Did you mean l2 or l1"),
    ({"engine": "fluxx"}, "`engine` must be one of auto, flux, keras; received: 'fluxx'. Did you mean flux"),
    ({"balance": "augmented"}, "`balance` must be one of.*Did you mean augment"),
    ({"epochs": 0}, "`epochs` must be a whole number, 1 or more; received: 0"),
    ({"epochs": 2.5}, "`epochs` must be a whole number"),
    ({"batch_size": 0}, "`batch_size` must be a whole number, 1 or more; received: 0"),
    ({"batch_size": True}, "`batch_size`"),
    ({"learning_rate": 0}, "`learning_rate` must be a finite number above 0; received: 0"),
    ({"learning_rate": float("nan")}, "`learning_rate`"),
    ({"seed": -1}, "`seed` must be an integer, 0 or more"),
    ({"l2": -1.0}, "`l2` must be a finite number, 0 or more"),
    ({"loss": "mse"}, "`loss` must be one of cross_entropy, squared_error"),
    ({"image_size": 4, "data": "demo"}, "image_size"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_SETTINGS)
def test_a_value_that_cannot_be_used_is_one_clear_error(arguments, message, arrays, tmp_path):
    given = {"variant": "l2", "data": arrays, "engine": "keras", "out": tmp_path / "r", "progress": False} | arguments
    with pytest.raises(SettingError, match=message):
        photoflux.train(**given)
    assert not (tmp_path / "r").exists()


def test_out_that_is_no_run_is_refused_before_anything_is_trained(arrays, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="must be a new folder or an earlier run"):
        photoflux.train("l2", arrays, out=tmp_path, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_and_data_that_do_not_fit(keras, arrays, tmp_path):
    run = photoflux.train("dense_l2", arrays, engine="keras", epochs=1, out=tmp_path / "r", progress=False)
    x, _ = arrays
    with pytest.raises(DataError, match="does not fit the run"):
        photoflux.evaluate(run, (x, np.arange(60) % 3), progress=False)
    with pytest.raises(DataError, match=r"must be uint8, \(N, 12, 10, 3\); received: float64"):
        photoflux.predict(run, x / 255.0, progress=False)
    with pytest.raises(DataError, match="There is no file or folder"):
        photoflux.predict(run, tmp_path / "none.jpg", progress=False)
    with pytest.raises(SettingError, match="`part` must be one of train, validation, test"):
        photoflux.evaluate(run, part="holdout", progress=False)
    values = json.loads((run.path / "run.json").read_text())
    values["variant"] = photoflux.variant("dense_dropout").as_dict()
    (run.path / "run.json").write_text(json.dumps(values))
    with pytest.raises((RunError, EngineError), match=r"another model|do not fit"):
        photoflux.predict(run.path, x, progress=False)


@pytest.mark.fault(
    "a full disk when the run is written", costs="nothing: the earlier run stays, and `--resume` writes the new one"
)
def test_a_full_disk_leaves_the_earlier_run(keras, arrays, tmp_path, monkeypatch):
    out = tmp_path / "r"
    photoflux.train("dense_l2", arrays, engine="keras", epochs=1, out=out, progress=False)
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("photoflux.runs.training.write_description", full)
    with pytest.raises(RunError, match="No space left on device"):
        photoflux.train("dense_l2", arrays, engine="keras", epochs=2, checkpoint_minutes=0, out=out, progress=False)
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["r"]
    # What was fitted is not lost: with room for it, it is a run.
    monkeypatch.undo()
    run = photoflux.train("dense_l2", arrays, engine="keras", epochs=2, out=out, resume=True, progress=False)
    assert len(run.history) == 2 and not (out / "checkpoints").exists()


# What is drawn after a fit is imported before it, so that
# after Ctrl-C the test waits for what it is about: on a busy machine the imports alone took a minute.
LONG_FIT = """
import sys
import matplotlib.figure
import scipy.stats
import sklearn.metrics
import photoflux
from photoflux.system.signals import unblock
unblock()
run = photoflux.train("baseline", sys.argv[3], engine=sys.argv[1], epochs=100_000, out=sys.argv[2])
print(run.ended, len(run.history), run.kept_epoch, flush=True)
"""


def test_ctrl_c_ends_the_fit_and_keeps_the_run(engine, arrays, tmp_path):
    out, log = tmp_path / "r", tmp_path / "log"
    data = photoflux.prepare(arrays, tmp_path / "data", progress=False)
    command = [sys.executable, "-c", LONG_FIT, engine, str(out), str(data.path)]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=os.environ) as process,
    ):

        def wait_for(words: str) -> None:
            deadline = time.monotonic() + 240
            while words not in log.read_text().partition("Training")[2].partition("\n")[2]:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)

        try:
            wait_for("epoch")
            process.send_signal(signal.SIGINT)
            wait_for("Interrupted: the run so far is kept.")
            printed, _ = process.communicate(timeout=240)
        finally:
            # One that is left running is a ResourceWarning in whichever test comes next.
            process.kill()
    assert process.returncode == 0, log.read_text()
    ended, finished, _ = printed.split()
    assert ended == "interrupted"
    assert 1 <= int(finished) < 100_000
    run = photoflux.load_run(out)
    assert run.ended == "interrupted"
    assert "Traceback" not in log.read_text()
    assert photoflux.evaluate(run, progress=False).images > 0


def test_auto_falls_back_and_flux_never_does(keras, arrays, tmp_path, monkeypatch, caplog):
    def no_julia(say):
        raise problem("no_julia", "There is no Julia.")

    monkeypatch.setattr("photoflux.engines.flux.bridge.start", no_julia)
    run = photoflux.train("dense_l2", arrays, epochs=1, out=tmp_path / "r")
    assert run.engine == "keras"
    assert "Flux is not available, so Keras trains instead" in caplog.text
    assert json.loads((run.path / "run.json").read_text())["engine"] == "keras"
    with pytest.raises(EngineError, match=r"julialang\.org/downloads"):
        photoflux.train("dense_l2", arrays, engine="flux", epochs=1, progress=False)
    monkeypatch.setattr("photoflux.engines.keras.engine.why_unavailable", lambda: "Keras is not installed.")
    with pytest.raises(EngineError, match="No engine is available"):
        photoflux.train("dense_l2", arrays, epochs=1, progress=False)
