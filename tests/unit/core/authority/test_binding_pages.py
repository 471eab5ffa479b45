"""Bindings told page by page: nothing is lost, nothing is too large, and no liar goes on for ever or in circles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.authority import binding_pages as module
from overlay.core.authority.binding_pages import PAGE_MAX, PAGE_ROWS, ROWS_MAX, Reading, page_after
from overlay.core.authority.bindings import KEY_MAX, Binding, Bindings, Bound
from overlay.core.authority.request_kinds import TIME_MAX
from overlay.core.limits import MESSAGE_MAX
from overlay.core.wire import make_map, u64
from overlay.errors import Refused
from overlay.registry import Reason

VALUE = bytes(32)


def bindings(count: int) -> Bindings:
    kinds = (Bound.RENEWED, Bound.SERIAL, Bound.NAME)
    return Bindings().adding(Binding(kinds[number % 3], u64(number), VALUE, number) for number in range(count))


def told(held: Bindings) -> Reading:
    reading = Reading()
    while not reading.is_complete:
        reading = reading.with_page(page_after(held, reading.asks))
    return reading


def refusal(page: bytes, to: Reading = Reading()) -> Reason:  # noqa: B008 - immutable
    with pytest.raises(Refused) as refused:
        to.with_page(page)
    return refused.value.reason


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 13, 14, 15, 50])
def test_all_rows_come_however_many_there_are(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_ROWS", 7)
    assert told(bindings(count)).bindings == bindings(count)


def test_more_than_a_message_holds_comes_in_pages_that_a_message_holds() -> None:
    held = bindings(3 * PAGE_ROWS)
    assert len(held.pack()) < len(told(held).bindings.pack()) + 1
    assert told(held).bindings == held


def test_the_longest_rows_fit_into_a_page() -> None:
    rows = [Binding(Bound.ROSTER, u64(number) + bytes(KEY_MAX - 8), VALUE, TIME_MAX) for number in range(PAGE_ROWS + 1)]
    page = page_after(Bindings().adding(rows), Reading().asks)
    assert len(page) <= PAGE_MAX < MESSAGE_MAX
    assert len(Reading().with_page(page).rows) == PAGE_ROWS


def test_what_is_bound_between_two_pages_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_ROWS", 7)
    held = bindings(20)
    reading = Reading().with_page(page_after(held, Reading().asks))
    held = held.adding([Binding(Bound.NAME, u64(1), VALUE), Binding(Bound.RENEWED, u64(99), VALUE)])
    while not reading.is_complete:
        reading = reading.with_page(page_after(held, reading.asks))
    assert set(bindings(20).after(0, b"")) <= set(reading.rows)


def row(number: int) -> list[object]:
    return [1, u64(number), VALUE, 0]


@pytest.mark.parametrize("rows", [[row(2), row(1)], [row(1), row(1)], [[2, b"a", VALUE, 0], row(1)], [[77, b"a", VALUE, 0]]])
def test_rows_that_do_not_rise_are_refused(rows: list[object]) -> None:
    assert refusal(make_map(rows, False)) is Reason.MALFORMED


def test_a_page_that_begins_before_the_last_one_ended_is_refused() -> None:
    first = Reading().with_page(make_map([row(1), row(2)], False))
    assert refusal(make_map([row(2)], False), first) is Reason.MALFORMED


def test_a_page_with_room_that_says_there_is_more_is_refused() -> None:
    assert refusal(make_map([row(1)], True)) is Reason.MALFORMED
    assert refusal(make_map([], True)) is Reason.MALFORMED


def test_a_signer_that_tells_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_ROWS", 7)
    monkeypatch.setattr(module, "ROWS_MAX", 20)
    reading = Reading()
    for number in range(2):
        reading = reading.with_page(make_map([row(7 * number + one) for one in range(7)], True))
    assert refusal(make_map([row(50 + one) for one in range(7)], True), reading) is Reason.TOO_LARGE
    assert ROWS_MAX > 500_000


@given(st.binary(max_size=100))
def test_any_bytes_are_no_page_and_no_question(data: bytes) -> None:
    assert isinstance(refusal(data), Reason)
    with pytest.raises(Refused):
        page_after(Bindings(), data)
