"""What a person sees, with a clock that the test moves."""

from __future__ import annotations

import pytest

from photoflux.model.history import BatchProgress, EpochRow
from photoflux.runs import progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_what_is_quick_shows_nothing(clock, capsys):
    with progress.Display() as display:
        for done in range(1, 11):
            clock(0.1)
            display.step(done, 10, "Decoding")
    assert capsys.readouterr().err == ""


def test_without_a_terminal_there_are_plain_lines_now_and_then(clock, capsys):
    with progress.Display() as display:
        for done in range(1, 31):
            clock(1)
            display.step(done, 30, "Decoding")
        for batch in range(1, 61):
            clock(1)
            display.batch(BatchProgress(1, 2, batch, 60, 32, 0.5, 0.75))
        display.epoch(EpochRow(1, 60.0, 0.5, 0.1, 0.6, 0.75, 0.55, 0.1, 0.65, 0.7), 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Decoding: ")
    assert "Decoding: 30 of 30" in lines
    assert 4 <= len(lines) <= 8
    assert any("batch" in line and "loss 0.5000  accuracy 0.7500" in line and "images/s" in line for line in lines)
    assert "penalty 0.1000" in lines[-1] and "validation loss 0.5500" in lines[-1]


def test_nothing_is_shown_unless_wanted(clock, capsys):
    with progress.Display(False) as display:
        clock(100)
        display.step(1, 2, "Decoding")
        clock(100)
        display.step(2, 2, "Decoding")
        display.say("words")
    assert capsys.readouterr().err == ""


def test_what_is_rated_shows_how_many_are_done_in_a_second(clock, capsys):
    with progress.Display() as display:
        for done in range(1, 41):
            clock(0.5)
            display.step(3 * done, 120, "Features", rated="images")
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "Features: 120 of 120, 6 images/s"
