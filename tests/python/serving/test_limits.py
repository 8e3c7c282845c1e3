"""What waits is bounded, late or dropped work is given up, and a decoder that dies costs one file."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from services import Server, image

# Runs in every decoder when its Python starts: what a file begins with is its end.
DEADLY = """
import os, sys, time
busy = []
def die(event, args):
    if event != "open" or busy or not isinstance(args[0], str) or not os.path.basename(args[0]).isdecimal():
        return
    if "photoflux-" not in args[0] or not os.path.exists(args[0]):  # the server makes it
        return
    busy.append(1)
    file = os.open(args[0], os.O_RDONLY)
    words = os.read(file, 200).split()
    os.close(file)
    if words[:1] == [b"hang"]:
        for folder in words[1:]:
            os.mkdir(os.path.join(os.fsdecode(folder), str(os.getpid())))
        time.sleep(600)
    if words[:1] == [b"kill"]:
        os.kill(os.getpid(), 9)
    if words[:1] == [b"once"] and not os.path.exists(words[1]):
        os.mkdir(words[1])
        os.kill(os.getpid(), 9)
    busy.clear()
sys.addaudithook(die)
"""


@pytest.fixture
def deadly(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DEADLY)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a decoder that hangs puts its process id."""
    (tmp_path / "hanging").mkdir()
    return tmp_path / "hanging"


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as pool:
        yield pool


def sent(server: Server, data: bytes) -> socket.socket:
    """A connection on which these bytes were sent."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(data)
    return connection


def head(length: int) -> bytes:
    return (
        f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def whole(data: bytes) -> bytes:
    body = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n' + data + b"\r\n--b--\r\n"
    return head(len(body)) + body


def received(connection: socket.socket) -> bytes:
    """An answer, which ends with the brace of its object."""
    found = b""
    while not found.endswith(b"}"):
        found += connection.recv(10_000)
    return found


def hanging(folder: Path) -> int:
    """Wait for the process id of a decoder that hangs, and take it out of the folder."""
    for _ in range(3000):
        for entry in folder.iterdir():
            entry.rmdir()
            return int(entry.name)
        time.sleep(0.01)
    raise AssertionError("no decoder hangs")


def answers(futures: list[Future[httpx.Response]]) -> list[int]:
    return [future.result().status_code for future in futures]


def test_a_full_queue_answers_503_and_what_waits_is_predicted_at_once(start, clients: ThreadPoolExecutor):
    server = start("--queue", 6, "--max-images", 6)
    server.hold.touch()
    waiting = [clients.submit(server.predict, image(), image()) for _ in range(3)]
    server.until("photoflux_queue_images", 6)
    server.until("photoflux_decode_seconds_count", 6)
    full = server.predict(image())
    assert full.status_code == 503
    assert full.json() == {"error": "6 images wait already. Try again later."}
    assert full.headers["retry-after"] == "1"
    assert server.client.get("/health").status_code == 200, "it answers while the network works"
    server.hold.unlink()
    assert answers(waiting) == [200] * 3
    numbers = server.numbers()
    assert numbers['photoflux_requests_total{path="/predict",status="503"}'] == 1
    assert numbers["photoflux_batch_images_sum"] == 6
    assert numbers["photoflux_batch_images_count"] <= 2, "those that came before the network, and all the others"
    assert server.predict(image()).status_code == 200
    assert server.end() == 0


def test_a_request_of_more_images_than_are_free_is_refused(start, clients: ThreadPoolExecutor):
    server = start("--queue", 4, "--max-images", 4)
    server.hold.touch()
    waiting = [clients.submit(server.predict, image(), image())]
    server.until("photoflux_queue_images", 2)
    assert server.predict(image(), image(), image()).status_code == 503
    assert server.numbers()["photoflux_queue_images"] == 2
    server.hold.unlink()
    assert answers(waiting) == [200]


def test_bodies_of_more_bytes_than_may_wait_are_refused(start, clients: ThreadPoolExecutor):
    server = start("--max-bytes", 1024)
    server.hold.touch()
    # What is behind the last boundary belongs to the body, and to no part.
    body = whole(image()).partition(b"\r\n\r\n")[2].ljust(1024)
    options = {"content": body, "headers": {"Content-Type": "multipart/form-data; boundary=b"}}
    waiting = [clients.submit(server.client.post, "/predict", **options) for _ in range(16)]
    server.until("photoflux_decode_seconds_count", 16)
    full = server.predict(image())
    assert (full.status_code, full.json()) == (503, {"error": "Too many bytes wait already. Try again later."})
    server.hold.unlink()
    assert answers(waiting) == [200] * 16
    assert server.predict(image()).status_code == 200


def test_a_late_answer_is_given_up(start):
    server = start("--timeout", 2)
    server.hold.touch()
    late = server.predict(image())
    assert (late.status_code, late.json()) == (504, {"error": "There is no answer within 2 s."})
    assert server.numbers()["photoflux_queue_images"] == 0
    server.hold.unlink()
    assert server.end() == 0, server.errors.read_text()


def test_a_client_that_goes_frees_its_place(start):
    server = start("--queue", 1, "--max-images", 1)
    server.hold.touch()
    connection = sent(server, whole(image()))
    server.until("photoflux_decode_seconds_count", 1)
    assert server.predict(image()).status_code == 503
    connection.close()
    server.until('photoflux_requests_total{path="/predict",status="499"}', 1)
    assert server.numbers()["photoflux_queue_images"] == 0
    server.hold.unlink()
    assert server.predict(image()).status_code == 200


def test_a_client_that_goes_while_it_sends_frees_its_place(start):
    server = start("--queue", 1, "--max-images", 1)
    connection = sent(server, whole(image())[:-50])
    server.until("photoflux_queue_images", 1)
    connection.close()
    server.until("photoflux_queue_images", 0)
    assert server.predict(image()).status_code == 200
    assert not list(Path(server.folder()).iterdir())


def test_a_body_that_comes_too_slowly_is_refused(start):
    server = start("--timeout", 2)
    with sent(server, whole(image())[:-50]) as connection:
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 408"), answer
    assert b"did not arrive within 2 s" in answer
    assert server.numbers()["photoflux_queue_images"] == 0


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"], ids=["first", "second"])
def test_a_head_that_does_not_come_ends_the_connection(start, before: bytes):
    server = start(SECONDS_OF_HEAD="0.3")
    with sent(server, before) as connection:
        if before:
            received(connection)
        connection.sendall(b"POST /predict HTTP/1.1\r\nX-Slow: ")
        assert connection.recv(10_000) == b"", "it is closed"
    assert server.predict(image()).status_code == 200


def test_a_decoder_that_is_killed_in_mid_request_is_replaced(start, clients, deadly, folder: Path):
    server = start("--workers", 2, **deadly)
    requests = [clients.submit(server.predict, b"hang " + os.fsencode(folder), image()) for _ in range(2)]
    # Both decoders hang, and are killed from outside: the files are tried once more, and with them the next two.
    for killed in range(1, 5):
        os.kill(hanging(folder), signal.SIGKILL)
        server.until("photoflux_decoders_lost_total", killed)
    for request in requests:
        bad, good = request.result().json()["images"]
        assert bad["error"].startswith("the decoder was killed by signal 9 while it read this file")
        assert good["error"] is None
    assert server.predict(image()).status_code == 200
    assert server.end() == 0


def test_a_file_that_hangs_or_kills_its_decoder_costs_itself(start, deadly, tmp_path: Path):
    server = start("--workers", 1, "--timeout", 20, **deadly)
    answer = server.predict(b"kill", image(), b"once " + str(tmp_path / "seen").encode(), image(), b"hang", image())
    rows = answer.json()["images"]
    assert rows[0]["error"].startswith("the decoder was killed by signal 9 while it read this file")
    assert rows[2]["error"] == "a text file: not an image", "it was read the second time"
    assert rows[4]["error"] == "takes longer than 10 s to decode"
    assert [row["error"] for row in rows[1::2]] == [None] * 3
    assert server.predict(image()).status_code == 200


def test_a_decoder_at_a_file_that_nobody_waits_for_is_ended(start, deadly, folder: Path):
    server = start("--workers", 1, "--queue", 1, "--max-images", 1, **deadly)
    connection = sent(server, whole(b"hang " + os.fsencode(folder)))
    number = hanging(folder)
    connection.close()
    server.until("photoflux_queue_images", 0)
    # Its file would take 15 s, half the time of a request.
    assert server.predict(image(), timeout=10).status_code == 200
    assert server.numbers()["photoflux_decoders_lost_total"] == 1
    assert number not in server.helpers()
