from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from photoflux.data.sources.download import download
from photoflux.errors import DataError

DATA = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(DATA).hexdigest()
INSTEAD = "Give a folder instead."


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Server(ThreadingHTTPServer):
    daemon_threads = True
    data = DATA
    cuts: list[int]
    ranges = True
    status = 200


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        given = self.headers.get("Range")
        self.server.asked.append(given)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", given).group(1)) if given and self.server.ranges else 0
        if start and start >= len(self.server.data):
            self.send_error(416)
            return
        body = self.server.data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(body)
        self.wfile.write(body[:cut])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked, server.cuts = [], []
        server.url = f"http://127.0.0.1:{server.server_port}/file"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_whole_file_is_fetched_once(server: Server, tmp_path: Path):
    path, steps = tmp_path / "cache" / "file", []
    for _ in range(2):
        assert download(server.url, path, md5=MD5, instead=INSTEAD, on_progress=lambda *s: steps.append(s)) == path
    assert path.read_bytes() == DATA
    assert names(tmp_path / "cache") == ["file"]
    assert server.asked == [None]
    assert steps[-1] == (3_000_000, 3_000_000, "Downloading")


def test_a_cut_is_resumed_where_it_came(server: Server, tmp_path: Path):
    server.cuts = [1_000_000, 700_000]
    download(server.url, tmp_path / "file", md5=MD5, instead=INSTEAD)
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.asked == [None, "bytes=1000000-", "bytes=1700000-"]


def test_a_later_call_resumes(server: Server, tmp_path: Path):
    def interrupt(done: int, total: int, what: str) -> None:
        if done > 1_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.url, tmp_path / "file", md5=MD5, instead=INSTEAD, on_progress=interrupt)
    assert names(tmp_path) == ["file.part"]
    have = (tmp_path / "file.part").stat().st_size
    assert have > 1_000_000
    download(server.url, tmp_path / "file", md5=MD5, instead=INSTEAD)
    assert server.asked == [None, f"bytes={have}-"]
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path):
    server.ranges = False
    (tmp_path / "file.part").write_bytes(DATA[:100])
    download(server.url, tmp_path / "file", md5=MD5, instead=INSTEAD)
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_part_that_is_whole_already(server: Server, tmp_path: Path):
    (tmp_path / "file.part").write_bytes(DATA)
    download(server.url, tmp_path / "file", md5=MD5, instead=INSTEAD)
    assert names(tmp_path) == ["file"]


def test_a_part_of_another_file_is_thrown_away(server: Server, tmp_path: Path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    download(server.url, tmp_path / "file", md5=MD5, instead=INSTEAD)
    assert server.asked == ["bytes=1000-", None]
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_wrong_file_is_not_kept(server: Server, tmp_path: Path):
    server.data = DATA[:-1] + b"!"
    with pytest.raises(DataError, match=f"its md5 must be {MD5}; found [0-9a-f]{{32}}. {INSTEAD}"):
        download(server.url, tmp_path / "file", md5=MD5, instead=INSTEAD)
    assert names(tmp_path) == []
    assert len(server.asked) == 1


def test_a_damaged_file_is_fetched_again(server: Server, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"old")
    download(server.url, tmp_path / "file", md5=MD5, instead=INSTEAD)
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_server_that_sends_nothing(server: Server, tmp_path: Path):
    server.cuts = [1_000_000, 0]
    with pytest.raises(DataError, match=r"could not be downloaded: the connection was cut. 1000000 bytes are kept"):
        download(server.url, tmp_path / "file", md5=MD5, instead=INSTEAD)
    assert (tmp_path / "file.part").stat().st_size == 1_000_000


def test_no_such_file(server: Server, tmp_path: Path):
    server.status = 404
    with pytest.raises(DataError, match=f"could not be downloaded: the server answered 404 Not Found. {INSTEAD}"):
        download(server.url, tmp_path / "file", md5=MD5, instead=INSTEAD)


def test_no_network(tmp_path: Path):
    with pytest.raises(DataError, match=f"http://127.0.0.1:1/x could not be downloaded: .*refused.*{INSTEAD}"):
        download("http://127.0.0.1:1/x", tmp_path / "file", md5=MD5, instead=INSTEAD)
    with pytest.raises(DataError, match="expected an http or https address"):
        download("file:///etc/passwd", tmp_path / "file", md5=MD5, instead=INSTEAD)


def test_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = Path.open

    class FullFile:
        def __enter__(self):
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        Path, "open", lambda self, mode="r", *a, **k: FullFile() if mode in ("wb", "ab") else real(self, mode, *a, **k)
    )
    with pytest.raises(DataError, match=r"file could not be written: No space left on device. Free some space."):
        download(server.url, tmp_path / "file", md5=MD5, instead=INSTEAD)
    assert len(server.asked) == 1
