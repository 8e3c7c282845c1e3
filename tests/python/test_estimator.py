"""The estimator within scikit-learn: its own checks of estimators, cross-validation, a grid, a pipeline, copies."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import photoflux
from photoflux import PhotoFluxClassifier, SettingError

QUICK: dict[str, Any] = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01, "random_state": 0}


@pytest.fixture(params=["keras", "flux"])
def engine(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue(request.param)
    return str(request.param)


def bars(count: int, *, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Grey images with a bright bar, whose place is the class, and names of the classes that sort otherwise."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % classes
    images = rng.integers(0, 90, (count, 8, 9))
    for image, code in zip(images, codes, strict=True):
        image[:, 3 * code : 3 * code + 3] += 160
    return images.astype(np.uint8), np.array(["west", "mid", "east"])[codes]


@pytest.mark.parametrize("classes", [2, 3])
def test_it_learns_and_answers_in_the_users_labels(engine: str, classes: int):
    images, labels = bars(90, classes=classes)
    fitted = PhotoFluxClassifier("dense_l2", engine=engine, **QUICK | {"epochs": 12}).fit(images, labels)
    assert fitted.classes_.tolist() == sorted(set(labels.tolist()))
    assert (fitted.image_shape_, fitted.n_features_in_, len(fitted.history_)) == ((1, 8, 9), 72, 12)
    unseen, true = bars(30, classes=classes, seed=1)
    proba = fitted.predict_proba(unseen)
    assert proba.shape == (30, classes) and proba.sum(axis=1) == pytest.approx(np.ones(30))
    assert (fitted.predict(unseen) == fitted.classes_[proba.argmax(axis=1)]).all()
    assert fitted.score(unseen, true) == (fitted.predict(unseen) == true).mean() > 0.9


def test_it_is_what_train_makes_of_the_same_part_of_the_images(flux: object, tmp_path: Path):
    """The same seed and the same split give the same history as `photoflux.train` on the prepared dataset."""
    images, labels = bars(60)
    fitted = PhotoFluxClassifier("l2", engine="flux", **QUICK).fit(images, labels)
    data = fitted._folder / "data"
    again = photoflux.train(
        "l2",
        data,
        engine="flux",
        epochs=4,
        batch_size=16,
        learning_rate=0.01,
        seed=0,
        out=tmp_path / "r",
        progress=False,
    )
    assert [row.train_loss for row in fitted.history_] == [row.train_loss for row in again.history]
    assert len(photoflux.prepare(data, progress=False).indices("validation")) == 6
    # The random state is the seed; another split and other weights give another fit.
    other = PhotoFluxClassifier("l2", engine="flux", **QUICK | {"random_state": 1}).fit(images, labels)
    assert [row.train_loss for row in other.history_] != [row.train_loss for row in again.history]


def test_in_cross_validation_a_grid_and_a_pipeline(engine: str):
    images, labels = bars(60)
    model = PhotoFluxClassifier("dense_l2", engine=engine, **QUICK | {"epochs": 10})
    assert cross_val_score(model, images, labels, cv=3).min() > 0.8
    searched = GridSearchCV(
        model, {"l2": [0.0, 0.01], "variant": ["dense_l2"]}, cv=2, scoring="roc_auc", error_score="raise"
    )
    searched.fit(images, labels)
    assert searched.best_params_["l2"] in (0.0, 0.01) and searched.best_score_ > 0.8
    turned = make_pipeline(FunctionTransformer(lambda x: 255 - x), clone(model)).fit(images, labels)
    assert turned.score(images, labels) > 0.9


def test_a_copy_answers_alike(engine: str):
    images, labels = bars(40)
    fitted = PhotoFluxClassifier("dense_l2", engine=engine, **QUICK).fit(images, labels)
    copied = pickle.loads(pickle.dumps(fitted))
    assert (copied.predict_proba(images) == fitted.predict_proba(images)).all()
    assert clone(fitted).get_params() == fitted.get_params() and not hasattr(clone(fitted), "classes_")


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 8, 8)), [0, 1, 0, 1], "must be uint8"),
        (np.zeros((4, 64), np.uint8), [0, 1, 0, 1], r"must have the shape \(N, H, W, C\)"),
        (np.zeros((4, 4, 4), np.uint8), [0, 1, 0, 1], "4 × 4, expected 8 or more a side"),
        (np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1], "too few different images for a "),
        (np.zeros((4, 8, 8), np.uint8), [1, 1, 1, 1], r"received one class: \[1\]"),
        (np.zeros((4, 8, 8), np.uint8), [0, 1, 0], r"a label for each image, \(4,\)"),
        (np.zeros((4, 8, 8), np.uint8), [0, 1, np.nan, 1], "no NaN"),
        (np.zeros((4, 8, 8), np.uint8), [0.5, 1, 0.25, 1], "Unknown label type"),
    ],
)
def test_what_cannot_be_fitted(x: np.ndarray, y: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        PhotoFluxClassifier().fit(x, y)


def test_each_copy_has_callbacks_of_its_own(flux: object):
    class Count(photoflux.Callback):
        def __init__(self) -> None:
            self.rates: list[float] = []

        def on_batch_end(self, fit: photoflux.RunningFit) -> None:
            self.rates.append(fit.learning_rate)

    images, labels = bars(40)
    model = PhotoFluxClassifier(
        "dense_l2", engine="flux", schedule="step", callbacks=[Count()], **QUICK | {"epochs": 3}
    )
    copy = clone(model)
    copy.fit(images, labels)
    # 36 images, 16 a batch.
    assert copy.callbacks[0].rates == pytest.approx([0.01] * 3 + [0.001] * 3 + [0.0001] * 3)
    assert model.callbacks[0].rates == [] and len(copy.history_) == 3


def test_parameters_are_checked_when_it_is_fitted():
    images, labels = bars(20)
    for wrong in (
        {"variant": "l3"},
        {"validation_fraction": 1},
        {"epochs": 0},
        {"variant": "transfer"},
        {"device": "gpu"},
        {"schedule": "linear"},
        {"max_time": "soon"},
        {"callbacks": [3]},
    ):
        with pytest.raises(SettingError, match=next(iter(wrong)) if "transfer" not in wrong.values() else "backbone"):
            PhotoFluxClassifier(**wrong).fit(images, labels)
    with pytest.raises(NotFittedError):
        PhotoFluxClassifier().predict(images)


class OnRows(PhotoFluxClassifier):
    """The estimator on the rows of numbers that scikit-learn's checks give it: each is drawn as a picture of bars."""

    def _pictures(self, x: Any, *, first: bool) -> np.ndarray:
        from sklearn.utils.validation import validate_data

        rows = validate_data(self, x, reset=first)
        if first:
            self._low, self._high = rows.min(axis=0), rows.max(axis=0)
        scaled = np.clip((rows - self._low) / np.maximum(self._high - self._low, 1e-12), 0, 1)
        wide = np.repeat((255 * scaled).round().astype(np.uint8), -(-8 // rows.shape[1]), axis=1)
        return np.repeat(wide[:, None, :], 8, axis=1)

    def fit(self, X: Any, y: Any) -> OnRows:
        from sklearn.utils.validation import check_X_y

        check_X_y(X, y)
        images = self._pictures(X, first=True)
        features = self.n_features_in_
        super().fit(images, y)
        self.n_features_in_ = features
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "classes_")
        return super().predict_proba(self._pictures(X, first=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        return tags


@parametrize_with_checks([OnRows("dense_l2", epochs=8, batch_size=8, learning_rate=0.02, random_state=0)])
def test_scikit_learns_own_checks(estimator: Any, check: Any, flux: object):
    check(estimator)
