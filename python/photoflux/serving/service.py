"""Runs a service: the network in the calling thread, the server and the decoders beside it, until a signal ends it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from photoflux.engines.base import Model
from photoflux.errors import PhotoFluxError, ServingError, SettingError
from photoflux.model.weights import fingerprint_of, read_weights_of
from photoflux.runs.prediction import predictions_of
from photoflux.runs.run import Run
from photoflux.runs.scoring import EVALUATION_BATCH
from photoflux.serving.app import Service
from photoflux.serving.decoders import DecoderThread
from photoflux.serving.jobs import Piece
from photoflux.serving.limits import Limits
from photoflux.serving.server import ServerThread, address_of, bind, deaf
from photoflux.system.atomic import scratch
from photoflux.system.signals import end_by, received

_LOOK = 0.2  # seconds between two looks whether the server has ended


def serve(
    run: Run,
    load: Callable[[], Model],
    host: str,
    port: int,
    workers: int,
    limits: Limits,
    on_ready: Callable[[str], None],
) -> None:
    """Serve a run until SIGINT, SIGTERM or SIGHUP; see `photoflux.api.serve`.

    Julia may be called in the thread that has started it only, and Python's signals come to the main thread: so the
    network runs in this one, which must be the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise SettingError("A service runs in the main thread of its process, where signals come. Call `serve` there.")
    listener = bind(host, port)
    address = address_of(listener)
    with listener, scratch("serve") as folder:
        weights = read_weights_of(run.weights, run.variant, run.input_shape, len(run.classes))
        service = Service(run, fingerprint_of(weights), limits, Path(folder))
        pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        decoders = DecoderThread(run.shape, workers, limits.timeout / 2, pieces, limits.queue, service.metrics)
        server = ServerThread(service.app(), listener, limits.timeout)
        service.decoding = decoders
        with deaf():
            decoders.start()
            server.start()
        try:
            model = load()
            # Julia compiles at the first call.
            model.logits(np.zeros((1, *run.shape), np.uint8), batch_size=EVALUATION_BATCH)
            with _ending_on_signals(service, server):
                service.state = "ok"
                on_ready(address)
                while server.running:
                    batch = _batch(pieces)
                    if not decoders.running:
                        raise ServingError("The decoders have failed, and the service has ended.")
                    decoders.wake()
                    if batch:
                        _predict(service, model, batch)
                if service.state != "ending":
                    raise ServingError("The web server has failed, and the service has ended.")
        finally:
            service.state = "ending"
            server.end()
            decoders.end()


def _batch(pieces: queue.SimpleQueue[Piece]) -> list[Piece]:
    """Return the images that wait, as many as are predicted at once; none if none comes for a while."""
    found: list[Piece] = []
    try:
        found.append(pieces.get(timeout=_LOOK))
        while len(found) < EVALUATION_BATCH:
            found.append(pieces.get_nowait())
    except queue.Empty:
        pass
    return [piece for piece in found if not piece.job.dropped]


def _predict(service: Service, model: Model, batch: list[Piece]) -> None:
    began = time.monotonic()
    try:
        predictions = predictions_of(model, service.run, [""] * len(batch), np.stack([p.pixels for p in batch]))
    except Exception as error:
        # Whatever it is, the next batch would meet it too: whoever supervises the service starts it again.
        for piece in batch:
            piece.job.fail(500, "The engine has failed.")
        if isinstance(error, PhotoFluxError):
            raise ServingError(f"The engine has failed, and the service has ended: {error}") from error
        raise
    service.metrics.network_seconds.observe(time.monotonic() - began)
    service.metrics.batch.observe(len(batch))
    service.metrics.images.inc(len(batch))
    for piece, prediction in zip(batch, predictions, strict=True):
        piece.job.predicted(piece.row, prediction)


def _ending_on_signals(service: Service, server: ServerThread) -> AbstractContextManager[None]:
    """Have the first signal end the service when its requests are answered, and a second one at once."""

    def end(number: int) -> None:
        if service.state == "ending":
            end_by(number)
        service.state = "ending"
        server.stop()

    return received(end)
