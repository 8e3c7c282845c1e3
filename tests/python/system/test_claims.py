"""A place belongs to one process at a time."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager

import pytest

from photoflux import RunError
from photoflux.runs.folder import claimed, claimed_new
from photoflux.system import atomic, claims
from photoflux.system.claims import Busy, claim

HOLD = """
import sys
from contextlib import suppress
from pathlib import Path
from photoflux.system.claims import Busy, claim
if sys.argv[2] == "without":
    import errno, fcntl
    def flock(file, how):
        raise OSError(errno.ENOLCK, "no locks")
    fcntl.flock = flock
try:
    with claim(Path(sys.argv[1])):
        print("has it", flush=True)
        sys.stdin.readline()
except Busy as busy:
    print("refused", busy, flush=True)
"""


@contextmanager
def holder(path, locks="with"):
    """Give a process that has a place, or was refused, and what it said."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), locks], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture(params=["with", "without"])
def locks(request, monkeypatch):
    """With locks of the file system, and on one that has none."""
    if request.param == "without":

        def flock(file, how):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr("fcntl.flock", flock)
    return request.param


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_second_is_refused_in_words(tmp_path, locks):
    with holder(tmp_path / "r", locks) as (process, said):
        assert said == "has it"
        words = rf"process {process.pid}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
        with pytest.raises(Busy, match=words), claim(tmp_path / "r"):
            pass
        with claim(tmp_path / "s"):
            pass
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait()
    assert names(tmp_path) == []
    with claim(tmp_path / "r"), holder(tmp_path / "r", locks) as (_, said):
        assert said.startswith(f"refused process {os.getpid()}, since ")
    assert names(tmp_path) == []


def test_what_a_killed_process_had_is_free(tmp_path, locks):
    with holder(tmp_path / "r", locks) as (process, said):
        assert said == "has it"
        process.kill()
        process.wait()
    assert len(names(tmp_path)) == 1
    with claim(tmp_path / "r"):
        pass
    assert names(tmp_path) == []


def test_what_killed_processes_left_beside_it_is_swept(tmp_path):
    with holder(tmp_path / "r") as (process, _):
        process.kill()
        process.wait()
    (tmp_path / ".poetry.lock").write_text("{}")
    with holder(tmp_path / "living"), claim(tmp_path / "other"):
        assert names(tmp_path) == [".living.lock", ".other.lock", ".poetry.lock"]


def test_one_of_another_machine_is_respected_without_locks(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    mark = tmp_path / ".r.owner"
    monkeypatch.setattr(atomic, "machine", lambda: "0" * 8)
    mark.write_bytes(claims._me())
    monkeypatch.undo()
    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(
            Busy, match=rf"process {os.getpid()} on .*, since .* \(if it is gone, remove {re.escape(str(mark))}\)"
        ),
        claim(tmp_path / "r"),
    ):
        pass


def test_a_claim_within_a_claim_is_the_same_and_another_threads_is_not(tmp_path):
    found = []

    def other():
        try:
            with claim(tmp_path / "r"):
                found.append("has it")
        except Busy as busy:
            found.append(str(busy))

    with claim(tmp_path / "r"):
        with claim(tmp_path / "." / "r"):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "(this one)" in found[0]
    other()
    assert found[1] == "has it"


def test_another_spelling_is_the_same_place(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with holder(tmp_path / "link") as (_, said):
        assert said == "has it"
        for name in ("real", "link", "x/../real"):
            with pytest.raises(Busy), claim(tmp_path / name):
                pass


def test_waiting(tmp_path):
    said = []
    with holder(tmp_path / "r") as (process, _):
        timer = threading.Timer(1.5, process.kill)
        timer.start()
        with claim(tmp_path / "r", wait=60, on_wait=said.append):
            pass
        timer.join()
    assert len(said) == 1 and f"process {process.pid}" in said[0]


def test_parents_that_were_made_for_nothing_go(tmp_path):
    with claim(tmp_path / "a" / "b" / "r"):
        pass
    assert names(tmp_path) == []
    with claim(tmp_path / "a" / "b" / "r"):
        (tmp_path / "a" / "b" / "r").mkdir()
    assert names(tmp_path / "a" / "b") == ["r"]


def test_runs_that_start_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form, *_: "20260101-000000")
    barrier, found = threading.Barrier(5), []

    def fit():
        with claimed_new("l2-scans") as folder:
            found.append(folder)
            barrier.wait()  # all have one at the same time
            folder.mkdir()

    threads = [threading.Thread(target=fit) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 5
    assert names(tmp_path / "runs") == sorted(folder.name for folder in found)


def test_a_run_folder_that_is_taken_is_refused(tmp_path):
    with holder(tmp_path / "r") as (process, _):
        words = rf"`out` .*r is being written by process {process.pid}, since .*Wait"
        with pytest.raises(RunError, match=words), claimed(tmp_path / "r"):
            pass


def test_many_processes_one_place(tmp_path):
    """However they interleave, killed or not, two never have it at once."""
    with ExitStack() as stack:
        said = [stack.enter_context(holder(tmp_path / "r"))[1] for _ in range(4)]
    assert sorted(words.split()[0] for words in said) == ["has", "refused", "refused", "refused"]
