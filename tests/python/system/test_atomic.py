"""Temporary names, what is swept, and what is left alone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import pytest

from photoflux.system import atomic

DEAD = "import os, sys; from pathlib import Path; from photoflux.system import atomic; "


def dead(code: str, *arguments: object) -> None:
    """Run code in a process that is killed by SIGKILL at its end."""
    done = subprocess.run(
        [sys.executable, "-c", DEAD + code + "; os.kill(os.getpid(), 9)", *map(str, arguments)], check=False
    )
    assert done.returncode == -9


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    dead("atomic.sibling(Path(sys.argv[1])).write_text('x')", tmp_path / "file")
    dead("p = atomic.sibling(Path(sys.argv[1])); p.mkdir(); (p / 'a').write_text('x')", tmp_path / "folder")
    dead("atomic.sibling(Path(sys.argv[1]), suffix='.keras').write_text('x')", tmp_path / "m.keras")
    mine = atomic.sibling(tmp_path / "file")
    mine.write_text("x")
    others = [".hidden.tmp", ".r.1234.tmp", "file.tmp", ".x.0123456789ab.tmp", "notes.old"]
    for name in others:
        (tmp_path / name).write_text("mine")
    assert len(names(tmp_path)) == 9
    atomic.sweep(tmp_path)
    assert names(tmp_path) == sorted([mine.name, *others])


def test_what_was_moved_aside_comes_back_if_nothing_took_its_place(tmp_path):
    (tmp_path / "a").write_text("earlier")
    (tmp_path / "b").write_text("earlier")
    dead("p = Path(sys.argv[1]); p.rename(atomic.sibling(p, 'old'))", tmp_path / "a")
    dead("p = Path(sys.argv[1]); p.rename(atomic.sibling(p, 'old')); p.write_text('new')", tmp_path / "b")
    atomic.sweep(tmp_path)
    assert names(tmp_path) == ["a", "b"]
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("earlier", "new")


def test_what_another_machine_left_is_swept_when_it_is_old(tmp_path):
    place = tmp_path / f".r.{'0' * 8}-1-1-1.tmp"
    place.mkdir()
    atomic.sweep(tmp_path)
    assert place.exists()
    long_ago = time.time() - atomic.FOREIGN_SECONDS - 60
    os.utime(place, (long_ago, long_ago))
    atomic.sweep(tmp_path)
    assert not place.exists()


def test_a_used_process_id_is_not_the_process():
    assert atomic.is_alive(os.getpid(), atomic.started(os.getpid()))
    if atomic.started(os.getpid()):
        assert not atomic.is_alive(os.getpid(), atomic.started(os.getpid()) + 1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        start = atomic.started(process.pid)
        assert atomic.is_alive(process.pid, start)
        process.kill()
        deadline = time.monotonic() + 10
        # Ended and not waited for: it is gone all the same.
        while atomic.is_alive(process.pid, start) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not atomic.is_alive(process.pid, start)
    assert not atomic.is_alive(process.pid, start)


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, os.fsdecode(b"\xff" * 250), ".x", "a.tmp"])
def test_long_and_odd_names(tmp_path, name):
    path = tmp_path / name
    atomic.write_text(path, "1")
    atomic.write_text(path, "2")
    assert path.read_text() == "2"
    assert names(tmp_path) == [name]


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    (tmp_path / "f").write_text("earlier")
    with pytest.raises(KeyboardInterrupt), atomic.writing_file(tmp_path / "f") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f").read_text() == "earlier"


def test_names_that_are_not_utf_8_are_written_and_read_back(tmp_path):
    import json

    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x98\x80")
    atomic.write_text(tmp_path / "f", json.dumps({"name": name}, ensure_ascii=False))
    text = (tmp_path / "f").read_text(encoding="utf-8")
    assert "\\udce9 \U0001f600" in text
    assert json.loads(text) == {"name": name}


def test_scratch_folders_of_dead_processes_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    dead("(atomic.new_scratch('x') / 'f').write_text('x')")
    (tmp_path / "photoflux-mine").mkdir()
    assert len(names(tmp_path)) == 2
    with atomic.scratch("y") as folder:
        assert len(names(tmp_path)) == 2
        assert folder.name.endswith("-y") and folder.stat().st_mode & 0o077 == 0
    assert names(tmp_path) == ["photoflux-mine"]


def test_a_folder_that_is_still_written_to_goes(tmp_path, monkeypatch):
    """Another thread may write at any moment, also between the last file's removal and the folder's."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    (folder / "early").touch()
    rmdir = os.rmdir

    def written_meanwhile(*args, **options):
        with contextlib.suppress(OSError):
            (folder / "late").touch()
        rmdir(*args, **options)

    monkeypatch.setattr(os, "rmdir", written_meanwhile)
    atomic.remove_in_use(folder)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_had_begun_to_remove_goes_too(tmp_path):
    (tmp_path / "scratch-gone").mkdir()
    (tmp_path / "scratch-gone" / "left").touch()
    atomic.remove_in_use(tmp_path / "scratch")
    assert not list(tmp_path.iterdir())
