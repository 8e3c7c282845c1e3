"""No image is scored as new that the weights have seen, whatever is given to be scored."""

from __future__ import annotations

import html
import json
import os
import shutil
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import photoflux
from photoflux import DataError, SettingError, api
from photoflux.cli import app
from photoflux.comparison import compare as comparing
from photoflux.data.cache import cache_folder
from photoflux.data.duplicates import distinct_looks, looks_like
from photoflux.data.sources.demo import write_demo_folder
from photoflux.engines.base import Fit
from photoflux.model.history import EpochRow
from photoflux.model.weights import expected_shapes, metadata_of, write_weights
from photoflux.reporting import finishing
from photoflux.runs.seen import identities, read_seen, seen_by

CLASSES = ("Painting", "Photo", "Schematics", "Sketch", "Text")


class Still:
    """Writes weights that are all the seed, and takes an image for what its brightness says: no engine is started."""

    name = "keras"

    def __init__(self):
        self.scored = 0

    def versions(self):
        return {}

    def fit(self, variant, prepared, settings, weights, *, initial=None, on_batch=None, on_epoch=None):
        of = prepared.shape, len(prepared.classes)
        values = {
            name: np.full(sides, settings.seed, np.float32) for name, sides in expected_shapes(variant, *of).items()
        }
        write_weights(weights, values, metadata_of(variant, *of))
        return Fit([EpochRow(1, 0.5, 1.0, 0.1, 1.1, 0.5, 1.5, 0.1, 1.6, 0.25)], 1, "epochs")

    def load(self, variant, weights, shape, classes):
        def logits(images, *, batch_size):
            self.scored += len(images)
            bright = images.mean(axis=(1, 2, 3), dtype=np.float64)[:, None] / 32 - 4
            return (bright if classes == 2 else bright * np.arange(classes)).astype(np.float32)

        return SimpleNamespace(logits=logits)


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    still = Still()
    for place in (api, comparing):
        monkeypatch.setattr(place, "get_engine", lambda *_: still)
    monkeypatch.setattr(api, "_engine_of", lambda *_: still)
    # Nothing here is about figures, which take longer than all the rest.
    monkeypatch.setattr(finishing, "_draw", lambda *_, **__: None)
    monkeypatch.setattr(finishing, "report", lambda *_: None)
    return still


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """15 images of each of five classes, PNG files."""
    folder = write_demo_folder(tmp_path_factory.mktemp("originals") / "scans", images_per_class=15)
    for path in folder.glob("*/*.jpg"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()
    return folder


@pytest.fixture
def scans(originals, tmp_path, monkeypatch):
    """A folder that a test may change, and a cache of its own."""
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(originals, tmp_path / "scans"))


@pytest.fixture
def others(tmp_path):
    """Images of other sources, nine of each class."""
    return write_demo_folder(tmp_path / "others", images_per_class=9, seed=5)


def trained(data, out, **options):
    settings = {"image_size": 16, "progress": False} | options
    return photoflux.train("dense_l2", data, out=out, **settings)


def score(run, data=None, **options):
    return photoflux.evaluate(run, data, progress=False, **options)


def paths_of(prepared, part):
    rows = prepared.files()
    return {rows[position]["path"] for position in prepared.indices(part)}


def copies(source, dest, save):
    """Copy images under other names, each by `save(image, stem of the file to write)`."""
    for number, path in enumerate(sorted(source.glob("*/*"))):
        folder = dest / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            save(image, folder / f"copy-{number}")
    return dest


def test_the_file_names_every_image_once_by_file_and_by_pixels(scans, tmp_path):
    run = trained(scans, tmp_path / "run")
    prepared = photoflux.prepare(run.data.path, progress=False)
    seen = read_seen(run.path)
    for part in ("train", "validation"):
        ids = identities(prepared, prepared.indices(part))
        assert np.unique(ids).tolist() == getattr(seen, part).tolist()
        rows = [prepared.files()[position]["sha256"] for position in prepared.indices(part)]
        assert [f"{number:016x}" for number in ids[:, 0].tolist()] == [text[:16] for text in rows]
    assert run.data.seed == 42 and run.data.made_from["path"] == str(scans)
    assert seen.unknown == "" and not seen.left_out


def test_images_added_after_training_do_not_bring_trained_ones_into_the_score(scans, tmp_path, capsys):
    """Three scans a class were added; of a new split's 18 test images 10 had been trained on."""
    run = trained(scans, tmp_path / "run")
    prepared = photoflux.prepare(run.data.path, progress=False)
    more = write_demo_folder(tmp_path / "more", images_per_class=3, seed=77)
    for path in more.glob("*/*"):
        shutil.copy(path, scans / path.parent.name / f"new-{path.name}")
    found = photoflux.evaluate(run, scans)
    seen = len(prepared.indices("train")) + len(prepared.indices("validation"))
    assert (found.images, found.left_out, found.part) == (90 - seen, seen, "all")
    assert f"Note: {seen} of 90 images were left out: the model has seen them" in capsys.readouterr().err
    assert score(run, scans, part="all").as_dict() == found.as_dict()
    with pytest.raises(SettingError, match="scans has no test part: it was not split for this run"):
        score(run, scans, part="test")
    # Its own data is what it was.
    assert score(run).images == len(prepared.indices("test"))


def test_the_run_s_own_folder_keeps_the_split_that_it_was_trained_with(scans, tmp_path):
    run = trained(scans, tmp_path / "run")
    own = score(run)
    assert own.part == "test" and own.left_out == 0
    for data in (scans, str(scans), os.path.relpath(scans), run.data.path):
        assert score(run, data).as_dict() == own.as_dict()
        assert (
            score(run, data, part="train").images == run.data.images - own.images - score(run, part="validation").images
        )
    moved = scans.rename(tmp_path / "moved")
    found = score(run, moved)
    assert (found.part, found.images, found.left_out) == ("all", own.images, run.data.images - own.images)
    assert (found.accuracy, found.confusion) == (own.accuracy, own.confusion)


def test_the_seed_of_the_dataset_is_the_seed_of_the_split(scans, tmp_path):
    """Prepared with seed 7 and trained with 42: 13 of 20 images of a split with 42 were trained on."""
    prepared = photoflux.prepare(scans, tmp_path / "prepared", image_size=16, seed=7, progress=False)
    run = trained(prepared.path, tmp_path / "run", image_size=None, seed=42)
    assert (run.data.seed, run.settings.seed) == (7, 42)
    own = score(run)
    assert own.images == len(prepared.indices("test"))
    assert score(run, scans).as_dict() == own.as_dict()
    shutil.rmtree(prepared.path)
    assert score(run).as_dict() == own.as_dict()


def test_another_split_of_the_same_images_is_scored_without_those_seen(scans, tmp_path):
    run = trained(scans, tmp_path / "run")
    own = photoflux.prepare(run.data.path, progress=False)
    other = photoflux.prepare(scans, tmp_path / "other", image_size=16, seed=3, progress=False)
    found = score(run, other)
    both = paths_of(other, "test") & paths_of(own, "test")
    assert (found.part, found.images) == ("test", len(both))
    assert found.left_out == len(other.indices("test")) - len(both) > 0
    # A part of foreign data that is called train is not the run's own.
    assert score(run, other, part="train").images == len(paths_of(other, "train") & paths_of(own, "test"))


@pytest.mark.parametrize("form", ["the same file", "png", "tiff", "bmp", "with other metadata"])
def test_a_copy_is_known_under_another_name_and_in_another_form(scans, tmp_path, form):
    run = trained(scans, tmp_path / "run")

    def save(image, stem):
        if form == "the same file":
            shutil.copy(image.filename, stem)
        elif form == "with other metadata":
            exif = Image.Exif()
            exif[0x010E] = "scanned again"
            image.convert("RGB").save(stem.with_suffix(".png"), exif=exif)
        else:
            image.convert("RGB").save(stem.with_suffix(f".{form}"))

    copy = copies(scans, tmp_path / "copy", save)
    own = score(run)
    found = score(run, copy)
    assert (found.images, found.left_out) == (own.images, 75 - own.images)
    for path in copy.glob("*/*"):
        if int(path.stem.removeprefix("copy-")) % 15 > 2:
            path.unlink()
    kept = photoflux.prepare(run.data.path, progress=False)
    tested = [row["path"] for row in kept.files() if row["split"] == "test"]
    names = sorted(f"{path.parent.name}/{path.name}" for path in scans.glob("*/*"))
    for number, name in enumerate(names):
        if name in tested:
            for path in copy.glob(f"*/copy-{number}*"):
                path.unlink()
    with pytest.raises(DataError, match=r"has seen all \d+ images of copy in training or validation"):
        score(run, copy)


def photographs(folder, count, seed):
    """Large JPEG files, which are decoded at a fraction of their size."""
    rng = np.random.default_rng(seed)
    for name in ("Photo", "Text"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
            coarse.resize((800, 600), Image.Resampling.BICUBIC).save(folder / name / f"{number}.jpg", quality=92)
    return folder


def test_a_large_photograph_is_known_in_another_format(tmp_path, monkeypatch):
    """A JPEG is decoded at a smaller size than the PNG of the same pixels, and they then differ a little."""
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    scans = photographs(tmp_path / "scans", 20, 1)
    run = trained(scans, tmp_path / "run", image_size=48)
    copy = copies(scans, tmp_path / "copy", lambda image, stem: image.save(stem.with_suffix(".png")))
    prepared = photoflux.prepare(copy, tmp_path / "prepared", image_size=48, progress=False)
    ids = identities(prepared, np.arange(40))
    assert not np.isin(ids, seen_by(run).train).any()
    found, own = score(run, copy), score(run)
    assert (found.images, found.left_out) == (own.images, 40 - own.images)
    assert score(run, photographs(tmp_path / "others", 10, 2)).left_out == 0


def test_look_alikes_are_not_taken_for_each_other():
    """Blank pages are many, and all look the same; a photograph is one."""
    blank, photo = np.zeros(25, np.uint64), np.uint64(0xF0F0F0F0F0F0F0F0)
    known = distinct_looks(np.concatenate([blank, [photo, photo ^ np.uint64(1)]]))
    assert known.tolist() == sorted([int(photo), int(photo) ^ 1])
    near = np.array([0, photo, photo ^ np.uint64(6), photo ^ np.uint64(14)], np.uint64)
    assert looks_like(near, known).tolist() == [False, True, True, False]


def test_what_the_first_weights_had_seen_is_left_out_of_the_scores(scans, tmp_path, capsys):
    """`--initial` of a run with another seed: 12 of 18 test images had been trained on."""
    first = trained(scans, tmp_path / "first", seed=1)
    second = trained(scans, tmp_path / "second", seed=2, initial=first, progress=True)
    page = html.unescape(photoflux.report(second).read_text(encoding="utf-8"))
    before, after = (photoflux.prepare(run.data.path, progress=False) for run in (first, second))
    said = capsys.readouterr().err
    for part, seen in (("test", ("train", "validation")), ("validation", ("train",))):
        left_out = paths_of(after, part) & set().union(*(paths_of(before, name) for name in seen))
        images = len(after.indices(part))
        assert 0 < len(left_out) < images
        assert getattr(second.metrics, part).left_out == len(left_out)
        assert getattr(second.metrics, part).images == images - len(left_out) == len(second.logits(part))
        note = f"{len(left_out)} of {images} {part} images are left out of the run's scores"
        assert note in said and note in str(second)
        assert note in page
        again = score(second, part=part)
        assert (again.images, again.left_out, again.accuracy) == tuple(
            getattr(getattr(second.metrics, part), name) for name in ("images", "left_out", "accuracy")
        )
    assert first.notes == [] and photoflux.load_run(second.path).notes == second.notes
    # The images of both are seen, and those of a third that begins from the second are.
    third = trained(scans, tmp_path / "third", seed=3, initial=second.path)
    for run in (second, third):
        seen = seen_by(run)
        known = np.union1d(seen_by(first).train, seen_by(first).validation)
        assert np.isin(known, np.union1d(seen.train, seen.validation)).all()


def test_a_run_with_no_new_image_in_its_test_part_has_no_test_score(scans, tmp_path):
    first = trained(scans, tmp_path / "first")
    for path in paths_of(photoflux.prepare(first.data.path, progress=False), "test"):
        (scans / path).unlink()
    run = trained(scans, tmp_path / "run", initial=first)
    assert run.metrics.test is None and "There is no test score." in str(run)
    with pytest.raises(DataError, match=r"All \d+ test images of scans were seen by the initial weights"):
        score(run)
    assert "no test score" in photoflux.report(run).read_text(encoding="utf-8")


def test_the_threshold_of_a_fit_from_other_weights_is_chosen_on_images_that_they_had_not_seen(scans, tmp_path):
    first = trained(scans, tmp_path / "first", seed=1)
    second = trained(scans, tmp_path / "second", seed=2, initial=first.path)
    found = photoflux.threshold(second, recall=0.3, confidence=0.51)
    for part in ("validation", "test"):
        assert found.measured[part].images == getattr(second.metrics, part).images
    assert not any("the guarantee does not hold" in note for note in found.notes)


def test_weights_of_unknown_origin_are_said_to_be_that(scans, others, tmp_path, capsys):
    first = trained(scans, tmp_path / "first")
    bare = tmp_path / "bare.safetensors"
    shutil.copy(first.weights, bare)
    run = trained(scans, tmp_path / "run", initial=bare)
    assert "It is not known which images the initial weights" in str(run)
    found = photoflux.evaluate(run, others)
    assert found.images == 45 and found.left_out == 0
    assert "Note: It is not known which images the model has seen" in capsys.readouterr().err
    assert any("bare.safetensors" in note for note in found.notes)
    # It is inherited.
    assert seen_by(trained(scans, tmp_path / "next", initial=run)).unknown == seen_by(run).unknown != ""


def test_a_run_of_an_earlier_photoflux_is_known_by_its_dataset(scans, tmp_path):
    run = trained(scans, tmp_path / "run", seed=4)
    moved = scans.rename(tmp_path / "moved")
    found = score(run, moved)
    (run.path / "seen.safetensors").unlink()
    values = json.loads((run.path / "run.json").read_text())
    for name in ("seed", "images", "made_from"):
        del values["data"][name]
    del values["notes"]
    (run.path / "run.json").write_text(json.dumps(values))
    old = photoflux.load_run(run.path)
    assert score(old, moved).as_dict() == found.as_dict()
    shutil.rmtree(cache_folder())
    unknown = score(old, moved)
    assert unknown.images == 75 and "not known which images" in unknown.notes[0]
    with pytest.raises(DataError, match=r"not usable at .* any more, and the run does not say what it was made from"):
        score(old)


def test_a_run_s_folder_may_be_copied_elsewhere(scans, tmp_path):
    run = trained(scans, tmp_path / "run")
    found = score(run, scans.rename(tmp_path / "moved"))
    shutil.copytree(run.path, tmp_path / "elsewhere" / "copy")
    shutil.rmtree(run.path)
    assert score(tmp_path / "elsewhere" / "copy", tmp_path / "moved").as_dict() == found.as_dict()


def test_a_foreign_folder_is_scored_whole(scans, others, tmp_path):
    run = trained(scans, tmp_path / "run")
    found = score(run, others)
    assert (found.part, found.images, found.left_out, found.notes) == ("all", 45, 0, [])
    assert {name: row["images"] for name, row in found.folders.items()} == dict.fromkeys(CLASSES, 9)
    assert np.array(found.confusion).sum(axis=1).tolist() == [36, 9]


def test_a_class_may_be_missing_and_only_photos_may_be_there(scans, others, tmp_path):
    run = trained(scans, tmp_path / "run")
    shutil.rmtree(others / "Text")
    assert score(run, others).images == 36
    for name in ("Painting", "Schematics", "Sketch"):
        shutil.rmtree(others / name)
    photos = score(run, others)
    assert photos.images == 9 and photos.balanced_accuracy == photos.accuracy == photos.recall[1]
    assert any("All images are of the class 'Photo'" in note for note in photos.notes)
    # One image is enough.
    for path in sorted((others / "Photo").iterdir())[1:]:
        path.unlink()
    assert score(run, others).images == 1
    (others / "Photo").rename(others / "Fotos")
    none = score(run, others)
    assert any("No folder of" in note and "all images count as 'not Photo'" in note for note in none.notes)
    assert np.array(none.confusion).sum(axis=1).tolist() == [1, 0]


def test_classes_are_known_by_their_names(scans, others, tmp_path):
    run = trained(scans, tmp_path / "run", positive=None)
    assert run.classes == list(CLASSES)
    found = score(run, others)
    shutil.rmtree(others / "Text")
    fewer = score(run, others)
    assert fewer.images == 36 and any("no image of the class 'Text'" in note for note in fewer.notes)
    # The mean over the classes that there are.
    assert (
        fewer.balanced_accuracy == pytest.approx(np.mean(fewer.recall[:4])) == pytest.approx(np.mean(found.recall[:4]))
    )
    (others / "Sketch").rename(others / "Sketches")
    with pytest.raises(DataError, match=r"folders that are no class of the run: 'Sketches'.*'Painting', 'Photo'"):
        score(run, others)
    (others / "Sketches").rename(others / "sketch ")
    again = score(run, others)
    assert again.confusion == fewer.confusion
    assert any("'sketch ' of" in note and "counts as the run's class 'Sketch'" in note for note in again.notes)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_compared_in_one_unicode_form(scans, others, tmp_path, form):
    for folder in (scans, others):
        (folder / "Photo").rename(folder / unicodedata.normalize("NFC", "Fotografía"))
    run = trained(scans, tmp_path / "run", positive="Fotografía")
    other = unicodedata.normalize(form, "Fotografía")
    (others / unicodedata.normalize("NFC", "Fotografía")).rename(others / other)
    found = score(run, others)
    assert np.array(found.confusion).sum(axis=1).tolist() == [36, 9] and found.notes == []


def test_a_folder_that_cannot_be_scored_says_why(scans, tmp_path):
    run = trained(scans, tmp_path / "run")
    (tmp_path / "flat").mkdir()
    for path in (scans / "Photo").iterdir():
        shutil.copy(path, tmp_path / "flat")
    with pytest.raises(DataError, match="no class folders with files in them"):
        score(run, tmp_path / "flat")
    (tmp_path / "broken" / "Photo").mkdir(parents=True)
    (tmp_path / "broken" / "Photo" / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    with pytest.raises(DataError, match=r"No image in .*broken can be read.*a\.jpg"):
        score(run, tmp_path / "broken")
    with pytest.raises(DataError, match="No such folder"):
        score(run, tmp_path / "none")


def test_arrays_are_scored_whole_and_what_was_seen_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 255, (60, 9, 8, 1), np.uint8), np.arange(60) % 3
    run = trained((x, y), tmp_path / "run", image_size=None)
    own = score(run)
    assert score(run, (x, y)).as_dict() == own.as_dict()
    new = rng.integers(0, 255, (10, 9, 8, 1), np.uint8)
    found = score(run, (np.concatenate([new, x]), np.concatenate([np.zeros(10, int), y])))
    assert (found.images, found.left_out) == (10 + own.images, 60 - own.images)
    assert score(run, (new[:2], [1, 1])).images == 2
    with pytest.raises(DataError, match="does not fit the run: expected images of 1×9×8"):
        score(run, (new[:, :8], np.zeros(10, int)))
    with pytest.raises(DataError, match=r"labels from 0 to 2 \(0, 1, 2\).*labels up to 3"):
        score(run, (new, np.full(10, 3)))


def test_a_holdout_that_was_trained_on_is_refused_or_left_out(scans, others, tmp_path, engine):
    """A copy of the training data, renamed and saved in another lossless format."""
    data = photoflux.prepare(scans, tmp_path / "prepared", image_size=16, progress=False)
    tested = paths_of(data, "test")
    new = tmp_path / "new"
    for path in tested:
        (new / path).parent.mkdir(parents=True, exist_ok=True)
        (scans / path).rename(new / path)
    copy = copies(scans, tmp_path / "copy", lambda image, stem: image.convert("RGB").save(stem.with_suffix(".bmp")))
    options = {"variants": "dense_l2,dense_dropout", "seeds": 1, "holdout": copy, "progress": False}
    with pytest.raises(DataError, match=rf"`holdout` .*copy: all {75 - len(tested)} images are among those"):
        photoflux.compare(data, out=tmp_path / "a", **options)
    assert engine.scored == 0 and not list((tmp_path / "a").glob("runs/*"))
    for folder in (new, others):
        for path in folder.glob("*/*"):
            shutil.copy(path, copy / path.parent.name / f"{folder.name}-{path.name}")
    found = photoflux.compare(data, out=tmp_path / "b", **options)
    assert found.data["images"]["holdout"] == 45 + len(tested)
    assert found.data["holdout_left_out"] == 75 - len(tested)
    assert f"{75 - len(tested)} of 120 images of the second folder left out" in str(found)
    # A folder of photos alone can judge too.
    for path in others.iterdir():
        if path.name != "Photo":
            shutil.rmtree(path)
    photos = photoflux.compare(data, out=tmp_path / "c", **(options | {"holdout": others}))
    holdout = photos.results[0].parts["holdout"]
    assert holdout["accuracy"].mean == holdout["balanced_accuracy"].mean
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        photoflux.compare(data, out=tmp_path / "d", **(options | {"holdout": tmp_path / "empty"}))


def test_a_cache_that_was_emptied_is_filled_again(scans, tmp_path, capsys):
    run = trained(scans, tmp_path / "run", seed=9)
    own = score(run)
    page = photoflux.report(run).read_text(encoding="utf-8")
    promise = photoflux.threshold(run, recall=0.5, confidence=0.51).as_dict()
    for again in (
        lambda: score(photoflux.load_run(run.path)).as_dict() == own.as_dict(),
        lambda: photoflux.threshold(run.path, recall=0.5, confidence=0.51).as_dict() == promise,
        lambda: photoflux.report(run.path).read_text(encoding="utf-8").count("<img") == page.count("<img"),
    ):
        shutil.rmtree(cache_folder())
        capsys.readouterr()
        assert again()
    assert f"prepared again from {scans}, with the seed 9 of its split" in capsys.readouterr().err
    assert page.count("<img") > 0
    # Another source in its place has another fingerprint.
    shutil.rmtree(cache_folder())
    next(iter(sorted((scans / "Text").iterdir()))).unlink()
    changed = "no longer what the run was trained on.*with 74 images where there were 75"
    for again in (lambda: score(run), lambda: photoflux.threshold(run, recall=0.5, confidence=0.51)):
        with pytest.raises(DataError, match=changed):
            again()
    assert "no longer the one that the run was trained on" in photoflux.report(run).read_text(encoding="utf-8")
    scans.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"cannot be prepared again from .*scans. No such folder"):
        score(run)


def test_the_command_line_says_what_was_left_out(scans, others, tmp_path):
    run = trained(scans, tmp_path / "run")
    for path in others.glob("Photo/*"):
        shutil.copy(path, scans / "Photo" / f"new-{path.name}")
    done = CliRunner().invoke(app, ["evaluate", str(run.path), "--data", str(scans)])
    left_out = 75 - run.metrics.test.images
    assert done.exit_code == 0, done.output
    assert f"all: {84 - left_out} images ({left_out} left out), loss" in done.stdout
    assert f"Note: {left_out} of 84 images were left out" in done.stderr
    done = CliRunner().invoke(app, ["evaluate", str(run.path), "--data", str(scans), "--json"])
    values = json.loads(done.stdout)
    assert (values["part"], values["left_out"], values["images"]) == ("all", left_out, 84 - left_out)
    assert "left out" in values["notes"][0]
    (scans / "Photo" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    done = CliRunner().invoke(app, ["evaluate", str(run.path), "--data", str(scans), "--json"])
    assert done.exit_code == 3 and json.loads(done.stdout)["rejected"] == 1 and "cut.jpg" in done.stderr
    (scans / "Photo" / "cut.jpg").unlink()
    done = CliRunner().invoke(app, ["evaluate", str(run.path), "--data", str(scans), "--part", "test"])
    assert done.exit_code == 2 and "has no test part" in done.stderr
    shutil.rmtree(others)
    (tmp_path / "only").mkdir()
    shutil.copytree(scans / "Photo", tmp_path / "only" / "Photo")
    done = CliRunner().invoke(app, ["evaluate", str(run.path), "--data", str(tmp_path / "only")])
    assert "not Photo         no images" in done.stdout
