"""Measures what docs/scale.md reckons with: decoding on one core, the ledger, the results, and tasks of a cluster.

    python benchmarks/scale.py RUN [--files 200000] [--photographs 0.1] [--tasks 2000]

The job's own part, the walk, the ledger and the pictures, is measured with a scorer that only makes up scores, on a
folder of so many hard links, as one process. A task of a cluster carries 64 paths there and 64 made-up rows back.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from photoflux.data.images.decoding import decode_parts
from photoflux.filtering.filter import decision_of
from photoflux.filtering.job import Job
from photoflux.filtering.pile import Pile
from photoflux.filtering.scoring import Scored
from photoflux.runs.progress import Display
from photoflux.runs.run import Run, load_run


class MadeUp:
    """A scorer that opens nothing."""

    def __init__(self, share: float) -> None:
        self._share = share

    def scored(self, sources: Iterable[object]) -> Generator[list[Scored], None, None]:
        block: list[Scored] = []
        for number, _ in enumerate(sources):
            score = 0.5 + number % 499 / 1000 if number % 1000 < 1000 * self._share else number % 499 / 1000
            block.append(made_up(number, score))
            if len(block) == 64:
                yield block
                block = []
        yield block

    def end(self) -> None:
        pass


def made_up(number: int, score: float) -> Scored:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Scored(number, 0, digest, 3000 + number % 97, 2000 + number % 89, score, "", last=True)


def rows_of(paths: list[str]) -> list[Scored]:
    """Return what a task returns."""
    return [made_up(number, 0.5) for number in range(len(paths))]


def decoding(run: Run, folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, (width, height) in {"256 px": (256, 256), "8 megapixels": (3464, 2309)}.items():
        # Smooth with a little noise, as scans are: noise alone would be far larger than a scan.
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((width, height))
        noisy = np.asarray(coarse, np.int16) + rng.integers(-6, 7, (height, width, 3), np.int16)
        path = folder / "one.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        count, spent = 0, 0.0
        list(decode_parts(path, run.shape, hashed=False))
        while spent < 5:
            began = time.process_time()
            list(decode_parts(path, run.shape, hashed=False))
            spent += time.process_time() - began
            count += 1
        size = path.stat().st_size
        print(
            f"decoding {name}, JPEG of {size:,} bytes: {1000 * spent / count:.2f} ms of a core, {count / spent:.0f}/s"
        )


def names(folder: Path, count: int) -> Iterator[Path]:
    for number in range(count):
        yield folder / f"box {number // 1000:05}" / f"scan {number:09}.jpg"


def own_part(run: Run, folder: Path, count: int, share: float) -> None:
    pile, first = folder / "archive of the house" / "scans", folder / "first.jpg"
    Image.new("RGB", (64, 48)).save(first)
    for number, path in enumerate(names(pile, count)):
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        # A file has at most some ten thousand names.
        if number % 20_000 == 0:
            first = folder / f"{number}.jpg"
            Image.new("RGB", (64, 48)).save(first)
        os.link(first, path)
    for how in ("list", "link"):
        out = folder / how
        out.mkdir()
        with Display(False) as display:
            decision = decision_of(run, None, 0.5, display)
            job = Job(out, run, "0" * 16, decision, Pile([pile], out), how, display)
            job.begin()
            began, busy = time.perf_counter(), time.process_time()
            job.work(MadeUp(share))
            worked, busy = time.perf_counter() - began, time.process_time() - busy
            began = time.perf_counter()
            job.finish(complete=True)
            finished = time.perf_counter() - began
            job.close()
        sizes = {name: (out / name).stat().st_size / count for name in ("ledger.sqlite", "results.csv")}
        parquet = out / "results.parquet"
        sizes |= {parquet.name: parquet.stat().st_size / count} if parquet.is_file() else {}
        print(f"--{how}: {count / worked:.0f} files/s recorded and placed; {1000 * busy / count:.3f} ms of a core each")
        print(f"  results: {count / finished:.0f} rows/s")
        print("  " + ", ".join(f"{name} {size:.0f} bytes a row" for name, size in sizes.items()))
        job = Job(out, run, "0" * 16, decision, Pile([pile], out), how, Display(False))
        job.begin()
        began = time.perf_counter()
        job.work(MadeUp(share))
        print(f"  started again, all of it done: {count / (time.perf_counter() - began):.0f} files/s")
        job.close()
    print(f"most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


def tasks(count: int) -> None:
    from distributed import Client, LocalCluster, wait

    paths = [list(map(str, names(Path("/archive of the house/scans"), 64)))] * count
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        wait(client.submit(rows_of, paths[0], pure=False))
        began, busy = time.perf_counter(), time.process_time()
        waiting = []
        for batch in paths:
            waiting.append(client.submit(rows_of, batch, pure=False))
            if len(waiting) == 12:
                waiting.pop(0).result()
        for future in waiting:
            future.result()
        busy, took = time.process_time() - busy, time.perf_counter() - began
        print(f"tasks of 64 files: {count / took:.0f}/s, {1000 * busy / count:.1f} ms of scheduler and client each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--photographs", type=float, default=0.1)
    parser.add_argument("--tasks", type=int, default=2000)
    given = parser.parse_args()
    run = load_run(given.run)
    with tempfile.TemporaryDirectory() as folder:
        decoding(run, Path(folder))
        own_part(run, Path(folder), given.files, given.photographs)
    tasks(given.tasks)


if __name__ == "__main__":
    main()
