"""A process at random moments: what a SIGKILL at each would leave is copied while it is stopped, and the last is one.

A SIGKILL leaves the files as they are at that moment, what the process has not yet given to the system being lost. That
is what others see while it is stopped; so one start, which for Flux takes most of the time, serves for many moments.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

COUNT = int(os.environ.get("PHOTOFLUX_KILLS", "20"))  # of moments, in each test
DEADLINE = 300.0  # seconds for a process to begin; none waits so long


def left_by_kills(
    code: str,
    arguments: list[str],
    place: Path,
    *,
    count: int = COUNT,
    chance: random.Random,
    pause: float,
    begun: Callable[[Path], bool],
) -> list[Path]:
    """Return folders, each with what a SIGKILL at a random moment left, and the end of the process that was killed.

    Parameters
    ----------
    code : str
        What Python runs; the last of its arguments is a folder in which it may make what it is about.
    arguments : list of str
        Its first arguments.
    place : Path
        An empty folder.
    count : int
        How many moments. Where the process ends before, another is started.
    chance : random.Random
        Draws the moments.
    pause : float
        The longest time between two moments, in seconds.
    begun : callable
        Says of the folder whether the process has begun what it is about.
    """
    found: list[Path] = []
    while len(found) < count:
        folder = place / f"started{len(found)}"
        folder.mkdir(parents=True)
        process = subprocess.Popen([sys.executable, "-c", code, *arguments, str(folder)], start_new_session=True)
        try:
            until = time.monotonic() + DEADLINE
            while not begun(folder) and process.poll() is None:
                assert time.monotonic() < until
                time.sleep(0.002)
            while len(found) < count - 1:
                time.sleep(chance.uniform(0, pause))
                if not _stopped(process):
                    break
                found.append(shutil.copytree(folder, place / f"left{len(found)}", symlinks=True))
                os.kill(process.pid, signal.SIGCONT)
            else:
                time.sleep(chance.uniform(0, pause))
                if process.poll() is None:
                    found.append(folder)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code_of_end = process.wait()
        assert code_of_end in (0, -signal.SIGKILL), f"it failed by itself, {code_of_end}"
        assert found, "it was done before it was killed once"
    return found


def _stopped(process: subprocess.Popen[bytes]) -> bool:
    """Stop a process, and say whether it was still running."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGSTOP)
    # It is told when all its threads have stopped.
    state = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert state is not None
    return state.si_code == os.CLD_STOPPED
