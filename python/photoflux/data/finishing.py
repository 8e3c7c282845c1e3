"""Finishes datasets whose images are of named classes; how a positive class makes labels of them is said here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from photoflux.data.labels import check_trainable
from photoflux.data.prepared import PreparedDataset
from photoflux.data.writer import FilesWriter

Check = Callable[[Sequence[str], np.ndarray, np.ndarray, str], None]


def finish_classes(
    writer: FilesWriter,
    *,
    name: str,
    names: Sequence[str],
    codes: np.ndarray,
    split: np.ndarray,
    positive: str | None,
    check: Check = check_trainable,
    **described: Any,
) -> PreparedDataset:
    """Label the appended images, refuse what cannot be trained, and write the rest.

    Parameters
    ----------
    writer : FilesWriter
        To which the images were appended.
    name : str
        What the dataset is called.
    names : sequence of str
        The classes.
    codes, split : numpy.ndarray
        For each image the position of its class in `names`, and its part: 0 train, 1 validation, 2 test.
    positive : str or None
        The one of `names` that gets label 1, and all others 0; None: the codes are the labels.
    check : callable
        Is given the dataset's classes, labels, split and name; raises a `DataError` where they will not do.
    described
        As in `FilesWriter.finish`.
    """
    labels = codes if positive is None else (codes == list(names).index(positive)).astype(np.int32)
    classes = list(names) if positive is None else [f"not {positive}", positive]
    check(classes, labels, split, name)
    return writer.finish(name=name, classes=classes, positive=positive, labels=labels, split=split, **described)
