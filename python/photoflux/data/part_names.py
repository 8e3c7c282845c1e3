"""Folder names that mean train, validation or test; a new name is added here."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from photoflux.data.prepared import SPLITS

TRAIN, VALIDATION, TEST = SPLITS
_NAMES = {
    TRAIN: (
        "train", "training", "trainings", "trn", "learn", "learning", "fit", "entrainement", "apprentissage", "lernen",
        "entrenamiento", "addestramento", "treino", "treinamento",
    ),
    VALIDATION: (
        "val", "valid", "validation", "validate", "validating", "vali", "vld", "dev", "devel", "development",
        "validierung", "validierungs", "validacion", "validazione", "validacao",
    ),
    TEST: ("test", "testing", "tests", "tst", "heldout", "prueba", "pruebas", "teste", "testes"),
}  # fmt: skip
_PARTS = {name: part for part, names in _NAMES.items() for name in names}
# The second of two parts whichever the other is: to validate on where there is something to test on too.
_EITHER = {"eval", "evaluation", "evaluierung", "evaluate"}
# What is written beside such a name: "train_set", "Train data", "images-train", "jeu de test".
_FILLERS = frozenset((
    "set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs", "split", "splits", "sample",
    "samples", "part", "parts", "file", "files", "folder", "dir", "subset", "daten", "datensatz", "satz", "bilder",
    "donnees", "jeu", "ensemble", "d", "de", "des", "datos", "conjunto", "dati", "dados",
))  # fmt: skip


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
        left = [word for word in all_words if word not in common and word not in _FILLERS]
        part = _part(left[0]) if len(left) == 1 else None
        if part is not None:
            found[name] = part
    if "either" in found.values():
        told = VALIDATION if TEST in found.values() else TEST
        found = {name: told if part == "either" else part for name, part in found.items()}
    return found if TRAIN in found.values() and set(found.values()) > {TRAIN} else {}


def _words(name: str) -> list[str]:
    plain = "".join(
        letter for letter in unicodedata.normalize("NFKD", name).casefold() if not unicodedata.combining(letter)
    )
    return [word for word in re.split(r"[^a-z]+", plain) if word]


def _part(word: str) -> str | None:
    for known in (word, *(word.removesuffix(filler) for filler in sorted(_FILLERS) if len(filler) > 2)):
        if known in _EITHER:
            return "either"
        if known in _PARTS:
            return _PARTS[known]
    return None
