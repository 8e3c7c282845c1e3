"""How a service starts, and how it ends."""

from __future__ import annotations

import importlib.util
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

import photoflux
from photoflux import ServingError, SettingError
from photoflux.cli import app
from photoflux.runs.run import Run
from services import image


def held(server) -> ThreadPoolExecutor:
    """A client whose request is under way."""
    server.hold.touch()
    clients = ThreadPoolExecutor(1)
    server.waiting = clients.submit(server.predict, image())
    server.until("photoflux_decode_seconds_count", 1)
    return clients


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_when_what_is_under_way_is_answered(start, number: int):
    server = start()
    folder = server.folder()
    with held(server):
        server.process.send_signal(number)
        with pytest.raises(httpx.TransportError):
            while True:  # until nobody listens
                assert httpx.get(f"{server.url}/health").json()["status"] in ("ok", "ending")
        server.hold.unlink()
        assert server.waiting.result().status_code == 200
    assert server.code() == 0
    assert server.errors.read_text() == ""
    assert not folder.exists()
    assert server.helpers() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(start, number: int, code: int):
    server = start()
    folder = server.folder()
    with held(server):
        server.process.send_signal(number)
        with pytest.raises(httpx.TransportError):
            while True:
                httpx.get(f"{server.url}/health")
        server.process.send_signal(number)
        assert server.code() == code
        assert server.waiting.result().json() == {"error": "The service has ended."}
    assert server.errors.read_text() == ("Interrupted.\n" if code == 130 else "Ended by SIGTERM.\n")
    assert not folder.exists()


def test_an_engine_that_fails_ends_it_with_its_reason(start):
    server = start()
    server.fail.touch()
    answer = server.predict(image())
    assert (answer.status_code, answer.json()) == (500, {"error": "The engine has failed."})
    assert server.code() == 1
    assert server.errors.read_text() == (
        "Error: The engine has failed, and the service has ended: no more memory\n"
    )  # fmt: skip


def serve(*options: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["serve", *map(str, options)])
    return done.exit_code, done.stderr


def test_a_port_that_is_in_use_is_said(served: Run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, words = serve(served.path, "--port", port)
    assert code == 1
    assert words.startswith(f"Error: Cannot listen at '127.0.0.1', port {port}: Address already in use. Give")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--host", "192.0.2.1"], 1, "Cannot listen at '192.0.2.1', port 8000: Cannot assign requested address."),
        (["--host", "no such host"], 1, "Cannot listen at 'no such host'"),
        (["--port", "70000"], 2, "`port` must be a number from 0 to 65535; received: 70000."),
        (["--workers", "0"], 2, "`workers` must be a whole number, 1 or more; received: 0."),
        (["--queue", "10"], 2, "`queue` must be 64 or more, as many as `max_images` lets one request hold"),
        (["--timeout", "0"], 2, "`timeout` must be seconds, 0.1 or more; received: 0.0."),
        (["--max-bytes", "10"], 2, "`max_bytes` must be a whole number, 1024 or more; received: 10."),
    ],
)
def test_an_option_that_cannot_be_used_is_said(served: Run, options: list[str], code: int, words: str):
    found, said = serve(served.path, *options)
    assert (found, said.startswith(f"Error: {words}")) == (code, True), said


def test_a_run_that_cannot_be_read_is_said(tmp_path: Path):
    code, words = serve(tmp_path, "--port", 0)
    assert (code, words) == (1, f"Error: {tmp_path} is not a run: it has no run.json. `photoflux train` makes one.\n")


def test_missing_libraries_are_named(served: Run, monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    missing = ("uvicorn", "python_multipart")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else found(name))
    with pytest.raises(ServingError) as caught:
        photoflux.api.serve(served)
    assert str(caught.value) == (
        "A service needs uvicorn, python-multipart, not installed here. Install with: pip install 'photoflux[serve]'."
    )


def test_a_thread_is_refused(served: Run):
    caught = []

    def call() -> None:
        with pytest.raises(SettingError, match="main thread"):
            photoflux.api.serve(served, port=0)
        caught.append(True)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert caught == [True]
