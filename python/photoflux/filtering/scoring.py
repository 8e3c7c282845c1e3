"""Decodes and scores sources in a stream: processes decode while the network works on what came before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import NamedTuple, Protocol

import numpy as np

from photoflux.data.images.helpers import Source
from photoflux.data.images.parallel import Decoders, Delivery
from photoflux.engines.base import Model
from photoflux.runs.evaluation import probabilities
from photoflux.runs.run import Run
from photoflux.runs.stream import decoded_ahead, logits_in_blocks, share_cores


class Scored(NamedTuple):
    """An item, or with an error one that could not be read.

    Attributes
    ----------
    number : int
        Of its source, counted from 0 as they were given.
    page : int
        From 1 in a source of several, else 0.
    sha256 : str
        Of its content.
    width, height : int or None
        In pixels.
    score : float or None
        The probability of the second class, as a float32 has it, 0 to 1.
    error : str
        Why it could not be read.
    last : bool
        Whether it is the last of its source.
    """

    number: int
    page: int
    sha256: str
    width: int | None
    height: int | None
    score: float | None
    error: str
    last: bool


class Scorer(Protocol):
    """What scores the sources of a job."""

    def scored(self, sources: Iterable[Source]) -> Generator[list[Scored], None, None]:
        """Yield the items of the sources in their order, some at a time; sources are taken a little ahead."""
        ...

    def end(self) -> None:
        """End its processes."""
        ...


# Is given pixels, uint8 (N, C, H, W), logits (N, outputs), and the widths and heights of N images.
Observer = Callable[[np.ndarray, np.ndarray, list[tuple[int, int]]], None]


class LocalScorer:
    """Scores on this machine: processes decode, this one has the network.

    Parameters
    ----------
    run : Run
        A run of two classes.
    load : callable
        Returns its model; called when decoding has begun.
    workers : int
        Processes that decode.
    observe : callable, optional
        Is shown every block.
    """

    def __init__(self, run: Run, load: Callable[[], Model], workers: int, observe: Observer | None = None) -> None:
        self._load, self._observe = load, observe
        self._model: Model | None = None
        self._workers, self._decoders = workers, Decoders(run.shape, workers, hashed=False)

    def end(self) -> None:
        """End the processes that decode."""
        self._decoders.end()

    def scored(self, sources: Iterable[Source]) -> Generator[list[Scored], None, None]:
        """Yield the items of the sources, a block at a time; see `Scorer.scored`."""
        with closing(decoded_ahead(self._decoders, sources)) as blocks:
            for block in blocks:
                if self._model is None:
                    self._model = self._load()
                share_cores(self._model, block, self._workers)
                yield self._score(self._model, block.deliveries)

    def _score(self, model: Model, block: list[Delivery]) -> list[Scored]:
        images = [image for delivery in block for image in delivery.part.images]
        logits = logits_in_blocks(model, [image.pixels for image in images])
        if images and self._observe is not None:
            pixels = np.stack([image.pixels for image in images])
            self._observe(pixels, logits, [(image.width, image.height) for image in images])
        return scored_of(block, logits)


def scored_of(block: Iterable[Delivery], logits: np.ndarray) -> list[Scored]:
    """Return the items of what was decoded, with the logits, (N, outputs), of its images in their order."""
    scores = iter(probabilities(logits)[:, 1].tolist() if len(logits) else [])
    found: list[Scored] = []
    for number, _, part, last in block:
        at = len(found)
        for image in part.images:
            found.append(
                Scored(number, image.page, image.sha256, image.width, image.height, next(scores), "", last=False)
            )
        found += [Scored(number, page, "", None, None, None, reason, last=False) for page, reason in part.rejected]
        if last:
            if len(found) == at:
                found.append(Scored(number, 0, "", None, None, None, "has no image", last=False))
            found[-1] = found[-1]._replace(last=True)
    return found
