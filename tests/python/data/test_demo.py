from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photoflux.data.prepared import FILES, PreparedDataset
from photoflux.data.sources.demo import CLASSES, prepare_demo, write_demo_folder
from photoflux.errors import DataError, SettingError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return prepare_demo(tmp_path_factory.mktemp("demo") / "set")


def test_five_folders_as_photo_or_not(demo: PreparedDataset):
    assert demo.images.shape == (600, 3, 64, 64)
    assert demo.classes == ["not Photo", "Photo"]
    assert demo.folder_counts() == dict.fromkeys(CLASSES, 120)
    assert demo.counts() == {
        "train": {"not Photo": 336, "Photo": 84},
        "validation": {"not Photo": 48, "Photo": 12},
        "test": {"not Photo": 96, "Photo": 24},
    }
    assert demo.meta["source"] == demo.name == "demo"


def test_every_image_is_another(demo: PreparedDataset):
    assert len({image.tobytes() for image in demo.images}) == 600
    # And not only by noise: the nearest other image is far away.
    small = demo.images.reshape(600, 3, 16, 4, 16, 4).mean(axis=(3, 5)).reshape(600, -1)
    distances = np.sqrt(((small[:, None, ::7] - small[None, :, ::7]) ** 2).mean(axis=2))
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 6


def test_the_seed_fixes_the_images(tmp_path: Path):
    first = prepare_demo(tmp_path / "a", images_per_class=4)
    again = prepare_demo(tmp_path / "b", images_per_class=4)
    other = prepare_demo(tmp_path / "c", images_per_class=4, seed=43)
    for name in FILES:
        assert (first.path / name).read_bytes() == (again.path / name).read_bytes()
    assert first.fingerprint == again.fingerprint != other.fingerprint
    # More images keep the ones there were.
    more = prepare_demo(tmp_path / "d", images_per_class=6)
    assert np.array_equal(more.images[:4], first.images[:4])


def balanced_accuracy(features: np.ndarray, demo: PreparedDataset, labels: np.ndarray, model) -> float:
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = demo.split != 2, demo.split == 2
    fitted = make_pipeline(StandardScaler(), model).fit(features[train], labels[train])
    return float(balanced_accuracy_score(labels[test], fitted.predict(features[test])))


def test_mean_colour_does_not_solve_it(demo: PreparedDataset):
    from sklearn.linear_model import LogisticRegression

    linear = LogisticRegression(class_weight="balanced", max_iter=2000)
    colour = demo.images.mean(axis=(2, 3))
    spread = np.concatenate([colour, demo.images.std(axis=(2, 3))], axis=1)
    assert balanced_accuracy(colour, demo, demo.labels, linear) < 0.65
    assert balanced_accuracy(spread, demo, demo.labels, linear) < 0.75
    thumbnails = demo.images.reshape(600, 3, 8, 8, 8, 8).mean(axis=(3, 5)).reshape(600, -1)
    assert balanced_accuracy(thumbnails, demo, demo.labels, linear) < 0.8


def test_strokes_do_solve_it(demo: PreparedDataset):
    """What a first convolution can see, the distribution of local differences, tells all five classes apart."""
    from sklearn.linear_model import LogisticRegression

    grey = demo.images.mean(axis=1)
    features = []
    for step in (1, 2, 4):
        for difference in (grey[:, step:] - grey[:, :-step], grey[:, :, step:] - grey[:, :, :-step]):
            scaled = np.abs(difference).reshape(600, -1) / grey.std(axis=(1, 2))[:, None]
            features += [scaled.mean(axis=1), scaled.std(axis=1), np.quantile(scaled, 0.5, axis=1)]
    features = np.stack(features, axis=1)
    linear = LogisticRegression(class_weight="balanced", max_iter=5000)
    kinds = np.array([CLASSES.index(folder) for folder in demo.folder_labels()])
    assert balanced_accuracy(features, demo, demo.labels, linear) > 0.9
    assert balanced_accuracy(features, demo, kinds, linear) > 0.75


def test_size_and_speed(tmp_path: Path):
    start = time.process_time()
    dataset = prepare_demo(tmp_path / "set", images_per_class=20, image_size=180, positive=None)
    assert time.process_time() - start < 10
    assert dataset.images.shape == (100, 3, 180, 180)
    assert dataset.classes == list(CLASSES)


def test_folder(tmp_path: Path):
    root = write_demo_folder(tmp_path / "scans", images_per_class=4)
    assert names(root) == sorted(CLASSES)
    assert names(root / "Text") == ["00000.png", "00001.jpg", "00002.png", "00003.jpg"]
    dataset = prepare_demo(tmp_path / "set", images_per_class=4)
    with Image.open(root / "Text" / "00002.png") as image:
        assert np.array_equal(np.asarray(image).transpose(2, 0, 1), dataset.images[18])
    with pytest.raises(DataError, match="scans exists, expected a new or empty folder; nothing was written"):
        write_demo_folder(root)


@pytest.mark.parametrize("count", [0, 2, -1, 1.5, "9", True])
def test_images_per_class(tmp_path: Path, count: object):
    with pytest.raises(SettingError, match="`images_per_class` must be an integer, 3 or more; received"):
        prepare_demo(tmp_path / "set", images_per_class=count)
    assert names(tmp_path) == []
