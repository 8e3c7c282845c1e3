"""The web server: its address, its thread and the time a connection may be silent are changed here."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from photoflux.data.checks import check_whole
from photoflux.errors import ServingError, SettingError

# Seconds that the head of a request may take, and a connection may wait for the next one.
HEAD, IDLE = 10.0, 5


class Connection(H11Protocol):
    """A connection that is closed if the head of a request does not come in time, however slowly its bytes come."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Take bytes, which do not give more time."""
        super().data_received(data)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        if self._late is not None:
            self._late.cancel()

    def _expect(self) -> None:
        between = self.cycle is None or self.cycle.response_complete
        if between and self._late is None:
            self._late = self.loop.call_later(HEAD, self.transport.close)
        elif not between and self._late is not None:
            self._late.cancel()
            self._late = None


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; port 0 takes any that is free.

    Raises
    ------
    SettingError
        If the port is no number from 0 to 65535.
    ServingError
        If there is no such address on this machine, or the port is in use or not allowed.
    """
    if check_whole("`port`", port, 0) > 65535:
        raise SettingError(f"`port` must be a number from 0 to 65535; received: {port}.")
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # there it would let two processes have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except (OSError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        reason = getattr(error, "strerror", None) or error
        raise ServingError(
            f"Cannot listen at {host!r}, port {port}: {reason}. Give a `host` of this machine and a `port` that is "
            "free; 0 takes any."
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class ServerThread:
    """A uvicorn server in a thread.

    Parameters
    ----------
    app : ASGI application
        What answers.
    listener : socket
        Of `bind`.
    seconds : float
        That requests under way have when the server is told to end.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, seconds: float) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=max(1, round(seconds)),
        )
        # It warns of every form that is none.
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        self._server, self._listener = uvicorn.Server(config), listener
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections, and end when the requests under way are answered."""
        self._server.should_exit = True

    def end(self) -> None:
        """End at once."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(5)

    def _run(self) -> None:
        self._server.run([self._listener])


@contextmanager
def deaf() -> Iterator[None]:
    """Start threads that no signal reaches: Python's handlers run in the main thread, which has to be woken."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
