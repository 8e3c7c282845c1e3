from __future__ import annotations

import numpy as np
import pytest

from photoflux.data.labels import check_trainable, resolve_positive, to_labels
from photoflux.errors import DataError

FOLDERS = ["Painting", "Photo", "Text"]


@pytest.mark.parametrize(
    ("positive", "folders", "expected"),
    [
        ("auto", FOLDERS, "Photo"),
        ("auto", ["PHOTOS", "x"], "PHOTOS"),
        ("auto", ["cat", "dog"], None),
        ("auto", ["Photo", "photos"], None),
        (None, FOLDERS, None),
        ("none", FOLDERS, None),
        ("none", ["none", "some"], "none"),
        ("Text", FOLDERS, "Text"),
        ("auto", ["auto", "moto"], None),
    ],
)
def test_positive(positive: str | None, folders: list[str], expected: str | None):
    assert resolve_positive(positive, folders) == expected


def test_no_such_positive():
    with pytest.raises(DataError, match=r"Painting, Photo, Text; received: 'foto'. Did you mean Photo\?"):
        resolve_positive("foto", FOLDERS)
    with pytest.raises(DataError, match=r"received: 'zzz'\.$"):
        resolve_positive("zzz", FOLDERS)


def test_labels_follow_the_sorted_names():
    names, labels = to_labels(["Text", "Photo", "Painting", "Text"], None)
    assert (names, labels.tolist(), labels.dtype) == (FOLDERS, [2, 1, 0, 2], np.int32)
    names, labels = to_labels(["Text", "Photo", "Painting", "Text"], "Photo")
    assert (names, labels.tolist(), labels.dtype) == (["not Photo", "Photo"], [0, 1, 0, 0], np.int32)


def test_untrainable_classes():
    split = np.array([0, 0, 1, 2], np.uint8)
    check_trainable(["a", "b"], np.array([0, 1, 0, 1]), split, "scans")
    with pytest.raises(DataError, match="Class 'b' of scans has one usable image, expected 2 or more"):
        check_trainable(["a", "b"], np.array([0, 1, 0, 0]), split, "scans")
    with pytest.raises(DataError, match="Class 'c' of scans has no usable image"):
        check_trainable(["a", "b", "c"], np.array([0, 1, 0, 1]), split, "scans")
    with pytest.raises(DataError, match="too few different images for a validation part"):
        check_trainable(["a", "b"], np.array([0, 1, 0, 1]), np.array([0, 0, 0, 2]), "scans")
    with pytest.raises(DataError, match="too few different images for a test part"):
        check_trainable(["a", "b"], np.array([0, 1, 0, 1]), np.array([0, 0, 1, 0]), "scans")
