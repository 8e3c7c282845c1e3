"""A job on a cluster has the results of one on this machine, whatever happens to the workers."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusters import brightness, deadly, engine_of_the_process, failing, kept, slow, started
from photoflux import api
from photoflux.engines.flux.engine import FluxEngine
from photoflux.errors import ClusterError, DataError, SettingError
from photoflux.filtering.cluster import ClusterScorer
from photoflux.filtering.ledger import Ledger
from photoflux.runs.reference import Reference, write_reference
from photoflux.runs.run import Run
from photoflux.system import cluster as connecting
from piles import files_below, make_pile, make_run, picture, run_job

distributed = pytest.importorskip("distributed", reason="needs the extra dask")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with started(3) as found:
        yield found


def records(out: Path) -> list[tuple[object, ...]]:
    query = (
        "SELECT path, member, nth, page, state, sha256, model, width, height, score, decision, error, place, attempts "
        "FROM sources JOIN items ON source = id ORDER BY 1, 2, 3, 4"
    )
    return list(Ledger(out).rows(query))


def assert_same(out: Path, whole: Path) -> None:
    assert len(records(whole)) > 50
    assert records(out) == records(whole)
    assert (out / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert files_below(out / "photos") == files_below(whole / "photos")


def on(cluster: Any, run: Run, pile: Path, out: Path, load: Any = brightness, **options: Any) -> Any:
    return run_job(run, pile, out, workers=None, dask=cluster.scheduler_address, load_there=load, **options)


@pytest.mark.fault("a worker of `photoflux filter --dask` is killed", costs="nothing: another does its work")
@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_a_worker_that_is_killed_in_mid_job_changes_nothing(tmp_path: Path):
    run, pile = make_run(tmp_path / "run"), make_pile(tmp_path / "pile", 700)
    run_job(run, pile, tmp_path / "whole")
    with started(3) as cluster:
        pids = {worker.pid for worker in cluster.workers.values()}
        assert len(pids) == 3
        struck = []

        def recorded() -> int:
            # While the ledger is being made it cannot be read.
            with suppress(DataError):
                return len(records(tmp_path / "out"))
            return 0

        def strike() -> None:
            while not recorded():
                time.sleep(0.02)
            os.kill(min(pids), signal.SIGKILL)
            struck.append(recorded())

        thread = threading.Thread(target=strike, daemon=True)
        thread.start()
        on(cluster, run, pile, tmp_path / "out", slow)
        thread.join()
    assert 0 < struck[0] < len(records(tmp_path / "whole")), "it was in the middle of the job"
    assert_same(tmp_path / "out", tmp_path / "whole")


def test_a_job_goes_on_there_and_the_workers_keep_nothing_of_it(cluster: Any, tmp_path: Path):
    run, pile = make_run(tmp_path / "run"), make_pile(tmp_path / "pile", 100)
    whole = run_job(run, pile, tmp_path / "whole")
    first = shutil.copytree(pile, tmp_path / "first")
    for folder in ("box 0", "box 1"):
        shutil.rmtree(first / folder)
    assert on(cluster, run, pile, tmp_path / "out").counts == whole.counts
    assert_same(tmp_path / "out", tmp_path / "whole")
    before = records(tmp_path / "out")
    on(cluster, run, pile, tmp_path / "out")
    assert [row[:-1] for row in records(tmp_path / "out")] == [row[:-1] for row in before]

    with distributed.Client(cluster, set_as_default=False) as client:
        assert set(map(tuple, client.run(kept).values())) == {()}


@pytest.mark.skipif(sys.platform == "win32", reason="a process ends itself by a POSIX signal")
def test_a_source_that_ends_its_workers_costs_itself(tmp_path: Path):
    run, pile = make_run(tmp_path / "run"), tmp_path / "pile"
    pile.mkdir()
    for number in range(5):
        (pile / f"{number}.png").write_bytes(picture((200, 200, 200), number))
    (pile / "2.png").write_bytes(picture((77, 77, 77), 0))
    with started(1) as cluster:
        cluster.scheduler.allowed_failures = 0
        on(cluster, run, pile, tmp_path / "out", deadly)
    failed = [(row[0], row[11]) for row in records(tmp_path / "out") if row[4] == "failed"]
    reason = "the decoder ended with the worker process that read this file, 1 times"
    assert failed == [(os.fsencode(pile / "2.png"), reason)]
    assert len(records(tmp_path / "out")) == 5


def test_a_real_engine_in_a_worker(flux: FluxEngine, tmp_path: Path):
    # Julia is started in a thread of the worker that is not its first, and asked there.
    run, pile = make_run(tmp_path / "run"), make_pile(tmp_path / "pile", 70)
    here = api.filter(run, pile, tmp_path / "whole", engine="flux", progress=False)
    with started(1) as cluster:
        address = cluster.scheduler_address
        there = api.filter(run, pile, tmp_path / "out", engine="flux", dask=address, progress=False)
    assert there.counts == here.counts
    assert_same(tmp_path / "out", tmp_path / "whole")


def test_workers_that_do_not_see_the_pile(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, pile = make_run(tmp_path / "run"), make_pile(tmp_path / "pile", 10)

    class Elsewhere(type(pile)):  # type: ignore[misc]
        """A path that has no file where a worker opens it."""

        def __reduce__(self) -> Any:
            return Path, (f"{self}.not here",)

    given = ClusterScorer._batches

    def elsewhere(self: ClusterScorer, sources: Any) -> Any:
        return given(self, (Elsewhere(source) if isinstance(source, Path) else source for source in sources))

    monkeypatch.setattr(ClusterScorer, "_batches", elsewhere)
    for name in ("old.zip", "twice.zip", "plain.tar"):
        (pile / name).unlink()
    with pytest.raises(ClusterError, match=r"The workers do not see the pile: .* can be read here, and not on "):
        on(cluster, run, pile, tmp_path / "out")
    assert records(tmp_path / "out") == [], "before anything is recorded"


def test_what_the_workers_say_is_said(cluster: Any, tmp_path: Path):
    run, pile = make_run(tmp_path / "run"), make_pile(tmp_path / "pile", 300)
    with pytest.raises(ClusterError, match="A worker failed: OSError: no such engine"):
        on(cluster, run, pile, tmp_path / "out", failing)
    with pytest.raises(ClusterError, match=r"The workers have different engines, engine \d+ and engine \d+"):
        on(cluster, run, pile, tmp_path / "out", engine_of_the_process)


def test_the_first_images_are_looked_at(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, pile = make_run(tmp_path / "run"), make_pile(tmp_path / "pile", 400)
    rng = np.random.default_rng(1)
    values = {name: rng.normal(100, 1, 200).astype(np.float32) for name in ("brightness", "scores")}
    kinds = {name: np.zeros(200, np.int16) for name in values}
    write_reference(run.path, Reference(values, kinds))
    here = run_job(run, pile, tmp_path / "whole").shifts
    assert here, "it is unlike"
    assert on(cluster, run, pile, tmp_path / "out").shifts == here


def test_addresses_that_are_none(tmp_path: Path):
    began = time.monotonic()
    for address in ("tcp://127.0.0.1:9", "nonsense://x", "127.0.0.1:abc", ""):
        with pytest.raises(ClusterError, match="There is no dask scheduler at"):
            connecting.connect(address)
    assert time.monotonic() - began < 50
    run = make_run(tmp_path / "run")
    with pytest.raises(SettingError, match="Give one of `workers` and `dask`"):
        run_job(run, make_pile(tmp_path / "pile", 9), tmp_path / "out", workers=2, dask="tcp://127.0.0.1:9")
    assert not (tmp_path / "out").exists()


def test_workers_of_another_version_and_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with started(0) as cluster:
        monkeypatch.setattr(connecting, "_TIMEOUT", 1)
        with pytest.raises(ClusterError, match=r"has no workers\. Start some with `dask worker tcp:"):
            connecting.connect(cluster.scheduler_address)
        monkeypatch.setattr(connecting, "_TIMEOUT", 10)
        cluster.scale(1)
        monkeypatch.setattr(connecting, "__version__", "99")
        with pytest.raises(ClusterError, match=r"must have the PhotoFlux of this machine, 99; found: \S+ on tcp:"):
            connecting.connect(cluster.scheduler_address)


def test_without_dask(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"Install with: pip install 'photoflux\[dask\]'"):
        connecting.connect("tcp://127.0.0.1:9")
