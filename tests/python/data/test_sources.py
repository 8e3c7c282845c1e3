from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from photoflux.data.cache import cache_folder
from photoflux.data.preparation import kind_of, prepare, prepare_again
from photoflux.data.prepared import PreparedDataset, open_prepared
from photoflux.data.sources.demo import prepare_demo, write_demo_folder
from photoflux.errors import DataError, SettingError

X = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
Y = np.arange(30) % 2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prepared"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return write_demo_folder(tmp_path / "scans", images_per_class=4)


def steps_of(source, **settings) -> tuple[PreparedDataset, int]:
    """The dataset, and how many steps its making took: none, if it came from the cache."""
    steps: list[int] = []
    dataset = prepare(source, on_progress=lambda done, total, what: steps.append(done), **settings)
    return dataset, len(steps)


def test_a_folder_is_prepared_once(scans: Path, cache: Path):
    first, steps = steps_of(scans, image_size=16)
    assert steps > 0
    assert first.path.parent == cache
    assert first.path.name.startswith("scans-")
    again, steps = steps_of(str(scans), image_size=16)
    assert (steps, again.path) == (0, first.path)


def test_what_is_not_the_users_data_does_not_prepare_a_folder_again(scans: Path):
    steps_of(scans, image_size=16)
    (scans / "Text" / ".hidden").write_text("x")
    (scans / "runs" / "l2").mkdir(parents=True)
    (scans / "runs" / "l2" / "run.json").write_text("{}")
    (scans / "runs" / "l2" / "history.csv").write_text("")
    assert steps_of(scans, image_size=16)[1] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda scans: (scans / "Text" / "00000.png").unlink(),
        lambda scans: (scans / "Text" / "00000.png").rename(scans / "Text" / "renamed.png"),
        lambda scans: os.utime(scans / "Text" / "00000.png", ns=(0, 0)),
        lambda scans: (scans / "Text" / "new.txt").write_text("x"),
    ],
)
def test_a_changed_folder_is_prepared_again(scans: Path, change):
    first, _ = steps_of(scans, image_size=16)
    change(scans)
    second, steps = steps_of(scans, image_size=16)
    assert steps > 0
    assert second.path != first.path


def test_other_settings_are_another_dataset(scans: Path):
    settings = [{}, {"image_size": 16}, {"image_size": 16, "seed": 1}, {"image_size": 16, "positive": None}]
    assert len({prepare(scans, **one).path for one in settings}) == 4
    assert prepare(scans).images.shape == (20, 3, 180, 180)
    assert prepare(scans, image_size=180).path == prepare(scans).path


@pytest.mark.parametrize("damage", ["truncate", "unlink", "empty", "meta"])
def test_a_damaged_cache_entry_is_made_again(scans: Path, damage: str):
    first = prepare(scans, image_size=16)
    fingerprint = first.fingerprint
    if damage == "truncate":
        (first.path / "images.npy").write_bytes((first.path / "images.npy").read_bytes()[:-1])
    elif damage == "unlink":
        (first.path / "meta.json").unlink()
    elif damage == "empty":
        for file in first.path.iterdir():
            file.unlink()
    else:
        (first.path / "meta.json").write_text("{")
    again, steps = steps_of(scans, image_size=16)
    assert steps > 0
    assert (again.path, again.fingerprint) == (first.path, fingerprint)


def test_an_interrupted_making_leaves_no_entry(scans: Path, cache: Path):
    def interrupt(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(scans, image_size=16, on_progress=interrupt)
    assert list(cache.iterdir()) == []
    assert steps_of(scans, image_size=16)[1] > 0


def test_a_destination_is_always_made_anew(scans: Path, tmp_path: Path, cache: Path):
    dataset = prepare(scans, tmp_path / "out", image_size=16)
    assert dataset.path == tmp_path / "out"
    assert steps_of(scans, dest=tmp_path / "out", image_size=16)[1] > 0
    assert not cache.exists()


def test_demo(cache: Path):
    dataset, steps = steps_of("demo")
    assert steps > 0
    assert dataset.images.shape == (600, 3, 64, 64)
    assert steps_of("demo")[1] == 0
    assert dataset.path.parent == cache


def test_arrays(cache: Path):
    first, steps = steps_of((X, Y))
    assert steps > 0
    assert steps_of((X.copy(), Y.copy()))[1] == 0
    changed = X.copy()
    changed[3, 3, 3] ^= 1
    assert prepare((changed, Y)).path != first.path
    assert prepare((X, 1 - Y)).path != first.path
    with pytest.raises(DataError, match="`x` must be uint8"):
        prepare((X / 255, Y))
    with pytest.raises(DataError, match="`x` must be a NumPy array or convert to one"):
        prepare(([[1], [1, 2]], Y))
    with pytest.raises(DataError, match="`y` must hold integer labels from 0; received object"):
        prepare((X, np.array([None] * 30)))


def test_idx_and_cifar10_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from photoflux.data.sources import cifar10

    digits, batches = tmp_path / "digits", tmp_path / "batches"
    digits.mkdir()
    batches.mkdir()
    for part, count in (("train", 40), ("t10k", 10)):
        images = np.random.default_rng(count).integers(0, 256, (count, 8, 8), dtype=np.uint8)
        header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in images.shape)
        (digits / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(count) % 2).astype(np.uint8)
        (digits / f"{part}-labels-idx1-ubyte").write_bytes(
            bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + labels.tobytes()
        )
    assert kind_of(digits) == "idx"
    dataset, _ = steps_of(digits)
    assert len(dataset) == 50
    assert steps_of(digits)[1] == 0
    os.utime(digits / "t10k-labels-idx1-ubyte", ns=(0, 0))
    assert steps_of(digits)[1] > 0

    monkeypatch.setattr(cifar10, "BATCH", 40)
    for name in cifar10.BINARY_FILES:
        records = np.random.default_rng([*name.encode()]).integers(0, 256, (40, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(40) % 10
        (batches / name).write_bytes(records.tobytes())
    assert kind_of(str(batches)) == "cifar10"
    dataset, _ = steps_of(batches)
    assert len(dataset) == 240
    assert steps_of(batches)[1] == 0
    (batches / "readme.html").write_text("x")
    assert steps_of(batches)[1] == 0
    os.utime(batches / "test_batch.bin", ns=(0, 0))
    assert steps_of(batches)[1] > 0


def test_prepared(tmp_path: Path):
    made = prepare_demo(tmp_path / "set", images_per_class=3)
    assert prepare(made) is made
    assert prepare(tmp_path / "set").path == made.path
    assert prepare(str(tmp_path / "set"), image_size=64, positive="Photo").path == made.path
    assert prepare(made, tmp_path / "set") is made
    with pytest.raises(DataError, match="holds images of 64 × 64, `image_size` says 32"):
        prepare(made, image_size=32)
    with pytest.raises(DataError, match="has the classes not Photo, Photo, `positive` says 'Text'"):
        prepare(made, positive="Text")
    with pytest.raises(DataError, match="is a prepared dataset already"):
        prepare(made, tmp_path / "other")
    (tmp_path / "set" / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"labels.npy missing"):
        prepare(tmp_path / "set")


def test_sources_that_are_none(tmp_path: Path, cache: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_text("x")
    (tmp_path / "file.tar.gz").write_text("x")
    for source, message in [
        (tmp_path / "none", "No such folder: .*none. Expected a folder of images, 'demo' or 'cifar10'.$"),
        ("cifar", r"No such folder: cifar.* Did you mean cifar10\?"),
        ("", "The source is empty"),
        (tmp_path / "empty", "has no class folders"),
        (tmp_path / "file.png", "is a file, expected a folder"),
        (tmp_path / "file.tar.gz", "cannot be read"),
        (3, "A source must be a path, .*; received: int"),
        (None, "A source must be a path, .*; received: NoneType"),
        ((X,), r"A source of arrays must be \(x, y\); received 1 entries"),
    ]:
        with pytest.raises(DataError, match=message):
            prepare(source)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_settings(scans: Path):
    for size in (7, "64", 1.5, True):
        with pytest.raises(SettingError, match="`image_size` must be an integer from 8 to 4096"):
            prepare(scans, image_size=size)
    with pytest.raises(SettingError, match="`seed`"):
        prepare(scans, seed=-1)
    with pytest.raises(SettingError, match="`positive` must be 'auto', None or the name of a class; received: 3"):
        prepare(scans, positive=3)
    with pytest.raises(DataError, match="one of the classes Painting, Photo, Schematics, Sketch, Text"):
        prepare(scans, positive="Cat")
    assert prepare(scans, image_size=np.int64(16), seed=np.int64(1)).path == prepare(scans, image_size=16, seed=1).path


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("PHOTOFLUX_CACHE")
    import platformdirs

    assert cache_folder() == platformdirs.user_cache_path("photoflux")


def test_a_cache_that_cannot_be_written(scans: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="could not be written"):
        prepare(scans, image_size=16)


def test_the_import_is_light():
    code = (
        "import sys, photoflux.data\n"
        "heavy = 'PIL', 'scipy', 'sklearn', 'imagehash', 'matplotlib', 'multiprocessing'\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_opened_dataset_is_the_same(scans: Path):
    dataset = prepare(scans, image_size=16)
    again = open_prepared(dataset.path)
    assert np.array_equal(dataset.images, again.images)
    assert dataset.meta == again.meta


def test_a_dataset_knows_what_it_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A relative path, the positive class as it was given, and the groups: enough to prepare it again."""
    write_demo_folder(tmp_path / "scans", images_per_class=8)
    rows = [f"{path.parent.name}/{path.name},{path.stem}" for path in sorted((tmp_path / "scans").glob("*/*"))]
    (tmp_path / "groups.csv").write_text("\n".join(["path,group", *rows]))
    monkeypatch.chdir(tmp_path)
    first = prepare("scans", "set", positive="Sketch", image_size=16, seed=7, groups="groups.csv")
    assert first.meta["made_from"] == {
        "kind": "folder",
        "path": str(tmp_path / "scans"),
        "positive": "Sketch",
        "image_size": 16,
        "seed": 7,
        "groups": str(tmp_path / "groups.csv"),
        "resplit": False,
    }
    monkeypatch.chdir("/")
    again = prepare_again(first.meta["made_from"])
    assert again.path != first.path
    assert again.fingerprint == first.fingerprint
    demo = prepare("demo", image_size=8, seed=3)
    assert prepare_again(demo.meta["made_from"]).path == demo.path
    with pytest.raises(DataError, match="made from arrays in memory"):
        prepare_again(prepare((X, Y)).meta["made_from"])
    (tmp_path / "scans").rename(tmp_path / "gone")
    with pytest.raises(DataError, match="No such folder"):
        prepare_again(first.meta["made_from"])
