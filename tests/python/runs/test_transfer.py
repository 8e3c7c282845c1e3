"""Transfer runs from a folder of images to a score, a prediction and an exported model, on a tiny backbone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import photoflux
from onnx_backbone import FEATURES, SIZE, write_backbone
from photoflux.errors import BackboneError, PhotoFluxError, SettingError
from photoflux.features import features_dataset, open_backbone
from photoflux.model.settings import settings_of
from photoflux.model.variants import variant
from photoflux.model.weights import read_weights
from photoflux.reporting.reproduce import train_command
from photoflux.runs.strength import STRENGTHS, cross_validated

pytest.importorskip("onnx", reason="the extra transfer is not installed")
pytest.importorskip("onnxruntime", reason="the extra transfer is not installed")

pytestmark = pytest.mark.usefixtures("one_worker")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny.onnx")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    """Bright, and dark, noise."""
    rng = np.random.default_rng(3)
    y = np.arange(80) % 2
    x = rng.integers(0, 90, (80, SIZE, SIZE, 3), np.uint8)
    x[y == 1] += 60
    return photoflux.prepare((x, y), tmp_path_factory.mktemp("data") / "prepared", progress=False)


GIVEN = {"backbone_mean": 127.0, "backbone_scale": 128.0, "progress": False}
LONG = {"epochs": 150, "l1": 0.1, "learning_rate": 0.05, **GIVEN}


@pytest.fixture(scope="module", params=["flux", "keras"])
def run(request, prepared, backbone, tmp_path_factory):
    request.getfixturevalue(request.param)
    out = tmp_path_factory.mktemp("runs") / "transfer"
    return photoflux.train("transfer_l1", prepared, backbone=backbone, engine=request.param, out=out, **LONG)


def logits_by_formula(run, prepared, backbone) -> np.ndarray:
    """Backbone and head, (features − mean) / deviation · kernel + bias, of the whole dataset."""
    weights = {name: value.astype(np.float64) for name, value in read_weights(run.weights)[0].items()}
    features = open_backbone(str(backbone), mean=127.0, scale=128.0).features_of(np.asarray(prepared.images))
    x = (features - weights["standardise.mean"]) / weights["standardise.deviation"]
    return x @ weights["output.kernel"] + weights["output.bias"]


def test_it_learns_and_says_what_it_learnt_from(run, prepared):
    assert run.metrics.test.balanced_accuracy > 0.9
    assert run.backbone["features"] == FEATURES
    kernel = read_weights(run.weights)[0]["output.kernel"]
    assert run.backbone["remaining"] == np.count_nonzero(kernel.any(axis=1)) < FEATURES
    assert f"{run.backbone['remaining']} of them with a weight that is not 0" in str(run)
    assert photoflux.load_run(run.path).backbone == run.backbone
    assert run.shape == prepared.shape
    assert "onnxruntime" in run.versions


def test_its_scores_and_predictions_are_those_of_backbone_and_head(run, prepared, backbone):
    expected = logits_by_formula(run, prepared, backbone)
    # 6·√n·eps of the largest: the tolerance of a proof, n the terms of a feature and of a logit.
    allowed = 6 * np.sqrt(27 + SIZE * SIZE + FEATURES) * np.finfo(np.float32).eps * np.abs(expected).max()
    chosen = prepared.indices("test")
    assert np.abs(run.logits("test") - expected[chosen]).max() < allowed
    assert photoflux.evaluate(run, part="test", progress=False) == run.metrics.test
    images = np.asarray(prepared.images[chosen]).transpose(0, 2, 3, 1)
    found = [p.probabilities[run.classes[1]] for p in photoflux.predict(run, images, progress=False)]
    assert found == pytest.approx(1 / (1 + np.exp(-expected[chosen, 0])), abs=allowed)


@pytest.mark.parametrize("suffix", ["onnx"])
def test_an_exported_model_goes_from_pixels_to_logits(run, prepared, backbone, tmp_path, suffix):
    import onnxruntime

    path = photoflux.export(run, tmp_path / f"model.{suffix}", progress=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.asarray(prepared.images[:9]).transpose(0, 2, 3, 1).astype(np.float32)
    (found,) = session.run(["logits"], {"images": images})
    expected = logits_by_formula(run, prepared, backbone)[:9]
    allowed = 6 * np.sqrt(27 + SIZE * SIZE + FEATURES) * np.finfo(np.float32).eps * np.abs(expected).max()
    assert np.abs(found - expected).max() < allowed


def test_a_keras_file_of_an_onnx_backbone_is_refused(run, tmp_path):
    with pytest.raises(SettingError, match=r"Export the run as model\.onnx"):
        photoflux.export(run, tmp_path / "model.keras", progress=False)
    assert not (tmp_path / "model.keras").exists()


def test_a_run_whose_backbone_is_gone_says_so(run, prepared, backbone, tmp_path):
    lost = shutil.copytree(run.path, tmp_path / "run")
    described = json.loads((lost / "run.json").read_text())
    text = json.dumps(described).replace(str(backbone), str(tmp_path / "gone.onnx"))
    (lost / "run.json").write_text(text)
    with pytest.raises(BackboneError, match=r"gone\.onnx"):
        photoflux.predict(lost, np.asarray(prepared.images[:2]).transpose(0, 2, 3, 1), progress=False)


def test_the_report_names_the_backbone(run):
    page = photoflux.report(run).read_text(encoding="utf-8")
    assert "tiny" in page and "with a weight that is not 0" in page


def test_the_strength_is_chosen_by_cross_validation(prepared, backbone):
    features = features_dataset(prepared, open_backbone(str(backbone), mean=127.0, scale=128.0))
    v = variant("transfer")
    found, note = cross_validated(v, features, prepared, settings_of(v, None, None, None, 1, "none"))
    assert found.penalty["output"]["l2"] in STRENGTHS
    assert f"L2 {found.penalty['output']['l2']:g}, chosen by 5-fold cross-validation" in note
    # Of labels that the features say nothing of, a strong penalty does best; of labels they decide, a weak one.
    random = np.random.default_rng(0).permutation(prepared.labels)
    guessing, _ = cross_validated(
        v, features, replace(prepared, labels=random), settings_of(v, None, None, None, 1, "none")
    )
    assert guessing.penalty["output"]["l2"] > found.penalty["output"]["l2"]
    assert cross_validated(variant("transfer_mlp"), features, prepared, None) == (variant("transfer_mlp"), "")


def test_the_same_seed_gives_the_same_run(run, prepared, backbone, tmp_path):
    again = photoflux.train(
        "transfer_l1", prepared, backbone=backbone, engine=run.engine, out=tmp_path / "again", **LONG
    )
    ours, theirs = (read_weights(one.weights)[0] for one in (again, run))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_views_are_fitted_too_and_not_scored(prepared, backbone, tmp_path, flux):
    run = photoflux.train("transfer", prepared, backbone=backbone, views=2, epochs=1, out=tmp_path / "run", **GIVEN)
    assert run.backbone["views"] == 2
    assert run.metrics.test.images == len(prepared.indices("test"))
    assert "--views 2" in train_command(run)


def test_options_of_a_backbone_are_for_transfer_variants():
    for option in ({"backbone": "efficientnet-lite0"}, {"precision": "int8"}, {"views": 1}, {"backbone_mean": 1.0}):
        with pytest.raises(
            SettingError, match=f"`{next(iter(option))}` is for the variants on a backbone only: transfer"
        ):
            photoflux.train("l2", "demo", progress=False, **option)


def test_a_backbone_of_another_size_is_refused_before_an_engine_starts(backbone, tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), np.uint8)
    with pytest.raises(PhotoFluxError, match="24"):
        photoflux.train(
            "transfer", (x, np.arange(40) % 2), backbone=backbone, engine="flux", out=tmp_path / "r", **GIVEN
        )
    assert not (tmp_path / "r").exists()
