"""The web page's addresses, what they answer, and who is answered at all; the page itself is in ``page/``."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from photoflux.data.images.formats import RefusedError
from photoflux.errors import DataError
from photoflux.reviewing.items import Sitting
from photoflux.reviewing.pictures import SIDES, Pictures

_PAGE = Path(__file__).parent / "page"
_FILES = {"": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
_MOST_BYTES = 1024  # of the body of a request
_GREATEST = (1 << 63) - 1  # number that SQLite has
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


def app_of(sitting: Sitting, pictures: Pictures, token: str, port: int) -> ASGIApp:
    """Return the application that shows a sitting to whoever knows the token.

    Parameters
    ----------
    sitting : Sitting
        What is shown and labelled.
    pictures : Pictures
        What makes its pictures.
    token : str
        The first part of every address.
    port : int
        At which it is served on 127.0.0.1: requests for other hosts are not answered, which a web page elsewhere could
        have made by a name of its own for this address.
    """
    handlers = _Handlers(sitting, pictures)
    routes = [
        *(Route(f"/{name}", handlers.file) for name in _FILES),
        Route("/items", handlers.items),
        Route("/label", handlers.label, methods=["POST"]),
        Route("/picture/{source:int}/{page:int}/{size}", handlers.picture),
    ]
    errors: dict[Any, Any] = {HTTPException: _http_error, DataError: _data_error}
    app = Starlette(routes=routes, exception_handlers=errors)
    app.router.redirect_slashes = False
    return _Guard(app, token, port)


class _Handlers:
    """The answers. Those that read or decode are functions that are not async, and so run in threads."""

    def __init__(self, sitting: Sitting, pictures: Pictures) -> None:
        self._sitting, self._pictures = sitting, pictures

    def file(self, request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        content = (_PAGE / (name or "page.html")).read_bytes()
        return Response(content, media_type=_FILES[name], headers={"Cache-Control": "no-store"})

    def items(self, request: Request) -> Response:
        negative, positive = self._sitting.wanted.classes
        found, labelled = self._sitting.counts()
        values = {
            "heading": self._sitting.wanted.heading,
            "negative": negative,
            "positive": positive,
            "found": found,
            "labelled": labelled,
            "items": self._sitting.items(),
        }
        return JSONResponse(values, headers={"Cache-Control": "no-store"})

    async def label(self, request: Request) -> Response:
        # A form of another web page cannot have this type, and a script of it is not let by the browser.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "The body must be of the type application/json.")
        values = await _body(request)
        source, page, label = _number(values, "source"), _number(values, "page"), values.get("label")
        if label is not None and label not in self._sitting.wanted.classes:
            raise HTTPException(400, f"`label` must be one of {', '.join(self._sitting.wanted.classes)}, or null.")
        if not await run_in_threadpool(self._sitting.label, source, page, label):
            raise HTTPException(404, "There is no such image.")
        return JSONResponse({"label": label})

    def picture(self, request: Request) -> Response:
        numbers = request.path_params
        size = numbers["size"]
        if size not in SIDES or max(numbers["source"], numbers["page"]) > _GREATEST:
            raise HTTPException(404)
        origin = self._sitting.origin(numbers["source"], numbers["page"])
        if origin is None:
            raise HTTPException(404)
        try:
            content = self._pictures.picture(origin, SIDES[size])
        except RefusedError as error:
            raise HTTPException(422, f"It cannot be shown: {error}.") from error
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=300"})


def _number(values: dict[str, Any], name: str) -> int:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _GREATEST:
        raise HTTPException(400, f"`{name}` must be a number.")
    return value


async def _body(request: Request) -> dict[str, Any]:
    body = b""
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > _MOST_BYTES:
                raise HTTPException(413, f"The body is larger than {_MOST_BYTES} bytes.")
        values = json.loads(body)
    except (ValueError, RecursionError, ClientDisconnect) as error:
        raise HTTPException(400, "The body is no JSON.") from error
    if not isinstance(values, dict):
        raise HTTPException(400, "The body must be a JSON object.")
    return values


class _Guard:
    """Answers requests for this host whose address begins with the token, and adds what is said to every browser."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = {f"127.0.0.1:{port}".encode(), f"localhost:{port}".encode()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        assert scope["type"] == "http"
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        first, slash, rest = scope["path"].removeprefix("/").partition("/")
        # In a time that does not tell how much of it is right.
        known = hmac.compare_digest(first.encode("utf-8", "surrogatepass"), self._token)
        if not (known and slash and len(hosts) == 1 and hosts[0].lower() in self._hosts):
            await PlainTextResponse("There is nothing here.", 404)(scope, receive, marked)
            return
        inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode("utf-8", "surrogatepass"), "root_path": ""}
        await self._app(inner, receive, marked)


async def _http_error(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _data_error(request: Request, error: DataError) -> Response:
    return JSONResponse({"error": str(error)}, 500)
