"""Signals: Ctrl-C, SIGTERM and SIGHUP end a command, a fit between two batches, and none interrupts a save."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

# What ends a process that has no handler for it, and leaves what it was writing behind.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
# `timeout`, and a terminal that is closed, send a signal twice: a second one that comes sooner is the same.
AGAIN_SECONDS = 0.5
# How many commands are under way: their process is ours to end.
_commands = 0


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
    global _commands
    ours = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame: FrameType | None) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    for number in ours:
        signal.signal(number, end)
    _commands += 1
    try:
        yield
    finally:
        _commands -= 1
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
    left_alone = (signal.SIG_IGN, None)  # None: that of somebody who has not asked Python
    numbers = {number for number in (signal.SIGINT, *ENDING) if signal.getsignal(number) not in left_alone}

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


class Asked:
    """Whether a signal has asked what runs to end.

    Attributes
    ----------
    number : int
        The first that came; 0: none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0
        self._tell: list[Callable[[], None]] = []
        self._before: object = None

    def __bool__(self) -> bool:
        return self.number != 0

    @property
    def name(self) -> str:
        """The signal's name, such as ``"SIGTERM"``."""
        return signal.Signals(self.number).name

    def note(self, number: int, before: object) -> None:
        """Note a signal and who would have had it; a second one ends at once."""
        if not self:
            self.number, self._before, self._since = number, before, time.monotonic()
            for tell in self._tell:
                tell()
        elif time.monotonic() - self._since >= AGAIN_SECONDS:
            if _commands:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            end_by(number)

    @contextlib.contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Have a function called when a signal comes in the block, or has come."""
        self._tell.append(tell)
        try:
            if self:
                tell()
            yield
        finally:
            self._tell.remove(tell)

    def hand_on(self) -> None:
        """Do what the signal would have done without the block: as a rule, raise `KeyboardInterrupt` or `Ended`."""
        if callable(self._before):
            self._before(self.number, sys._getframe())
        elif self:
            end_by(self.number)


_asked: Asked | None = None


def asked() -> Asked | None:
    """Return what the running block of `asking` knows; None outside one."""
    return _asked


def end_if_asked() -> None:
    """End what is no fit, within a block of `asking`, by what a signal that has come would have done."""
    if _asked:
        _asked.hand_on()


@contextlib.contextmanager
def asking() -> Iterator[Asked]:
    """Have Ctrl-C, SIGTERM and SIGHUP only be noted in the block, whose work looks at that between two steps.

    A second one ends at once: a command is ended by the signal itself, what it was writing is under a temporary name
    that the next one removes; elsewhere `KeyboardInterrupt` or `Ended` is raised. Signals come to the main thread; in
    another nothing is ever asked.
    """
    global _asked
    if threading.current_thread() is not threading.main_thread():
        yield Asked()
        return
    outer, asked = _asked, Asked()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    with received(lambda number: asked.note(number, before[number])):
        if _commands and before[signal.SIGINT] is not signal.SIG_IGN:
            _once(signal.SIGINT)
        _asked = asked
        try:
            yield asked
        finally:
            _asked = outer


def _once(number: int) -> None:
    """Have the system forget the handler of a signal when it was called, so that a second one ends the process.

    Python's own handler runs when Julia has returned only, which may compile for a minute.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        forgetting, handling = library.sysv_signal, library.signal
        for function in (forgetting, handling):
            function.argtypes, function.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        forgetting(number, handling(number, None))
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP wait until the block is over; they come then."""
    if threading.current_thread() is not threading.main_thread():
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
            held[came[0]](came[0], sys._getframe())


@contextlib.contextmanager
def kept_from_julia() -> Iterator[None]:
    """Keep Ctrl-C, SIGTERM and SIGHUP Python's while Julia starts in the block, and afterwards; they wait meanwhile.

    Julia blocks them in the thread that starts it, and waits for them in one of its own, where they would end the
    process, or hang it. The system gives a signal to a thread that lets it through, the oldest first: for the time of
    the start that is one of ours.
    """
    started = threading.Event()
    ours = threading.Thread(target=started.wait, name="signals", daemon=True)
    ours.start()
    mask = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set()) if mask else set()
    try:
        with held():
            try:
                yield
            finally:
                numbers = {signal.SIGINT, *ENDING}
                if threading.current_thread() is threading.main_thread():
                    for number in numbers:
                        if (handler := signal.getsignal(number)) is not None:
                            signal.signal(number, handler)  # the system has Julia's in its place
                if mask:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers - before)
    finally:
        started.set()
        ours.join()
