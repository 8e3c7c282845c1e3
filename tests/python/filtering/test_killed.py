"""A job that is killed at any instant goes on, and its results equal those of one that was not."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import piles
from photoflux.errors import RunError
from photoflux.filtering.ledger import NAME, Ledger
from photoflux.filtering.status import status_of
from photoflux.system import atomic
from piles import LIGHT, files_below, make_pile, make_run, picture, run_job

KILLS = 20


@contextlib.contextmanager
def started(*arguments: Any, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A job as a process, which ends with the block."""
    with start(*arguments, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def start(run: Path, pile: Path, out: Path, slow: float, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, piles.__file__, str(run), str(pile), str(out), json.dumps(options)]
    environment = {**os.environ, "PILES_SLOW": str(slow)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def records(out: Path) -> list[tuple[object, ...]]:
    query = (
        "SELECT path, member, nth, page, state, sha256, score, decision, place FROM sources JOIN items ON source = id "
        "ORDER BY 1, 2, 3, 4"
    )
    return list(Ledger(out).rows(query))


def scored(out: Path) -> int:
    return sum(status_of(out).counts.values()) if (out / "ledger.sqlite").is_file() else 0


@pytest.mark.fault(
    "SIGKILL or SIGTERM in `photoflux filter`", costs="what was not recorded yet: the next start does it"
)
@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_twenty_kills_at_random_instants(tmp_path: Path):
    run, pile, out = make_run(tmp_path / "run"), make_pile(tmp_path / "pile", 900), tmp_path / "out"
    run_job(run, pile, tmp_path / "whole")
    rng, struck = random.Random(7), []
    for kill in range(KILLS):
        before = scored(out)
        with started(run.path, pile, out, slow=0.15) as process:
            # Wherever it is: starting, or decoding, scoring, placing, committing.
            deadline = time.monotonic() + 60
            while kill % 4 and scored(out) == before and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.3 if kill % 4 else 1.5))
            if process.poll() is None:
                process.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                struck.append(scored(out))
    assert len(struck) == KILLS, "it was killed before it was done, each time"
    assert len(set(struck)) > KILLS // 2, f"at different instants: {struck}"
    with started(run.path, pile, out, slow=0) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert records(out) == records(tmp_path / "whole")
    assert (out / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()
    assert files_below(out / "photos") == files_below(tmp_path / "whole" / "photos")
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    (most,) = next(Ledger(out).rows("SELECT max(attempts) FROM items"))
    assert most == 1, "nothing that was recorded is done twice"


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_ends_at_once_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals, code: int):
    run, pile, out = make_run(tmp_path / "run"), make_pile(tmp_path / "pile", 400), tmp_path / "out"
    script = (
        "import sys\nfrom piles import Brightness\nfrom photoflux import api, cli\n"
        "api._model_of = lambda *_: Brightness()\nsys.argv = ['photoflux', *sys.argv[1:]]\ncli.main()\n"
    )
    environment = {
        **os.environ,
        "PILES_SLOW": "0.5",
        "PYTHONPATH": f"{Path(piles.__file__).parent}:{os.environ.get('PYTHONPATH', '')}",
    }
    arguments = [sys.executable, "-c", script, "filter", run.path, pile, "--out", out]
    with subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (out / "ledger.sqlite").is_file() or not status_of(out).counts:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        assert status_of(out).state == "running"
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in said
    assert status_of(out).state == "stopped"
    rows = (out / "results.csv").read_text(encoding="utf-8", errors="replace").count("\n")
    assert rows > 1, "the results so far are written"


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_watch_goes_on_with_what_arrives(tmp_path: Path):
    run, pile, out = make_run(tmp_path / "run"), tmp_path / "pile", tmp_path / "out"
    pile.mkdir()
    (pile / "first.png").write_bytes(picture(LIGHT, 1))
    with started(run.path, pile, out, slow=0, watch=True) as process:

        def wait_for(count: int) -> None:
            deadline = time.monotonic() + 60
            while not (out / "ledger.sqlite").is_file() or status_of(out).counts.get("light", 0) < count:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.1)

        wait_for(1)
        (pile / "later").mkdir()
        (pile / "later" / "second.png").write_bytes(picture(LIGHT, 2))
        wait_for(2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert (out / "photos" / "pile" / "later" / "second.png").is_file()


def test_two_jobs_in_one_folder(tmp_path: Path):
    run, pile, out = make_run(tmp_path / "run"), make_pile(tmp_path / "pile", 200), tmp_path / "out"
    with started(run.path, pile, out, slow=0.5) as process:
        deadline = time.monotonic() + 60
        while not (out / "ledger.sqlite").is_file() or not status_of(out).counts:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(Exception, match="is being written by"):
            run_job(run, pile, out)
        process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_come_through_under_flux(tmp_path: Path, flux: Any, number: signal.Signals, code: int):
    """Julia would keep them for itself."""
    run, pile, out = make_run(tmp_path / "run"), tmp_path / "pile", tmp_path / "out"
    pile.mkdir()
    (pile / "a.png").write_bytes(picture(LIGHT, 1))
    command = [sys.executable, "-m", "photoflux", "filter", run.path, pile, "--out", out, "--watch", "--engine", "flux"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 300
            while not (out / "results.csv").is_file():
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert status_of(out).state == "stopped"


def test_a_job_that_was_killed_before_it_had_a_ledger_begins(tmp_path: Path):
    run, pile, out = make_run(tmp_path / "run"), make_pile(tmp_path / "pile", 4), tmp_path / "out"
    out.mkdir()
    # No process has had this number since a machine started: the ledger's temporary file of one that is gone.
    left = out / f".{NAME}.{atomic.machine()}-{2**22 + 1}-1-0.tmp"
    left.write_bytes(b"half")
    assert run_job(run, pile, out).complete
    assert not left.exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="a folder with other content"):
        run_job(run, pile, other)
