"""Keras models imported as runs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import photoflux
from exchanged import SHAPE, TOLERANCE, a_run, run_python, some_images
from photoflux import DataError, RunError, SettingError
from photoflux.data.shape import Shape
from photoflux.model.variants import variant
from photoflux.model.weights import fingerprint_of, read_weights
from photoflux.runs.evaluation import probabilities
from small import logits as logits_by
from small import shape_for

pytestmark = pytest.mark.usefixtures("one_worker")
MAKER = """
import pathlib
import keras
import numpy as np
from keras import layers

folder = pathlib.Path(sys.argv[1])
keras.utils.set_random_seed(3)
images = np.load(folder / "images.npy").transpose(0, 2, 3, 1).astype("float32")
grey = images[..., 0]


def photo(first=(layers.Rescaling(1.0 / 255),), last=("sigmoid", 1), padding="same", active="relu", more=(), **conv):
    kinds = {"padding": "same", "activation": active}
    return [
        *first,
        layers.Conv2D(16, 3, **{**kinds, "padding": padding, **conv}),
        layers.MaxPooling2D(),
        *more,
        layers.Conv2D(32, 3, **kinds),
        layers.Conv2D(64, 3, **kinds),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dense(last[1], activation=last[0]),
    ]


def save(name, model, x=None):
    for variable in model.trainable_variables:  # not zero biases: their order matters too
        variable.assign(variable + 0.01 * np.random.default_rng(5).normal(size=variable.shape))
    model.save(folder / f"{name}.keras")
    if x is not None:
        np.save(folder / f"{name}.npy", model.predict(x, verbose=0))


def sequential(*parts, shape=(12, 10, 3)):
    return keras.Sequential([keras.Input(shape), *parts])


augmentation = keras.Sequential([layers.RandomFlip("horizontal_and_vertical"), layers.RandomRotation(0.1)])
model = sequential(augmentation, *photo(more=(layers.Dropout(0.25, name="conv1"),)))
model.compile("adam", "binary_crossentropy")
save("sequential", model, images)
model.save_weights(folder / "sequential.weights.h5")

x = inputs = keras.Input((12, 10, 3))
for layer in photo(last=(None, 3), active="linear"):
    x = layer(x)
    if isinstance(layer, layers.Conv2D):
        x = layers.Activation("relu")(x)
save("functional", keras.Model(inputs, layers.Activation("softmax")(x)), images)

dense = [layers.Flatten(), layers.Dense(128, "relu", kernel_regularizer="l2"), layers.Dense(10, "softmax")]
save("grey", sequential(layers.Rescaling(1 / 255), *dense, shape=(12, 10)), grey)
model = sequential(layers.Flatten(), layers.Dense(128, "relu"), layers.Dense(10, "softmax"), shape=(12, 10))
save("scaled", model, grey / 255)
model.save_weights(folder / "scaled.weights.h5")

# None of these is a variant.
save("valid", sequential(*photo(padding="valid")))
save("strides", sequential(*photo(strides=2)))
save("tanh", sequential(*photo(active="tanh")))
save("relu6", sequential(*photo(active="relu6")))
save("dilated", sequential(*photo(dilation_rate=2)))
save("biasless", sequential(*photo(use_bias=False)))
save("channels_first", sequential(layers.Rescaling(1 / 255), layers.Conv2D(16, 3, data_format="channels_first"),
     layers.Flatten(), layers.Dense(1)))
save("softmax2", sequential(*photo(last=("softmax", 2))))
save("multilabel", sequential(*photo(last=("sigmoid", 3))))
save("centred", sequential(*photo(first=(layers.Rescaling(1 / 127.5, offset=-1),))))
save("normed", sequential(*photo(more=(layers.BatchNormalization(),))))
save("half", keras.Sequential([keras.Input((12, 10, 3)), *photo(dtype="bfloat16")]))
save("unfixed", keras.Sequential([keras.Input((None, None, 3)), layers.Rescaling(1 / 255), layers.Conv2D(16, 3)]))
save("flat", sequential(layers.Dense(128, "relu"), layers.Dense(10), shape=(120,)))
nan = sequential(*photo())
nan.layers[1].kernel.assign(nan.layers[1].kernel * np.nan)
save("nan", nan)
twice = layers.Dense(64, "relu")
inputs = keras.Input((4, 4, 4))
x = twice(twice(layers.Flatten()(layers.Rescaling(1 / 255)(inputs))))
save("twice", keras.Model(inputs, layers.Dense(3)(x)))
inputs = keras.Input((4, 4, 4))
x = layers.Dense(64, "relu")(layers.Flatten()(layers.Rescaling(1 / 255)(inputs)))
save("residual", keras.Model(inputs, layers.Dense(3)(x + layers.Dense(64, "relu")(x))))
norm = layers.Normalization()
features = np.random.default_rng(1).gamma(2, 0.5, (30, 1, 1, 12)).astype("float32")
norm.adapt(features)
head = keras.Sequential([keras.Input((1, 1, 12)), norm, layers.Flatten(), layers.Dense(1, "sigmoid")])
save("head", head)
head.save_weights(folder / "head.weights.h5")
np.save(folder / "adapted.npy", np.stack([features.mean(axis=(0, 1, 2)), features.std(axis=(0, 1, 2))]))
marker = str(folder / "executed")
save("lambda", sequential(layers.Lambda(lambda x: (open(marker, "w"), x)[1]), *photo()))


@keras.saving.register_keras_serializable(package="mine")
class Twice(layers.Layer):
    def call(self, x):
        return 2 * x


class Plain(layers.Layer):
    def call(self, x):
        return x


def mine(x):
    return x


save("registered", sequential(Twice(), *photo()))
save("custom", sequential(Plain(), *photo()))
save("function", sequential(layers.Activation(mine), *photo()))
"""


@pytest.fixture(scope="module")
def theirs(keras, tmp_path_factory):
    """A folder of Keras models that PhotoFlux did not make, and of their outputs on `images.npy`."""
    folder = tmp_path_factory.mktemp("theirs")
    np.save(folder / "images.npy", some_images(16))
    run_python(MAKER, folder)
    (folder / "executed").unlink()
    return folder


GREY = Shape(1, *SHAPE[1:])
GOOD = [
    ("sequential", "dropout", SHAPE, 2, False),
    ("functional", "l1", SHAPE, 3, False),
    ("grey", "dense_l2", GREY, 10, False),
    ("scaled", "dense_l2", GREY, 10, True),
]


@pytest.mark.parametrize("engine", ["flux", "keras"])
@pytest.mark.parametrize(("name", "recipe", "shape", "classes", "scaled"), GOOD, ids=[row[0] for row in GOOD])
def test_an_imported_model_predicts_what_it_predicted(
    name, recipe, shape, classes, scaled, engine, keras, theirs, tmp_path, request
):
    chosen = request.getfixturevalue(engine)
    found = keras.import_model(variant(recipe), theirs / f"{name}.keras", tmp_path / "w", scaled=scaled)
    assert found == (shape, classes)
    images = np.load(theirs / "images.npy")[:, : shape[0]]
    outputs = np.load(theirs / f"{name}.npy")
    expected = np.concatenate([1 - outputs, outputs], axis=1) if outputs.shape[1] == 1 else outputs
    logits = logits_by(chosen, variant(recipe), tmp_path / "w", images, classes)
    np.testing.assert_allclose(probabilities(logits), expected, rtol=0, atol=TOLERANCE)


def test_an_imported_run_is_honest(theirs, tmp_path):
    model = theirs / "sequential.keras"
    run = photoflux.import_keras(model, "dropout", tmp_path / "run", classes=["not Photo", "Photo"], progress=False)
    read = photoflux.load_run(run.path)
    assert (read.engine, read.ended, read.kept_epoch, read.history, read.metrics.by_part()) == (
        "keras",
        "adopted",
        0,
        [],
        {},
    )
    assert read.settings.epochs == 0
    assert read.data.path is None
    assert read.data.positive == "Photo"
    assert read.initial["path"] == str(model.resolve())
    assert len(read.initial["fingerprint"]) == 64
    assert str(read).endswith(f"imported from {model.resolve()}")
    files = {"run.json", "history.csv", "weights.safetensors", "seen.safetensors", "report.html"}
    assert {p.name for p in run.path.iterdir()} == files
    with pytest.raises(DataError, match="does not say where its prepared dataset is"):
        photoflux.evaluate(read, progress=False)


def prepared_for(folder: Path, classes: int, size: int = 12, seed: int = 2) -> photoflux.PreparedDataset:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (40, size, size - 2, 3), np.uint8)
    return photoflux.prepare((images, np.arange(40) % classes), folder, progress=False)


def test_with_its_data_an_imported_run_is_scored_and_goes_on(theirs, tmp_path):
    prepared = prepared_for(tmp_path / "data", 2)
    model = theirs / "sequential.keras"
    run = photoflux.import_keras(model, "baseline", tmp_path / "run", data=prepared.path, progress=False)
    assert (run.path / "reference.safetensors").is_file()
    assert run.classes == prepared.classes
    assert set(run.metrics.by_part()) == {"validation", "test"}
    assert (run.path / "confusion.png").is_file()
    assert photoflux.evaluate(run, progress=False).accuracy == run.metrics.test.accuracy
    assert any("not known which images the model was trained on" in note for note in run.notes)
    foreign = photoflux.evaluate(run, prepared_for(tmp_path / "other", 2, seed=3), part="train", progress=False)
    assert "it was imported from" in " ".join(foreign.notes)
    more = photoflux.train("l2", prepared, engine="keras", epochs=1, initial=run, out=tmp_path / "more", progress=False)
    assert any("It is not known which images the initial weights" in note for note in more.notes)
    assert more.initial == {"path": str(run.path.resolve()), "fingerprint": run.initial["fingerprint"]}
    with pytest.raises(
        DataError, match=r"does not fit .*2 classes and images of 3×12×10 .*the dataset has 2 and 3×14×12"
    ):
        photoflux.import_keras(model, "baseline", data=prepared_for(tmp_path / "large", 2, 14), progress=False)


@pytest.mark.parametrize("recipe", ["baseline", "dropout"])
def test_weights_without_a_model(keras, theirs, tmp_path, recipe):
    keras.import_model(variant(recipe), theirs / "sequential.keras", tmp_path / "a")
    keras.import_model(variant(recipe), theirs / "sequential.weights.h5", tmp_path / "b", shape=SHAPE, classes=2)
    assert_same_weights(tmp_path / "a", tmp_path / "b")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = read_weights(one)[0], read_weights(other)[0]
    assert fingerprint_of(dict(sorted(first.items()))) == fingerprint_of(dict(sorted(second.items())))


BAD_MODELS = [
    ("valid", "l2", r"≠ Conv2D \(3, 3, 3, 16\) padding=valid +Conv2D \(3, 3, 3, 16\) padding=same"),
    ("strides", "l2", r"strides=\(2, 2\)"),
    ("tanh", "l2", "activation=tanh"),
    ("relu6", "l2", "activation=relu6"),
    ("dilated", "l2", r"dilation_rate=\(2, 2\)"),
    ("biasless", "l2", "use_bias=False"),
    ("channels_first", "l2", "data_format=channels_first"),
    ("softmax2", "l2", "last layer has 2 outputs.*one output"),
    ("multilabel", "l2", r"≠ Dense \(128, 3\) activation=sigmoid +Dense \(128, 3\) activation=linear"),
    ("centred", "l2", "scale=0.00784314 offset=-1.*scale=0.00392157"),
    ("normed", "l2", "its BatchNormalization .* is layer or object that no variant has"),
    ("half", "l2", "precision=bfloat16"),
    ("unfixed", "l2", r"all but N fixed; found: \(None, None, None, 3\)"),
    ("flat", "dense_l2", r"found: \(None, 120\).*Flatten layer"),
    ("nan", "l2", "NaN"),
    ("twice", "dense_dropout", "≠ – +Dense"),
    ("residual", "dense_dropout", "its Add .* that no variant has"),
    ("scaled", "dense_l2", r"has no Rescaling layer.*`scaled` \(--scaled\)"),
    ("sequential", "mlp", r"≠ Conv2D \(3, 3, 3, 16\) +Flatten"),
    ("grey", "dense_dropout", r"≠ Dense \(120, 128\) units=128 +Dense \(120, 64\) units=64"),
    ("lambda", "l2", r"its Lambda \(lambda.*\) is code of its author's.*Nothing from the file was executed"),
    ("registered", "l2", r"its Twice \(twice\) is code of its author's"),
    ("custom", "l2", r"its Plain \(plain\) is code of its author's"),
    ("function", "l2", r"its function \(mine\) is code of its author's"),
]


@pytest.mark.parametrize(("name", "recipe", "message"), BAD_MODELS, ids=[row[0] + "-" + row[1] for row in BAD_MODELS])
def test_what_would_predict_something_else_is_refused(keras, theirs, tmp_path, name, recipe, message):
    with pytest.raises(RunError, match=f"(?s){message}"):
        keras.import_model(variant(recipe), theirs / f"{name}.keras", tmp_path / "w")
    assert not list(tmp_path.iterdir())
    assert not (theirs / "executed").exists()


def test_the_outputs_are_compared_too(keras, theirs, tmp_path):
    """A model whose layers are listed as a variant's, but used twice."""
    recipe = dataclasses.replace(variant("dense_dropout"), hidden=(64,))
    with pytest.raises(RunError, match=r"look like the variant's, but its outputs differ by"):
        keras.import_model(recipe, theirs / "twice.keras", tmp_path / "w")


def test_what_a_layer_says_of_how_it_was_compiled_is_looked_at_too(keras, theirs, tmp_path):
    """Keras is not asked to compile the model, but a layer within it would be."""
    strange = {"module": "os", "class_name": "system", "config": "true", "registered_name": None}
    for name, change in {
        "whole": lambda config: config.update(compile_config={"loss": strange}),
        "inner": lambda config: config["config"]["layers"][-1].update(compile_config={"loss": strange}),
        "build": lambda config: config["config"]["layers"][-1].update(build_config={"x": strange}),
    }.items():
        path = tmp_path / f"{name}.keras"
        with zipfile.ZipFile(path, "w") as made, zipfile.ZipFile(theirs / "grey.keras") as original:
            for member in original.namelist():
                data = original.read(member)
                if member == "config.json":
                    config = json.loads(data)
                    change(config)
                    data = json.dumps(config)
                made.writestr(member, data)
        if name == "whole":
            keras.import_model(variant("dense_l2"), path, tmp_path / "w")
            continue
        with pytest.raises(
            RunError, match=r"its system .* is code of its author's.*Nothing from the file was executed"
        ):
            keras.import_model(variant("dense_l2"), path, tmp_path / "w")


def test_files_that_are_no_models(keras, theirs, tmp_path):
    text, torn, hollow, weights = (
        tmp_path / name for name in ("t.keras", "torn.keras", "hollow.keras", "t.weights.h5")
    )
    text.write_text("Dear Sir")
    torn.write_bytes((theirs / "grey.keras").read_bytes()[:5000])
    with zipfile.ZipFile(hollow, "w") as made, zipfile.ZipFile(theirs / "grey.keras") as whole:
        made.writestr("config.json", whole.read("config.json"))
        made.writestr("metadata.json", whole.read("metadata.json"))
    weights.write_text("Dear Sir")
    shape = {"shape": SHAPE, "classes": 2}
    for path, more, message in (
        (text, {}, "cannot be read as a Keras model: File is not a zip file"),
        (torn, {}, "cannot be read as a Keras model"),
        (hollow, {}, "Keras cannot open"),
        (weights, shape, "cannot be read as Keras weights"),
        (theirs / "sequential.weights.h5", shape, r"(?s)≠ layers/conv2d/vars/0 \(3, 3, 3, 16\) +dense1\.kernel"),
        (theirs / "grey.keras", {"scaled": True}, "has a Rescaling layer.*Leave out `scaled`"),
        (theirs / "scaled.weights.h5", {"shape": GREY, "classes": 10}, "has no Rescaling layer"),
    ):
        with pytest.raises(RunError, match=message):
            keras.import_model(variant("dense_l2"), path, tmp_path / "w", **more)
    assert not (tmp_path / "w").exists()
    keras.import_model(
        variant("dense_l2"), theirs / "scaled.weights.h5", tmp_path / "w", scaled=True, shape=GREY, classes=10
    )
    keras.import_model(variant("dense_l2"), theirs / "scaled.keras", tmp_path / "v", scaled=True)
    assert_same_weights(tmp_path / "w", tmp_path / "v")


def test_arguments_that_do_not_fit(theirs, tmp_path):
    grey, weights = theirs / "grey.keras", theirs / "scaled.weights.h5"
    for path, more, error, message in (
        (tmp_path, {}, RunError, r"must be a \.keras or \.weights\.h5 file; .* is a folder"),
        (tmp_path / "none.keras", {}, RunError, "is no such file"),
        (theirs / "images.npy", {}, SettingError, r"must be a \.keras or \.weights\.h5 file; received"),
        (weights, {}, SettingError, "Give `data`, a prepared dataset, or `image_size` and `classes`"),
        (
            weights,
            {"image_size": 0, "classes": ["a", "b"]},
            SettingError,
            "`image_size` must be 2 or more; received: 0",
        ),
        (weights, {"image_size": 9, "channels": 4, "classes": "ab"}, SettingError, "2 or more different names"),
        (weights, {"image_size": 9, "channels": 4, "classes": ["a", "b"]}, SettingError, "`channels` must be 1 or 3"),
        (grey, {"image_size": 12}, SettingError, "`image_size` comes from the model"),
        (grey, {"classes": ["a", "a"]}, SettingError, "2 or more different names"),
        (grey, {"classes": ["a", "b"]}, SettingError, "`classes` must be 10 names"),
        (grey, {"data": tmp_path}, DataError, r"meta\.json.* missing"),
        (grey, {"out": theirs}, RunError, "`out` must be a new folder or an earlier run"),
    ):
        with pytest.raises(error, match=message):
            photoflux.import_keras(path, "dense_l2", **{"out": tmp_path / "run", "progress": False, **more})
    assert not list(tmp_path.iterdir())


def test_an_exported_run_comes_back(keras, tmp_path):
    for name in ("elastic_net", "dense_dropout", "transfer_mlp"):
        shape = shape_for(variant(name), SHAPE)
        run, file = a_run(tmp_path / name, variant(name), 3, shape), tmp_path / f"{name}.keras"
        keras.export(run.variant, run.weights, shape, 3, file, "keras")
        assert keras.import_model(run.variant, file, tmp_path / f"{name}.back") == (shape, 3)
        assert_same_weights(run.weights, tmp_path / f"{name}.back")


def test_a_head_that_was_adapted_to_features(keras, theirs, tmp_path):
    keras.import_model(variant("transfer"), theirs / "head.keras", tmp_path / "w")
    weights, _ = read_weights(tmp_path / "w")
    found = np.stack([weights[f"standardise.{kind}"] for kind in ("mean", "deviation")])
    # float32 sums of 30 terms
    np.testing.assert_allclose(found, np.load(theirs / "adapted.npy"), rtol=1e-5)
    with pytest.raises(RunError, match="takes features, which are not divided by 255"):
        keras.import_model(variant("transfer"), theirs / "head.keras", tmp_path / "w", scaled=True)
    with pytest.raises(RunError, match="does not say by what the features of the variant transfer are standardised"):
        keras.import_model(
            variant("transfer"), theirs / "head.weights.h5", tmp_path / "w", shape=Shape(12, 1, 1), classes=2
        )
    with pytest.raises(RunError, match="is not a model of the variant transfer_mlp"):
        keras.import_model(variant("transfer_mlp"), theirs / "head.keras", tmp_path / "w")


def test_the_command_line(theirs, tmp_path):
    def command_line(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "photoflux", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    imported = command_line("import_keras", theirs / "functional.keras", "l2", "--out", tmp_path / "r", "--json")
    assert imported.returncode == 0, imported.stderr
    assert json.loads(imported.stdout)["classes"] == ["0", "1", "2"]
    exported = command_line("export", tmp_path / "r", tmp_path / "m.keras", "--json")
    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout)["input"] == [None, 12, 10, 3]
    for arguments, code, message in (
        (("export", tmp_path / "r", tmp_path), 2, "must end in .keras or .onnx"),
        (("export", tmp_path / "none", tmp_path / "m.keras"), 1, "is not a run"),
        (("import_keras", theirs / "lambda.keras", "l2"), 1, "is code of its author's"),
        (("import_keras", theirs / "valid.keras", "l3"), 2, "Did you mean l2 or l1?"),
        (("import_keras", "none.keras", "l2"), 1, "no such file"),
        (("train", "l2", "demo", "--initial", "none"), 1, "is not a run"),
        (("train", "mlp", "demo", "--image-size", 16, "--initial", tmp_path / "r"), 1, "conv1.kernel (3, 3, 3, 16)"),
    ):
        done = command_line(*arguments)
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
