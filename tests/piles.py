"""Piles of made-up files, a run whose model is the brightness of an image, and a job with it as its own process."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from photoflux.data.shape import Shape
from photoflux.filtering.filter import Filtered, filter_pile
from photoflux.model.settings import settings_of
from photoflux.model.variants import variants
from photoflux.model.weights import metadata_of, write_weights
from photoflux.runs.description import RunData, RunMetrics
from photoflux.runs.folder import write_description
from photoflux.runs.progress import Display
from photoflux.runs.run import Run, load_run
from small import random_weights

SHAPE = Shape(3, 8, 8)
LIGHT, DARK = (220, 210, 200), (20, 30, 40)


class Brightness:
    """A model whose logit grows with the mean of an image; an image of a mean of 100 is on the border."""

    def logits(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        time.sleep(float(os.environ.get("PILES_SLOW", "0")))
        return (images.mean(axis=(1, 2, 3), dtype=np.float64)[:, None] / 10 - 10).astype(np.float32)


def make_run(folder: Path, seed: int = 0, **changes: Any) -> Run:
    """A run of two classes, whose weights are drawn and not used."""
    variant, classes = variants()["dense_l2"], ["dark", "light"]
    folder.mkdir(parents=True, exist_ok=True)
    weights = random_weights(variant, SHAPE, 2, seed)
    write_weights(folder / "weights.safetensors", weights, metadata_of(variant, SHAPE, 2))
    settings = settings_of(variant, None, None, None, 1, None)
    data = RunData("piles", "none", classes, SHAPE)
    run = Run(folder, "keras", variant, settings, data, [], 0, "adopted", 0.0, RunMetrics(), {}, **changes)
    write_description(folder, run)
    return load_run(folder)


def picture(colour: tuple[int, int, int], number: int = 0, kind: str = "PNG") -> bytes:
    """A picture of nearly one colour, no two alike."""
    image = Image.new("RGB", (12, 10), colour)
    image.putpixel((number % 12, number // 12 % 10), (number % 256, 0, 9))
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def pages(count: int) -> list[Image.Image]:
    """Pages of a document, light and dark in turn."""
    return [Image.open(io.BytesIO(picture((DARK, LIGHT)[page % 2], page))).convert("RGB") for page in range(count)]


def make_pile(folder: Path, files: int = 60) -> Path:
    """A pile with everything in it: folders, pages, archives, damage, and names of all kinds."""
    for number in range(files):
        place = folder / f"box {number % 3}" / f"{number:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture((LIGHT, DARK, DARK)[number % 3 if number % 2 else number % 2], number))
    (folder / "box 0" / "naïve Ünï 写真.png").write_bytes(picture(LIGHT, 201))
    Path(os.fsdecode(os.fsencode(folder) + b"/box 0/latin-\xe9.png")).write_bytes(picture(LIGHT, 202))
    (folder / "box 1" / ("long" * 60 + ".png")).write_bytes(picture(LIGHT, 203))
    (folder / "box 1" / "line\nbreak.png").write_bytes(picture(LIGHT, 204))
    (folder / "broken.png").write_bytes(picture(LIGHT)[:40])
    (folder / "empty.png").write_bytes(b"")
    (folder / "words.txt").write_text("words")
    (folder / ".DS_Store").write_bytes(b"x")
    first, *others = pages(5)
    first.save(folder / "pages.tif", save_all=True, append_images=others)
    first.save(folder / "pages.pdf", save_all=True, append_images=others)
    with zipfile.ZipFile(folder / "old.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/one.png", picture(LIGHT, 301))
        archive.writestr("a/two.png", picture(DARK, 302))
        archive.writestr("../../evil.png", picture(LIGHT, 303))
        archive.writestr("a/broken.png", picture(LIGHT)[:30])
        archive.writestr("__MACOSX/._one.png", b"x")
        archive.writestr("pages.pdf", (folder / "pages.pdf").read_bytes())
    with zipfile.ZipFile(folder / "twice.zip", "w") as archive, _no_warnings():
        for number in range(3):
            archive.writestr("same.png", picture(LIGHT, 310 + number))
    for name, mode in (("plain.tar", "w"), ("packed.tar.gz", "w:gz")):
        with tarfile.open(folder / name, mode) as archive:
            for number in range(6):
                data = picture(LIGHT if number % 2 else DARK, 320 + number)
                info = tarfile.TarInfo(f"deep/{number}.png")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    data = (folder / "packed.tar.gz").read_bytes()
    (folder / "cut.tar.gz").write_bytes(data[: len(data) * 2 // 3])
    (folder / "no.zip").write_bytes(b"PK\3\4 and no more")
    return folder


def _no_warnings() -> Any:
    import warnings

    found = warnings.catch_warnings()
    warnings.simplefilter("ignore")
    return found


def run_job(run: Run, pile: Path | list[Path], out: Path, **options: Any) -> Filtered:
    """A job with the model `Brightness` in this process."""
    given = {"recall": None, "threshold": None, "how": "link", "workers": 2, "watch": False, **options}
    with Display(False) as display:
        paths = pile if isinstance(pile, list) else [pile]
        return filter_pile(run, paths, out, Brightness, display=display, **given)


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


if __name__ == "__main__":
    options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    print(run_job(load_run(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), **options).counts)
