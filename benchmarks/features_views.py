"""What augmented views of the training images are worth to a head that is fitted to few images.

python benchmarks/features_views.py [DATA] [--backbone efficientnet-lite2] [--few 20 50] [--views 1 4] [--draws 5]

So many images of each class are drawn; a logistic regression on standardised features (scikit-learn's) is fitted to
them, with and without their views, and scored on all other images. Every draw is scored both ways.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import photoflux
from photoflux.features import features_dataset, open_backbone
from photoflux.features.views import view_of


def score(x: np.ndarray, y: np.ndarray, test: np.ndarray, labels: np.ndarray, penalty: float) -> float:
    """Return the balanced accuracy in percent of a head that is fitted to x and y."""
    head = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head.fit(x, y)
    return 100 * balanced_accuracy_score(labels, head.predict(test))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="demo")
    parser.add_argument("--backbone", default="efficientnet-lite2")
    parser.add_argument("--few", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--views", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--penalty", type=float, default=0.01, help="scikit-learn's C")
    options = parser.parse_args()
    backbone = open_backbone(options.backbone)
    prepared = photoflux.prepare(options.data, image_size=backbone.image_size, progress=False)
    x = np.array(features_dataset(prepared, backbone).images[:, :, 0, 0])
    labels = np.array(prepared.labels)
    most = max(options.views)
    for few in options.few:
        scores: dict[int, list[float]] = {views: [] for views in (0, *options.views)}
        for draw in range(options.draws):
            rng = np.random.default_rng(draw)
            classes = range(len(prepared.classes))
            chosen = np.concatenate([rng.permutation(np.flatnonzero(labels == k))[:few] for k in classes])
            rest = np.setdiff1d(np.arange(len(labels)), chosen)
            seen = [view_of(prepared.images[at], draw, view) for view in range(1, most + 1) for at in chosen]
            extra = backbone.features_of(np.stack(seen)).reshape(most, len(chosen), -1)
            for views, found in scores.items():
                rows = np.concatenate([x[chosen], *extra[:views]])
                targets = np.tile(labels[chosen], views + 1)
                found.append(score(rows, targets, x[rest], labels[rest], options.penalty / (views + 1)))
        for views, found in scores.items():
            gain = np.subtract(found, scores[0])
            print(
                f"{few} images a class, {views} views: {np.mean(found):.2f} % (± {np.std(found):.2f}), "
                f"{gain.mean():+.2f} points (± {gain.std():.2f}) of {options.draws} draws"
            )


if __name__ == "__main__":
    main()
