"""The most memory that preparing images takes, this process and its helpers together.

python benchmarks/memory.py [--files 220] [--pages 80] [--megapixels 199] [--processes 2]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from photoflux.data.images.parallel import decode_files


def resident(pid: int) -> int:
    """The memory of a process and of those below it, in bytes; pages that they share count for each (Linux)."""
    total = 0
    try:
        total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(resident(int(child)) for child in (task / "children").read_text().split())
    except OSError:
        pass
    return total


def peak_of(paths: list[Path], processes: int) -> tuple[int, int, float]:
    """Decode files as `photoflux prepare` does: images, the most memory above what was there before, and seconds."""
    before, most, over = resident(os.getpid()), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.01):
            most = max(most, resident(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        parts = decode_files(paths, height=180, width=180, processes=processes)
        images = sum(len(part.images) for _, part in parts)
    finally:
        over.set()
        watcher.join()
    return images, max(0, most - before), time.perf_counter() - start


def page(number: int) -> Image.Image:
    """A bilevel scan."""
    return Image.fromarray(np.random.default_rng(number).random((60, 80)) < 0.5).resize((800, 600))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=220)
    parser.add_argument("--pages", type=int, default=80)
    parser.add_argument("--megapixels", type=int, default=199)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages = [page(number) for number in range(given.pages)]
        pages[0].save(folder / "book.tif", save_all=True, append_images=pages[1:], compression="group4")
        for number, image in enumerate(pages):
            image.copy().save(folder / f"{number}.png")
        side = int((given.megapixels * 1e6) ** 0.5)
        for mode, colour in (("RGB", (200, 30, 30)), ("RGBA", (200, 30, 30, 128)), ("L", 99)):
            Image.new(mode, (side, side), colour).save(folder / f"large{mode}.png", compress_level=1)
        small = [folder / f"{number}.png" for number in range(given.pages)]
        for what, paths in (
            (f"{given.files} TIFFs of {given.pages} pages", [folder / "book.tif"] * given.files),
            ("the same pages as PNGs", small * given.files),
            (f"two RGB PNGs of {given.megapixels} megapixels", [folder / "largeRGB.png"] * 2),
            (f"two RGBA PNGs of {given.megapixels} megapixels", [folder / "largeRGBA.png"] * 2),
            (f"two grey PNGs of {given.megapixels} megapixels", [folder / "largeL.png"] * 2),
        ):
            images, memory, seconds = peak_of(paths, given.processes)
            print(f"{what}: {images} images, {memory / 2**20:.0f} MiB, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
