"""The clock floor never falls."""

from datetime import timedelta, timezone

import pytest

from overlay.core.endorsement import TIME_MAX
from overlay.core.wire import make_map
from overlay.errors import StateDamaged
from overlay.net.system import calendar
from overlay.store.clock import load_floor, raise_floor
from overlay.store.state import CLOCK_FLOOR, StateFolder
from tests.unit.core.authority_kit import DAY, HOUR, NOW


def test_there_is_no_floor_at_first(folder: StateFolder) -> None:
    assert load_floor(folder) is None


def test_a_floor_rises_and_is_kept(folder: StateFolder) -> None:
    assert raise_floor(folder, NOW) == NOW
    assert raise_floor(folder, NOW + HOUR) == NOW + HOUR
    assert load_floor(folder) == NOW + HOUR


def test_a_floor_never_falls(folder: StateFolder) -> None:
    raise_floor(folder, NOW)
    before = folder.file(CLOCK_FLOOR).stat().st_ino
    assert raise_floor(folder, NOW - DAY) == NOW
    assert raise_floor(folder, NOW) == NOW
    assert load_floor(folder) == NOW
    assert folder.file(CLOCK_FLOOR).stat().st_ino == before  # not even written


def test_a_floor_is_kept_in_utc_and_whole_seconds(folder: StateFolder) -> None:
    there = NOW.astimezone(timezone(timedelta(hours=5))).replace(microsecond=7)
    assert raise_floor(folder, there) == NOW


def test_validity_is_judged_at_the_wall_clock_but_not_before_the_floor() -> None:
    assert calendar(lambda: None, lambda: NOW)() == NOW
    assert calendar(lambda: NOW - DAY, lambda: NOW)() == NOW
    assert calendar(lambda: NOW, lambda: NOW - DAY)() == NOW


@pytest.mark.parametrize("content", [b"", make_map(b"now"), make_map(TIME_MAX + 1), make_map(1, 2)])
def test_a_floor_of_another_form_is_named_and_left_as_it_is(folder: StateFolder, content: bytes) -> None:
    folder.write(CLOCK_FLOOR, content)
    before = folder.file(CLOCK_FLOOR).read_bytes()
    with pytest.raises(StateDamaged, match=CLOCK_FLOOR):
        load_floor(folder)
    with pytest.raises(StateDamaged, match=CLOCK_FLOOR):
        raise_floor(folder, NOW)
    assert folder.file(CLOCK_FLOOR).read_bytes() == before
