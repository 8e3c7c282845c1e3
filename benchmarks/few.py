"""Trains variants on few images of each class and scores them on all the others; prints a Markdown table.

    python benchmarks/few.py FOLDER --variants transfer,l2 --images 10,20,50,200 --draws 5 [--groups groups.csv]

FOLDER has class folders. Of each class so many images are drawn, a tenth of which validate; the others are the test
part. With `--groups`, a CSV file of path and group, images are drawn from some groups of each class and tested on the
others.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

import photoflux
from photoflux.data.walking import FILE, walk


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variants", default="transfer")
    parser.add_argument("--images", default="10,20,50,200")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--groups", type=Path)
    parser.add_argument("--balance", default="weights")
    parser.add_argument("--image-size", type=int, help="for the variants that read pixels")
    parser.add_argument("--epochs", type=int, help="for the variants that read pixels")
    parser.add_argument("--backbone")
    given = parser.parse_args()
    groups = {}
    if given.groups:
        with given.groups.open(newline="", encoding="utf-8") as file:
            groups = {row["path"]: row["group"] for row in csv.DictReader(file)}
    files = defaultdict(list)
    for item in walk(given.folder):
        if item.kind == FILE and "/" in item.path:
            files[item.path.split("/")[0]].append(item.path)
    names, counts = given.variants.split(","), [int(count) for count in given.images.split(",")]
    table: dict[str, list[str]] = {name: [] for name in names}
    for count in counts:
        scores: dict[str, list[float]] = {name: [] for name in names}
        for draw in range(1, given.draws + 1):
            with tempfile.TemporaryDirectory() as scratch:
                split(given.folder, files, groups, count, draw, Path(scratch) / "images")
                for name in names:
                    pixels = not photoflux.variants()[name].backbone
                    own = (
                        {"image_size": given.image_size, "epochs": given.epochs}
                        if pixels
                        else {"backbone": given.backbone}
                    )
                    run = photoflux.train(
                        name, Path(scratch) / "images", seed=draw, balance=given.balance, out=Path(scratch) / name,
                        progress=False, **own,
                    )  # fmt: skip
                    scores[name].append(run.metrics.test.balanced_accuracy)
                    print(f"{count} images a class, draw {draw}, {name}: {scores[name][-1]:.4f}", flush=True)
        for name, found in scores.items():
            table[name].append(f"{np.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})")
    print("| variant | " + " | ".join(f"{count} a class" for count in counts) + " |")
    print("|---" * (len(counts) + 1) + "|")
    for name, cells in table.items():
        print(f"| `{name}` | " + " | ".join(cells) + " |")


def split(folder: Path, files: dict, groups: dict, count: int, draw: int, target: Path) -> None:
    """Make a folder that is split into train and test, of links to the images."""
    rng = np.random.default_rng([draw, count])
    held = set()
    for paths in files.values():
        own = sorted({groups[path] for path in paths if path in groups})
        # A third of the groups of a class is tested, at least one and never all.
        held |= set(rng.permutation(own)[: max(1, len(own) // 3)]) if len(own) > 1 else set()
    for paths in files.values():
        known = [path for path in paths if groups.get(path) not in held] or paths
        drawn = set(rng.choice(known, min(count, len(known) - 1), replace=False))
        for path in paths:
            if groups and path not in drawn and groups.get(path) not in held:
                continue
            place = target / ("train" if path in drawn else "test") / path
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(folder / path, place)
            except OSError:
                shutil.copyfile(folder / path, place)


if __name__ == "__main__":
    main()
