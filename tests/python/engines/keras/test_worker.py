"""The Keras engine's process: Ctrl-C, callbacks, its end and its start."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from photoflux.engines.keras import worker
from photoflux.engines.keras.engine import KerasEngine, why_unavailable
from photoflux.errors import EngineError
from photoflux.model.variants import variants
from small import logits as logits_by
from small import settings

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))


def test_ctrl_c_ends_the_fit_and_returns_the_run_so_far(keras, binary, tmp_path):
    def interrupt(row):
        if row.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    fit = keras.fit(variants()["dense_l2"], binary, settings(epochs=10_000), tmp_path / "w", on_epoch=interrupt)
    assert (fit.ended, fit.kept_epoch, len(fit.history)) == ("interrupted", 2, 2)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_the_worker_computes(keras, binary, tmp_path):
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    fit = keras.fit(variants()["dense_l2"], binary, settings(epochs=1_000_000), tmp_path / "w")
    timer.join()
    assert fit.ended == "interrupted"
    assert fit.kept_epoch == len(fit.history) < 1_000_000


def test_an_error_in_a_callback_stops_the_fit_and_comes_through(keras, binary, tmp_path):
    calls = []

    def broken(at):
        calls.append(at)
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        keras.fit(variants()["dense_l2"], binary, settings(), tmp_path / "w", on_batch=broken)
    assert len(calls) == 1
    assert keras.fit(variants()["dense_l2"], binary, settings(), tmp_path / "w").ended == "epochs"


def test_a_request_from_a_callback_is_refused(keras, binary, tmp_path):
    with pytest.raises(EngineError, match="busy"):
        keras.fit(
            variants()["dense_l2"], binary, settings(), tmp_path / "w", on_epoch=lambda row: keras.versions() and None
        )


def test_a_killed_worker_is_a_clear_error_and_the_engine_goes_on(keras, binary, tmp_path):
    keras.versions()

    def kill(at):
        os.kill(keras._worker.pid, signal.SIGKILL)
        return False

    with pytest.raises(EngineError, match="Keras worker process was ended by signal SIGKILL"):
        keras.fit(variants()["dense_l2"], binary, settings(), tmp_path / "w", on_batch=kill)
    assert not list(tmp_path.iterdir())
    assert keras.fit(variants()["dense_l2"], binary, settings(epochs=1), tmp_path / "w").kept_epoch == 1


def test_versions_come_from_the_worker_and_nothing_is_imported_here(keras):
    assert set(keras.versions()) == {"keras", "tensorflow", "numpy", "python"}
    assert not {"keras", "tensorflow"} & set(sys.modules)


ORPHAN = """
import os, sys, threading
from photoflux.data.prepared import open_prepared
from photoflux.model.settings import Settings
from photoflux.engines.keras import worker
from photoflux.engines.keras.engine import KerasEngine
from photoflux.model.variants import variants
engine = KerasEngine()
def tell(row):
    print(engine._worker.pid, flush=True)
    threading.Timer(0.2, os._exit, (0,)).start()
engine.fit(variants()["dense_l2"], open_prepared(sys.argv[1]), Settings(10**6, 8, 0.001), sys.argv[2], on_epoch=tell)
"""


def test_the_worker_ends_with_its_parent_in_the_middle_of_a_fit(binary, tmp_path):
    import photoflux

    environment = {**os.environ, "PYTHONPATH": str(Path(photoflux.__file__).parents[1])}
    command = [sys.executable, "-c", ORPHAN, str(binary.path), str(tmp_path / "w")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    pid = int(done.stdout.split()[0])
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _alive(pid):
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_what_keras_writes_into_the_temporary_folder_goes_with_the_worker(binary, tmp_path, monkeypatch):
    (tmp_path / "system").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "system"))
    with KerasEngine() as engine:
        engine.fit(variants()["dense_l2"], binary, settings(epochs=1), tmp_path / "w")
        logits_by(engine, variants()["dense_l2"], tmp_path / "w", binary.images[:4], 2)
        (folder,) = (tmp_path / "system").iterdir()
        assert folder.name.endswith("-worker")
        # Keras' autograph did write there.
        assert list(folder.iterdir())
    assert not list((tmp_path / "system").iterdir())
    with KerasEngine() as engine:
        engine.versions()
        os.kill(engine._worker.pid, signal.SIGKILL)
    assert not list((tmp_path / "system").iterdir())


def test_a_worker_that_ends_with_its_parent_takes_its_temporary_folder_along(binary, tmp_path):
    (tmp_path / "system").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "system")}
    command = [sys.executable, "-c", ORPHAN, str(binary.path), str(tmp_path / "w")]
    subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and list((tmp_path / "system").iterdir()):
        time.sleep(0.05)
    assert not list((tmp_path / "system").iterdir())


@pytest.mark.parametrize("failing", ["stdin", "stdout", "wait"])
def test_every_step_of_the_end_is_taken(tmp_path, failing):
    """A Ctrl-C or an error in one of them must not leave a process or a file to the garbage collection."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        log = (tmp_path / "log").open("wb")
        (tmp_path / "scratch").mkdir()

        class Failing:
            stdin, stdout, kill = process.stdin, process.stdout, process.kill
            calls = 0

            def wait(self):
                self.calls += 1
                if failing == "wait" and self.calls == 1:
                    raise KeyboardInterrupt
                return process.wait()

        class Closed:
            def close(self):
                raise KeyboardInterrupt

        wrapped = Failing()
        if failing != "wait":
            setattr(wrapped, failing, Closed())
        with pytest.raises(KeyboardInterrupt):
            worker._finish(wrapped, log, tmp_path / "scratch")
        assert process.returncode is not None
        assert log.closed
        assert not (tmp_path / "scratch").exists()


def test_a_worker_that_cannot_start_says_why(monkeypatch, tmp_path):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise ImportError('this TensorFlow is broken')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(EngineError, match="exit code 1") as caught:
        KerasEngine().versions()
    assert "this TensorFlow is broken" in str(caught.value)


def test_why_unavailable_names_what_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorflow" else object())
    assert "tensorflow is not installed" in why_unavailable()
    with pytest.raises(EngineError, match="pip install"):
        KerasEngine().versions()
