"""Files to predictions, in blocks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from photoflux.data.shape import Shape
from photoflux.runs.prediction import EVALUATION_BATCH, Candidate, predict_files


class Brightness:
    """A model whose logit is the mean of an image; it notes how many images it gets at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def logits(self, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
        self.sizes.append(len(images))
        return images.mean(axis=(1, 2, 3), dtype=np.float32)[:, None] - 100


def test_the_pages_of_a_file_come_in_blocks_in_their_order(tmp_path: Path):
    pages = [Image.new("L", (9, 9), number % 256) for number in range(2 * EVALUATION_BATCH + 3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    Image.new("L", (9, 9), 7).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"")
    files = [Candidate(tmp_path / name) for name in ("a.tif", "b.png", "c.png")]
    files.append(Candidate(tmp_path / "d", "a pipe"))
    model, steps = Brightness(), []
    run: Any = SimpleNamespace(classes=["dark", "light"], shape=Shape(3, 8, 8), threshold=None, path=tmp_path)
    display: Any = SimpleNamespace(step=lambda *step: steps.append(step))
    results, unlike = predict_files(lambda: model, run, files, display)
    assert max(model.sizes) <= EVALUATION_BATCH
    names = [f"a.tif#{number}" for number in range(1, len(pages) + 1)]
    assert [Path(result.path).name for result in results] == [*names, "b.png", "c.png", "d"]
    assert [result.label for result in results[:102]] == ["dark"] * 101 + ["light"]
    assert [result.rejected for result in results[-3:]] == [None, "an empty file (0 bytes)", "a pipe"]
    assert unlike == [], "the run has kept nothing of its own"
    assert steps[-1:] == [(4, 4, "Predicting")]
