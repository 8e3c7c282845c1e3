"""A Python worker process that answers requests: JSON lines through pipes, large arrays through files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import IO, Any

from photoflux import errors
from photoflux.errors import EngineError, PhotoFluxError
from photoflux.system import atomic
from photoflux.system.signals import asked

TAIL_LINES = 12
# Names the temporary folder of the process's own, which it removes itself where this process can no longer.
SCRATCH = "PHOTOFLUX_WORKER_SCRATCH"
Message = dict[str, Any]


class Worker:
    """One process at a time that runs ``python -m MODULE``; started on first use, and again after it died.

    A request is one line ``{"do": …, "id": …}``. The process answers with any number of lines ``{"event": …}``, each of
    which waits for a ``go``, and one line ``{"done": …}`` or ``{"error": …, "message": …}``. A line ``stop`` may be
    sent at any moment. The process ends when its standard input does, so it never outlives this one.

    Parameters
    ----------
    module : str
        The module to run.
    environment : mapping of str to str
        Environment variables set for it, over the inherited ones.
    title : str
        What messages call it.
    """

    def __init__(self, module: str, environment: Mapping[str, str], title: str) -> None:
        self._module = module
        self._environment = dict(environment)
        self._title = title
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._finalizer: weakref.finalize[..., Worker] | None = None
        self._busy = threading.Lock()
        self._id = 0
        self._hello: Message = {}

    @property
    def pid(self) -> int | None:
        """The process's number while it is alive, else None."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def hello(self) -> Message:
        """Return what the process said when it had started, starting it if need be."""
        with self._reserved():
            return self._hello

    def request(
        self,
        do: str,
        values: Mapping[str, Any],
        *,
        on_event: Callable[[Message], bool] | None = None,
        ctrl_c_stops: bool = False,
    ) -> Message:
        """Send a request and return what the process answers when it is done.

        Parameters
        ----------
        do : str
            What to do.
        values : mapping
            JSON-ready values of the request.
        on_event : callable, optional
            Gets each event; when it returns True the process is told to stop. An exception from it also stops the
            process, and is raised again after the process's answer.
        ctrl_c_stops : bool
            Whether the first Ctrl-C asks the process to stop, rather than ending it. A second one ends it. Within
            `photoflux.system.signals.asking` any of its signals does.

        Raises
        ------
        EngineError
            If the process dies, cannot be started, or is busy with another request.
        PhotoFluxError
            What the process answers with, of the class that it names.
        """
        raised: BaseException | None = None
        with self._reserved(), _ctrl_c_comes_through():
            self._id += 1
            try:
                with _on_ctrl_c(self._stop) if ctrl_c_stops else nullcontext():
                    self._send({"do": do, "id": self._id, "folder": str(Path.cwd()), **values})
                    while "event" in (answer := self._receive()):
                        try:
                            stop = raised is not None or (on_event is not None and on_event(answer))
                        except BaseException as error:
                            raised, stop = error, True
                        if stop:
                            self._stop()
                        self._send({"do": "go"})
            except EngineError:
                raise
            except BaseException:
                self.close()  # its next line would answer this request, not the next one
                raise
        if raised is not None and not (ctrl_c_stops and isinstance(raised, KeyboardInterrupt)):
            raise raised
        if "error" in answer:
            kind = getattr(errors, answer["error"], EngineError)
            raise kind(answer["message"]) if issubclass(kind, PhotoFluxError) else EngineError(answer["message"])
        done: Message = answer["done"]
        return done

    @contextmanager
    def _reserved(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise EngineError(
                f"The {self._title} is busy with another request (a callback or thread asked for a second one). "
                "Wait until it is done, or use another engine object."
            )
        try:
            if self.pid is None:
                self._start()
            yield
        finally:
            self._busy.release()

    def _start(self) -> None:
        self.close()
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
        # Our own path in our own order, so that the worker imports the modules that we would.
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        environment = {**inherited, **self._environment, "PYTHONPATH": path}
        # A group of its own: a Ctrl-C in the terminal reaches us alone, and we decide when the worker stops.
        group: dict[str, int] = {"process_group": 0} if sys.platform != "win32" else {"creationflags": 0x200}
        with ExitStack() as undo:
            # What it and its libraries write into the system's temporary folder goes when it does.
            folder = atomic.new_scratch("worker")
            undo.callback(atomic.remove, folder)
            environment |= {**dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder)), SCRATCH: str(folder)}
            log = undo.enter_context(tempfile.TemporaryFile(dir=folder))
            process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                **group,  # type: ignore[call-overload]
            )
            undo.pop_all()
            self._process, self._log = process, log
            self._finalizer = weakref.finalize(self, _finish, process, log, folder)
        try:
            self._hello = self._receive()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process; the next request starts another."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._log = self._finalizer = None

    def _stop(self) -> None:
        self._send({"do": "stop", "id": self._id})

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            # Not through the buffer: a Ctrl-C handler may send while the main line of execution is sending.
            data = json.dumps(message).encode() + b"\n"
            while data:
                data = data[os.write(self._process.stdin.fileno(), data) :]
        except OSError:
            pass  # the process has died; `_receive` says how

    def _receive(self) -> Message:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            error = self._death()
            self.close()
            raise error
        message: Message = json.loads(line)
        return message

    def _death(self) -> EngineError:
        assert self._process is not None and self._log is not None
        self._process.kill()  # it may live on with a closed pipe
        code = self._process.wait()
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was ended by signal {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += " (another process killed it; the system does that when memory runs out)"
        self._log.seek(0)
        tail = self._log.read().decode(errors="replace").strip().splitlines()[-TAIL_LINES:]
        said = "\nIts last lines were:\n" + "\n".join(f"  {line}" for line in tail) if tail else ""
        return EngineError(f"The {self._title} {how} before it had answered. The next request starts another.{said}")


def _finish(process: subprocess.Popen[bytes], log: IO[bytes], folder: Path) -> None:
    """End a process and everything that belongs to it: each step is taken, whatever another one raises."""
    assert process.stdin is not None and process.stdout is not None
    with ExitStack() as steps:  # the last is taken first
        steps.callback(atomic.remove_in_use, folder)
        steps.callback(log.close)
        steps.callback(_wait, process)
        steps.callback(process.kill)  # it holds nothing that a file does not: weights are renamed when complete
        steps.callback(process.stdout.close)
        steps.callback(process.stdin.close)


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was killed; a Ctrl-C must not leave it to be found by the garbage collection."""
    try:
        process.wait()
    except BaseException:
        process.wait()
        raise


@contextmanager
def _ctrl_c_comes_through() -> Iterator[None]:
    """Let Python have Ctrl-C while it waits: a Julia in this process keeps it to itself, and sees it after the wait."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if signal.SIGINT in before:
        signal.signal(signal.SIGINT, signal.getsignal(signal.SIGINT))  # the system has Julia's in its place
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _on_ctrl_c(stop: Callable[[], None]) -> Iterator[None]:
    noted = asked()
    if noted is not None:
        with noted.telling(stop):
            yield
        return
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
