"""Alarms: at half and at three quarters of a life, each told once."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.alarms import Alarm, Lifelong, Mortal, Stage, alarms, next_alarm, stage_of
from overlay.core.certificate_profile import Life
from tests.unit.core.authority_kit import DAY, NOW

LIFE = Life.between(NOW, NOW + 100 * DAY)
ROOT = Mortal(Lifelong.ROOT, "root 3", LIFE)
TOKEN = Mortal(Lifelong.TOKEN, "for bob", Life.between(NOW, NOW + 8 * DAY))
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("days", "stage"),
    [(-1, Stage.FRESH), (0, Stage.FRESH), (50, Stage.HALF), (75, Stage.LATE), (100, Stage.ENDED), (101, Stage.ENDED)],
)
def test_a_stage_begins_at_its_share_of_the_life(days: int, stage: Stage) -> None:
    assert stage_of(LIFE, NOW + days * DAY) is stage
    if days in (50, 75, 100):
        assert stage_of(LIFE, NOW + days * DAY - SECOND) < stage


def test_an_alarm_is_given_once_for_each_stage() -> None:
    half, late = NOW + 50 * DAY, NOW + 75 * DAY
    assert alarms([ROOT], half - SECOND, half) == (Alarm(ROOT, Stage.HALF),)
    assert alarms([ROOT], half, half + DAY) == ()
    assert alarms([ROOT], half, late) == (Alarm(ROOT, Stage.LATE),)


def test_after_a_start_all_that_is_late_is_told_and_what_is_fresh_is_not() -> None:
    assert alarms([ROOT, TOKEN], None, NOW + 6 * DAY) == (Alarm(TOKEN, Stage.LATE),)
    assert alarms([ROOT, TOKEN], None, NOW + 90 * DAY) == (Alarm(ROOT, Stage.LATE), Alarm(TOKEN, Stage.ENDED))


def test_the_next_look_is_when_the_first_of_them_reaches_a_stage() -> None:
    assert next_alarm([ROOT, TOKEN], NOW) == NOW + 4 * DAY
    assert next_alarm([ROOT, TOKEN], NOW + 8 * DAY) == NOW + 50 * DAY
    assert next_alarm([ROOT], NOW + 100 * DAY) is None
    assert next_alarm([], NOW) is None


@given(st.lists(st.integers(0, 120 * 86_400), min_size=2, max_size=9))
def test_however_often_one_looks_each_stage_is_told_at_most_once_and_the_last_one_always(seconds: list[int]) -> None:
    times = [NOW + timedelta(seconds=value) for value in sorted(seconds)]
    told = [alarm.stage for since, at in zip([None, *times], times, strict=False) for alarm in alarms([ROOT], since, at)]
    assert told == sorted(set(told))
    assert (told or [Stage.FRESH])[-1] is stage_of(LIFE, times[-1])
