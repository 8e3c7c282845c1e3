"""The most memory that computing the features of many images takes, a process for each number of images.

python benchmarks/features_memory.py [--counts 2000 10000] [--size 64] [--backbone efficientnet-lite0]

The images are noise, which takes as much memory as any other.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from photoflux.data.shape import Shape
from photoflux.data.writer import FilesWriter, ImageRecord
from photoflux.features import features_dataset, open_backbone


def measure(count: int, size: int, backbone: str) -> None:
    """Prepare noise, compute its features, and print the peak before and after in MiB, and the images in a second."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PHOTOFLUX_CACHE"] = f"{folder}/cache"
        with FilesWriter(Path(folder) / "set", Shape(3, size, size)) as writer:
            for start in range(0, count, 500):
                writer.append(rng.integers(0, 256, (min(500, count - start), 3, size, size), dtype=np.uint8))
            labels = np.arange(count, dtype=np.int32) % 2
            prepared = writer.finish(
                name="noise",
                source="benchmark",
                classes=["a", "b"],
                labels=labels,
                split=np.arange(count) % 10 == 9,
                files=[ImageRecord(f"{n}.png", "a", f"{n:064x}", n, size, size) for n in range(count)],
                seed=0,
            )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began = time.perf_counter()
        features_dataset(prepared, open_backbone(backbone))
        seconds = time.perf_counter() - began
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{count} images: {most:.0f} MiB at most ({before:.0f} MiB before), {count / seconds:.0f} images/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 10000])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    options = parser.parse_args()
    if len(options.counts) == 1:
        measure(options.counts[0], options.size, options.backbone)
        return
    for count in options.counts:
        rest = ["--size", str(options.size), "--backbone", options.backbone]
        subprocess.run([sys.executable, __file__, "--counts", str(count), *rest], check=True)


if __name__ == "__main__":
    main()
