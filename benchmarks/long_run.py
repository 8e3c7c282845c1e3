"""A fit of 200 epochs on small data, in one process: its memory, its open files, and its speed at begin and end.

python benchmarks/long_run.py [--engine flux] [--epochs 200] [--write]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np

import photoflux
from photoflux.engines import get_engine
from photoflux.engines.base import Checkpoints, Engine
from photoflux.model.history import BatchProgress, EpochRow
from photoflux.model.settings import settings_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
VARIANT = "dropout"
SIDE, IMAGES = 32, 300
FIRST = 20  # epochs after which memory is taken, and that are compared with as many last ones
HEAD = """| | epochs | memory after 20 epochs | at the end | open files | an epoch of the first 20 | of the last 20 |
|---|---|---|---|---|---|---|
"""


def processes() -> list[int]:
    """This process and those that it has started."""
    mine = [os.getpid()]
    for pid in mine:
        for task in Path(f"/proc/{pid}/task").iterdir():
            mine += map(int, (task / "children").read_text().split())
    return mine


def memory() -> int:
    """Return the bytes of memory that these processes have."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in processes()) * os.sysconf(
        "SC_PAGESIZE"
    )


def open_files() -> int:
    """Return how many files, pipes and sockets these processes have open."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in processes())


def processor() -> float:
    """Return how long processors have worked for these processes, in seconds."""
    times = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in processes())
    return sum(int(ticks) for pair in times for ticks in pair) / os.sysconf("SC_CLK_TCK")


@dataclass
class Seen:
    """What was seen at the end of an epoch."""

    seconds: float
    processor: float
    memory: int
    files: int


def fit(engine: Engine, data: photoflux.PreparedDataset, epochs: int, folder: Path) -> list[Seen]:
    """Fit, and return what was seen after each epoch."""
    variant, seen = photoflux.variant(VARIANT), []

    def on_epoch(row: EpochRow) -> None:
        if len(seen) % FIRST == FIRST - 1:
            print(f"epoch {row.epoch}: {memory() / 1e6:.0f} MB, {open_files()} open files", file=sys.stderr)
        seen.append(Seen(row.seconds, processor(), memory(), open_files()))

    def on_batch(progress: BatchProgress) -> bool:
        return False

    engine.fit(
        variant,
        data,
        settings_of(variant, epochs, 32, None, 1, "augment"),
        folder / "weights.safetensors",
        initial=None,
        on_batch=on_batch,
        on_epoch=on_epoch,
        on_note=print,
        checkpoints=Checkpoints(folder / "checkpoints"),
    )
    return seen


def long_run(engine: Engine, data: photoflux.PreparedDataset, epochs: int, place: Path) -> str:
    """Return the row of one long fit."""
    seen = fit(engine, data, epochs, place)
    parts = []
    for part in (seen[:FIRST], seen[-FIRST:]):
        worked = (part[-1].processor - part[0].processor) / (len(part) - 1)
        parts.append(f"{statistics.median(one.seconds for one in part):.3f} s, of processors {worked:.3f} s")
    files = " → ".join(str(seen[at].files) for at in (FIRST - 1, -1))
    sizes = " | ".join(f"{seen[at].memory / 1e6:.0f} MB" for at in (FIRST - 1, -1))
    return f"| {epochs} | {sizes} | {files} | {' | '.join(parts)} |"


def write(name: str, row: str) -> None:
    """Put a row into the table of the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, found, after = text.partition(HEAD)
    if not found:
        raise SystemExit(f"{PAGE} has no table with the head\n{HEAD}")
    old = list(takewhile(str.strip, after.splitlines(keepends=True)))
    rows = [line for line in old if not line.startswith(f"| {name} |")] + [f"| {name} {row}\n"]
    PAGE.write_text(before + HEAD + "".join(sorted(rows)) + after[len("".join(old)) :], encoding="utf-8")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="flux")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="Put the figures into docs/reliability.md.")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    y = np.arange(IMAGES) % 2
    x = (rng.integers(0, 156, (IMAGES, SIDE, SIDE, 3)) + 90 * y[:, None, None, None]).astype(np.uint8)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        data = photoflux.prepare((x, y), place / "data", progress=False)
        engine = get_engine(options.engine, print)
        row = long_run(engine, data, options.epochs, place)
    print(f"{HEAD}| {engine.name} {row}")
    if options.write:
        write(engine.name, row)


if __name__ == "__main__":
    main()
