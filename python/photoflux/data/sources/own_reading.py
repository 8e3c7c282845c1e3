"""Reads registered sources into prepared datasets; what is kept in the cache, and said of a failure, is set here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from photoflux.data.cache import place_of
from photoflux.data.labels import label_folders
from photoflux.data.prepared import SPLITS, PreparedDataset
from photoflux.data.prepared_writer import PreparedWriter
from photoflux.data.shape import Shape
from photoflux.data.sources.own import OwnSource
from photoflux.data.writer import FilesWriter
from photoflux.errors import DataError, PhotoFluxError
from photoflux.system.names import file_stem, quoted, reason


class _SourceWriter(PreparedWriter):
    """Says in the dataset what it was made from."""

    def __init__(
        self, dest: str | Path, source: OwnSource, made_from: dict[str, Any], settings: dict[str, Any]
    ) -> None:
        super().__init__(dest, name=_title(source), **settings)
        self._made_from = made_from


class _WholeWriter(PreparedWriter):
    """Writes all images as the test part of a dataset of a run's classes and shape."""

    def __init__(
        self, dest: str | Path, source: OwnSource, classes: Sequence[str], positive: str | None, shape: Shape
    ) -> None:
        super().__init__(dest, positive=None, channels=shape.channels, name=_title(source))
        self._shape, self._of_run, self._positive_of_run = shape, list(classes), positive

    def _written(self, files: FilesWriter) -> PreparedDataset:
        found = self._found
        folders = sorted({record.folder for record in found.records})
        label_of, notes = label_folders(self._name, folders, self._of_run, self._positive_of_run)
        labels = np.array([label_of[record.folder] for record in found.records], dtype=np.int32)
        return files.finish(
            name=self._name,
            source=self._source,
            classes=self._of_run,
            positive=self._positive_of_run,
            labels=labels,
            split=np.full(len(labels), SPLITS.index("test")),
            files=self._grouped(self._groups(labels)),
            rejected=found.rejected,
            seed=0,
            warnings=[*notes, *self._notes()],
            looks=found.hashes,
            unsplit=True,
        )


def _title(source: OwnSource) -> str:
    return file_stem(f"{source.name}-{source.argument}" if source.argument else source.name)


def prepare_own(
    source: OwnSource, dest: str | Path | None, made_from: dict[str, Any], settings: dict[str, Any]
) -> PreparedDataset:
    """Read a registered source into a prepared dataset, or take it from the cache.

    Parameters
    ----------
    source : OwnSource
        The source.
    dest : str or Path, optional
        The dataset's folder; None: in the cache.
    made_from : dict
        As in `FilesWriter.finish`.
    settings : dict
        Of `PreparedWriter`: ``positive``, ``image_size`` and ``seed``.

    Raises
    ------
    DataError
        If it fails, or what it adds cannot be used.
    """

    def key() -> list[Any]:
        return ["own", source.name, source.argument, _state_of(source), settings]

    with place_of(dest, _title(source), key) as (path, there):
        if there is not None and source.state is not None:
            return there
        with _SourceWriter(path, source, made_from, settings) as writer:
            return _read(source, writer)


def prepare_own_unsplit(
    source: OwnSource, classes: Sequence[str], positive: str | None, shape: Shape
) -> PreparedDataset:
    """Read all of a registered source as the test part of a dataset of a run's classes and shape."""

    def key() -> list[Any]:
        of_run = [list(classes), positive, list(shape)]
        return ["unsplit own", source.name, source.argument, _state_of(source), *of_run]

    with place_of(None, f"{_title(source)}-whole", key) as (path, there):
        if there is not None and source.state is not None:
            return there
        with _WholeWriter(path, source, classes, positive, shape) as writer:
            return _read(source, writer)


def _state_of(source: OwnSource) -> str | None:
    return None if source.state is None else str(_asked(source, source.state, source.argument))


def _read(source: OwnSource, writer: PreparedWriter) -> PreparedDataset:
    _asked(source, source.read, source.argument, writer)
    return writer.finish()


def _asked(source: OwnSource, function: Callable[..., object], *given: object) -> object:
    try:
        return function(*given)
    except PhotoFluxError:
        raise
    # A user's own code raises what it likes.
    except Exception as error:
        name = f"{source.name}:{source.argument}" if source.argument else source.name
        raise DataError(f"The source {quoted(name)} failed: {reason(error)}. Nothing was written.") from error
