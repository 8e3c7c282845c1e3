"""A scikit-learn estimator on arrays of images; what `fit` and the like take and give is changed here."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from photoflux.data.checks import SMALLEST
from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.data.sources.arrays import as_array, check_images, write_images
from photoflux.engines import get_engine
from photoflux.engines.base import Engine, Model
from photoflux.engines.callbacks import hooks_of
from photoflux.engines.device import device_of
from photoflux.errors import DataError, SettingError
from photoflux.model.settings import chosen_variant, seconds_of, settings_of
from photoflux.model.variant import Variant
from photoflux.runs.evaluation import probabilities
from photoflux.runs.progress import Display
from photoflux.runs.run import Run, load_run
from photoflux.runs.scoring import EVALUATION_BATCH
from photoflux.runs.training import fit_and_save
from photoflux.system.atomic import new_scratch, remove

# The files of a run that a copy of the estimator needs.
_FILES = ("run.json", "weights.safetensors", "history.csv")


class PhotoFluxClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A variant as a scikit-learn estimator: for `cross_val_score`, `GridSearchCV`, `Pipeline` and the like.

    Images are uint8, (N, H, W, C) with 1 or 3 channels, or (N, H, W), of `photoflux.data.checks.SMALLEST` pixels a side
    or more. Variants on a backbone are not for it: extract their features once, and take scikit-learn's own models.

    Parameters
    ----------
    variant : str, Path or Variant
        As in `photoflux.train`.
    engine, device : str
        As in `photoflux.train`.
    epochs, batch_size, learning_rate, l1, l2, loss, balance : optional
        As in `photoflux.train`; the variant's own unless given.
    schedule, max_time : optional
        As in `photoflux.train`.
    callbacks : sequence of Callback
        As in `photoflux.train`; scikit-learn's `clone` copies them, so that each fit of a search has its own.
    validation_fraction : float
        The share of the images, above 0 and below 1, on which the losses of the history and early stopping are
        computed; equal images stay on one side. Nothing is trained on them.
    random_state : int, numpy.random.RandomState or None
        Fixes that split, initial weights, batch order, dropout and augmentation; None: other ones each time.
    verbose : bool
        Whether progress is shown on stderr.

    Attributes
    ----------
    classes_ : numpy.ndarray
        The labels, (K,), sorted.
    history_ : list of EpochRow
        One for each epoch.
    image_shape_ : tuple of int
        (C, H, W) of the images.
    n_features_in_ : int
        C·H·W.

    Examples
    --------
    >>> PhotoFluxClassifier("dense_l2", epochs=3, random_state=0)
    PhotoFluxClassifier(epochs=3, random_state=0, variant='dense_l2')
    """

    def __init__(
        self,
        variant: str | Path | Variant = "l2",
        *,
        engine: str = "auto",
        device: str = "cpu",
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        l1: float | None = None,
        l2: float | None = None,
        loss: str | None = None,
        balance: str | None = None,
        schedule: str = "constant",
        max_time: float | str | None = None,
        callbacks: Sequence[Any] = (),
        validation_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.variant = variant
        self.engine, self.device = engine, device
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.l1, self.l2, self.loss, self.balance = l1, l2, loss, balance
        self.schedule, self.max_time, self.callbacks = schedule, max_time, callbacks
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Train the variant.

        Parameters
        ----------
        X : array of uint8
            The images, see the class.
        y : array
            A label of each, (N,), of any kind that can be sorted; two or more different ones.

        Returns
        -------
        PhotoFluxClassifier
            Itself.

        Raises
        ------
        ValueError
            If a parameter, the images or the labels cannot be used.
        EngineError, DivergedError
            As `photoflux.train`.
        """
        with _value_errors():
            images = check_images(X)
            classes, codes = _labels(y, len(images))
            chosen = chosen_variant(self.variant, self.l1, self.l2, self.loss)
            if chosen.takes_features:
                raise SettingError(
                    f"The variant {chosen.name} is on a backbone, and this estimator trains on pixels. Take another, "
                    "or `photoflux.train`."
                )
            seed = self._seed()
            settings = settings_of(
                chosen, self.epochs, self.batch_size, self.learning_rate, seed, self.balance, schedule=self.schedule
            )
            hooks = hooks_of(self.callbacks, seconds_of(self.max_time))
            self._folder = self._new_folder()
            prepared = _prepare(self._folder / "data", images, codes, classes, self._share(), seed)
        with Display(self.verbose) as display:
            engine = get_engine(self.engine, display.say, device_of(self.device))
            trained = fit_and_save(engine, chosen, prepared, settings, self._place, display, hooks=hooks)
        if trained.interruption is not None:
            raise trained.interruption
        if trained.failure is not None:
            raise trained.failure
        if trained.run.ended == "interrupted":
            raise KeyboardInterrupt
        self.classes_, self.history_, self.image_shape_ = classes, trained.run.history, tuple(prepared.shape)
        self.n_features_in_ = int(np.prod(self.image_shape_))
        self._run = trained.run
        self._model: Model | None = _loaded(engine, trained.run)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of every class, in the order of ``classes_``.

        Parameters
        ----------
        X : array of uint8
            N images of the shape to which it was fitted, see the class.

        Returns
        -------
        numpy.ndarray
            float64, (N, K); each row sums to 1.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it was not fitted.
        ValueError
            If the images are not such as it was fitted to.
        """
        check_is_fitted(self, "classes_")
        with _value_errors():
            images = check_images(X)
            if images.shape[1:] != self.image_shape_:
                raise DataError(
                    f"`X` has images of the shape {images.shape[1:]}, but PhotoFluxClassifier was fitted to images of "
                    f"{self.image_shape_}, channels first: it is expecting {self.n_features_in_} features as input."
                )
        found: np.ndarray = probabilities(self._loaded().logits(images, batch_size=EVALUATION_BATCH)).astype(np.float64)
        found /= found.sum(axis=1, keepdims=True)
        return found

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest label of each image.

        Parameters
        ----------
        X : array of uint8
            As in `predict_proba`, which says what is raised.

        Returns
        -------
        numpy.ndarray
            Of ``classes_``, (N,).
        """
        found = self.predict_proba(X)
        labels: np.ndarray = self.classes_[found.argmax(axis=1)]
        return labels

    @property
    def _place(self) -> Path:
        return self._folder / "run"

    def _new_folder(self) -> Path:
        """Make a folder that is there as long as this estimator."""
        folder = new_scratch("estimator")
        weakref.finalize(self, remove, folder)
        return folder

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    def _share(self) -> float:
        share = self.validation_fraction
        if not isinstance(share, int | float) or not 0 < share < 1:
            raise SettingError(f"`validation_fraction` must be above 0 and below 1; received: {share!r}.")
        return float(share)

    def _loaded(self) -> Model:
        if self._model is None:
            with Display(self.verbose) as display:
                self._model = _loaded(get_engine(self.engine, display.say, device_of(self.device)), self._run)
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "_folder" in state:
            state["_folder"] = {name: (self._place / name).read_bytes() for name in _FILES}
            state["_run"] = state["_model"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.get("_folder")
        super().__setstate__(state)
        if files is not None:
            self._folder = self._new_folder()
            self._place.mkdir()
            for name in _FILES:
                # Not atomic: into a temporary folder.
                (self._place / name).write_bytes(files[name])
            self._run = load_run(self._place)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.non_deterministic = self.random_state is None
        return tags


def _loaded(engine: Engine, run: Run) -> Model:
    return engine.load(run.variant, run.weights, run.shape, len(run.classes))


@contextmanager
def _value_errors() -> Iterator[None]:
    """Raise what the data are not as the `ValueError` that scikit-learn expects."""
    try:
        yield
    except DataError as error:
        raise ValueError(str(error)) from error


def _labels(y: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the different labels, and the position of each image's among them."""
    labels = as_array("y", y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) != count:
        raise DataError(f"`y` must have a label for each image, ({count},); received the shape {labels.shape}.")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise DataError("`y` must have no NaN and nothing infinite.")
    classes, codes = np.unique(labels, return_inverse=True)
    if labels.dtype.kind == "f" and not np.equal(classes, np.round(classes)).all():
        raise DataError(f"Unknown label type: `y` must be classes, and is continuous, such as {classes[:3].tolist()}.")
    if len(classes) < 2:
        raise DataError(f"`y` must have two or more classes; received one class: {classes.tolist()}.")
    return classes, codes


def _prepare(
    dest: Path, images: np.ndarray, codes: np.ndarray, classes: np.ndarray, share: float, seed: int
) -> PreparedDataset:
    """Write images, uint8 (N, C, H, W), and split them into a training and a validation part."""
    shape = Shape.of(images)
    if min(shape.height, shape.width) < SMALLEST:
        raise DataError(f"`X` has images of {shape.width} × {shape.height}, expected {SMALLEST} or more a side.")
    return write_images(
        dest,
        images,
        codes,
        [str(label) for label in classes.tolist()],
        paths=[f"X#{number}" for number in range(1, len(images) + 1)],
        name="arrays",
        source="arrays",
        shares=(1 - share, share, 0.0),
        check=_check_parts,
        seed=seed,
        positive=None,
    )


def _check_parts(classes: Sequence[str], labels: np.ndarray, split: np.ndarray, name: str) -> None:
    for part, code in (("training", 0), ("validation", 1)):
        if not np.any(split == code):
            raise DataError(f"`X` has too few different images for a {part} part: {len(split)}. Give more.")
