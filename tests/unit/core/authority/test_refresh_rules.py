"""Who begins a refresh that nobody has ordered, when, and who takes part."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.authority.refresh_rules import (
    RefreshRules,
    pack_answer,
    pack_wanted,
    unpack_answer,
    unpack_wanted,
)
from overlay.core.authority.upkeep_record import UpkeepRecord
from overlay.core.keys import NodeId
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import DAY, NOW

RULES = RefreshRules(7 * DAY)
ROOT = b"r" * 32
RECORD = UpkeepRecord().with_share(ROOT, 3, NOW)
ONE, TWO, THREE = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))


def refusal(record: UpkeepRecord, after: timedelta, *, root: bytes = ROOT, generation: int = 3, wanted: int = 3) -> Reason:
    with pytest.raises(Refused) as refused:
        RULES.check(record, root, generation, wanted, NOW + after)
    return refused.value.reason


def test_a_refresh_that_is_due_needs_no_order() -> None:
    for days in (6, 7, 70):
        RULES.check(RECORD, ROOT, 3, 3, NOW + days * DAY)


def test_a_refresh_before_its_time_needs_an_order() -> None:
    assert refusal(RECORD, 6 * DAY - timedelta(seconds=1)) is Reason.NOT_ALLOWED
    assert refusal(RECORD, -DAY) is Reason.NOT_ALLOWED


def test_whoever_was_given_its_share_back_does_not_hold_up_the_others() -> None:
    RULES.check(replace(RECORD, repaired=True), ROOT, 3, 3, NOW + DAY)


def test_a_refresh_of_another_generation_is_refused() -> None:
    assert refusal(RECORD, 7 * DAY, wanted=2) is Reason.WRONG_GENERATION


def test_a_share_that_has_just_come_is_not_refreshed() -> None:
    assert refusal(RECORD, 7 * DAY, generation=4, wanted=4) is Reason.NOT_ALLOWED
    assert refusal(RECORD, 7 * DAY, root=b"s" * 32) is Reason.NOT_ALLOWED


def test_the_lowest_that_is_there_begins_and_each_next_one_a_turn_later() -> None:
    turn = timedelta(minutes=10)
    assert [RULES.begins_at(RECORD, one, (THREE, ONE, TWO)) - NOW for one in (ONE, TWO, THREE)] == [
        7 * DAY, 7 * DAY + turn, 7 * DAY + 2 * turn
    ]
    assert RULES.begins_at(RECORD, THREE, (TWO, THREE)) - NOW == 7 * DAY + turn


def test_all_are_waited_for_and_after_a_second_time_all_but_one_are_enough() -> None:
    assert RULES.enough(RECORD, 5, 3, NOW + 8 * DAY) == 5
    assert RULES.enough(RECORD, 5, 3, NOW + 14 * DAY) == 4
    assert RULES.enough(RECORD, 3, 3, NOW + 14 * DAY) == 3


@pytest.mark.parametrize("not_yet", [Reason.BUSY, Reason.NOT_ALLOWED])
def test_who_says_not_yet_is_waited_for_until_a_third_time_is_over(not_yet: Reason) -> None:
    def may_lead(days: int, *answers: Reason | None) -> bool:
        return RULES.may_lead(RECORD, answers, 5, 3, NOW + days * DAY)

    assert may_lead(8, None, None, None, None)
    assert not may_lead(8, None, None, None)
    assert may_lead(14, None, None, None)
    assert not may_lead(14, None, None, None, not_yet)
    assert may_lead(14, None, None, None, Reason.WRONG_GENERATION)
    assert may_lead(21, None, None, None, not_yet)
    assert not may_lead(21, None, None, not_yet, not_yet)


def test_question_and_answer_go_over_the_wire_and_back() -> None:
    assert unpack_wanted(pack_wanted(7)) == 7
    assert [unpack_answer(pack_answer(one)) for one in (None, Reason.BUSY)] == [None, Reason.BUSY]
    assert unpack_answer(make_map(255)) is Reason.INTERNAL


@given(st.binary(max_size=40))
def test_any_bytes_are_a_question_or_an_answer_or_refused(data: bytes) -> None:
    for read in (unpack_wanted, unpack_answer):
        try:
            read(data)
        except Refused:
            continue
