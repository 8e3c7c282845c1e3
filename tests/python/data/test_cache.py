"""The cache: where it is, what keeps it from being used, and two that want the same."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import photoflux
from photoflux import DataError
from photoflux.data import preparation
from photoflux.data.cache import cache_folder, cache_state
from photoflux.data.sources.download import download
from photoflux.system import atomic

ARRAYS = (np.random.default_rng(3).integers(0, 255, (20, 8, 8, 3), np.uint8), np.arange(20) % 2)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# As somebody who has no entry in the table of users, and no home.
HOMELESS = """
import os, sys
import platformdirs, platformdirs.unix, pwd, tempfile
from photoflux.data.cache import cache_folder, cache_state
from photoflux.errors import DataError
os.setuid(54321)
os.environ.pop("HOME", None)
os.environ.pop("XDG_CACHE_HOME", None)
os.environ.pop("PHOTOFLUX_CACHE", None)
if sys.argv[1:]:
    os.environ["PHOTOFLUX_CACHE"] = sys.argv[1]
try:
    print(cache_folder())
except DataError as error:
    print(error)
print(cache_state())
"""


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("named", [[], ["~/cache"], ["~nobody-of-this-name/cache"]])
def test_without_a_home_the_variable_is_named(named, tmp_path):
    done = subprocess.run([sys.executable, "-c", HOMELESS, *named], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "there is no such home folder. Set the environment variable PHOTOFLUX_CACHE to a folder" in done.stdout
    assert done.stdout.count("PHOTOFLUX_CACHE") >= 2
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path, monkeypatch, error):
    def refused(*args, **options):
        raise OSError(error, os.strerror(error))

    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    assert cache_state() == (tmp_path / "cache", None)
    assert names(tmp_path / "cache") == []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refused)
        with pytest.raises(DataError, match=rf"The cache .*{os.strerror(error)}.*PHOTOFLUX_CACHE"):
            photoflux.prepare(ARRAYS, progress=False)
        folder, problem = cache_state()
        assert folder == tmp_path / "cache"
        assert os.strerror(error) in problem and "PHOTOFLUX_CACHE" in problem
    # The disk is full only when the images are written.
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", refused)
        with pytest.raises(DataError, match=rf"{os.strerror(error)}.*Free some space. Set .*PHOTOFLUX_CACHE"):
            photoflux.prepare(ARRAYS, progress=False)
        with pytest.raises(DataError, match=r"Free some space or choose another destination"):
            photoflux.prepare(ARRAYS, tmp_path / "d", progress=False)
    with pytest.raises(DataError, match="PHOTOFLUX_CACHE"), monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refused)
        download("http://localhost:9/x", cache_folder() / "downloads" / "x", md5="0", instead="")
    assert len(photoflux.prepare(ARRAYS, progress=False)) == 20


def test_a_file_in_the_place_of_the_cache(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("mine")
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="PHOTOFLUX_CACHE"):
        photoflux.prepare(ARRAYS, progress=False)
    assert "PHOTOFLUX_CACHE" in cache_state()[1]
    assert (tmp_path / "cache").read_text() == "mine"


def test_of_two_that_want_the_same_one_prepares(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path))
    made, found = [], []
    from photoflux.data.sources import arrays

    real = arrays.prepare_arrays

    def slow(*args, **options):
        made.append(1)
        time.sleep(0.3)
        return real(*args, **options)

    monkeypatch.setattr(arrays, "prepare_arrays", slow)
    threads = [threading.Thread(target=lambda: found.append(preparation.prepare(ARRAYS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len({str(prepared.path) for prepared in found}) == 1 and len(found) == 3
    assert len(names(tmp_path / "prepared")) == 1


def test_what_a_killed_preparation_left_is_swept_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path))
    code = (
        "import os, numpy as np, photoflux\n"
        "from photoflux.data.sources import arrays\n"
        "arrays.finish_classes = lambda *args, **given: os.kill(os.getpid(), 9)\n"
        "photoflux.prepare((np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 2), progress=False)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert sorted(Path(name).suffix for name in names(tmp_path / "prepared")) == [".lock", ".tmp"]
    prepared = photoflux.prepare(ARRAYS, progress=False)
    assert names(tmp_path / "prepared") == [prepared.path.name]


def test_another_process_with_the_destination_is_said(tmp_path):
    code = (
        "import sys\nfrom photoflux.data.shape import Shape\nfrom photoflux.data.writer import FilesWriter\n"
        "with FilesWriter(sys.argv[1], Shape(3, 8, 8)):\n"
        "    print('writes', flush=True)\n    sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "d")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        with pytest.raises(DataError, match=rf"The destination .*d is being written by process {process.pid}, since"):
            photoflux.prepare(ARRAYS, tmp_path / "d", progress=False)
        process.kill()
    assert len(photoflux.prepare(ARRAYS, tmp_path / "d", progress=False)) == 20
    assert names(tmp_path) == ["d"]
    assert atomic.is_alive(os.getpid(), 0)
