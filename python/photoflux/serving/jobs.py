"""A job: the images of one request, from the uploaded files to the rows of its answer; what a row says is here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from photoflux.data.images.decoding import DecodedFile
from photoflux.runs.prediction import Prediction

Row = dict[str, Any]


class Upload(NamedTuple):
    """A file of a request: its name as the client gave it, and where its bytes are."""

    name: str
    path: Path


class Piece(NamedTuple):
    """An image that waits for the network: its job, the row to fill, and its pixels, uint8 (C, H, W)."""

    job: Job
    row: Row
    pixels: np.ndarray


class Job:
    """The images of one request. Three threads use it: the server's, the decoders' and the network's.

    Parameters
    ----------
    uploads : sequence of Upload
        The files, one or more.
    most : int
        Images that it may have.
    positive : str or None
        The class whose probability is the score; None: that of the decision.
    finished : callable
        Is called once, from any thread, when all rows are complete or it has failed.

    Attributes
    ----------
    failure : tuple of (int, str) or None
        The HTTP status and the reason why there are no rows.
    dropped : bool
        Whether nobody waits for the answer any more.
    """

    def __init__(
        self, uploads: Sequence[Upload], most: int, positive: str | None, finished: Callable[[], None]
    ) -> None:
        self.uploads, self.dropped = list(uploads), False
        self.failure: tuple[int, str] | None = None
        self._most, self._positive, self._finished = most, positive, finished
        self._rows: list[list[Row]] = [[] for _ in uploads]
        self._lock = threading.Lock()
        self._count, self._undecoded, self._unpredicted = 0, len(self.uploads), 0

    @property
    def rows(self) -> list[Row]:
        """The rows, in the order of the files and their pages."""
        return [row for rows in self._rows for row in rows]

    def decoded(self, file: int, part: DecodedFile, *, last: bool) -> list[Piece]:
        """Take what was decoded of a file, and return what the network is to be given of it."""
        name = self.uploads[file].name
        pieces = []
        with self._lock:
            if self.dropped:
                return []
            for image in part.images:
                found = _row(name, image.page, sha256=image.sha256, width=image.width, height=image.height)
                pieces.append(Piece(self, found, image.pixels))
            rows = [piece.row for piece in pieces]
            rows += [_row(name, page, error=reason) for page, reason in part.rejected]
            self._rows[file] += rows
            self._count += len(rows)
            self._unpredicted += len(pieces)
            self._undecoded -= last
            too_many = self._count > self._most
            finished = not (self._undecoded or self._unpredicted)
        if too_many:
            self.fail(413, f"The request has more than {self._most} images, the pages of its files counted.")
            return []
        if finished:
            self._finish()
        return pieces

    def predicted(self, row: Row, prediction: Prediction) -> None:
        """Complete a row."""
        with self._lock:
            wanted = self._positive or prediction.label
            assert wanted is not None
            row["score"], row["decision"] = prediction.probabilities[wanted], prediction.label
            row["probabilities"] = dict(prediction.probabilities)
            self._unpredicted -= 1
            finished = not (self._undecoded or self._unpredicted or self.dropped)
        if finished:
            self._finish()

    def fail(self, status: int, reason: str) -> None:
        """Answer the request with an error, whatever is still under way."""
        with self._lock:
            if self.dropped:
                return
            self.failure, self.dropped = (status, reason), True
        self._finished()

    def drop(self) -> None:
        """Give the answer up: nobody waits for it."""
        with self._lock:
            self.dropped = True

    def _finish(self) -> None:
        self.drop()
        self._finished()


def _row(name: str, page: int, **known: Any) -> Row:
    empty = dict.fromkeys(("sha256", "width", "height", "score", "decision", "probabilities", "error"))
    return {"name": name, "page": page, **empty, **known}
