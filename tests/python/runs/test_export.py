"""Runs exported to plain Keras and ONNX."""

from __future__ import annotations

import importlib.util
import os
import zipfile

import numpy as np
import pytest

import photoflux
from exchanged import SHAPE, TOLERANCE, a_run, run_python, some_images
from photoflux import EngineError, RunError, SettingError
from photoflux.model.layers import layers, outputs_of, penalty_of
from photoflux.model.variants import variant, variants
from photoflux.model.weights import read_weights
from small import inputs_for, shape_for
from small import logits as logits_by

pytestmark = pytest.mark.usefixtures("one_worker")
PLAIN_KERAS = """
import pathlib
import keras
import numpy as np
folder = pathlib.Path(sys.argv[1])
try:
    import photoflux
except ImportError:
    pass
else:
    raise SystemExit("photoflux could be imported")
names = ("images", "features")
inputs = {name: np.load(folder / f"{name}.npy").transpose(0, 2, 3, 1).astype("float32") for name in names}
for path in folder.glob("*.keras"):
    x = inputs["features" if path.name.startswith("transfer") else "images"]
    model = keras.models.load_model(path)
    names = {type(layer).__name__ for layer in model.layers}
    known = {"InputLayer", "Rescaling", "Normalization", "Conv2D", "MaxPooling2D", "Dropout", "Flatten", "Dense"}
    assert names <= known, names
    np.save(path.with_suffix(".npy"), model.predict(x, verbose=0))
    np.save(path.with_suffix(".penalty.npy"), np.sum([float(value) for value in model.losses]))
"""


def saved_inputs(folder):
    """Images and features of the exports, saved in a folder for a Python without PhotoFlux."""
    inputs = {"images": some_images(20), "features": inputs_for(variant("transfer"), SHAPE, 20)}
    for name, array in inputs.items():
        np.save(folder / f"{name}.npy", array)
    return inputs


def test_every_variant_predicts_the_same_in_plain_keras(keras, tmp_path):
    inputs = saved_inputs(tmp_path)
    made = [
        a_run(tmp_path / f"{v.name}-{classes}", v, classes, shape_for(v, SHAPE))
        for v in variants().values()
        for classes in (2, 3)
    ]
    for run in made:
        file = tmp_path / f"{run.path.name}.keras"
        keras.export(run.variant, run.weights, run.shape, len(run.classes), file, "keras")
    run_python(PLAIN_KERAS, tmp_path)
    for run in made:
        images = inputs["features" if run.variant.takes_features else "images"]
        expected = logits_by(keras, run.variant, run.weights, images, len(run.classes))
        found = np.load(tmp_path / f"{run.path.name}.npy")
        assert found.shape == (20, outputs_of(len(run.classes)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE, err_msg=run.path.name)
        # float32 sums of up to 1e5 terms against float64 ones
        penalty = penalty_of(layers(run.variant, run.shape, len(run.classes)), read_weights(run.weights)[0])
        assert np.load(tmp_path / f"{run.path.name}.penalty.npy") == pytest.approx(penalty, rel=1e-5)


def test_flux_predicts_what_the_exported_model_predicts(flux, keras, tmp_path):
    images = saved_inputs(tmp_path)["images"]
    for name in ("elastic_net", "mlp"):
        run = a_run(tmp_path / name, variant(name), 3)
        assert photoflux.export(run, tmp_path / f"{name}.keras", progress=False) == tmp_path / f"{name}.keras"
    run_python(PLAIN_KERAS, tmp_path)
    for name in ("elastic_net", "mlp"):
        ours = logits_by(flux, variant(name), tmp_path / name / "weights.safetensors", images, 3)
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), ours, rtol=0, atol=TOLERANCE, err_msg=name)


PLAIN_ONNX = """
import pathlib
import numpy as np
import onnxruntime
folder = pathlib.Path(sys.argv[1])
x = np.load(folder / "images.npy").transpose(0, 2, 3, 1).astype("float32")
for path in folder.glob("*.onnx"):
    session = onnxruntime.InferenceSession(path)
    np.save(path.with_suffix(".npy"), session.run(None, {session.get_inputs()[0].name: x})[0])
"""


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "tf2onnx")),
    reason="ONNX is not installed: pip install 'photoflux[onnx,test]'",
)
def test_onnx_predicts_the_same(keras, tmp_path):
    images = some_images(20)
    np.save(tmp_path / "images.npy", images)
    made = [a_run(tmp_path / name, variant(name), classes) for name, classes in (("dropout", 2), ("dense_dropout", 3))]
    for run in made:
        photoflux.export(run.path, tmp_path / f"{run.path.name}.onnx", progress=False)
    run_python(PLAIN_ONNX, tmp_path)
    for run in made:
        expected = logits_by(keras, run.variant, run.weights, images, len(run.classes))
        np.testing.assert_allclose(np.load(tmp_path / f"{run.path.name}.npy"), expected, rtol=0, atol=TOLERANCE)


def test_an_export_replaces_files_and_nothing_else(keras, tmp_path, monkeypatch):
    run = a_run(tmp_path / "run", variant("dense_l2"), 2)
    file = tmp_path / "m.keras"
    file.write_text("somebody's")
    photoflux.export(run, file, progress=False)
    assert zipfile.is_zipfile(file)
    assert {p.name for p in tmp_path.iterdir()} == {"run", "m.keras"}
    assert file.stat().st_mode & 0o777 == 0o666 & ~_umask()
    (tmp_path / "folder.keras").mkdir()
    for path, kind, error, message in (
        (tmp_path / "folder.keras", None, RunError, r"is a folder\. Give a name in it"),
        (tmp_path / "none" / "m.keras", None, RunError, "There is no folder"),
        (tmp_path / "m.h5", None, SettingError, r"`path` must end in \.keras or \.onnx; received: '.*m\.h5'"),
        (tmp_path / "m.keras", "onnx", SettingError, r"`path` must end in \.onnx"),
        (tmp_path / "m.keras", "kears", SettingError, r"`format` must be one of keras, onnx.*Did you mean keras"),
    ):
        with pytest.raises(error, match=message):
            photoflux.export(run, path, kind, progress=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tf2onnx" else object())
    with pytest.raises(EngineError, match=r"tf2onnx not installed.*photoflux\[onnx\]"):
        photoflux.export(run, tmp_path / "m.onnx", progress=False)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# Models as somebody without PhotoFlux makes them, and what they predict.
