"""Signals: SIGTERM and SIGHUP end a command as Ctrl-C does, and none interrupts a save."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# What ends a process that has no handler for it, and leaves what it was writing behind.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Ended(SystemExit):
    """The process was told to end; the exit code is 128 and the signal's number, as a shell would say."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = 128 + number
        self.signal = signal.Signals(number).name


def unblock() -> None:
    """Let the signals that end a process through: one that has Julia blocks them, for what it starts too."""
    if hasattr(signal, "pthread_sigmask") and "juliacall" not in sys.modules:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, *ENDING})


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Have SIGTERM and SIGHUP raise `Ended` in the block, so that what is being written is removed on the way out.

    A signal that is ignored (``nohup``) or has another handler is left alone, and so is one that comes while another is
    being dealt with.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    unblock()
    ours = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame: FrameType | None) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP wait until the block is over; they come then.

    Julia takes signals over when it runs in this process: it raises an exception in Julia code only, so there is
    nothing to hold, and its handlers are left alone.
    """
    if threading.current_thread() is not threading.main_thread() or "juliacall" in sys.modules:
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    held: dict[int, Callable[[int, FrameType | None], object]] = {
        number: handler for number, handler in before.items() if callable(handler)
    }
    for number in held:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        if came:
            held[came[0]](came[0], sys._getframe())  # not raised again: where Julia runs it would be Julia's
