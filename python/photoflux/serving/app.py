"""The HTTP interface: ``/predict``, ``/health`` and ``/metrics``, and the statuses of errors, are changed here."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from photoflux.runs.run import Run
from photoflux.serving.jobs import Job, Upload
from photoflux.serving.limits import Limits
from photoflux.serving.metrics import Metrics
from photoflux.serving.uploads import Refusal, discard, receive
from photoflux.system.names import printable
from photoflux.system.version import __version__

# Requests of the largest size whose bodies may be on the disk at once.
_LARGEST = 16
_GONE = 499  # of a client that has gone; nobody sees it but the metrics
PATHS = ("/predict", "/health", "/metrics")


class Decoding(Protocol):
    """What the files of jobs are given to: a `photoflux.serving.decoders.DecoderThread`."""

    def submit(self, job: Job) -> None:
        """Have the files of a job decoded."""

    def drop(self, job: Job) -> None:
        """Give a job up."""


class Service:
    """What the requests of a service share. All of it belongs to the server's thread but `state`.

    Parameters
    ----------
    run : Run
        Whose predictions are served.
    fingerprint : str
        The sha256 of its weights.
    limits : Limits
        Of requests.
    folder : Path
        Where uploads are kept while they are decoded.

    Attributes
    ----------
    state : str
        ``"loading"``, ``"ok"`` or ``"ending"``; requests are taken while it is ok.
    waiting : int
        Images that wait for their answer; a request that is being received counts for one.
    metrics : Metrics
        What is counted.
    decoding : Decoding
        Set before `state` is ok.
    """

    decoding: Decoding

    def __init__(self, run: Run, fingerprint: str, limits: Limits, folder: Path) -> None:
        self.run, self.fingerprint, self.limits, self.folder = run, fingerprint, limits, folder
        self.state = "loading"
        self.waiting = self.stored = 0
        self.metrics = Metrics(lambda: self.waiting)
        self.positive = run.classes[1] if len(run.classes) == 2 else None

    def app(self) -> ASGIApp:
        """Return the ASGI application."""
        routes = [
            Route("/predict", self.predict, methods=["POST"]),
            Route("/health", self.health),
            Route("/metrics", self.numbers),
        ]
        handlers: dict[Any, Any] = {HTTPException: _http_error, Refusal: _refused, Exception: _failed}
        return _Counted(Starlette(routes=routes, exception_handlers=handlers), self.metrics)

    async def health(self, request: Request) -> Response:
        """Say whether requests are taken, and by which model."""
        values = {
            "status": self.state,
            "run": printable(self.run.path.name),
            "model": self.fingerprint,
            "version": __version__,
        }
        return JSONResponse(values, 200 if self.state == "ok" else 503)

    async def numbers(self, request: Request) -> Response:
        """Return the metrics."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def predict(self, request: Request) -> Response:
        """Answer the images of a form."""
        if self.state != "ok":
            raise Refusal(503, "The model is being loaded." if self.state == "loading" else "The service is ending.")
        place = _Place(self)
        uploads: list[Upload] = []
        received = False
        try:
            async with asyncio.timeout(self.limits.timeout):
                uploads = await receive(request, self.folder, self.limits, place.store)
                received = True
                place.hold(len(uploads))
                job = await self._finished(request, uploads)
        except TimeoutError:
            if not received:
                raise Refusal(408, f"The body did not arrive within {self.limits.timeout:g} s.") from None
            raise Refusal(504, f"There is no answer within {self.limits.timeout:g} s.") from None
        except ClientDisconnect:
            return Response(status_code=_GONE)
        except asyncio.CancelledError:  # a second signal, or the time to end is over
            raise Refusal(503, "The service has ended.") from None
        finally:
            discard(uploads)
            place.leave()
        if job.failure is not None:
            raise Refusal(*job.failure)
        return self._answer(job)

    async def _finished(self, request: Request, uploads: list[Upload]) -> Job:
        """Wait for the answer of a job; it is dropped if the client goes, or the time is over."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def finished() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done.set)

        job = Job(uploads, self.limits.max_images, self.positive, finished)
        gone, answer = asyncio.ensure_future(_gone(request)), asyncio.ensure_future(done.wait())
        self.decoding.submit(job)
        try:
            await asyncio.wait({gone, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnect
        finally:
            gone.cancel()
            answer.cancel()
            self.decoding.drop(job)
        return job

    def _answer(self, job: Job) -> Response:
        threshold, rows = self.run.threshold, job.rows
        values = {
            "run": printable(self.run.path.name),
            "positive": self.positive,
            "threshold": None if threshold is None else threshold["score"],
            "images": rows,
        }
        return JSONResponse(values, 200 if any(row["error"] is None for row in rows) else 422)


class _Place:
    """The room that a request takes: it counts for one image while its body comes, then for all it has."""

    def __init__(self, service: Service) -> None:
        self._service, self._images, self._bytes = service, 0, 0
        self.hold(1)

    def hold(self, images: int) -> None:
        more = images - self._images
        if self._service.waiting + more > self._service.limits.queue:
            raise Refusal(503, f"{self._service.waiting} images wait already. Try again later.")
        self._service.waiting += more
        self._images = images

    def store(self, size: int) -> None:
        if self._service.stored + size > _LARGEST * self._service.limits.max_bytes:
            raise Refusal(503, "Too many bytes wait already. Try again later.")
        self._service.stored += size
        self._bytes += size

    def leave(self) -> None:
        self._service.waiting -= self._images
        self._service.stored -= self._bytes


class _Counted:
    """Counts the requests of an application by path and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.monotonic(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.request_seconds.labels(path).observe(time.monotonic() - began)


async def _gone(request: Request) -> None:
    """Wait until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(request: Request, error: Refusal) -> Response:
    headers = {"Retry-After": "1"} if error.status == 503 else None
    return JSONResponse({"error": error.reason}, error.status, headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    words = {
        404: f"There is no such address: there are {', '.join(PATHS)}.",
        405: f"{request.method} is not for this address: POST images to /predict, GET the others.",
    }
    return JSONResponse({"error": words.get(error.status_code, error.detail)}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"The service has failed at this request: {type(error).__name__}."}, 500)
