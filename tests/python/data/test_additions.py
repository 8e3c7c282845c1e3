"""Labelled images are added to the training part: those that may, once, as they were seen, and the same each time."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photoflux.data.additions import with_labels
from photoflux.data.images.decoding import decode_file
from photoflux.data.labelled import LABELS, LEDGER, read_labels
from photoflux.data.preparation import prepare, prepare_again
from photoflux.data.prepared import PreparedDataset
from photoflux.data.shape import Shape
from photoflux.errors import DataError
from photoflux.filtering.ledger import DONE, Item, Ledger, SourceKey

SIZE = 16


def noise(seed: int, size: tuple[int, int] = (20, 18)) -> Image.Image:
    """No two alike, nor nearly."""
    values = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.NEAREST)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three folders of twelve images."""
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate(("Photo", "Map", "Text")):
        (tmp_path / "source" / name).mkdir(parents=True)
        for image in range(12):
            noise(100 * number + image).save(tmp_path / "source" / name / f"{image:02}.png")
    return tmp_path / "source"


@pytest.fixture
def base(source: Path, tmp_path: Path) -> PreparedDataset:
    return prepare(source, tmp_path / "base", image_size=SIZE, seed=3)


@pytest.fixture
def label(tmp_path: Path) -> Callable[..., Path]:
    """Label images in the ledger of a folder; what is not a file has the sha256 that is given."""

    def write(images: list[tuple[Path, str]], folder: str = "job", name: str = LEDGER, **inner: object) -> Path:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        ledger = Ledger(place, writes=True, name=name)
        for path, said in images:
            key = SourceKey(str(path), str(inner.get("member", "")), int(str(inner.get("nth", 0))))
            page = int(str(inner.get("page", 0)))
            sha256 = inner.get("sha256")
            if sha256 is None:
                sha256 = next(i.sha256 for i in decode_file(path, Shape(3, 8, 8)).images if i.page == page)
            number, _ = ledger.source(key, 1, 1)
            ledger.record(number, [Item(page, DONE, str(sha256), 20, 18, 0.5, "uncertain", "", None)], "m")
            assert ledger.label(number, page, said)
        ledger.close()
        return place

    return write


def new(tmp_path: Path, count: int) -> list[Path]:
    (tmp_path / "pile").mkdir(exist_ok=True)
    paths = [tmp_path / "pile" / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        noise(1000 + number).save(path)
    return paths


def rejected(found: PreparedDataset) -> dict[str, str]:
    return {Path(name).name: reason for name, reason in found.rejected}


def test_new_images_are_added_to_the_training_part_alone(base, label, tmp_path):
    one, two, three = new(tmp_path, 3)
    job = label([(two, "Photo"), (one, "not Photo"), (three, "Photo")])
    found = with_labels(base, [job])
    n = len(base)
    assert len(found) == n + 3
    for name in ("images", "labels", "split"):
        assert np.array_equal(getattr(found, name)[:n], getattr(base, name)), name
    assert found.labels[n:].tolist() == [0, 1, 1], "by file"
    assert found.split[n:].tolist() == [0, 0, 0]
    for position, path in enumerate((one, two, three), n):
        decoded = decode_file(path, base.shape).images[0]
        assert np.array_equal(found.images[position], decoded.pixels)
        row = found.files()[position]
        assert (row["path"], row["sha256"], row["split"]) == (str(path), decoded.sha256, "train")
        assert int(found.looks[position]) == decoded.phash
    assert [row["folder"] for row in found.files()[n:]] == ["not Photo", "Photo", "Photo"]
    assert len({row["group"] for row in found.files()[n:]} - {row["group"] for row in base.files()}) == 3
    assert found.counts()["test"] == base.counts()["test"]
    assert found.warnings[-1] == "3 labelled images were added to the training part (2 × Photo, 1 × not Photo)."
    assert (found.name, found.classes, found.positive) == (base.name, base.classes, base.positive)
    assert found.fingerprint != base.fingerprint


def test_the_same_labels_give_the_same_bits(base, label, tmp_path, monkeypatch):
    paths = new(tmp_path, 4)
    first = label([(path, "Photo") for path in paths[:2]], "a")
    second = label([(path, "not Photo") for path in paths[2:]], "b")
    found = with_labels(base, [first, second])
    assert with_labels(base, [second, first]).path == found.path, "from the cache"
    before = {name: (found.path / name).read_bytes() for name in ("images.npy", "labels.npy", "split.npy", "files.csv")}
    backwards = label([(path, "Photo") for path in paths[1::-1]], "c")
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "other"))
    again = with_labels(base, [second, backwards])
    assert again.path != found.path
    assert {name: (again.path / name).read_bytes() for name in before} == before
    assert again.fingerprint == found.fingerprint
    label([(paths[0], "not Photo")], "c")
    assert with_labels(base, [second, backwards]).fingerprint != found.fingerprint


def test_an_image_of_the_dataset_is_not_added_twice(base, label, source, tmp_path):
    by_part = {part: [base.files()[p]["path"] for p in base.indices(part)] for part in ("train", "validation", "test")}
    wrong = next(path for path in by_part["train"] if path.startswith("Photo"))
    right = next(path for path in by_part["train"] if path.startswith("Map"))
    job = label(
        [(source / wrong, "not Photo"), (source / right, "not Photo")]
        + [(source / by_part[part][0], "Photo") for part in ("validation", "test")]
        + [(new(tmp_path, 1)[0], "Photo")]
    )
    copy = tmp_path / "pile" / "copy.png"
    shutil.copyfile(source / wrong, copy)
    label([(copy, "not Photo")])
    found = with_labels(base, [job])
    assert len(found) == len(base) + 1
    position = [row["path"] for row in base.files()].index(wrong)
    changed = np.flatnonzero(found.labels[: len(base)] != base.labels)
    assert changed.tolist() == [position]
    assert found.labels[position] == 0 and found.files()[position]["folder"] == "not Photo"
    text = " ".join(found.warnings)
    assert "1 images of the training part have the label of a person now." in text
    assert "1 labelled images are in the training part with that label already." in text
    assert "2 labelled images are in the validation or test part" in text


def test_what_is_nearly_a_test_image_is_left_out(base, label, source, tmp_path):
    path = source / base.files()[base.indices("test")[0]]["path"]
    (tmp_path / "pile").mkdir()
    copy = tmp_path / "pile" / "copy.png"
    with Image.open(path) as image:
        image.resize((24, 22)).save(copy)
        image.save(tmp_path / "pile" / "same.png", compress_level=1, pnginfo=None)
    same = tmp_path / "pile" / "same.tif"
    with Image.open(path) as image:
        image.save(same)
    found = with_labels(base, [label([(copy, "Photo"), (same, "Photo")])])
    assert len(found) == len(base)
    assert rejected(found) == dict.fromkeys(
        ("copy.png", "same.tif"), "is nearly equal to an image of the validation or test part"
    )


def test_without_perceptual_hashes_equal_pixels_are_known(label, tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    x = np.random.default_rng(0).integers(0, 256, (40, SIZE, SIZE, 3), dtype=np.uint8)
    base = prepare((x, np.arange(40) % 2), tmp_path / "base")
    (tmp_path / "pile").mkdir()
    paths = [tmp_path / "pile" / "test.png", tmp_path / "pile" / "new.png"]
    Image.fromarray(np.ascontiguousarray(base.images[base.indices("test")[0]].transpose(1, 2, 0))).save(paths[0])
    noise(5, (SIZE, SIZE)).save(paths[1])
    found = with_labels(base, [label([(path, base.classes[1]) for path in paths])])
    assert len(found) == 41 and rejected(found) == {
        "test.png": "is nearly equal to an image of the validation or test part"
    }
    assert found.looks is None


def test_a_file_that_is_gone_or_has_changed_is_left_out(base, label, tmp_path):
    gone, changed, broken, good = new(tmp_path, 4)
    job = label([(path, "Photo") for path in (gone, changed, broken, good)])
    gone.unlink()
    noise(77).save(changed)
    broken.write_bytes(b"words")
    found = with_labels(base, [job])
    assert len(found) == len(base) + 1
    reasons = rejected(found)
    assert reasons["0.png"] == "the file has gone"
    assert reasons["1.png"] == "has changed since it was labelled"
    assert "not an image" in reasons["2.png"]
    assert "3 labelled images are left out, see rejected.csv" in found.warnings[-1]
    noise(1001).save(changed)
    assert len(with_labels(base, [job])) == len(base) + 2, "it is there again"


def test_pages_and_members(base, label, tmp_path):
    (tmp_path / "pile").mkdir()
    pages, archive, packed = (tmp_path / "pile" / name for name in ("pages.tif", "box.zip", "box.tar.gz"))
    noise(3001).save(pages, save_all=True, append_images=[noise(3002), noise(3003)])
    inner = tmp_path / "in" / "side"
    inner.mkdir(parents=True)
    for number in (4, 5, 6):
        noise(2000 + number).save(inner / f"{number}.png")
    with zipfile.ZipFile(archive, "w") as file:
        for number in (4, 5):
            file.write(inner / f"{number}.png", f"side/{number}.png")
    shutil.make_archive(str(tmp_path / "pile" / "box"), "gztar", tmp_path / "in")

    def digest(name: str) -> str:
        return decode_file(inner / name, base.shape).images[0].sha256

    label([(pages, "Photo")], page=3)
    label([(archive, "not Photo")], member="side/5.png", sha256=digest("5.png"))
    label([(archive, "not Photo")], member="side/9.png", sha256="9" * 64)
    job = label([(packed, "Photo")], member="./side/6.png", sha256=digest("6.png"))
    found = with_labels(base, [job])
    added = [row["path"].removeprefix(f"{tmp_path}/pile/") for row in found.files()[len(base) :]]
    assert rejected(found) == {"9.png": "is not in its archive any more"}
    assert added == ["box.tar.gz/./side/6.png", "box.zip/side/5.png", "pages.tif#3"]
    expected = [decode_file(inner / "6.png", base.shape).images[0], decode_file(inner / "5.png", base.shape).images[0]]
    expected.append(decode_file(pages, base.shape).images[2])
    for position, image in enumerate(expected, len(base)):
        assert np.array_equal(found.images[position], image.pixels)


def test_labels_of_a_run_and_contradictions(base, label, tmp_path):
    one, two = new(tmp_path, 2)
    job = label([(one, "Photo"), (two, "Photo")])
    run = label([(one, "not Photo")], "run", LABELS)
    label([(tmp_path / "base", "Photo")], "run", LABELS, sha256="7" * 64, member="Photo/1.png", nth=4)
    found = with_labels(base, [job, run])
    assert [row["path"] for row in found.files()[len(base) :]] == [str(two)]
    assert "1 images have both labels, and are left out." in found.warnings
    assert rejected(found) == {"1.png": "only its pixels in another prepared dataset are known"}


def test_it_is_prepared_again(source, label, tmp_path):
    base = prepare(source, image_size=SIZE, seed=3)
    one, two = new(tmp_path, 2)
    first, second = label([(one, "Photo")], "a"), label([(two, "not Photo")], "b")
    found = with_labels(with_labels(base, [second]), [first])
    assert found.meta["made_from"]["labels"] == [[str(second)], [str(first)]]
    shutil.rmtree(tmp_path / "cache")
    assert prepare_again(found.meta["made_from"]).fingerprint == found.fingerprint
    shutil.rmtree(first)
    with pytest.raises(DataError, match="has no labels: it has neither"):
        prepare_again(found.meta["made_from"])


def test_what_cannot_be_used_is_said(base, label, source, tmp_path):
    with pytest.raises(DataError, match=r"has no labels: it has neither ledger\.sqlite nor labels\.sqlite"):
        with_labels(base, [tmp_path])
    (tmp_path / "empty").mkdir()
    Ledger(tmp_path / "empty", writes=True).close()
    with pytest.raises(DataError, match=r"is labelled\. Label some with `photoflux review"):
        with_labels(base, [tmp_path / "empty"])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / LEDGER).write_text("words " * 100)
    with pytest.raises(DataError, match="cannot be read: file is not a database"):
        with_labels(base, [tmp_path / "bad"])
    one = new(tmp_path, 1)[0]
    with pytest.raises(DataError, match=r"The labels say 'dogs'; the dataset source has the classes 'not Photo'"):
        with_labels(base, [label([(one, "dogs")], "dogs")])
    three = prepare(source, tmp_path / "three", image_size=SIZE, positive=None)
    with pytest.raises(DataError, match="Labels fit a dataset of the two classes"):
        with_labels(three, [label([(one, "Photo")], "photo")])


def test_labels_are_read_with_their_names(label, tmp_path):
    one = new(tmp_path, 1)[0]
    job = label([(one, "Photo")])
    label([(one, "Photo")], page=2, sha256="2" * 64)
    label([(tmp_path / "box.zip", "not Photo")], member="in/a.png", nth=1, sha256="3" * 64)
    names = [found.name for found in read_labels([job])]
    assert names == [f"{tmp_path}/box.zip/in/a.png", str(one), f"{one}#2"]
