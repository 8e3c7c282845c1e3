"""SIGKILL at random moments of a fit, a preparation and a comparison: each goes on to the bytes of one undisturbed.

python benchmarks/kills.py [--kills 20] [--engine flux] [--only train prepare compare] [--minutes 60] [--write]
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PHOTOFLUX = [sys.executable, "-m", "photoflux"]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
HEAD = "| | killed | within | the same bytes | temporary files left | seconds a try |\n|---|---|---|---|---|---|\n"
MOST = 4
COMPARED = {
    "train": ("weights.safetensors", "history.csv", "logits.safetensors"),
    "prepare": ("images.npy", "labels.npy", "split.npy", "files.csv"),
    "compare": (
        "runs/*/weights.safetensors",
        "runs/*/logits.safetensors",
        "runs/*/history.csv",
        "scores/*.safetensors",
    ),
}


def run(command: list[str], sign: bytes, moment: float | None) -> float | None:
    """Run a command, kill it so long after a line with the sign; return its seconds from there, None if killed."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    assert process.stderr is not None
    lines, killed = [], threading.Event()

    def kill() -> None:
        killed.set()
        os.killpg(process.pid, signal.SIGKILL)

    began, timer = time.monotonic(), None
    if not sign and moment is not None:
        timer = threading.Timer(moment, kill)
        timer.start()
    for line in process.stderr:
        lines.append(line)
        if sign and sign in line and timer is None:
            began = time.monotonic()
            timer = threading.Timer(1e6 if moment is None else moment, kill)
            timer.start()
    code = process.wait()
    if timer is not None:
        timer.cancel()
    if code not in (0, 3) and not killed.is_set():
        raise SystemExit(b"".join(lines).decode())
    return None if code < 0 else time.monotonic() - began


def content(kind: str, folder: Path) -> dict[str, bytes]:
    """Return what must be the same, without the seconds of epochs."""
    found = {}
    for path in sorted(path for pattern in COMPARED[kind] for path in folder.glob(pattern)):
        data = path.read_bytes()
        if path.name == "history.csv":
            rows = [line.split(b",") for line in data.splitlines()]
            data = b"\n".join(b",".join([row[0], *row[2:]]) for row in rows)
        found[str(path.relative_to(folder))] = data
    return found


def measure(
    kind: str, command: list[str], sign: bytes, place: Path, kills: int, chance: random.Random, minutes: float
) -> str:
    """Return as a row how often a command was killed, in how many tries, and whether each came to the same end."""
    until = time.monotonic() + 60 * minutes
    resume = ["--resume"] if kind == "train" else []
    whole = place / "whole"
    seconds = run([*command, str(whole)], sign, None)
    assert seconds is not None
    expected, done, ends, same, begun = content(kind, whole), 0, 0, 0, time.monotonic()
    while done < kills and (not ends or time.monotonic() < until):
        folder, times = place / f"killed{ends}", 0
        while True:
            # Few times each, so that many come to their end.
            moment = chance.uniform(0, seconds) if done < kills and times < MOST else None
            times += 1
            unfinished = (folder / "checkpoints" / "fit.json").is_file() or (folder / "run.json").is_file()
            if run([*command, str(folder), *(resume if unfinished else [])], sign, moment) is not None:
                break
            done += 1
        ends += 1
        same += content(kind, folder) == expected
        print(f"{kind}: killed {done} times, {same} of {ends} the same", file=sys.stderr, flush=True)
    left = [path.name for path in place.iterdir() if path.name.startswith(".")]
    if same < ends or left:
        raise SystemExit(f"{kind}: {same} of {ends} came to the same bytes; {left} were left")
    took = time.monotonic() - begun
    return f"| {done} | {seconds:.1f} s | {same} of {ends} | {len(left)} | {took / (done + ends):.1f} s |"


def write(rows: dict[str, str]) -> None:
    """Put the rows into the table of the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, row in rows.items():
        text = re.sub(rf"^\| {name} \|.*\n", "", text, flags=re.MULTILINE)
        text = text.replace(HEAD, f"{HEAD}| {name} {row}\n")
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engine", default="flux")
    parser.add_argument("--only", nargs="*", default=["train", "prepare", "compare"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0, help="Begin no more after so many, of each command.")
    parser.add_argument("--write", action="store_true", help="Put the figures into docs/reliability.md.")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        data = place / "data" / "prepared"
        small = ["--image-size", "24"]
        run([*PHOTOFLUX, "prepare", "demo", str(data), *small], b"", None)
        fit = [str(data), "--epochs", "6", "--engine", options.engine, "--batch-size", "8", "--balance", "augment"]
        commands = {
            "train": (
                [*PHOTOFLUX, "train", "dropout_early_stopping", *fit, "--checkpoint-minutes", "0", "--out"],
                b"Training ",
            ),
            "prepare": ([*PHOTOFLUX, "prepare", "demo", *small], b""),
            "compare": (
                [*PHOTOFLUX, "compare", *fit, "--variants", "baseline,dropout", "--seeds", "2", "--out"],
                b"Comparing ",
            ),
        }
        rows = {}
        for kind in options.only:
            (place / kind).mkdir()
            named = kind if kind == "prepare" else f"{kind}, {options.engine}"
            rows[named] = measure(kind, *commands[kind], place / kind, options.kills, chance, options.minutes)
            print(f"| {named} {rows[named]}", flush=True)
        if options.write:
            write(rows)


if __name__ == "__main__":
    main()
