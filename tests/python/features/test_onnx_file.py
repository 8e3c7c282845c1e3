"""Users' ONNX models: those that fit give their features in whatever layout; each that does not is refused in words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from photoflux.errors import BackboneError, SettingError
from photoflux.features import backbone_from, open_backbone

onnx = pytest.importorskip("onnx", reason="the models of these tests are written with onnx, which is not installed")
pytest.importorskip("onnxruntime", reason="features run through onnxruntime, which is not installed")

MEAN, SCALE = [120.0, 110.0, 100.0], [60.0, 55.0, 50.0]


def write(
    path,
    *,
    shape=("n", 3, 8, 8),
    dtype="FLOAT",
    after=(),
    output=("n", 6),
    output_type="FLOAT",
    metadata=None,
    inputs=1,
    outputs=1,
    external=False,
):
    """A model that gives each channel's mean and its mean square, (N, 6), or what `after` makes of them."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("Cast", ["x"], ["float"], to=kinds.FLOAT)]
    if shape[1] != 3:
        nodes.append(helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]))
    planes = nodes[-1].output[0]
    nodes += [
        helper.make_node("Mul", [planes, planes], ["squares"]),
        helper.make_node("Concat", [planes, "squares"], ["both"], axis=1),
        helper.make_node("GlobalAveragePool", ["both"], ["pooled"]),
        helper.make_node("Mul", ["pooled", "one"], ["last" if after else "y"]),
    ]
    for number, (kind, attributes) in enumerate(after):
        name = "y" if number + 1 == len(after) else f"after{number}"
        nodes.append(helper.make_node(kind, [nodes[-1].output[0]], [name], **attributes))
    given = [helper.make_tensor_value_info(f"x{n}" if n else "x", getattr(kinds, dtype), shape) for n in range(inputs)]
    for entry in given[1:]:
        nodes.append(helper.make_node("Identity", [entry.name], [f"unused {entry.name}"]))
    made = [helper.make_tensor_value_info("y", getattr(kinds, output_type), output)]
    if outputs > 1:
        made.append(helper.make_tensor_value_info("pooled", kinds.FLOAT, ("n", 6, 1, 1)))
    one = onnx.numpy_helper.from_array(np.ones((1, 6, 1, 1), np.float32), "one")
    graph = helper.make_graph(nodes, "model", given, made, [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {key: json.dumps(value) for key, value in (metadata or {}).items()})
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0} if external else {}
    onnx.save(model, path, **options)
    return path


FLAT = (("Flatten", {"axis": 1}),)


def expected(images, mean=MEAN, scale=SCALE):
    x = (images.astype(np.float64) - np.reshape(mean, (-1, 1, 1))) / np.reshape(scale, (-1, 1, 1))
    return np.concatenate([x.mean((2, 3)), (x * x).mean((2, 3))], axis=1)


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "options",
    [
        {"output": ("n", 6, 1, 1)},
        {"after": FLAT},
        {"after": FLAT, "shape": (4, 3, 8, 8), "output": (4, 6)},
        {"after": FLAT, "shape": (1, 3, 8, 8), "output": (1, 6)},
        {"after": FLAT, "shape": ("n", 8, 8, 3)},
        {"after": (*FLAT, ("Cast", {"to": onnx.TensorProto.DOUBLE})), "output_type": "DOUBLE"},
        {"after": (*FLAT, ("Cast", {"to": onnx.TensorProto.FLOAT16})), "output_type": "FLOAT16"},
        {"after": FLAT, "dtype": "DOUBLE"},
        {"after": (("Transpose", {"perm": [0, 2, 3, 1]}),), "output": ("n", 1, 1, 6)},
        {"after": FLAT, "external": True},
    ],
)
def test_models_that_fit(tmp_path, options):
    path = write(tmp_path / "model.onnx", **options)
    images = pixels(6, 3, 8, 8)
    backbone = open_backbone(path, mean=MEAN, scale=SCALE)
    assert (backbone.name, backbone.features, backbone.image_size, backbone.fixed) == ("model", 6, 8, (8, 8))
    found = backbone.features_of(images)
    # Float16 has 11 bits: values below 8 are off by 2⁻⁹ at most; Float32's sums of 64 terms by far less.
    assert found.dtype == np.float32 and np.abs(found - expected(images)).max() < 2**-8
    values = json.loads(json.dumps(backbone.as_dict()))
    assert np.array_equal(backbone_from(values).features_of(images), found)


def test_pixels_as_they_are(tmp_path):
    path = write(tmp_path / "model.onnx", after=FLAT, dtype="UINT8")
    images = pixels(2, 3, 8, 8)
    found = open_backbone(str(path)).features_of(images)
    assert np.abs(found / expected(images, [0] * 3, [1] * 3) - 1).max() < 1e-5
    with pytest.raises(BackboneError, match=r"takes pixels as they are, uint8, and has no `mean`. Leave it out"):
        open_backbone(path, mean=1)


def test_what_the_metadata_says_and_what_is_given_instead(tmp_path):
    path = write(
        tmp_path / "m.onnx", after=FLAT, shape=("n", 3, "h", "w"), metadata={"image_size": 10, "mean": MEAN, "scale": 2}
    )
    images = pixels(2, 3, 12, 9)
    said = open_backbone(path)
    assert (said.image_size, said.fixed) == (10, None)
    assert np.abs(said.features_of(images) / expected(images, MEAN, [2] * 3) - 1).max() < 1e-5
    given = open_backbone(path, mean=0, scale=(1, 2, 4), image_size=16)
    assert given.image_size == 16 and given.fingerprint != said.fingerprint
    assert np.abs(given.features_of(images) / expected(images, [0] * 3, [1, 2, 4]) - 1).max() < 1e-5
    assert backbone_from(given.as_dict()).as_dict() == given.as_dict()


def test_models_stand_beside_those_of_the_table(tiny, tmp_path):
    path = write(tmp_path / "m.onnx", after=FLAT)
    images = pixels(2, 3, 8, 8)
    both = open_backbone(f"tiny+{path}", mean=MEAN, scale=SCALE)
    assert (both.name, both.features, both.fixed) == ("tiny+m", 22, (8, 8))
    assert np.array_equal(both.features_of(images)[:, :16], open_backbone("tiny").features_of(images))
    assert backbone_from(both.as_dict()).fingerprint == both.fingerprint
    with pytest.raises(SettingError, match="`mean` and `scale` can be given of an ONNX file only; tiny has its own"):
        open_backbone("tiny", mean=1, scale=2)
    other = write(tmp_path / "other.onnx", after=FLAT, shape=("n", 3, 9, 9))
    with pytest.raises(BackboneError, match="different sizes: m takes 8 × 8, other takes 9 × 9"):
        open_backbone(f"{path}+{other}", mean=1, scale=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"outputs": 2}, r"has 2 outputs \(y, pooled\), expected one: the features\. Export it"),
        ({"inputs": 2}, r"has 2 inputs \(x, x1\), expected one image"),
        (
            {"after": (("ArgMax", {"axis": 1, "keepdims": 0}), *FLAT), "output_type": "INT64", "output": ("n", 1)},
            "INT|int64",
        ),
        ({"shape": ("n", 3, "h", "w")}, r"takes images of any size.*Give `image_size`"),
        ({"shape": ("n", 3, 8, "w")}, "takes images of any size"),
        ({"dtype": "INT64"}, "takes tensor.int64., expected floating numbers or uint8"),
    ],
)
def test_models_that_do_not_fit(tmp_path, options, said):
    path = write(tmp_path / "model.onnx", **{"after": FLAT, **options})
    with pytest.raises(BackboneError, match=rf"The model .*model\.onnx .*({said})"):
        open_backbone(path, mean=MEAN, scale=SCALE)


@pytest.mark.parametrize(
    ("shape", "kind", "output", "said"),
    [
        (("n", 3, 8, 8), "Relu", ("n", 3, 8, 8), r"shape \(n, 3, 8, 8\), expected a row of features .* pooling"),
        (("n", 3, "h", "w"), "Flatten", ("n", "f"), r"shape \(n, f\), whose number of features is not fixed"),
        (("n", "c", 8, 8), "Relu", ("n", "c", 8, 8), r"shape \(n, c, 8, 8\), expected images \(N, 3, H, W\)"),
        (("n", 1, 8, 8), "Relu", ("n", 1, 8, 8), r"shape \(n, 1, 8, 8\), expected images \(N, 3, H, W\)"),
        (("n", 3), "Relu", ("n", 3), r"shape \(n, 3\), expected images"),
        (("n", 3, 8, 8), "Size", (), r"gives tensor\(int64\), expected floating numbers"),
    ],
)
def test_models_of_other_shapes(tmp_path, shape, kind, output, said):
    helper, kinds = onnx.helper, onnx.TensorProto
    given = helper.make_tensor_value_info("x", kinds.FLOAT, shape)
    made = helper.make_tensor_value_info("y", kinds.INT64 if kind == "Size" else kinds.FLOAT, output)
    graph = helper.make_graph([helper.make_node(kind, ["x"], ["y"])], "map", [given], [made])
    path = tmp_path / "map.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(BackboneError, match=said):
        open_backbone(path, mean=0, scale=1, image_size=8)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (
            {},
            BackboneError,
            r"how pixels are scaled. Give `mean` and `scale` \(--backbone-mean, --backbone-scale\): a pixel x",
        ),
        ({"mean": 1}, BackboneError, "does not say how pixels are scaled"),
        ({"mean": [1, 2], "scale": 1}, SettingError, "`mean` must be a finite number, or three; received"),
        (
            {"mean": 1, "scale": 0},
            SettingError,
            "`scale` must be a finite number, or three, none of them 0",
        ),
        ({"mean": float("nan"), "scale": 1}, SettingError, "`mean` must be a finite number"),
        ({"mean": "1", "scale": 1}, SettingError, "`mean` must be a finite number"),
        ({"mean": 1, "scale": 1, "image_size": 9}, BackboneError, "takes images of 8 × 8, `image_size` says 9"),
        ({"mean": 1, "scale": 1, "image_size": 3}, SettingError, "`image_size` must be an integer from 8"),
    ],
)
def test_what_is_given_and_cannot_be_used(tmp_path, given, error, said):
    path = write(tmp_path / "model.onnx", after=FLAT)
    with pytest.raises(error, match=said):
        open_backbone(path, **given)


def test_metadata_that_cannot_be_read_is_said(tmp_path):
    path = write(tmp_path / "m.onnx", after=FLAT)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"mean": "0.5 0.5", "scale": "1"})
    onnx.save(model, path)
    with pytest.raises(BackboneError, match=r"has mean = '0\.5 0\.5' in its metadata, expected a number"):
        open_backbone(path)


def test_files_that_are_no_models(tmp_path):
    good = write(tmp_path / "good.onnx", after=FLAT).read_bytes()
    for name, data in (("empty", b""), ("text", b"this is no model"), ("short", good[: len(good) // 2])):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(BackboneError, match=rf"{name}\.onnx is no ONNX (file|model)"):
            open_backbone(path, mean=1, scale=1)
    with pytest.raises(BackboneError, match=r"none\.onnx is not there\. Give the path"):
        open_backbone(str(tmp_path / "none.onnx"))
    path = write(tmp_path / "outside.onnx", after=FLAT, external=True)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(BackboneError, match=r"keeps weights in the file .*weights\.bin, which cannot be read"):
        open_backbone(path, mean=1, scale=1)


def test_other_weights_in_the_same_place_are_found(tmp_path):
    path = write(tmp_path / "m.onnx", after=FLAT, external=True)
    backbone = open_backbone(path, mean=1, scale=1)
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    with pytest.raises(BackboneError, match="made with a backbone m of other weights"):
        backbone_from(backbone.as_dict())
    path.unlink()
    with pytest.raises(BackboneError, match=r"backbone m, which cannot be opened here\. The model .* not there"):
        backbone_from(backbone.as_dict())


def test_images_of_another_size_and_features_that_are_not_finite_are_refused(tmp_path):
    backbone = open_backbone(write(tmp_path / "m.onnx", after=FLAT), mean=1, scale=1)
    with pytest.raises(BackboneError, match=r"takes images of 8 × 8 .* these are 9 × 8\. Prepare them with .* size 8"):
        backbone.features_of(pixels(1, 3, 8, 9))
    path = write(tmp_path / "log.onnx", after=(*FLAT, ("Log", {})))
    with pytest.raises(BackboneError, match="gave features that are not finite"):
        open_backbone(path, mean=255, scale=1).features_of(pixels(1, 3, 8, 8))


OUTSIDE = ["../secret.bin", "a/../../secret.bin", "/etc/passwd", "..\\secret.bin", "C:x", "/dev/zero", "folder"]


def keep_outside(path, tensor, location):
    """Have a tensor of a model be kept in another file."""
    model = onnx.load(path, load_external_data=False)
    chosen = tensor(model)
    chosen.ClearField("raw_data")
    chosen.data_location = onnx.TensorProto.EXTERNAL
    chosen.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())


def in_a_branch(model):
    inner = onnx.helper.make_graph([], "inner", [], [], [onnx.numpy_helper.from_array(np.ones(4, np.float32), "deep")])
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))
    return model.graph.node[-1].attribute[0].g.initializer[0]


def in_a_sparse_one(model):
    model.graph.sparse_initializer.add().values.CopyFrom(onnx.numpy_helper.from_array(np.ones(4, np.float32), "s"))
    return model.graph.sparse_initializer[0].values


def in_a_function(model):
    value = onnx.numpy_helper.from_array(np.ones(4, np.float32), "f")
    node = onnx.helper.make_node("Constant", [], ["f"], value=value)
    model.functions.append(
        onnx.helper.make_function("mine", "f", [], ["f"], [node], [onnx.helper.make_opsetid("", 17)])
    )
    return model.functions[0].node[0].attribute[0].t


@pytest.mark.parametrize(
    "tensor", [lambda model: model.graph.initializer[0], in_a_branch, in_a_sparse_one, in_a_function]
)
@pytest.mark.parametrize("location", OUTSIDE)
def test_weights_that_are_not_beside_the_model_are_not_read(tmp_path, tensor, location):
    (tmp_path / "secret.bin").write_bytes(b"x" * 16)
    (tmp_path / "in" / "folder").mkdir(parents=True)
    path = write(tmp_path / "in" / "m.onnx", after=FLAT)
    keep_outside(path, tensor, location)
    with pytest.raises(BackboneError, match="which is no file in its own folder"):
        open_backbone(path, mean=1, scale=1)


@pytest.mark.parametrize("name", ["../backbone.safetensors", "/etc/passwd", "..", "a/b", "a\\b", ""])
def test_a_run_cannot_name_a_file_that_is_not_in_its_folder(tmp_path, name):
    values = {"name": "efficientnet-lite0", "fingerprint": "", "image_size": None, "precision": "float32"}
    values |= {"networks": [{"name": "efficientnet-lite0"}], "file": name}
    with pytest.raises(BackboneError, match="A backbone must say its name"):
        backbone_from(values, tmp_path)
