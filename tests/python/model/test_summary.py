"""Layers, shapes, parameters and multiply-adds against Keras; the figure that is drawn of them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from itertools import pairwise
from math import prod

import pytest
from matplotlib.transforms import Bbox

import photoflux
from photoflux import RunError, SettingError, summary, variants
from photoflux.engines.keras.engine import why_unavailable
from photoflux.model.summary import bytes_text, size_text
from photoflux.reporting.architecture import draw_architecture
from photoflux.reporting.i18n import translator
from photoflux.reporting.styling import svg_of

# Height and width, channels, classes: of the documents' data.
MADE_FOR = {name: (180, 3, 2) for name in variants()} | {
    "mlp": (32, 3, 10),
    "dense_l2": (28, 1, 10),
    "dense_dropout": (28, 1, 10),
}
FEATURES = {name: (1, 1280, 2) for name, v in variants().items() if v.takes_features}
MADE_FOR |= FEATURES
ODD = (13, 1, 3)
KINDS = {
    "rescaling": "Rescaling",
    "standardisation": "Normalization",
    "convolution": "Conv2D",
    "max pooling": "MaxPooling2D",
    "dropout": "Dropout",
    "flatten": "Flatten",
    "dense": "Dense",
}

# In a process of its own: TensorFlow's LLVM and Julia's cannot be in one.
SCRIPT = """
import json, sys
from photoflux.data.shape import Shape
from photoflux.engines.keras.models import build_model
from photoflux.model.variants import variant
found = {}
for name, (size, channels, classes) in json.load(sys.stdin):
    model = build_model(variant(name), Shape(channels, size, size), classes)
    rows = [
        [layer.name, type(layer).__name__, list(layer.output.shape[1:]), layer.count_params()]
        for layer in model.layers
    ]
    found[f"{name} {size}"] = {"layers": rows, "parameters": model.count_params()}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def keras_models():
    missing = why_unavailable()
    if missing is not None:
        pytest.skip(missing)
    wanted = [*MADE_FOR.items(), *((name, ODD) for name in MADE_FOR if name not in FEATURES)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(wanted), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "odd"),
    [*((name, False) for name in MADE_FOR), *((name, True) for name in MADE_FOR if name not in FEATURES)],
)
def test_names_shapes_and_parameters_are_those_of_keras(keras_models, name, odd):
    found = summary(name, *ODD) if odd else summary(name)
    size = (ODD if odd else MADE_FOR[name])[0]
    model = keras_models[f"{name} {size}"]
    assert model["layers"][0][1] == "InputLayer"
    assert model["layers"][0][2] == list(found.shape.hwc)
    assert [[x.name, KINDS[x.kind], list(x.shape), x.parameters] for x in found.layers] == model["layers"][1:]
    assert found.parameters == model["parameters"]


def test_multiply_adds_are_counted_one_by_one():
    """A convolution and a Dense layer as loops: what is multiplied by an entry of the kernel."""
    found = {layer.name: layer for layer in summary("l2", 8, 1, 3).layers}
    count = sum(1 for _ in range(8) for _ in range(8) for _ in range(16) for _ in range(1) for _ in range(9))
    assert found["conv1"].multiply_adds == count
    assert found["conv2"].multiply_adds == 4 * 4 * 32 * 16 * 9
    assert found["dense1"].multiply_adds == 4 * 4 * 64 * 128
    assert found["output"].multiply_adds == 128 * 3
    assert {found[name].multiply_adds for name in ("rescale", "pool", "flatten")} == {0}
    assert summary("l2", 8, 1, 3).multiply_adds == sum(layer.multiply_adds for layer in found.values())


def test_memory():
    found = summary("dropout")
    weights = 4 * 66_379_041
    elements = [180 * 180 * 3] * 2 + [180 * 180 * 16] + [90 * 90 * 16] * 2 + [90 * 90 * 32, 90 * 90 * 64, 128, 128, 1]
    assert found.weights_bytes == weights
    assert found.activation_bytes == 4 * sum(elements)
    # Weights, gradient and Adam's two moments, and the activations of 32 images.
    assert found.training_bytes == 4 * weights + 32 * 4 * sum(elements)


def test_penalty_and_dropout_are_those_of_the_table():
    layers = {layer.name: layer for layer in summary("elastic_net").layers}
    assert layers["conv3"].penalty == {"l1": 0.005, "l2": 0.005}
    assert (layers["dense1"].penalty, layers["output"].penalty) == ({"l2": 0.01}, {})
    assert {layer.name: layer.rate for layer in summary("dropout").layers if layer.rate} == {
        "pool_dropout": 0.25,
        "dense1_dropout": 0.5,
    }
    assert [layer.relu for layer in summary("mlp").layers if layer.kind == "dense"] == [True, True, False]
    changed = summary(photoflux.variant("l2").with_penalty(l2=0.5))
    assert changed.layers[1].penalty == {"l2": 0.5}


def test_what_is_measured_and_not_trained_is_said():
    found = summary("transfer")
    assert (found.shape, found.parameters, found.not_trained) == ((1280, 1, 1), 1281, 2 * 1280)
    assert str(found).splitlines()[0] == "transfer on the 1280 features of efficientnet-lite2, 2 classes (one output)"
    assert ("not trained: means and deviations", "2,560") in found.totals()
    assert "not trained: means and deviations" in str(found)
    assert found.as_dict()["not_trained"] == 2560
    assert summary("l2").not_trained == 0
    assert "not trained" not in str(summary("l2")) and "not_trained" not in summary("l2").as_dict()
    both = dataclasses.replace(photoflux.variant("transfer"), backbone="efficientnet-lite1+efficientnet-lite2")
    assert summary(both).parameters == 2561
    with pytest.raises(SettingError, match=r"`backbone` must be one of .*; received: 'mine.onnx'"):
        summary(dataclasses.replace(both, backbone="mine.onnx"))
    for arguments in ({"image_size": 64}, {"channels": 3}):
        with pytest.raises(SettingError, match=r"says nothing of transfer, which takes features\. Leave it out"):
            summary("transfer", **arguments)


def test_text_and_json():
    found = summary("dense_l2")
    text = str(found)
    assert text.splitlines()[0] == "dense_l2 on images of 28×28×1 (H×W×C), 10 classes (10 outputs)"
    (line,) = [line for line in text.splitlines() if line.startswith(" dense1")]
    assert line.split() == ["dense1", "dense", "ReLU,", "L2", "0.001", "128", "100,480", "100,352", "512", "B"]
    assert "parameters" in text and "101,770" in text
    values = json.loads(json.dumps(found.as_dict()))
    assert values["parameters"] == sum(layer["parameters"] for layer in values["layers"]) == 101_770
    assert values["layers"][2]["shape"] == [128]
    html = found._repr_html_()
    assert html.count("<tr>") == 1 + len(found.layers) and "<svg" in html
    assert [bytes_text(n) for n in (0, 1023, 1024, 1536 * 1024, 5 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5120.0 GiB",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("l3",), r"`variant` must be one of .* Did you mean l2 or l1\?"),
        (("l2", 7), "`image_size` must be an integer from 8"),
        (("l2", None, 2), r"`channels` must be 1 \(grey\) or 3 \(RGB\); received: 2"),
        (("l2", None, True), "`channels` must be 1"),
        (("l2", None, None, 1), "`classes` must be a whole number, 2 or more; received: 1"),
        (("l2", None, None, 2.0), "`classes` must be a whole number"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(SettingError, match=message):
        summary(*arguments)


def test_a_run_says_its_own_sizes(keras, tmp_path):
    data = photoflux.prepare("demo", tmp_path / "set", image_size=16)
    run = photoflux.train("dropout", data, engine="keras", epochs=1, batch_size=200, out=tmp_path / "run")
    found = summary(run)
    assert (found.shape.hwc, found.classes, found.batch_size) == ((16, 16, 3), 2, 200)
    assert found == summary(run.path) == summary(str(run.path))
    weights = {name: value.shape for name, value in read(run.weights).items()}
    assert found.parameters == sum(prod(shape) for shape in weights.values())
    with pytest.raises(SettingError, match="`classes` comes from the run"):
        summary(run, classes=3)
    with pytest.raises(RunError, match="is not a run"):
        summary(tmp_path)


def read(path):
    from photoflux.model.weights import read_weights

    return read_weights(path)[0]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "photoflux", "summary", *map(str, arguments)]
    return subprocess.run(line, env=os.environ, capture_output=True, text=True, check=False)


def test_the_command():
    done = command("baseline", "--image-size", 96, "--channels", 1, "--classes", 5, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(json.dumps(summary("baseline", 96, 1, 5).as_dict()))
    assert command("mlp").stdout == f"{summary('mlp')}\n"
    wrong = command("l3")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Did you mean l2 or l1?" in wrong.stderr


# The figure


@pytest.mark.parametrize("lang", ["en", "fr"])
@pytest.mark.parametrize("name", [*MADE_FOR, "long"])
def test_every_layer_is_in_the_figure_and_no_text_leaves_it(name, lang):
    words = translator(lang)
    long = photoflux.variant("elastic_net").with_penalty(l1=0.00012, l2=0.00034)
    found = summary(long if name == "long" else name)
    drawn = draw_architecture(found, words)
    texts = drawn.axes[0].texts
    shown = [text.get_text() for text in texts]
    for layer in found.layers:
        at = next(number for number, text in enumerate(shown) if text.split(":")[0].strip() == layer.name)
        details = shown[at + 1].split(" · ")
        assert details[0] == "×".join(words.number(side, ",") for side in layer.shape)
        assert (words.sentence("{n} parameters", n=layer.parameters) in details) == (layer.parameters > 0)
        assert ("L" in details[-1]) == bool(layer.penalty)
    drawn.draw_without_rendering()
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert Bbox.union(boxes).x1 <= drawn.bbox.x1 and Bbox.union(boxes).y0 >= 0
    written = sorted((box for box in boxes), key=lambda box: -box.y1)
    assert all(upper.y0 > lower.y1 - 2 for upper, lower in pairwise(written))


def test_blocks_grow_with_their_shapes_and_marks_are_seen():
    found = summary("elastic_net")
    faces = draw_architecture(found).axes[0].patches
    blocks = [patch for patch in faces if not hasattr(patch, "get_arrowstyle")]
    thick = [patch for patch in blocks if patch.get_linewidth() > 1]
    # Three faces of each of three convolutions, one of the Dense layer.
    assert len(thick) == 10
    fronts = [patch.get_window_extent() for patch in thick[:9:3]]
    assert fronts[0].width > fronts[1].width == pytest.approx(fronts[2].width)
    assert fronts[0].height < fronts[1].height < fronts[2].height
    assert not any(patch.get_hatch() for patch in blocks)
    hatched = [patch for patch in draw_architecture(summary("dropout")).axes[0].patches if patch.get_hatch()]
    # Three faces after the pooling, one after the Dense layer.
    assert len(hatched) == 4


def test_svg_for_a_page():
    svg = svg_of(draw_architecture(summary("mlp"), translator("fr")))
    assert svg.startswith("<svg") and svg.rstrip().endswith("</svg>")
    assert "couche dense, ReLU" in svg and "1\u202f573\u202f376 paramètres" in svg
    assert svg == svg_of(draw_architecture(summary("mlp"), translator("fr")))
    assert size_text((3, 2)) == "3×2"
