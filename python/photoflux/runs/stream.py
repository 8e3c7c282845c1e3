"""Decodes in a thread while the network works, in blocks of always the same size."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from photoflux.data.images.helpers import Source
from photoflux.data.images.parallel import Decoders, Delivery, cores
from photoflux.engines.base import Model, SharesCores

# Images that are scored at once, always so many: the last bits of a score may depend on their number, and what was
# cut short is to have the same scores as what was not.
BLOCK = 32
# Blocks that are decoded ahead, and seconds after which one is scored that is not full.
_AHEAD, _PATIENCE = 4, 1.0
# Seconds between two looks whether there is room again for what is decoded.
_LOOK = 0.005


def logits_in_blocks(model: Model, pixels: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logits, float32 (N, outputs), of images, uint8 (C, H, W) each; of none (0, 1).

    They are computed `BLOCK` at a time, the last ones filled up with black images.
    """
    found = []
    for at in range(0, len(pixels), BLOCK):
        some = pixels[at : at + BLOCK]
        block = np.zeros((BLOCK, *some[0].shape), np.uint8)
        for image, row in zip(some, block, strict=False):
            row[...] = image
        found.append(model.logits(block, batch_size=BLOCK)[: len(some)])
    return np.concatenate(found) if found else np.zeros((0, 1), np.float32)


class _End(NamedTuple):
    error: BaseException | None


class Block(NamedTuple):
    """Up to `BLOCK` images and reasons, and whether decoding has mostly waited for room since the block before."""

    deliveries: list[Delivery]
    ahead: bool


class _Waits:
    """How often decoding has looked in vain whether there is room; one thread counts, another asks."""

    def __init__(self) -> None:
        self.looks, self._before, self._since = 0, 0, time.monotonic()

    def were_most(self) -> bool:
        """Say whether that was more than half of the time since the last question."""
        now, looks = time.monotonic(), self.looks
        share = (looks - self._before) * _LOOK / max(now - self._since, 1e-9)
        self._before, self._since = looks, now
        return share > 0.5


def share_cores(model: Model, block: Block, processes: int) -> None:
    """Have a model leave the cores to so many processes that decode, unless these are ahead of it."""
    if isinstance(model, SharesCores):
        # A thread that waits for the others, as it does awake, takes from them what they need.
        model.threads = 0 if block.ahead else max(1, cores() - processes)


def decoded_ahead(decoders: Decoders, sources: Iterable[Source]) -> Generator[Block, None, None]:
    """Decode in a thread, and yield what was decoded in blocks."""
    # One without a limit of its own takes a fraction of the time; the limit is looked at here.
    ready: queue.SimpleQueue[Delivery | _End] = queue.SimpleQueue()
    stopped, waits = threading.Event(), _Waits()

    def put(item: Delivery | _End) -> None:
        while ready.qsize() >= _AHEAD * BLOCK and not stopped.wait(_LOOK):
            waits.looks += 1
        ready.put(item)

    def take() -> None:
        error: BaseException | None = None
        try:
            with closing(decoders.decode(sources)) as deliveries:
                for delivery in deliveries:
                    put(delivery)
        except BaseException as raised:
            error = raised
        put(_End(error))

    thread = threading.Thread(target=take, daemon=True, name="photoflux-decoding")
    thread.start()
    try:
        yield from _blocks(ready, waits)
    except BaseException:
        decoders.stop()
        raise
    finally:
        stopped.set()
        thread.join()


def _blocks(ready: queue.SimpleQueue[Any], waits: _Waits) -> Iterator[Block]:
    block: list[Delivery] = []
    room, began = BLOCK, time.monotonic()
    while True:
        try:
            item = ready.get(timeout=_PATIENCE)
        except queue.Empty:
            item = None
        if isinstance(item, Delivery):
            began = began if block else time.monotonic()
            block.append(item)
            room -= max(1, len(item.part.images) + len(item.part.rejected))
        if block and (room <= 0 or not isinstance(item, Delivery) or time.monotonic() - began > _PATIENCE):
            yield Block(block, waits.were_most())
            block, room = [], BLOCK
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return
