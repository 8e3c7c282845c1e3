"""The settings of a fit: what is refused, and what of them a run writes down."""

from __future__ import annotations

import pytest

from photoflux.errors import SettingError
from photoflux.model.settings import SCHEDULES, Settings, seconds_of, settings_of
from photoflux.model.variants import variant


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h1m1s", 3661),
        ("0.5h", 1800),
        (" 90 ", 90),
        ("1.5", 1.5),
        (90, 90),
        (0.25, 0.25),
        (None, None),
    ],
)
def test_a_time_budget_in_seconds(given: float | str | None, seconds: float | None):
    assert seconds_of(given) == seconds


@pytest.mark.parametrize("given", ["", "soon", "30 minutes", "m30", "30m2h", "-1", "0s", 0, -3, True, float("nan"), []])
def test_what_is_no_time_is_refused(given: object):
    with pytest.raises(SettingError, match=r"`max_time` must be a time above 0, .*'1h30m'; received: "):
        seconds_of(given)  # type: ignore[arg-type]


def test_what_is_as_it_was_before_is_not_written():
    plain = Settings(3, 32, 0.001)
    assert list(plain.as_dict()) == ["epochs", "batch_size", "learning_rate", "seed", "balance"]
    later = Settings(3, 32, 0.001, on_nonfinite="halve", schedule="cosine")
    assert later.as_dict() == plain.as_dict() | {"on_nonfinite": "halve", "schedule": "cosine"}


def test_a_schedule_has_one_of_the_names():
    chosen = variant("l2")
    for name in SCHEDULES:
        assert settings_of(chosen, None, None, None, 1, None, schedule=name).schedule == name
    for name in ("cosin", "own"):
        with pytest.raises(SettingError, match="`schedule` must be one of constant, step, cosine, one_cycle"):
            settings_of(chosen, None, None, None, 1, None, schedule=name)
