"""Signals: SIGTERM and SIGHUP end a command as Ctrl-C does, and none interrupts a save."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

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
def received(handler: Callable[[int], None] | None = None) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and SIGHUP come to Python in the block, although Julia was started; in the main thread only.

    Julia blocks these signals in the thread that starts it, and waits for them in one of its own, which would end the
    process; a thread that lets them through is given them first. One that is ignored stays so.

    Parameters
    ----------
    handler : callable, optional
        Is called with the number of a signal. None: Ctrl-C raises `KeyboardInterrupt`, the others `Ended`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = {number for number in (signal.SIGINT, *ENDING) if signal.getsignal(number) is not signal.SIG_IGN}

    def end(number: int, frame: FrameType | None) -> None:
        (handler or end_by)(number)

    before = {number: signal.signal(number, end) for number in numbers}
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers) if hasattr(signal, "pthread_sigmask") else set()
    try:
        yield
    finally:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, kept in before.items():
            signal.signal(number, kept)


def end_by(number: int) -> NoReturn:
    """Raise what a signal ends a command by."""
    raise KeyboardInterrupt if number == signal.SIGINT else Ended(number)


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
