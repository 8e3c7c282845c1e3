"""A function in a process of its own: what it raises arrives, and a call that ends the process costs itself."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from odd_calls import MEBIBYTE, start_and_wait, work
from photoflux.data.images.formats import RefusedError
from photoflux.data.images.protected import Protected


@pytest.fixture
def protected():
    called = Protected(work, seconds=60.0, memory=200 * MEBIBYTE)
    yield called
    called.end()
    assert multiprocessing.active_children() == []


def test_calls_go_to_one_process_whatever_the_function_raises(protected):
    first = protected("pid")
    assert first not in (os.getpid(), None)
    with pytest.raises(RefusedError, match=r"^broken PNG: no$"):
        protected("refuse")
    with pytest.raises(OSError, match=r"place.png") as full:
        protected("full")
    assert full.value.errno == errno.ENOSPC
    assert protected("fill", number=50) == 50 * MEBIBYTE
    with pytest.raises(RefusedError, match=r"needs more memory"):
        protected("fill", 400)
    assert protected("pid") == first


def test_a_call_that_ends_the_process_costs_itself(protected):
    first = protected("pid")
    with pytest.raises(RefusedError, match=r"^the decoder ended while it read this file$"):
        protected("die")
    second = protected("pid")
    assert second != first
    protected._seconds = 0.5
    with pytest.raises(RefusedError, match=r"^takes longer than 0\.5 s to decode$"):
        protected("hang")
    protected._seconds = 60.0
    assert protected("pid") not in (first, second)


def test_none_is_started_when_all_is_over(protected):
    protected.end_for_good()
    with pytest.raises(RefusedError, match=r"nothing is decoded any more"):
        protected("pid")


def test_it_ends_with_its_parent(tmp_path: Path):
    reading, writing = multiprocessing.get_context("spawn").Pipe(duplex=False)
    parent = multiprocessing.get_context("spawn").Process(target=start_and_wait, args=(writing,))
    parent.start()
    writing.close()
    child = reading.recv()
    parent.kill()
    parent.join()
    end = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
