"""The features dataset: made once and whole, opened as a prepared dataset; no picture is computed twice."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import small
from photoflux.data.preparation import prepare
from photoflux.data.prepared import open_prepared
from photoflux.data.writer import FilesWriter
from photoflux.errors import BackboneError, DataError, SettingError
from photoflux.features import dataset, features_dataset, open_backbone
from photoflux.features.network import Network
from photoflux.features.views import view_of

pytest.importorskip("onnxruntime", reason="features run through onnxruntime, which is not installed")
pytest.importorskip("onnx", reason="the graph is written with onnx, which is not installed")


@pytest.fixture
def images(tiny, tmp_path):
    """Forty-five images in three classes; blocks are small, so that there are several."""
    return small.prepare(tmp_path / "set", 3, size=12, counts=[15] * 3)


@pytest.fixture
def computed(monkeypatch):
    """Count the images whose features are computed."""
    counts: list[int] = []
    there = Network.features_of

    def counted(self, pixels, *rest):
        counts.append(len(pixels))
        return there(self, pixels, *rest)

    monkeypatch.setattr(Network, "features_of", counted)
    monkeypatch.setattr(dataset, "BLOCK", 8)
    return counts


def test_its_rows_are_the_features_in_the_images_order(images, computed):
    backbone = open_backbone("tiny")
    steps = []
    found = features_dataset(images, backbone, on_progress=lambda *step: steps.append(step))
    assert (found.images.dtype, found.images.shape) == (np.float32, (45, 16, 1, 1))
    assert np.array_equal(found.images[:, :, 0, 0], backbone.features_of(images.images))
    assert np.array_equal(found.labels, images.labels) and np.array_equal(found.split, images.split)
    assert (found.files(), found.classes, found.shape) == (images.files(), images.classes, (16, 1, 1))
    assert steps[0] == (8, 45, "Features of tiny") and steps[-1] == (45, 45, "Features of tiny")
    assert found.path.parent == images.path / "features" and found.path.name.startswith("tiny-")
    assert found.fingerprint != images.fingerprint and len(found.fingerprint) == 64
    assert found.features == {
        "backbone": backbone.as_dict(), "dataset": images.fingerprint, "views": 0, "seed": None,
    }  # fmt: skip
    assert images.features is None


def test_it_is_made_once(images, computed):
    first = features_dataset(images, open_backbone("tiny"))
    made = (first.path / "images.npy").stat().st_mtime_ns
    again = features_dataset(images, open_backbone("tiny"), seed=7)
    assert again.path == first.path and (again.path / "images.npy").stat().st_mtime_ns == made
    assert sum(computed) == 45


def test_another_split_of_the_same_images_and_several_networks_compute_only_what_is_new(images, computed, tmp_path):
    x, y = images.images.transpose(0, 2, 3, 1), images.labels
    features_dataset(images, open_backbone("tiny"))
    assert sum(computed) == 45
    fingerprints = set()
    for seed in (1, 2):
        other = prepare((x, y), tmp_path / f"seed{seed}", seed=seed)
        fingerprints.add(features_dataset(other, open_backbone("tiny")).fingerprint)
    assert sum(computed) == 45 and len(fingerprints) == 2
    more = prepare((np.concatenate([x, 255 - x[:3]]), np.concatenate([y, y[:3]])), tmp_path / "more")
    features_dataset(more, open_backbone("tiny"))
    assert sum(computed) == 48
    both = features_dataset(images, open_backbone("tiny+other"))
    assert sum(computed) == 48 + 45
    assert np.array_equal(both.images[:, :, 0, 0], open_backbone("tiny+other").features_of(images.images))


def test_a_store_is_of_one_size_of_images(tiny, tmp_path, computed):
    pixels = np.random.default_rng(0).integers(0, 256, (45, 3, 144), dtype=np.uint8)
    for name, size in (("flat", (9, 16)), ("square", (12, 12))):
        x = pixels.reshape(45, 3, *size).transpose(0, 2, 3, 1)
        prepared = prepare((x, np.arange(45) % 3), tmp_path / name)
        found = features_dataset(prepared, open_backbone("tiny"))
        assert np.array_equal(found.images[:1, :, 0, 0], open_backbone("tiny").features_of(prepared.images[:1]))


def test_work_that_is_cut_short_goes_on_where_it_stopped_and_leaves_nothing_half_written(images, computed, tmp_path):
    def stop(done, total, what):
        if done == 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features_dataset(images, open_backbone("tiny"), on_progress=stop)
    assert list((images.path / "features").iterdir()) == []
    assert sum(computed) == 24
    # A process that was killed while it appended: the rows of the last block are there, and its keys are not whole.
    (store,) = (path for path in (tmp_path / "cache" / "features").iterdir() if path.is_dir())
    with (store / "rows.f32").open("ab") as rows, (store / "pixels.sha256").open("ab") as keys:
        rows.write(b"\1" * 100)
        keys.write(b"\1" * 31)
    found = features_dataset(images, open_backbone("tiny"))
    assert sum(computed) == 45
    assert np.array_equal(found.images[:, :, 0, 0], open_backbone("tiny").features_of(images.images))


def test_two_processes_compute_each_picture_once(images, tmp_path):
    script = (
        "import sys, tiny_backbone, photoflux.model.backbones as table\n"
        f"sys.path.insert(0, {str(tmp_path / 'packages')!r})\n"
        "from photoflux.features import dataset, features_dataset, open_backbone, network\n"
        "from photoflux.data.prepared import open_prepared\n"
        "table.backbones = lambda rows=dict(tiny=table.Pretrained(*eval(sys.argv[2]))): rows\n"
        "dataset.BLOCK, there, count = 4, network.Network.features_of, [0]\n"
        "def counted(self, pixels, *rest):\n"
        "    count[0] += len(pixels)\n"
        "    return there(self, pixels, *rest)\n"
        "network.Network.features_of = counted\n"
        "features_dataset(open_prepared(sys.argv[1]), open_backbone('tiny'))\n"
        "print(count[0])\n"
    )
    import dataclasses

    from photoflux.model.backbones import backbones

    row = repr(tuple(dataclasses.astuple(backbones()["tiny"])))
    paths = [str(Path(__file__).parents[2]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", script, str(images.path), row]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = [int(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(counts) == [0, 45]


def test_a_folder_that_cannot_be_written_has_its_features_in_the_cache(images, tmp_path, computed):
    (images.path / "features").write_text("in the way, for root too")
    found = features_dataset(images, open_backbone("tiny"))
    assert found.path.is_relative_to(tmp_path / "cache") and images.fingerprint[:20] in str(found.path)
    assert features_dataset(images, open_backbone("tiny")).path == found.path


def test_features_of_other_images_or_damaged_ones_are_made_again(images, computed, tmp_path):
    good = features_dataset(images, open_backbone("tiny"))
    expected = np.array(good.images)
    meta = json.loads((good.path / "meta.json").read_text())
    meta["features"]["dataset"] = "0" * 64
    (good.path / "meta.json").write_text(json.dumps(meta))
    assert features_dataset(images, open_backbone("tiny")).features["dataset"] == images.fingerprint
    with (good.path / "images.npy").open("r+b") as file:
        file.truncate(1000)
    assert np.array_equal(features_dataset(images, open_backbone("tiny")).images, expected)
    assert sum(computed) == 45


def test_views_follow_the_images_with_their_labels_in_the_training_part(images, computed):
    backbone = open_backbone("tiny")
    found = features_dataset(images, backbone, views=2, seed=5)
    train = images.indices("train")
    assert len(found) == 45 + 2 * len(train)
    assert np.array_equal(found.images[:45, :, 0, 0], backbone.features_of(images.images))
    assert np.array_equal(found.labels[45:], np.repeat(images.labels[train], 2)) and not found.split[45:].any()
    expected = [view_of(images.images[position], 5, view) for position in train[:3] for view in (1, 2)]
    assert np.array_equal(found.images[45:51, :, 0, 0], backbone.features_of(np.stack(expected)))
    first = images.files()[train[0]]["path"]
    assert [row["path"] for row in found.files()[45:47]] == [f"{first} (view 1)", f"{first} (view 2)"]
    assert (found.features["views"], found.features["seed"]) == (2, 5)
    places = {found.path, features_dataset(images, backbone).path, features_dataset(images, backbone, views=2).path}
    assert len(places) == 3
    for views in (-1, 1.5, True):
        with pytest.raises(SettingError, match="`views` must be a whole number, 0 or more"):
            features_dataset(images, backbone, views=views)


def test_a_dataset_that_is_written_again_loses_its_features(images, computed):
    old = features_dataset(images, open_backbone("tiny"))
    small.prepare(images.path, 3, size=12, counts=[16] * 3)
    assert not old.path.exists()
    (images.path / "notes.txt").touch()
    with (
        pytest.raises(DataError, match=r"holds other files beside a prepared dataset .*notes"),
        FilesWriter(images.path, images.shape),
    ):
        pass


def test_features_have_no_features(images, computed):
    found = features_dataset(images, open_backbone("tiny"))
    with pytest.raises(DataError, match="holds features already"):
        features_dataset(found, open_backbone("tiny"))


def test_other_errors_leave_nothing(images, monkeypatch, tmp_path):
    def fail(self, pixels, *rest):
        raise BackboneError("it gave up")

    monkeypatch.setattr(Network, "features_of", fail)
    with pytest.raises(BackboneError, match="gave up"):
        features_dataset(images, open_backbone("tiny"))
    assert list((images.path / "features").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda meta, x: (meta, x.astype(np.float64)), "float64 with 4 dimensions, expected float32"),
        (lambda meta, x: ({**meta, "image_size": [2, 1]}, x.repeat(2, 2)), r"expected features \(N, F, 1, 1\)"),
        (lambda meta, x: ({**meta, "features": 3}, x), "must say the backbone and the dataset, found 3"),
        (lambda meta, x: ({**meta, "features": {"views": 0}}, x), "must say the backbone and the dataset"),
        (lambda meta, x: ({k: v for k, v in meta.items() if k != "features"}, x), "float32 .*, expected uint8"),
        (lambda meta, x: (meta, x[:-1]), r"images.npy has shape \(44, 16, 1, 1\)|44 images"),
    ],
)
def test_a_wrong_features_dataset_is_refused(images, computed, tmp_path, change, said):
    copy = tmp_path / "copy"
    shutil.copytree(features_dataset(images, open_backbone("tiny")).path, copy)
    meta, x = change(json.loads((copy / "meta.json").read_text()), np.load(copy / "images.npy"))
    (copy / "meta.json").write_text(json.dumps(meta))
    np.save(copy / "images.npy", x)
    with pytest.raises(DataError, match=said):
        open_prepared(copy)


def test_names_with_line_breaks_stay(images, computed):
    rows = [list(images.files()[0]), *(list(row.values()) for row in images.files())]
    rows[1][0] = "a\rb\n,.png"
    with (images.path / "files.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    assert features_dataset(images, open_backbone("tiny")).files()[0]["path"] == "a\rb\n,.png"


def test_a_full_disk_is_said_with_the_cache(images, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    backbone = open_backbone("tiny")
    backbone.features_of(images.images)
    monkeypatch.setattr("photoflux.features.store.os.fsync", full)
    with pytest.raises(DataError, match=r"The cache .* could not be written: No space left .*PHOTOFLUX_CACHE"):
        features_dataset(images, backbone)
