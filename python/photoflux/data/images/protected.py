"""A process in which a function reads files, one at a time; one that ends, hangs or overfills it costs itself."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Generic, ParamSpec, TypeVar

from photoflux.data.images.formats import RefusedError
from photoflux.data.images.helpers import bound_memory, end_with_parent, held_interrupts, hidden_main
from photoflux.system.signals import unblock

P = ParamSpec("P")
T = TypeVar("T")
# What hides the user's script at a start is of the whole process.
_START = threading.Lock()


class Protected(Generic[P, T]):
    """Calls a function in a process of its own, which is started when it is needed, and again when it has ended.

    Parameters
    ----------
    function : callable
        A function of a module; what it is given and returns must be picklable. It may raise `RefusedError` and
        `OSError`.
    seconds : float
        How long a call may take.
    memory : int
        Bytes that a call may take beyond those of the start.
    """

    def __init__(self, function: Callable[P, T], *, seconds: float, memory: int) -> None:
        self._function, self._seconds, self._memory = function, seconds, memory
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._changing, self._over = threading.Lock(), False

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> T:
        """Call the function; not from two threads at once.

        Raises
        ------
        RefusedError
            As the function does; and if it took too long, too much memory, or the process with it.
        OSError
            As the function does; and if no process can be started.
        """
        if self._process is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send((arguments, named))
            if not self._connection.poll(self._seconds):
                self.end()
                raise RefusedError(f"takes longer than {self._seconds:g} s to decode")
            value, error = self._connection.recv()
        except (EOFError, OSError) as gone:
            self.end()
            raise RefusedError("the decoder ended while it read this file") from gone
        if error is not None:
            raise error
        result: T = value
        return result

    def end(self) -> None:
        """End the process, if there is one."""
        with self._changing:
            if self._process is None:
                return
            assert self._connection is not None
            self._process.kill()
            self._process.join()
            self._process.close()
            self._connection.close()
            self._process = None

    def end_for_good(self) -> None:
        """End it from another thread, which sees that it has ended, and have it not started again."""
        with self._changing:
            self._over = True
            process = self._process
            if process is not None:
                process.kill()

    def _start(self) -> None:
        # Never fork: TensorFlow's and Julia's threads may be running in this process.
        context = multiprocessing.get_context("spawn")
        with self._changing, _START:
            if self._over:
                raise RefusedError("nothing is decoded any more")
            self._connection, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, self._function, self._memory), daemon=True)
            with hidden_main(), held_interrupts():
                process.start()
            theirs.close()
            self._process = process


def _work(connection: Connection, function: Callable[..., Any], memory: int) -> None:
    # The threads of whatever starts it may block them.
    unblock()
    # Ctrl-C reaches every process of the terminal; the main one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    bound_memory(memory)
    with contextlib.suppress(EOFError, OSError):
        while True:
            arguments, named = connection.recv()
            value, error = None, None
            try:
                value = function(*arguments, **named)
            except (RefusedError, OSError) as raised:
                error = raised
            except MemoryError:
                error = RefusedError("needs more memory than there is for one image")
            connection.send((value, error))
