"""What the tests of export and import share: runs with random weights, images, and a Python without PhotoFlux."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from photoflux.data.shape import Shape
from photoflux.model.settings import Settings
from photoflux.model.variant import Variant
from photoflux.model.weights import expected_shapes, metadata_of, write_weights
from photoflux.runs.description import RunData, RunMetrics
from photoflux.runs.folder import write_description, writing
from photoflux.runs.run import Run

SHAPE = Shape(3, 12, 10)
# The promise of `export`. Both sides compute logits of a size of about 1 from the same float32 weights; the longest sum
# has some 2,000 terms, whose rounding adds up to √2000·eps = 5e-6 or so.
TOLERANCE = 1e-5


def run_python(script: str, *arguments: object) -> str:
    """Run a script in a process of its own, in which PhotoFlux cannot be imported."""
    blocked = "import sys\nsys.modules['photoflux'] = None\n" + script
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-I", "-c", blocked, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def a_run(folder: Path, v: Variant, classes: int, shape: Shape = SHAPE) -> Run:
    """A run with random weights, as large as trained ones."""
    rng = np.random.default_rng(len(v.name))
    weights = {}
    for name, size in expected_shapes(v, shape, classes).items():
        if name.endswith(".deviation"):
            weights[name] = rng.uniform(0.5, 1.5, size).astype(np.float32)
            continue
        limit = np.sqrt(6 / (np.prod(size[:-2]) * (size[-2] + size[-1]))) if len(size) > 1 else 0.1
        weights[name] = rng.uniform(-limit, limit, size).astype(np.float32)
    data = RunData("d", "", [f"c{k}" for k in range(classes)], shape)
    run = Run(folder, "keras", v, Settings(1, 32, 0.001), data, [], 0, "interrupted", 0.0, RunMetrics(), {})
    with writing(folder) as temporary:
        write_weights(temporary / run.weights.name, weights, metadata_of(v, shape, classes))
        write_description(temporary, run)
    return run


def some_images(count: int, shape: Shape = SHAPE) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, *shape), np.uint8)
