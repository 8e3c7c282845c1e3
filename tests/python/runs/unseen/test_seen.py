"""No image is scored as new that the weights have seen, whatever is given to be scored."""

from __future__ import annotations

import html
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import photoflux
from photoflux import DataError, SettingError
from photoflux.data.cache import cache_folder
from photoflux.data.duplicates import distinct_looks, looks_like
from photoflux.data.sources.demo import write_demo_folder
from photoflux.runs.seen import identities, read_seen, seen_by
from still import copies, paths_of, score, trained


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


def test_images_added_after_training_do_not_bring_trained_ones_into_the_score(scans, tmp_path, caplog):
    """Three scans a class were added; of a new split's 18 test images 10 had been trained on."""
    run = trained(scans, tmp_path / "run")
    prepared = photoflux.prepare(run.data.path, progress=False)
    more = write_demo_folder(tmp_path / "more", images_per_class=3, seed=77)
    for path in more.glob("*/*"):
        shutil.copy(path, scans / path.parent.name / f"new-{path.name}")
    found = photoflux.evaluate(run, scans)
    seen = len(prepared.indices("train")) + len(prepared.indices("validation"))
    assert (found.images, found.left_out, found.part) == (90 - seen, seen, "all")
    assert f"Note: {seen} of 90 images were left out: the model has seen them" in caplog.text
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


def test_what_the_first_weights_had_seen_is_left_out_of_the_scores(scans, tmp_path, caplog):
    """`--initial` of a run with another seed: 12 of 18 test images had been trained on."""
    first = trained(scans, tmp_path / "first", seed=1)
    second = trained(scans, tmp_path / "second", seed=2, initial=first, progress=True)
    page = html.unescape(photoflux.report(second).read_text(encoding="utf-8"))
    before, after = (photoflux.prepare(run.data.path, progress=False) for run in (first, second))
    said = caplog.text
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


def test_weights_of_unknown_origin_are_said_to_be_that(scans, others, tmp_path, caplog):
    first = trained(scans, tmp_path / "first")
    bare = tmp_path / "bare.safetensors"
    shutil.copy(first.weights, bare)
    run = trained(scans, tmp_path / "run", initial=bare)
    assert "It is not known which images the initial weights" in str(run)
    found = photoflux.evaluate(run, others)
    assert found.images == 45 and found.left_out == 0
    assert "Note: It is not known which images the model has seen" in caplog.text
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
