"""Folder names that mean train, validation or test; a new name is added here."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from photoflux.data.prepared import SPLITS

TRAIN, VALIDATION, TEST = SPLITS
_NAMES = {
    TRAIN: (
        "train", "training", "trainings", "trn", "learn", "learning", "fit", "trainval", "entrainement", "entraine",
        "entrainer", "apprentissage", "lernen", "lern", "entrenamiento", "entrenar", "addestramento", "treino",
        "treinamento", "treinar", "oefen", "leren", "traning", "uczenie", "обучение", "обучающая", "тренировка",
        "тренировочная", "训练", "訓練", "学習", "학습", "훈련",
    ),
    VALIDATION: (
        "val", "valid", "validation", "validate", "validating", "vali", "vld", "dev", "devel", "development", "xval",
        "cv", "crossval", "crossvalidation", "validierung", "validierungs", "validieren", "validacion", "validazione",
        "validacao", "validatie", "validering", "walidacja", "convalida", "валидация", "валидационная", "验证", "驗證",
        "検証", "검증",
    ),
    TEST: (
        "test", "testing", "tests", "tst", "heldout", "holdout", "unseen", "prueba", "pruebas", "teste", "testes",
        "testen", "essai", "essais", "prufung", "prufen", "pruf", "verifica", "prova", "toets", "тест",
        "тестовая", "测试", "測試", "テスト", "테스트", "시험",
    ),
}  # fmt: skip
# The second of two parts whichever the other is: to validate on where there is something to test on too.
_EITHER = ("eval", "evaluation", "evaluierung", "evaluate", "evaluacion", "avaliacao", "evaluatie", "評価", "평가")
# What is written beside such a name: "train_set", "Train data", "images-train", "jeu de test".
_FILLERS = (
    "set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs", "split", "splits", "sample",
    "samples", "part", "parts", "file", "files", "folder", "dir", "subset", "public", "private", "final", "small",
    "full", "all", "daten", "datensatz", "satz", "bilder", "menge", "donnees", "jeu", "ensemble", "de", "des", "datos",
    "conjunto", "dati", "dados", "выборка", "данные", "集", "数据", "データ",
)  # fmt: skip


def _plain(name: str) -> str:
    """Return a name without case and accents."""
    letters = unicodedata.normalize("NFKD", name).casefold()
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


_PARTS = {_plain(name): part for part, names in _NAMES.items() for name in names}
_PARTS |= {_plain(name): "either" for name in _EITHER}
_BESIDE = {_plain(name) for name in _FILLERS}
# What may be written together with a name: "trainset", "Trainingsdaten", "训练集".
_ENDINGS = ("", *sorted(filler for filler in _BESIDE if len(filler) > 2 or not filler.isascii()))


def parts_of(names: Iterable[str]) -> dict[str, str]:
    """Return the part of each folder whose name says one; none, unless one of them trains and another does not.

    Case, accents, numbers and words such as "set" or "data" do not count, nor do words that all the names have.

    Examples
    --------
    >>> parts_of(["scans_Train", "scans_VAL", "scans_notes"])
    {'scans_Train': 'train', 'scans_VAL': 'validation'}
    >>> parts_of(["train", "car"])
    {}
    """
    words = {name: _words(name) for name in names}
    common = set.intersection(*map(set, words.values())) if words else set()
    found = {}
    for name, all_words in words.items():
        # Words that are written together elsewhere: "hold-out", "cross validation".
        left = "".join(word for word in all_words if word not in common and word not in _BESIDE and len(word) > 1)
        part = next((_PARTS[known] for end in _ENDINGS if (known := left.removesuffix(end)) in _PARTS), None)
        if part is not None:
            found[name] = part
    if "either" in found.values():
        told = VALIDATION if TEST in found.values() else TEST
        found = {name: told if part == "either" else part for name, part in found.items()}
    return found if TRAIN in found.values() and set(found.values()) > {TRAIN} else {}


def _words(name: str) -> list[str]:
    # A capital begins a word: "PublicTest", "trainA".
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+", _plain(apart))
