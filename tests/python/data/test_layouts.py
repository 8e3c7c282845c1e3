"""Folders that are split already, and folders that can be read in two ways."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photoflux
from photoflux.data.layouts import arrange
from photoflux.data.part_names import parts_of
from photoflux.errors import DataError, SettingError

SPELLINGS = [
    ("train", "val", "test"),
    ("Train", "Valid", "Test"),
    ("TRAIN", "VALIDATION", "TEST"),
    ("training", "validation", "testing"),
    ("training_set", "dev_set", "test_set"),
    ("Training data", "Validation data", "Test data"),
    ("1_train", "2_val", "3_test"),
    ("01-Training", "02-Validation", "03-Testing"),
    ("train2017", "val2017", "test2017"),
    ("trainset", "valset", "testset"),
    ("scans-train", "scans-dev", "scans-test"),
    ("images_train", "images_eval", "images_test"),
    ("train", "eval", "test"),
    ("entraînement", "validation", "test"),
    ("apprentissage", "validation", "test"),
    ("Jeu d'entraînement", "Jeu de validation", "Jeu de test"),
    ("Trainingsdaten", "Validierungsdaten", "Testdaten"),
    ("entrenamiento", "validación", "prueba"),
    ("train (1)", "val (1)", "test (1)"),
    ("train", "cross validation", "hold-out"),
    ("train", "CV", "unseen"),
    ("TrainImages", "ValImages", "TestImages"),
    ("Training", "PublicEval", "PrivateTest"),
    ("trainA", "valA", "testA"),
    ("train_full", "dev_small", "final_test"),
    ("Lerndaten", "Validierungsdaten", "Prüfdaten"),
    ("Lernmenge", "Validierungsmenge", "Prüfung"),
    ("entraîné", "validation", "essai"),
    ("addestramento", "convalida", "verifica"),
    ("treino", "avaliação", "teste"),
    ("Обучающая выборка", "Валидационная выборка", "Тестовая выборка"),
    ("训练集", "验证集", "测试集"),
    ("訓練データ", "検証データ", "テストデータ"),
]


@pytest.mark.parametrize("names", SPELLINGS, ids=lambda names: names[0])
def test_spellings(names: tuple[str, str, str]):
    assert parts_of(names) == dict(zip(names, ("train", "validation", "test"), strict=True))


def test_two_parts_and_several_of_one():
    assert parts_of(["train", "eval"]) == {"train": "train", "eval": "test"}
    assert parts_of(["train_1", "train_2", "test"]) == {"train_1": "train", "train_2": "train", "test": "test"}
    assert parts_of(["train", "valid"]) == {"train": "train", "valid": "validation"}


@pytest.mark.parametrize(
    "names",
    [
        ["train"], ["train", "car", "bus"], ["test", "val"], ["training shoes", "test tubes"], ["Photo", "Text"],
        ["train_photo", "train_text"], ["valid", "invalid"], [], ["development", "nature"], ["1", "2"],
        ["tr", "te", "de"], ["train_test", "train_val"], ["a", "b"], ["訓", "試"], ["Trainstation", "Teststrecke"],
    ],
)  # fmt: skip
def test_what_is_no_split(names: list[str]):
    assert parts_of(names) == {}


def fill(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write images of noise, so that no two are alike."""
    rng = np.random.default_rng(seed)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            small = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(small).resize((24, 24), Image.Resampling.BICUBIC).save(root / folder / f"{number}.png")
    return root


def prepared(root: Path, **options):
    return photoflux.prepare(root, root.parent / "set", image_size=8, progress=False, **options)


def parts(dataset) -> dict[str, str]:
    return {row["path"]: row["split"] for row in dataset.files()}


ALL = {"Train/Photo": 12, "Train/Text": 12, "val/Photo": 3, "val/Text": 4, "TEST/Photo": 5, "TEST/Text": 6}


def test_the_split_of_a_folder_is_used(tmp_path: Path):
    dataset = prepared(fill(tmp_path / "in", ALL))
    assert dataset.classes == ["not Photo", "Photo"]
    told = {"Train": "train", "val": "validation", "TEST": "test"}
    assert all(part == told[path.split("/")[0]] for path, part in parts(dataset).items())
    assert dataset.meta["split"] == "given"
    assert dataset.warnings == [
        "The folder is split already, and this split is used: 'TEST', 'Train', 'val'. "
        "`--resplit` pools all images and splits them again."
    ]
    other = photoflux.prepare(tmp_path / "in", tmp_path / "other", image_size=8, seed=7, progress=False)
    assert parts(other) == parts(dataset)


def test_resplit_pools(tmp_path: Path):
    root = fill(tmp_path / "in", ALL)
    dataset = prepared(root, resplit=True)
    assert dataset.meta["split"] == "made" and dataset.warnings == []
    assert {part: sum(row.values()) for part, row in dataset.counts().items()} == {
        "train": 29, "validation": 4, "test": 9,
    }  # fmt: skip
    assert dataset.meta["made_from"]["resplit"] is True
    assert photoflux.prepare(root, image_size=8, progress=False).meta["split"] == "given"
    assert photoflux.prepare(root, image_size=8, progress=False, resplit=True).meta["split"] == "made"


@pytest.mark.parametrize(("names", "words"), [
    (("train", "test"), "A tenth of the training images is the validation part."),
    (("training", "validation"), "It has no test part: its validation images are the test part, and a tenth of the"),
])  # fmt: skip
def test_a_missing_part_is_carved_out_of_the_training_images(tmp_path: Path, names, words: str):
    train, second = names
    root = fill(tmp_path / "in", {f"{train}/a": 20, f"{train}/b": 30, f"{second}/a": 4, f"{second}/b": 6})
    for number in range(5):  # near-duplicates stay together
        with Image.open(root / train / "a" / "0.png") as image:
            image.save(root / train / "a" / f"copy{number}.bmp")
    dataset = prepared(root)
    counted = Counter((path.split("/")[0], part) for path, part in parts(dataset).items())
    assert counted == {(train, "train"): 49, (train, "validation"): 6, (second, "test"): 10}
    copies = [part for path, part in parts(dataset).items() if "copy" in path or path == f"{train}/a/0.png"]
    assert len(copies) == 6 and len(set(copies)) == 1
    assert words in dataset.warnings[0]
    again = photoflux.prepare(root, tmp_path / "again", image_size=8, seed=1, progress=False)
    assert parts(again) != parts(dataset)


def test_the_class_folder_may_come_first(tmp_path: Path):
    counts = {f"{name}/{part}": 6 for name in ("Photo", "Text") for part in ("train", "val", "test")}
    dataset = prepared(fill(tmp_path / "in", counts))
    assert dataset.folder_counts() == {"Photo": 18, "Text": 18}
    told = {"train": "train", "val": "validation", "test": "test"}
    assert all(part == told[path.split("/")[1]] for path, part in parts(dataset).items())
    assert prepared(tmp_path / "in", resplit=True).folder_counts() == {"Photo": 18, "Text": 18}


def test_images_on_both_sides_are_told(tmp_path: Path):
    root = fill(tmp_path / "in", {f"{part}/{name}": 8 for part in ("train", "val", "test") for name in "ab"})
    for number in range(3):
        (root / "test" / "a" / f"{number}.png").write_bytes((root / "train" / "a" / f"{number}.png").read_bytes())
    (root / "val" / "b" / "0.png").write_bytes((root / "train" / "b" / "5.png").read_bytes())
    notes = prepared(root).warnings
    assert (
        "3 of the 16 test images are equal or nearly equal to training images, or in a group with them (test/a/0.png, "
        "test/a/1.png, test/a/2.png): scores on them are too optimistic. `--resplit` keeps such images on "
        "one side."
    ) in notes
    assert any(note.startswith("1 of the 16 validation images are") for note in notes)
    assert all("optimistic" not in note for note in prepared(root, resplit=True).warnings)


FILES = {
    "other classes": (["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png"], "'test' lacks 'b'"),
    "a class less": (["train/a/1.png", "train/b/1.png", "test/a/1.png"], "'test' lacks 'b'. Add what is missing"),
    "no classes": (["train/1.png", "test/1.png"], "hold images without class folders. Expected one folder per class"),
    "a part more": (
        ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png", "extra/a/1.png"],
        "has images in 'extra' too, which is no part",
    ),
    "nothing to train on": (["train/1.png", "val/a/1.png", "test/a/1.png"], "has no class folders to train on"),
    "some classes split": (
        ["a/train/1.png", "a/test/1.png", "b/train/1.png", "b/1.png"],
        r"The class folder 'a' in .* is split already \('test', 'train'\), and 'b' is not, or differently",
    ),
    "images beside": (["a/train/1.png", "a/test/1.png", "a/1.png", "b/train/1.png", "b/test/1.png"], "and 'a' is not"),
    "other parts": (
        ["a/train/1.png", "a/test/1.png", "b/train/1.png", "b/val/1.png"],
        "is not, or differently",
    ),
    "years": (
        ["Photo/2021/1.png", "Photo/2022/1.png", "Text/2021/1.png", "Text/2022/1.png"],
        r"Which folders are the classes\? Each of 'Photo', 'Text' in .* holds the same folders, '2021', '2022'",
    ),
    "scanners": (
        ["s1/Photo/1.png", "s1/Text/1.png", "s2/Photo/1.png", "s2/Text/x/1.png"],
        "If 'Photo', 'Text' are, put all images of one into one folder, and give a table with `--groups`",
    ),
    "no training": (["val/a/1.png", "val/b/1.png", "test/a/1.png", "test/b/1.png"], r"Which folders are the classes\?"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_can_be_read_in_two_ways_is_a_question(name: str):
    files, message = FILES[name]
    with pytest.raises(DataError, match=message):
        arrange(Path("scans"), files)


@pytest.mark.parametrize(
    "name", ["other classes", "a class less", "some classes split", "years", "scanners", "images beside"]
)
def test_resplit_answers_it(name: str):
    layout = arrange(Path("scans"), FILES[name][0], resplit=True)
    assert set(layout.classes) == set(FILES[name][0]) and layout.parts == {}


@pytest.mark.parametrize(
    "files",
    [
        ["Photo/2021/1.png", "Photo/2022/1.png", "Text/2021/1.png"],
        ["Photo/2021/1.png", "Photo/2022/1.png", "Text/2021/1.png", "Text/2022/1.png", "Text/1.png"],
        ["Photo/images/1.png", "Text/images/1.png"],
        ["Photo/1.png", "Text/1.png"],
        ["train/1.png", "car/1.png"],
        ["train/steam/1.png", "train/diesel/1.png", "car/1.png"],
        ["Photo/test/1.png", "Text/1.png"],
    ],
)
def test_other_folders_are_read_as_before(files: list[str]):
    layout = arrange(Path("scans"), files)
    assert layout.classes == {path: path.split("/")[0] for path in files}
    assert (layout.parts, layout.notes) == ({}, [])


def test_unlabelled_test_images_are_left_out_and_named():
    files = ["train/a/1.png", "train/b/1.png", "test/1.png", "val/a/1.png", "val/b/1.png", "train/notes.txt"]
    layout = arrange(Path("scans"), files)
    assert set(layout.classes) == {path for path in files if path.count("/") == 2}
    assert layout.notes[0] == "The images in 'test' are in no class folder, so they have no class and are left out."


def test_equal_images_in_two_class_folders_are_listed(tmp_path: Path):
    root = fill(tmp_path / "in", {"a": 10, "b": 10})
    for one, two in (("3", "odd, name"), ("4", "x")):
        (root / "b" / f"{two}.png").write_bytes((root / "a" / f"{one}.png").read_bytes())
    dataset = prepared(root)
    assert (
        "2 images are in two class folders or more (a/3.png = b/odd, name.png; a/4.png = b/x.png): no model can "
        "classify both correctly. All are listed in conflicts.csv."
    ) in dataset.warnings
    with (dataset.path / "conflicts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["folder"]) for row in rows] == [
        ("a/3.png", "a"), ("b/odd, name.png", "b"), ("a/4.png", "a"), ("b/x.png", "b"),
    ]  # fmt: skip
    assert rows[0]["sha256"] == rows[1]["sha256"] != rows[2]["sha256"]
    (root / "b" / "x.png").unlink()
    (root / "b" / "odd, name.png").unlink()
    assert not (prepared(root).path / "conflicts.csv").exists()


def test_only_a_folder_can_be_split_anew(tmp_path: Path):
    for source in ("demo", (np.zeros((4, 8, 8, 3), np.uint8), np.arange(4))):
        with pytest.raises(SettingError, match="`resplit` needs a folder of class folders"):
            photoflux.prepare(source, tmp_path / "set", resplit=True)
