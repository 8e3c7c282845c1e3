"""Fits that start from the weights of a run."""

from __future__ import annotations

import json

import numpy as np
import pytest

import photoflux
from photoflux import RunError
from photoflux.model.weights import fingerprint_of, read_weights, read_weights_of

pytestmark = pytest.mark.usefixtures("undrawn", "one_worker")
STILL = 1e-12  # a learning rate at which no weight moves


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Bright on the left or bright on the right."""
    rng = np.random.default_rng(1)
    y = np.arange(60) % 2
    x = rng.integers(0, 100, (60, 12, 10, 3), np.uint8)
    x[y == 0, :, :5] += 120
    x[y == 1, :, 5:] += 120
    return photoflux.prepare((x, y), tmp_path_factory.mktemp("data") / "prepared", progress=False)


@pytest.fixture(params=["flux", "keras"])
def engine(request):
    request.getfixturevalue(request.param)
    return request.param


@pytest.fixture
def source(engine, prepared, tmp_path):
    return photoflux.train("l2", prepared, engine=engine, epochs=2, out=tmp_path / "source", progress=False)


def test_a_fit_starts_from_the_weights_of_a_run(source, engine, prepared, tmp_path):
    # Of another variant: the penalty is its own, the shapes agree.
    for initial in (source, source.path, source.weights):
        run = photoflux.train(
            "elastic_net", prepared, engine=engine, epochs=1, learning_rate=STILL, initial=initial,
            out=tmp_path / "run", progress=False,
        )  # fmt: skip
        old, new = read_weights(source.weights)[0], read_weights(run.weights)[0]
        assert all(np.abs(new[name] - old[name]).max() < 1e-9 for name in old)
        # The same weights on the same images: nothing but the order of the sums may differ.
        assert run.history[0].validation_loss == pytest.approx(source.metrics.validation.loss, rel=1e-5)
        assert run.history[0].validation_penalty != source.metrics.validation.penalty
        ordered = read_weights_of(source.weights, source.variant, source.shape, 2)
        assert run.initial == {"path": str(source.path.resolve()), "fingerprint": fingerprint_of(ordered)}
        assert photoflux.load_run(run.path).initial == run.initial
        assert str(run).splitlines()[0].endswith(f"from {source.path.resolve()}")
    assert source.initial is None
    assert json.loads((source.path / "run.json").read_text())["initial"] is None


def test_it_goes_on_learning(source, engine, prepared, tmp_path):
    run = photoflux.train("l2", prepared, engine=engine, epochs=1, initial=source, out=tmp_path / "run", progress=False)
    assert run.history[0].train_loss < source.history[0].train_loss


def test_a_run_may_replace_the_one_that_it_started_from(source, engine, prepared):
    run = photoflux.train("l2", prepared, engine=engine, epochs=1, initial=source.path, out=source.path, progress=False)
    assert run.initial["path"] == str(source.path.resolve())
    assert len(photoflux.load_run(source.path).history) == 1


def test_what_one_engine_trained_the_other_goes_on_from(source, engine, prepared, flux, keras, tmp_path):
    other = {"flux": "keras", "keras": "flux"}[engine]
    run = photoflux.train(
        "l2", prepared, engine=other, epochs=1, learning_rate=STILL, initial=source, out=tmp_path / "run",
        progress=False,
    )  # fmt: skip
    assert run.engine == other
    # Two libraries' float32 sums of some 2,000 terms.
    assert run.history[0].validation_loss == pytest.approx(source.metrics.validation.loss, rel=1e-4)


def test_interrupted_at_once_it_holds_what_it_started_from(source, engine, prepared, request, tmp_path):
    chosen = request.getfixturevalue(engine)
    fit = chosen.fit(
        source.variant, prepared, source.settings, tmp_path / "w", initial=source.weights, on_batch=lambda at: True
    )
    assert (fit.ended, fit.kept_epoch) == ("interrupted", 0)
    old, new = read_weights(source.weights)[0], read_weights(tmp_path / "w")[0]
    # One Adam step of 0.001.
    assert all(0 < np.abs(new[name] - old[name]).max() < 0.0011 for name in old)


def test_weights_of_other_shapes_are_refused_side_by_side(source, engine, prepared, request, tmp_path):
    with pytest.raises(RunError, match=r"(?s)≠ dense1\.kernel \(1920, 128\) +dense1\.kernel \(360, 512\)"):
        photoflux.train("mlp", prepared, engine=engine, initial=source, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(photoflux.PhotoFluxError, match=r"(?s)≠ dense1\.kernel \(1920, 128\) +dense1\.kernel"):
        request.getfixturevalue(engine).fit(
            photoflux.variant("mlp"), prepared, source.settings, tmp_path / "w", initial=source.weights
        )
    assert not (tmp_path / "w").exists()


def test_what_is_no_run_is_refused(prepared, tmp_path):
    (tmp_path / "notes.txt").write_text("Dear Sir")
    with pytest.raises(RunError, match="is not a run: there is no such folder"):
        photoflux.train("l2", prepared, initial=tmp_path / "none", progress=False)
    with pytest.raises(RunError, match="is not a run: it has no run"):
        photoflux.train("l2", prepared, initial=tmp_path, progress=False)
    with pytest.raises(RunError, match="cannot be read as a weights file"):
        photoflux.train("l2", prepared, initial=tmp_path / "notes.txt", progress=False)
    (tmp_path / "m.keras").write_text("a model")
    with pytest.raises(RunError, match=r"m\.keras is a Keras file\. Make a run of it first: `photoflux import_keras"):
        photoflux.train("l2", prepared, initial=tmp_path / "m.keras", progress=False)
