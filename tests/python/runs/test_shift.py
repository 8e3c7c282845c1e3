"""Piles that are like the training images, and piles that are not: measured, compared, said and written."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.numpy import save_file
from typer.testing import CliRunner

import photoflux
from onnx_backbone import FEATURES, SIZE, write_backbone
from photoflux.cli import app
from photoflux.data.prepared import SPLITS
from photoflux.data.sources.demo import write_demo_folder
from photoflux.errors import RunError
from photoflux.features import Backbone, backbone_from
from photoflux.runs import shift as module
from photoflux.runs.appearance import dimensions_of, looks_of, margins_of
from photoflux.runs.reference import NAME, RESPECTS, Reference, Space, features_of, read_reference, write_reference
from photoflux.runs.shift import Observed, evenly, in_words, shifts
from photoflux.runs.transfer import TransferModel

pytestmark = pytest.mark.usefixtures("one_worker")


class Values:
    """Observed values, given."""

    def __init__(self, **values):
        self._values = {name: np.asarray(found, np.float32) for name, found in values.items()}

    def values(self):
        return self._values


def reference(kinds, **values):
    known = {name: np.asarray(found, np.float32) for name, found in values.items()}
    return Reference(known, dict.fromkeys(known, np.asarray(kinds, np.int16)))


def test_looks_are_their_formulas():
    image = np.random.default_rng(1).integers(0, 256, (3, 7, 9), np.uint8)
    red, green, blue = image.astype(np.float64)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    rg, yb = red - green, (red + green) / 2 - blue
    colour = np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    edges = [
        grey[i - 1, j] + grey[i + 1, j] + grey[i, j - 1] + grey[i, j + 1] - 4 * grey[i, j]
        for i in range(1, 6)
        for j in range(1, 8)
    ]
    found = looks_of(np.stack([image, np.repeat(image[:1], 3, axis=0)]))
    # Sums of 63 float32 numbers below 256.
    assert found["colour"] == pytest.approx([colour, 0], rel=1e-5, abs=1e-4)
    assert found["brightness"][0] == pytest.approx(grey.mean(), rel=1e-5)
    assert found["sharpness"][0] == pytest.approx(np.log2(1 + np.std(edges)), rel=1e-5)
    as_grey = looks_of(image[None, :1])
    assert as_grey["colour"] == [0]
    # As RGB its grey is (0.299 + 0.587 + 0.114) times itself.
    for respect in ("brightness", "sharpness"):
        assert as_grey[respect][0] == pytest.approx(found[respect][1], rel=1e-5)


def test_dimensions_and_margins_are_their_formulas():
    found = dimensions_of([(2000, 1000), (1000, 2000)])
    assert found["size"].tolist() == [1, 1]
    assert found["shape"].tolist() == [-1, 1]
    assert margins_of(np.array([[-2.0], [3.0]], np.float32)).tolist() == [2, 3]
    assert margins_of(np.array([[1.0, 4.0, 2.5], [0.0, 0.0, -1.0]], np.float32)).tolist() == [1.5, 0]


def test_a_distance_is_that_of_the_fifth_nearest_direction():
    rng = np.random.default_rng(2)
    train, new = rng.normal(size=(40, 6)) * [1, 2, 3, 4, 5, 6] + 7, rng.normal(size=(3, 6)) + 7
    space = Space.of(np.append(train, np.full((40, 1), 3.0), axis=1))  # the last feature never varies
    # All directions are kept, so no projection is needed: angles are those between standardised features.
    one, other = ((found - train.mean(axis=0)) / train.std(axis=0) for found in (new, train))
    one, other = (found / np.linalg.norm(found, axis=1, keepdims=True) for found in (one, other))
    expected = np.sort(np.linalg.norm(one[:, None] - other[None], axis=2), axis=1)[:, 4]
    found = space.distances(np.append(new, np.full((3, 1), 3.0), axis=1).astype(np.float32))
    # float16 keeps axes and directions to 2⁻¹¹; a distance is a sum over 6 of them.
    assert found == pytest.approx(expected, abs=6 * 2**-11)


def test_another_mixture_of_the_same_kinds_is_no_shift_and_a_new_kind_is():
    rng = np.random.default_rng(3)
    dark, light = rng.normal(60, 10, 150), rng.normal(220, 8, 150)
    known = reference([0] * 150 + [1] * 150, brightness=[*dark, *light])
    assert shifts(known, Values(brightness=rng.normal(220, 8, 300))) == []
    between = shifts(known, Values(brightness=rng.normal(140, 8, 300)))
    assert [found.respect for found in between] == ["brightness"]
    assert between[0].measure > 0.9
    assert between[0].value == pytest.approx(140, abs=2)
    assert "between the kinds" in between[0].text
    (dim,) = shifts(known, Values(brightness=[*rng.normal(4, 2, 90), *rng.normal(220, 8, 210)]))
    assert dim.measure == pytest.approx(0.3, abs=0.01)
    assert "darker" in dim.text and "30%" in dim.text
    assert (dim.low, dim.high) == (np.float32(min(dark)), np.float32(max(light)))
    # A kind of few images is none by itself.
    few = reference([0] * 150 + [1] * 150 + [2] * 2, brightness=[*dark, *light, 140, 141])
    assert len(shifts(few, Values(brightness=rng.normal(140, 8, 300)))) == 1


def test_scores_are_low_where_nearly_all_are_among_the_lowest_of_the_least_certain_kind():
    certain, less = np.arange(100) + 50, np.arange(100)  # a quarter of the second are 0 to 24
    known = reference([0] * 100 + [1] * 100, scores=[*certain, *less])
    assert shifts(known, Values(scores=np.arange(300) % 100)) == []
    assert shifts(known, Values(scores=[10] * 79 + [30] * 21)) == []
    (found,) = shifts(known, Values(scores=[10] * 80 + [30] * 20))
    assert found.measure == 0.8 and found.value == 10 and "less certain" in found.text
    (found,) = shifts(known, Values(scores=[400] * 100))
    assert "more certain" in found.text


def test_features_are_never_too_near():
    distances = np.linspace(0.2, 0.6, 100)
    known = reference([0] * 100, features=distances)
    assert shifts(known, Values(features=[0.0] * 100)) == []
    (found,) = shifts(known, Values(features=[0.0] * 90 + [0.7] * 10))
    assert found.measure == 0.1 and found.value == pytest.approx(0.7)
    assert "farther" in found.text
    # 7 % are not enough, however sure it is that they are another kind.
    assert shifts(known, Values(features=[0.0] * 279 + [0.7] * 21)) == []


def test_what_is_hardly_different_is_no_shift():
    same = np.zeros(100)  # such as the size of images that all have the same
    known = reference(same, size=same, shape=same)
    assert shifts(known, Values(size=[1.9] * 50, shape=[0.19] * 50)) == []
    assert [found.respect for found in shifts(known, Values(size=[2.1] * 50, shape=[0.21] * 50))] == ["size", "shape"]
    some = [2.1] * 9 + [0] * 41
    assert shifts(known, Values(size=some)) == []  # fewer than 20 %
    assert len(shifts(known, Values(size=[2.1] * 10 + [0] * 40))) == 1
    # Each is outside with 2 / 101: two of four are by 6·(2/101)²·… = 0.3 %, more than 1 % / 7, and three by 0.005 %.
    assert shifts(known, Values(size=[2.1, 2.1, 0, 0])) == []
    assert len(shifts(known, Values(size=[2.1, 2.1, 2.1, 0]))) == 1


@pytest.mark.parametrize(("images", "new"), [(30, 300), (100, 50), (400, 300)])
def test_chance_alone_makes_an_alarm_as_seldom_as_is_promised(monkeypatch, images, new):
    """Without widening and effect size, of 2,000 piles that are drawn as the reference is."""
    monkeypatch.setattr(module, "WIDER", 0.0)
    monkeypatch.setattr(module, "MARGINS", {"colour": 0.0})
    monkeypatch.setattr(module, "SHARES", {})
    monkeypatch.setattr(module, "SHARE", 0.0)
    rng = np.random.default_rng(images)
    alarms = sum(
        bool(
            shifts(reference([0] * images, colour=rng.standard_cauchy(images)), Values(colour=rng.standard_cauchy(new)))
        )
        for _ in range(2000)
    )
    # Each respect has 1 % / 7, so 2.9 alarms are expected at most; 10 or more of a Poisson of 2.9 come once in 1,000.
    assert alarms < 10


def test_a_reference_is_read_as_it_was_written(tmp_path):
    rng = np.random.default_rng(4)
    whole = reference([0, 1, 1], scores=[1, 2, 3], features=[0.5, 0.25, 1])
    whole = dataclasses.replace(whole, space=Space.of(rng.normal(size=(9, 5))))
    write_reference(tmp_path, whole)
    read = read_reference(SimpleNamespace(path=tmp_path))
    for name in ("values", "kinds"):
        for respect, values in getattr(whole, name).items():
            np.testing.assert_array_equal(getattr(read, name)[respect], values)
    for part in ("mean", "scale", "axes", "bank"):
        np.testing.assert_array_equal(getattr(read.space, part), getattr(whole.space, part))


def test_a_run_without_a_reference_says_nothing_and_a_broken_one_is_an_error(tmp_path):
    run = SimpleNamespace(path=tmp_path)
    assert read_reference(run) is None
    observed = Observed(SimpleNamespace(), run)
    assert observed.full and observed.shifts() == []
    save_file({"size": np.zeros(3)}, tmp_path / NAME, {"format": "photoflux-reference-1"})
    with pytest.raises(RunError, match=r"cannot be read: 'kinds\.size'"):
        read_reference(run)
    save_file({"size": np.zeros(3)}, tmp_path / NAME, {"format": "another"})
    with pytest.raises(RunError, match="has the format 'another'"):
        read_reference(run)
    (tmp_path / NAME).write_bytes(b"no")
    with pytest.raises(RunError, match="Take another copy"):
        read_reference(run)


def test_no_more_are_observed_than_are_wanted(tmp_path):
    write_reference(tmp_path, reference([0] * 40, brightness=np.arange(40)))
    observed = Observed(SimpleNamespace(), SimpleNamespace(path=tmp_path))
    for _ in range(5):
        observed.add(np.zeros((70, 3, 8, 8), np.uint8), np.zeros((70, 1), np.float32), None)
    assert observed.full and observed.images == 300
    assert {respect: len(values) for respect, values in observed.values().items()} == {
        "scores": 300,
        "colour": 300,
        "brightness": 300,
        "sharpness": 300,
    }
    assert evenly(0).tolist() == []
    assert evenly(7).tolist() == list(range(7))
    spread = evenly(1000)
    assert len(spread) == 300 and spread[0] == 0 and spread[-1] == 996 and len(set(spread.tolist())) == 300


def write_pages(folder: Path, count: int = 40) -> Path:
    """Pages of an archive: upright, on paper, lines of text with a drawing between them."""
    rng = np.random.default_rng(5)
    folder.mkdir()
    for number in range(count):
        page = Image.new("RGB", (600, 850), tuple(rng.integers(225, 256, 3).tolist()))
        pen = ImageDraw.Draw(page)
        for y in range(60, 800, 14):
            pen.line((50, y, 550 - int(rng.integers(0, 120)), y), fill=(40, 40, 40), width=3)
        pen.rectangle((120, 200, 480, 460), fill=tuple(rng.integers(0, 256, 3).tolist()))
        page.save(folder / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("piles")
    write_demo_folder(root / "train", images_per_class=40, seed=1)
    write_demo_folder(root / "new", images_per_class=20, seed=2)
    write_pages(root / "pages")
    return root


@pytest.fixture(scope="module", params=["flux", "keras"])
def run(request, folders, tmp_path_factory):
    request.getfixturevalue(request.param)
    out = tmp_path_factory.mktemp("runs") / "run"
    return photoflux.train(
        "baseline", folders / "train", engine=request.param, epochs=2, image_size=32, out=out, progress=False
    )


def test_a_new_run_keeps_what_it_was_trained_on(run):
    kept = read_reference(run)
    assert set(kept.values) == set(RESPECTS) - {"features"}
    assert len(kept.values["colour"]) == 200
    held = np.concatenate([run.logits(part) for part in ("validation", "test")])
    assert len(kept.values["scores"]) == len(held)
    assert sorted(kept.values["scores"]) == sorted(margins_of(held))
    assert len(np.unique(kept.kinds["colour"])) == 5
    assert (run.path / NAME).stat().st_size < 1e6


def test_pages_are_said_to_be_unlike_and_new_images_of_the_kind_are_not(run, folders, caplog):
    found = []
    predictions = photoflux.predict(run, folders / "pages", on_shifts=found.extend)
    assert len(predictions) == 40
    respects = [shift.respect for shift in found]
    assert {"size", "shape"} <= set(respects)
    size = next(shift for shift in found if shift.respect == "size")
    assert size.measure == 1
    assert size.value == pytest.approx(0.51)
    said = caplog.text
    assert "Note: These images are unlike those that the run was trained on, in" in said
    for shift in found:
        assert f"Note: {shift.text}" in said
        assert json.loads(json.dumps(shift.as_dict()))["respect"] == shift.respect
    found.clear()
    caplog.clear()
    photoflux.predict(run, folders / "new", on_shifts=found.extend)
    assert found == []
    assert "unlike" not in caplog.text


def test_an_array_is_compared_by_its_pixels(run):
    found = []
    dark = np.random.default_rng(6).integers(0, 3, (50, 32, 32, 3), np.uint8)
    photoflux.predict(run, dark, progress=False, on_shifts=found.extend)
    respects = {shift.respect for shift in found}
    assert "brightness" in respects
    assert not respects & {"size", "shape"}


def test_an_evaluation_of_other_data_says_it_and_one_of_the_runs_own_never_does(run, folders, tmp_path, caplog):
    own = photoflux.evaluate(run, part="all", progress=False)
    assert own.shifts == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "Photo").symlink_to(folders / "pages")
    other = photoflux.evaluate(run, tmp_path / "other")
    assert {"size", "shape"} <= {shift["respect"] for shift in other.shifts}
    assert sum("unlike those that the run was trained on" in note for note in other.notes) == 1
    assert "Note: These images are unlike" in caplog.text
    new = photoflux.evaluate(run, folders / "new", progress=False)
    assert new.shifts == []
    assert not any("unlike" in note for note in new.notes)


def test_a_run_of_an_earlier_photoflux_predicts_as_before(run, folders, tmp_path, caplog):
    older = shutil.copytree(run.path, tmp_path / "older")
    (older / NAME).unlink()
    found = []
    predictions = photoflux.predict(older, folders / "pages", on_shifts=found.extend)
    assert len(predictions) == 40 and found == []
    assert "unlike" not in caplog.text


def test_the_words_name_every_respect():
    known = reference([0] * 100, size=np.zeros(100), colour=np.zeros(100))
    both = shifts(known, Values(colour=[90] * 40, size=[8] * 40))
    head, *lines = in_words(both)
    assert "in colour and size." in head
    assert lines == [shift.text for shift in both]
    assert "100%" in lines[0] and "more colourful" in lines[0] and "0 to 0" in lines[0]
    (alone, _) = in_words(both[1:])
    assert "smaller copies" in alone
    assert in_words([]) == []


@pytest.fixture(scope="module", params=["flux", "keras"])
def transfer_run(request, folders, tmp_path_factory):
    pytest.importorskip("onnx", reason="the extra transfer is not installed")
    pytest.importorskip("onnxruntime", reason="the extra transfer is not installed")
    request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("transfer")
    return photoflux.train(
        "transfer",
        folders / "train",
        backbone=write_backbone(folder / "tiny.onnx"),
        backbone_mean=127.0,
        backbone_scale=128.0,
        image_size=SIZE,
        engine=request.param,
        epochs=3,
        out=folder / "run",
        progress=False,
    )


def test_a_run_on_a_backbone_keeps_distances_of_images_that_its_weights_were_not_fitted_to(transfer_run):
    kept = read_reference(transfer_run)
    assert set(kept.values) == set(RESPECTS)
    prepared = photoflux.prepare(transfer_run.data.path)
    backbone = backbone_from(transfer_run.backbone)
    train, *held = (backbone.features_of(prepared.images[prepared.indices(part)]) for part in SPLITS)
    assert kept.space.bank.shape == (len(train), min(FEATURES, 32))
    expected = Space.of(train).distances(np.concatenate(held))
    # The direction of an axis has a sign that is free, and float16 rounds it alike.
    assert np.sort(kept.values["features"]) == pytest.approx(np.sort(expected), abs=2e-3)
    assert (transfer_run.path / NAME).stat().st_size < 1e6


def test_features_of_a_pile_are_compared_and_not_computed_twice(transfer_run, folders, monkeypatch):
    counted = []
    compute = Backbone.features_of

    def counting(self, images, batch_size=32):
        counted.append(len(images))
        return compute(self, images, batch_size)

    monkeypatch.setattr(Backbone, "features_of", counting)
    observed = []
    monkeypatch.setattr(module.Observed, "shifts", lambda self: observed.append(self.values()) or [])
    photoflux.predict(transfer_run, folders / "pages", progress=False)
    assert sum(counted) == 40
    images = np.random.default_rng(8).integers(0, 256, (500, SIZE, SIZE, 3), np.uint8)
    photoflux.predict(transfer_run, images, progress=False)
    assert sum(counted) == 540
    assert [len(values["features"]) for values in observed] == [40, 300]
    # They are those of the images that are observed.
    pixels = images[evenly(500)].transpose(0, 3, 1, 2)
    space = read_reference(transfer_run).space
    expected = space.distances(compute(backbone_from(transfer_run.backbone), pixels))
    assert observed[1]["features"] == pytest.approx(expected, abs=1e-3)


def test_a_model_gives_no_features_of_other_images_than_it_is_asked_for():
    class Means:
        def features_of(self, images, batch_size=32):
            return images.reshape(len(images), -1).mean(axis=1, keepdims=True).astype(np.float32)

    head = SimpleNamespace(logits=lambda features, batch_size: features[:, :, 0, 0])
    model = TransferModel(SimpleNamespace(backbone=Means()), head)
    images = np.full((2, 3, 4, 4), 10, np.uint8)
    assert model.logits(images).tolist() == [[10], [10]]
    assert features_of(model, images[:1]).tolist() == [[10]]
    other = images + 1
    assert features_of(model, other).tolist() == [[11], [11]]
    images[:] = 20  # a buffer that is used again
    assert model.logits(images).tolist() == [[20], [20]]
    assert features_of(model, images).tolist() == [[20], [20]]
    assert features_of(SimpleNamespace(), images) is None


def test_the_command_line_writes_it_into_its_results(run, folders):
    def output(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    found = output("predict", run.path, folders / "pages")
    assert {"size", "shape"} <= {shift["respect"] for shift in found["shifts"]}
    assert {"respect", "measure", "value", "low", "high", "text"} == set(found["shifts"][0])
    assert output("predict", run.path, folders / "new")["shifts"] == []
    assert output("evaluate", run.path)["shifts"] == []
