"""A transfer run as one model from pixels to logits, in plain Keras and in ONNX Runtime; one was fine-tuned."""

from __future__ import annotations

import numpy as np
import pytest

import photoflux
from exchanged import run_python

pytest.importorskip("onnx", reason="the extra transfer is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra transfer is not installed")

PLAIN_KERAS = """
import pathlib
import keras
import numpy as np
folder = pathlib.Path(sys.argv[1])
model = keras.models.load_model(folder / "model.keras")
np.save(folder / "keras.npy", model.predict(np.load(folder / "images.npy"), verbose=0))
"""


@pytest.mark.parametrize(("backbone", "channels", "unfreeze"), [("tiny", 3, 0), ("tiny+other", 1, 0), ("tiny", 1, 2)])
def test_pixels_to_logits(tiny, flux, keras, tmp_path, backbone, channels, unfreeze):
    rng = np.random.default_rng(3)
    y = np.arange(60) % 3
    x = rng.integers(0, 90, (60, 24, 20, channels), np.uint8)
    x[y == 1] += 40
    x[y == 2, :12] += 100
    prepared = photoflux.prepare((x, y), tmp_path / "prepared", progress=False)
    run = photoflux.train(
        "transfer_mlp", prepared, backbone=backbone, unfreeze=unfreeze, epochs=2, out=tmp_path / "run", progress=False
    )
    chosen = prepared.indices("test")
    images = np.asarray(prepared.images[chosen]).transpose(0, 2, 3, 1).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    expected = run.logits("test")
    # 6·√n·eps of the largest: as in a proof, n the terms on the way: under 1,000 a convolution's, 128 + 32 of the head.
    allowed = 6 * np.sqrt(8 * 1000 + 160) * np.finfo(np.float32).eps * max(1.0, float(np.abs(expected).max()))
    model = photoflux.export(run, tmp_path / "model.onnx", progress=False)
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    assert np.abs(session.run(["logits"], {"images": images})[0] - expected).max() < allowed
    photoflux.export(run, tmp_path / "model.keras", progress=False)
    run_python(PLAIN_KERAS, tmp_path)
    assert np.abs(np.load(tmp_path / "keras.npy") - expected).max() < allowed
