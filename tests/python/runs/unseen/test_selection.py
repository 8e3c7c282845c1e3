"""Which images a run is scored on: its own split, or all of another folder but those seen."""

from __future__ import annotations

import json
import shutil
import unicodedata

import numpy as np
import pytest
from typer.testing import CliRunner

import photoflux
from photoflux import DataError
from photoflux.cli import app
from photoflux.data.cache import cache_folder
from photoflux.data.sources import own
from still import CLASSES, copies, paths_of, score, trained


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


def test_a_registered_source_is_known_again_and_another_is_scored_whole(tmp_path, scans, monkeypatch):
    monkeypatch.setattr(own, "_registered", {})
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), np.uint8)

    @photoflux.register_source("noise")
    def noise(argument, writer):
        for number, image in enumerate(images[: int(argument)]):
            writer.add(image, ("dark", "light")[number % 2])

    run = trained("noise:40", tmp_path / "run")
    assert run.data.made_from["path"] == "noise:40"
    assert score(run, "noise:40").as_dict() == score(run).as_dict()
    seen = sum(len(photoflux.prepare(run.data.path).indices(part)) for part in ("train", "validation"))
    found = score(run, "noise:60")
    assert (found.part, found.images, found.left_out) == ("all", 60 - seen, seen)
    # What somebody else's run names is not read for that.
    shutil.rmtree(cache_folder())
    with pytest.raises(DataError, match="because a file names it: give 'noise:40' as the data"):
        score(run)
    assert score(run, "noise:40").images == 8
