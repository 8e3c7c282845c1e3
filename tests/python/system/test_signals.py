"""Signals that are noted, told, handed on, or end at once; all is as before afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from photoflux.system import signals
from photoflux.system.signals import Ended, asked, asking, end_if_asked, kept_from_julia

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
NUMBERS = [signal.SIGINT, *signals.ENDING]


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def unchanged():
    """Handlers and mask are after each test what they were before, whatever it raised."""
    kept = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    before = [signal.getsignal(number) for number in NUMBERS], signal.pthread_sigmask(signal.SIG_BLOCK, set())
    yield
    assert ([signal.getsignal(n) for n in NUMBERS], signal.pthread_sigmask(signal.SIG_BLOCK, set())) == before
    assert asked() is None
    signal.signal(signal.SIGHUP, kept)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_noted_told_and_handed_on(number):
    told = []
    with asking() as noted:
        assert not noted and asked() is noted
        with noted.telling(lambda: told.append("first")):
            send(number)
        assert noted and noted.number == number and noted.name == signal.Signals(number).name
        with noted.telling(lambda: told.append("late")):
            pass
        send(number)  # as `timeout` sends it twice
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Ended):
            end_if_asked()
    assert told == ["first", "late"]
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Ended) as ended:
        noted.hand_on()
    assert number == signal.SIGINT or ended.value.code == 128 + number


def test_nothing_is_handed_on_where_nothing_came():
    with asking() as noted:
        end_if_asked()
    noted.hand_on()


def test_the_handler_that_there_was_is_handed_the_signal():
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with asking() as noted:
            send(signal.SIGTERM)
            assert came == []
        noted.hand_on()
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_later_second_signal_raises(monkeypatch):
    monkeypatch.setattr(signals, "AGAIN_SECONDS", 0.0)
    with pytest.raises(Ended), asking():
        send(signal.SIGINT)
        send(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), asking():
        raise ZeroDivisionError


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with asking() as noted:
        send(signal.SIGHUP)
    assert not noted
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_in_another_thread_nothing_is_asked():
    found = []

    def other():
        with asking() as noted:
            found.append((bool(noted), asked()))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [(False, None)]


# The C code of `sum` looks at no signal for minutes, as Julia does not.
BUSY = """
import signal
from photoflux.system.signals import asking, unwinding
with unwinding(), asking():
    print("busy", flush=True)
    sum(range(10**12))
"""


def test_a_second_ctrl_c_ends_a_command_that_computes_in_other_code():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        ended = process.poll()
        process.kill()
    assert ended == -signal.SIGINT


def test_a_signal_while_julia_starts_waits_and_is_pythons():
    """Here what starts blocks the signals, as Julia does, and another thread waits for them."""
    with pytest.raises(KeyboardInterrupt), kept_from_julia():
        signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
        taken = []
        julia = threading.Thread(target=lambda: taken.append(signal.sigtimedwait(NUMBERS, 0.2)))
        julia.start()
        send(signal.SIGINT)
        julia.join()
        assert taken == [None]
