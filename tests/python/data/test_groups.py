"""Groups from a CSV file stay whole: the file, the folder it must fit, and the split."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import photoflux
from photoflux import DataError, SettingError
from photoflux.data.grouping import join_groups, match_groups, read_groups
from photoflux.data.sources.demo import write_demo_folder
from photoflux.data.splitting import FRACTIONS, split_groups, uneven_parts

CLASSES = ["Painting", "Photo", "Schematics", "Sketch", "Text"]
HANDS = 4


def write_csv(path: Path, rows, header=("path", "group")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def shares(split: np.ndarray) -> np.ndarray:
    return np.bincount(split, minlength=3) / len(split)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_folder(tmp_path_factory.mktemp("groups") / "scans", images_per_class=20)


def by_hand(scans: Path) -> list[tuple[str, str]]:
    """Five, five, five and five images of each class, each from one of that class's four hands."""
    files = sorted(path.relative_to(scans).as_posix() for path in scans.rglob("*.*"))
    return [(file, f"{file.split('/')[0]}-{number % HANDS}") for number, file in enumerate(files)]


# The split of a few large groups


def overflow(counts: np.ndarray, parts: Sequence[int]) -> float | None:
    """How much the parts hold beyond their shares, the mean of the classes; None if a part lacks a class.

    None too if a class has more to validate on than to test on, or more of that than to train on, by over 5 points.
    """
    reached = np.stack([np.bincount(parts, column, 3) / column.sum() for column in counts.T])
    train, validation, test = reached.T
    if not reached.all() or np.any(test > train + 0.05) or np.any(validation > test + 0.05):
        return None
    return float(np.maximum(reached - FRACTIONS, 0).sum(axis=1).mean())


def check_against_all(counts: np.ndarray, seeds: int) -> None:
    """Compare the split of groups, (groups, classes), with every split that there is."""
    every = [overflow(counts, parts) for parts in product(range(3), repeat=len(counts))]
    best = min(found for found in every if found is not None)
    group, label = np.nonzero(counts)
    groups, labels = np.repeat(group, counts[group, label]), np.repeat(label, counts[group, label])
    for seed in range(seeds):
        split = split_groups(labels, groups, seed)
        parts = [int(split[groups == one][0]) for one in range(len(counts))]
        assert all((split[groups == one] == parts[one]).all() for one in range(len(counts)))
        found = overflow(counts, parts)
        assert found is not None
        # What `place_large_groups` allows, so that seeds differ.
        assert found <= best + min(0.1, 0.02 + 1.5 * best) + 1e-9


SIZES = [[500, 300, 100], [540, 180, 90, 90], [340, 280, 220, 60], [520, 130, 110, 100, 40], [900, 25, 25]]


@pytest.mark.parametrize("sizes", SIZES)
def test_a_few_large_groups_are_placed_nearly_as_well_as_can_be(sizes: list[int]):
    check_against_all(np.array(sizes)[:, None], 20)


@pytest.mark.parametrize("seed", range(8))
def test_a_group_of_two_classes_counts_in_both(seed: int):
    rng = np.random.default_rng(seed)
    counts = np.zeros((8, 2), int)
    counts[:5, 0] = rng.integers(30, 300, 5)
    counts[3:, 1] = rng.integers(30, 300, 5)
    check_against_all(counts, 10)


def test_seeds_differ_where_there_is_freedom():
    sizes = [520, 130, 110, 100, 40]
    groups = np.repeat(np.arange(5), sizes)
    labels = np.zeros(900, int)
    splits = [split_groups(labels, groups, seed) for seed in range(20)]
    assert np.array_equal(splits[0], split_groups(labels, groups, 0))
    tested = {tuple(np.unique(groups[split == 2])) for split in splits}
    assert len(tested) >= 3
    # The largest fits into the training part only.
    assert all((split[groups == 0] == 0).all() for split in splits)


@pytest.mark.parametrize("seed", range(5))
def test_every_writer_is_tested_by_some_seed_and_shares_hold(seed: int):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 60, 40)
    groups = np.repeat(np.arange(40), sizes)
    labels = groups % 2
    splits = [split_groups(labels, groups, 100 * seed + one) for one in range(40)]
    for split in splits:
        for label in (0, 1):
            # Twenty groups of a twentieth each, give or take a half: half a group at most is out of place.
            assert np.abs(shares(split[labels == label]) - FRACTIONS).max() < 0.05
    tested = np.array([[(split[groups == group] == 2).all() for group in range(40)] for split in splits])
    # A group is tested with a chance of 0.2, so of 40 never with one of 1e-4; the largest too.
    assert tested.any(axis=0).all()


def test_small_groups_fill_up_what_large_ones_leave():
    groups = np.concatenate([np.repeat([0, 1], [300, 150]), np.arange(2, 552)])
    for seed in range(10):
        split = split_groups(np.zeros(1000, int), groups, seed)
        assert shares(split).tolist() == [0.7, 0.1, 0.2]


def test_classes_that_share_no_group_do_not_disturb_each_other():
    sizes = np.array([30, 50, 40, 60, 20, 80])
    one = np.repeat(np.arange(6), sizes)
    both = np.concatenate([one, 6 + np.repeat(np.arange(3), [90, 10, 10])])
    labels = np.repeat([0, 1], [280, 110])
    for seed in range(5):
        assert np.array_equal(split_groups(labels[:280], one, seed), split_groups(labels, both, seed)[:280])


def test_uneven_parts_are_told():
    split = np.repeat([0, 1, 2], [75, 10, 15])
    assert uneven_parts(np.zeros(100, int), split, ["a", "none of it"]) == []
    split = np.repeat([0, 1, 2], [76, 8, 16])
    (warning,) = uneven_parts(np.zeros(100, int), split, ["a"])
    assert warning == "Class 'a' is split 76 / 8 / 16 %, not 70 / 10 / 20 %, because its groups stay whole."


# The file


def test_other_columns_a_byte_order_mark_and_quotes(tmp_path: Path):
    path = tmp_path / "g.csv"
    path.write_bytes('\ufeffgroup,licence, path \r\n"a, b",CC0,"Photo/x ""1"".jpg"\r\n\r\nc,,./Text/y.png\r\n'.encode())
    assert read_groups(path).rows == [('Photo/x "1".jpg', "a, b"), ("Text/y.png", "c")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must have one column called path and one called group, .* its first line is: empty"),
        ("file,class\na,b\n", "its first line is: file, class"),
        ("path group\na b\n", "its first line is: path group"),
        ("Pfad;Gruppe\na;b\n", "its first line is: Pfad;Gruppe"),
        ("path,group,path\na,b,c\n", "must have one column called path"),
        ("path,group\na.png,x\nb.png\n", "Line 3 of .* has no group"),
        ("path,group\n,x\n", "Line 2 of .* has no path"),
        ('path,group\n"a,b\n', "is not a CSV file: line"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, message: str):
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_groups(tmp_path / "g.csv")


def test_no_file(tmp_path: Path):
    with pytest.raises(DataError, match=r"`groups` must be a CSV file .*none.csv cannot be read: No such file"):
        read_groups(tmp_path / "none.csv")
    with pytest.raises(SettingError, match="`groups` must be a CSV file with the columns path and group; received: 3"):
        read_groups(3)


def match(scans: Path, tmp_path: Path, rows, files):
    return match_groups(read_groups(write_csv(tmp_path / "g.csv", rows)), scans, files)


def test_a_page_counts_for_its_file(scans: Path, tmp_path: Path):
    files = ["Photo/00000.png", "Text/00000.png"]
    rows = [("Photo/00000.png#2", "a"), ("Photo/00000.png#1", "a"), ("Text/00000.png", "b")]
    assert match(scans, tmp_path, rows, files) == ({"Photo/00000.png": "a", "Text/00000.png": "b"}, [])
    # A file whose name ends like a page is that file.
    assert match(scans, tmp_path, [("Text/x#2", "a"), ("Text/x", "b")], ["Text/x#2", "Text/x"])[0]["Text/x#2"] == "a"


@pytest.mark.parametrize("second", ["Photo/00000.png", "Photo/00000.png#2"])
def test_one_file_in_two_groups(scans: Path, tmp_path: Path, second: str):
    rows = [("Photo/00000.png", "a"), (second, "b")]
    with pytest.raises(DataError, match=r"g.csv has Photo/00000.png in two groups, 'a' and 'b'; expected one"):
        match(scans, tmp_path, rows, ["Photo/00000.png"])
    match(scans, tmp_path, [rows[0], (second, "a")], ["Photo/00000.png"])


def test_images_that_are_not_listed_are_counted(scans: Path, tmp_path: Path):
    files = [path for path, _ in by_hand(scans)]
    with pytest.raises(
        DataError, match=r"^96 of the images in .* Painting/00004.png, Painting/00005.jpg, Painting/00006"
    ):
        match(scans, tmp_path, [(path, "a") for path in files[:4]], files)
    # What is no image needs no group: it is rejected anyway.
    (scans / "Text" / "notes.txt").write_text("x")
    try:
        match(scans, tmp_path, [(path, "a") for path in files], [*files, "Text/notes.txt", "Text/gone.png"])
    finally:
        (scans / "Text" / "notes.txt").unlink()


def test_listed_files_that_are_not_there_are_a_note(scans: Path, tmp_path: Path):
    rows = [("Photo/00000.png", "a"), *((f"Photo/lost{n}.png", "a") for n in range(5))]
    groups, notes = match(scans, tmp_path, rows, ["Photo/00000.png"])
    assert notes == ["5 of the files in g.csv are not in scans: Photo/lost0.png, Photo/lost1.png, Photo/lost2.png, …."]
    assert groups["Photo/00000.png"] == "a"


def test_near_duplicates_join_groups():
    #  image       0    1    2    3    4    5    6
    duplicates = [0, 0, 1, 2, 2, 3, 4]
    given = ["b", "a", "a", "c", "c", "d", "d"]
    groups, notes = join_groups(np.array(duplicates), given)
    # 0 and 1 are near-duplicates, 1 and 2 are of group a: all three stay together.
    assert groups.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert notes == ["Near-duplicates in two groups or more make them one: 'a' + 'b'."]
    assert join_groups(np.arange(7), given)[1] == []


# A folder


def test_groups_are_on_one_side_in_the_prepared_dataset(scans: Path, tmp_path: Path):
    rows = by_hand(scans)
    table = write_csv(tmp_path / "g.csv", rows)
    splits = set()
    for seed in range(6):
        dataset = photoflux.prepare(scans, tmp_path / "set", image_size=8, seed=seed, groups=table, progress=False)
        parts: dict[str, set[str]] = {}
        columns: dict[str, set[str]] = {}
        for row, (path, group) in zip(dataset.files(), rows, strict=True):
            assert row["path"] == path
            parts.setdefault(group, set()).add(row["split"])
            columns.setdefault(group, set()).add(row["group"])
        assert all(len(one) == 1 for one in [*parts.values(), *columns.values()])
        assert len(set.union(*columns.values())) == len(CLASSES) * HANDS
        for name in CLASSES:
            # Four groups of a quarter each: two, one and one is nearest to 70 / 10 / 20.
            assert Counter(part for group, (part,) in parts.items() if group.startswith(name)) == {
                "train": 2, "validation": 1, "test": 1,
            }  # fmt: skip
        assert dataset.warnings == [
            f"Class '{name}' is split 50 / 25 / 25 %, not 70 / 10 / 20 %, because its groups stay whole."
            for name in CLASSES
        ]
        splits.add(bytes(dataset.split))
    assert len(splits) == 6
    meta = json.loads((tmp_path / "set" / "meta.json").read_text())
    assert meta["groups"] == read_groups(table).sha256


def test_one_group_for_each_image_splits_exactly(scans: Path, tmp_path: Path):
    table = write_csv(tmp_path / "g.csv", [(path, path) for path, _ in by_hand(scans)])
    dataset = photoflux.prepare(scans, tmp_path / "set", image_size=8, groups=table, progress=False)
    assert dataset.warnings == []
    assert [len(dataset.indices(part)) for part in ("train", "validation", "test")] == [70, 10, 20]
    plain = photoflux.prepare(scans, tmp_path / "plain", image_size=8, progress=False)
    assert np.array_equal(plain.split, dataset.split)
    assert plain.meta["groups"] is None


def test_two_groups_a_class_are_too_few(scans: Path, tmp_path: Path):
    rows = [(path, f"{path[:4]}{number % 2}") for number, (path, _) in enumerate(by_hand(scans))]
    with pytest.raises(DataError, match="too few different images for a validation part: near-duplicates, and groups"):
        photoflux.prepare(scans, tmp_path / "set", image_size=8, groups=write_csv(tmp_path / "g.csv", rows))
    rows = [(path, path if path.startswith("Text") else group) for path, group in rows]
    dataset = photoflux.prepare(scans, tmp_path / "set", image_size=8, groups=write_csv(tmp_path / "g.csv", rows))
    assert "Class 'Photo' has too few groups to be in the validation part." in dataset.warnings


def test_the_cache_knows_the_groups(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PHOTOFLUX_CACHE", str(tmp_path / "cache"))
    rows = by_hand(scans)
    table = write_csv(tmp_path / "g.csv", rows)
    first = photoflux.prepare(scans, image_size=8, groups=table)
    assert photoflux.prepare(scans, image_size=8, groups=str(table)).path == first.path
    assert photoflux.prepare(scans, image_size=8).path != first.path
    write_csv(table, [*rows[:-1], (rows[-1][0], "another")])
    assert photoflux.prepare(scans, image_size=8, groups=table).path != first.path


def test_only_a_folder_has_groups(scans: Path, tmp_path: Path):
    table = write_csv(tmp_path / "g.csv", by_hand(scans))
    prepared = photoflux.prepare(scans, tmp_path / "set", image_size=8)
    arrays = (np.zeros((30, 8, 8, 3), np.uint8), np.arange(30) % 2)
    for source, message in [
        (prepared, "a prepared dataset, whose split is made. Give `groups` when you prepare the folder"),
        (tmp_path / "set", "a prepared dataset"),
        (arrays, "received: arrays. Leave `groups` out"),
        ("demo", "received: the demo images"),
        ("cifar10", "received: CIFAR-10"),
    ]:
        with pytest.raises(SettingError, match=f"`groups` needs a folder of class folders.*{message}"):
            photoflux.prepare(source, groups=table)


def test_a_run_keeps_the_split_that_its_groups_made(keras, scans: Path, tmp_path: Path):
    table = write_csv(tmp_path / "g.csv", by_hand(scans))
    settings = {"engine": "keras", "epochs": 1, "image_size": 8, "out": tmp_path / "run"}
    run = photoflux.train("dense_l2", scans, groups=table, **settings)
    assert run.data.groups == read_groups(table).sha256
    for data in (None, scans):
        metrics = photoflux.evaluate(photoflux.load_run(run.path), data)
        assert metrics.as_dict()["confusion"] == run.metrics.test.confusion


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "photoflux", *map(str, arguments)]
    return subprocess.run(line, env=os.environ, capture_output=True, text=True, check=False)


def test_the_command(scans: Path, tmp_path: Path):
    rows = by_hand(scans)
    table = write_csv(tmp_path / "g.csv", rows)
    done = command("prepare", scans, tmp_path / "set", "--image-size", 8, "--groups", table, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 100
    assert "Note: Class 'Photo' is split 50 / 25 / 25 %" in done.stderr
    write_csv(table, rows[1:])
    done = command("prepare", scans, tmp_path / "other", "--groups", table)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"1 of the images in {scans} are not in {table}: Painting/00000.png." in done.stderr
    assert not (tmp_path / "other").exists()
    done = command("train", "l2", "demo", "--groups", table)
    assert (done.returncode, done.stdout) == (2, "")
    assert "`groups` needs a folder" in done.stderr
