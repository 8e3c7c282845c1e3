"""The time that a backbone takes for an image through ONNX Runtime, in Float32 and in 8 bits, and what 8 bits change.

python benchmarks/features.py [DATA] [--backbones efficientnet-lite2] [--images 64] [--rounds 7] [--accuracy]

DATA is a folder of class folders, or demo; its images are prepared at the backbone's size. Float32 and 8 bits are run
in turn, and the fastest round of each counts. With --accuracy the features of all images are computed both ways, and a
logistic regression on standardised features (scikit-learn's) is fitted to the training part and scored on the test
part.

On a machine with other work `taskset -c 0 python benchmarks/features.py --clock cpu` counts the time of one core only
while it is ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import photoflux
from photoflux.data.prepared import PreparedDataset
from photoflux.features import Backbone, features_dataset, open_backbone

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def in_turn(runs: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return the seconds of the fastest of so many rounds of each, after one that does not count."""
    best = dict.fromkeys(runs, float("inf"))
    for number in range(rounds + 1):
        for name, run in runs.items():
            began = clock()
            run()
            if number:
                best[name] = min(best[name], clock() - began)
    return best


def timed(prepared: PreparedDataset, both: dict[str, Backbone], images: int, rounds: int, clock: str) -> None:
    """Print the time an image, and how far the features are apart."""
    pixels = np.array(prepared.images[prepared.indices("test")[:images]])
    best = in_turn(
        {name: lambda b=backbone: b.features_of(pixels) for name, backbone in both.items()}, rounds, CLOCKS[clock]
    )
    exact, rounded = (backbone.features_of(pixels) for backbone in both.values())
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    norms = np.linalg.norm(rounded, axis=1) * np.linalg.norm(exact, axis=1)
    cosine = (rounded * exact).sum(axis=1) / norms
    figures = "   ".join(f"{name} {1e3 * seconds / len(pixels):.1f} ms an image" for name, seconds in best.items())
    print(f"{figures}   int8/float32 {best['int8'] / best['float32']:.2f}")
    print(f"  features in 8 bits: error {100 * error:.1f} %, cosine {cosine.mean():.4f}, the least {cosine.min():.4f}")


def scored(prepared: PreparedDataset, both: dict[str, Backbone]) -> None:
    """Print the balanced accuracy on the test part of a head on either kind of features."""
    for name, backbone in both.items():
        began = time.perf_counter()
        features = features_dataset(prepared, backbone)
        x, train, test = features.images[:, :, 0, 0], prepared.indices("train"), prepared.indices("test")
        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=1000, class_weight="balanced"))
        head.fit(x[train], prepared.labels[train])
        score = balanced_accuracy_score(prepared.labels[test], head.predict(x[test]))
        seconds = time.perf_counter() - began
        print(f"  head on {name}: balanced accuracy {100 * score:.2f} % of {len(test)} test images ({seconds:.0f} s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="demo")
    parser.add_argument("--backbones", nargs="+", default=["efficientnet-lite2"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--accuracy", action="store_true")
    options = parser.parse_args()
    for name in options.backbones:
        plain, int8 = (open_backbone(name, precision=precision) for precision in ("float32", "int8"))
        prepared = photoflux.prepare(options.data, image_size=plain.image_size, progress=False)
        print(f"{name}, {prepared.width} × {prepared.height}, {prepared.name}")
        both = {"float32": plain, "int8": int8.calibrated_on(prepared)}
        timed(prepared, both, options.images, options.rounds, options.clock)
        if options.accuracy:
            scored(prepared, both)


if __name__ == "__main__":
    main()
