"""Quotas before OPEN: strangers, holders of the gate key and members' addresses take nothing from each other."""

import math
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.limits import (
    CROWDED,
    CROWDED_PATIENCE,
    HALF_OPEN_MAX,
    HALF_OPEN_PER_ADDRESS,
    HANDSHAKE_TIMEOUT,
    LOAD_ADDRESSES_MAX,
    MEMBER_KNOWN_FOR,
)
from overlay.core.mesh.load import Decision, Load, Rate, network_of, remember

MEMBER, OTHER = "192.0.2.1", "198.51.100.7"


def enter_and_leave(load: Load, host: str, now: float, *, gated: bool) -> bool:
    """One connection that ends at once; whether it was let in."""
    place = load.enter(host, now, gated=gated).place
    if place is not None:
        load.closed(place)
    return place is not None


def let_in(load: Load, host: str, tries: int, now: float, *, gated: bool) -> int:
    return sum(enter_and_leave(load, host, now, gated=gated) for _ in range(tries))


def test_a_rate_gives_its_burst_at_once_and_then_so_many_a_second() -> None:
    rate, due, taken = Rate(20, 5), -math.inf, 0
    for tenth_of_a_millisecond in range(10_000):
        now = tenth_of_a_millisecond / 10_000
        if rate.allows(due, now):
            due, taken = rate.after(due, now), taken + 1
        if tenth_of_a_millisecond == 0:
            assert taken == 1
    assert 24 <= taken <= 25


def test_a_stranger_gets_five_handshakes_at_once_and_twenty_a_second() -> None:
    load = Load()
    assert let_in(load, OTHER, 100, 0.0, gated=False) == 5
    assert load.turned_away == 95
    assert sum(enter_and_leave(load, OTHER, hundredth / 100, gated=False) for hundredth in range(1, 101)) == 20


def test_a_stranger_who_was_quiet_has_its_burst_again() -> None:
    load = Load()
    let_in(load, OTHER, 100, 0.0, gated=False)
    assert let_in(load, OTHER, 100, 10.0, gated=False) == 5


def test_strangers_have_one_rate_in_all() -> None:
    load = Load()
    assert sum(enter_and_leave(load, f"10.0.{n >> 8}.{n & 255}", 0.0, gated=False) for n in range(1000)) == 5


def test_a_flood_of_strangers_from_the_same_address_does_not_stop_a_member() -> None:
    load = Load()
    let_in(load, MEMBER, 1000, 0.0, gated=False)
    assert enter_and_leave(load, MEMBER, 0.0, gated=True)


def test_a_flood_with_the_gate_key_from_elsewhere_does_not_stop_a_member_at_its_known_address() -> None:
    load = Load()
    load.admitted(MEMBER, 0.0)
    assert sum(enter_and_leave(load, f"10.0.0.{n}", 1.0, gated=True) for n in range(250)) == 10
    assert not enter_and_leave(load, OTHER, 1.0, gated=True)
    assert enter_and_leave(load, MEMBER, 1.0, gated=True)


def test_an_address_is_known_for_ten_minutes_and_without_the_gate_key_not_at_all() -> None:
    load = Load()
    load.admitted(MEMBER, 0.0)
    let_in(load, OTHER, 100, MEMBER_KNOWN_FOR - 1, gated=False)
    assert not enter_and_leave(load, MEMBER, MEMBER_KNOWN_FOR - 1, gated=False)
    for at, found in ((MEMBER_KNOWN_FOR - 1, True), (MEMBER_KNOWN_FOR, False)):
        for number in range(250):
            enter_and_leave(load, f"10.0.0.{number}", at, gated=True)
        assert enter_and_leave(load, MEMBER, at, gated=True) is found


def test_the_gate_key_gives_no_more_than_its_own_rate() -> None:
    load = Load()
    assert let_in(load, OTHER, 100, 0.0, gated=True) == 10
    load.admitted(MEMBER, 0.0)
    assert let_in(load, MEMBER, 100, 0.0, gated=True) == 10


def test_whoever_was_refused_for_its_address_takes_nothing_from_the_others() -> None:
    load = Load()
    assert let_in(load, OTHER, 1000, 0.0, gated=True) == 10
    assert not enter_and_leave(load, MEMBER, 0.0, gated=True)  # the rate in all
    assert enter_and_leave(load, MEMBER, 0.03, gated=True)
    assert not enter_and_leave(load, OTHER, 0.04, gated=True)
    assert enter_and_leave(load, MEMBER, 0.05, gated=True)


def silent(load: Load, host: str, now: float = 0.0) -> int:
    place = load.accept(host, now).place
    assert place is not None
    return place


def test_the_oldest_silent_one_of_an_address_gives_way_to_the_ninth() -> None:
    load = Load()
    first, *_ = [silent(load, OTHER) for _ in range(HALF_OPEN_PER_ADDRESS)]
    alone = silent(load, MEMBER)
    decision = load.accept(OTHER, 0.0)
    assert decision.evicted == (first,)
    assert alone not in decision.evicted
    assert (load.silent, load.turned_away) == (HALF_OPEN_PER_ADDRESS + 1, 1)


def test_where_all_silent_places_are_taken_the_address_with_the_most_gives_one() -> None:
    load = Load()
    lonely = [silent(load, f"10.0.0.{n}") for n in range(HALF_OPEN_MAX - 2)]
    pair = [silent(load, OTHER), silent(load, OTHER)]
    assert load.accept(MEMBER, 0.0).evicted == (pair[0],)
    assert load.accept("10.1.0.1", 0.0).evicted == (lonely[0],)
    assert load.silent == HALF_OPEN_MAX


def test_silent_ones_take_no_place_of_those_who_show_the_gate_key() -> None:
    load = Load()
    for number in range(1000):
        silent(load, f"10.0.{number >> 8}.{number & 255}")
    assert load.enter(MEMBER, 0.0, gated=True) == Decision(1001)


def half_open(load: Load, host: str, now: float) -> Decision:
    return load.enter(host, now, gated=True)


def test_the_oldest_half_open_one_of_an_address_gives_way_unless_its_certificate_has_verified() -> None:
    load = Load()
    places = [half_open(load, OTHER, n).place for n in range(HALF_OPEN_PER_ADDRESS)]
    assert None not in places
    load.progressed(places[0] or 0)
    assert half_open(load, OTHER, 100.0).evicted == (places[1],)


def test_whoever_is_proven_gives_way_to_nobody() -> None:
    load = Load()
    for number in range(HALF_OPEN_PER_ADDRESS):
        load.progressed(half_open(load, OTHER, number).place or 0)
    assert half_open(load, OTHER, 100.0) == Decision(None)
    assert half_open(load, MEMBER, 100.0).place is not None
    others = [f"10.0.0.{n}" for n in range(HALF_OPEN_MAX - HALF_OPEN_PER_ADDRESS - 1)]
    for at, host in enumerate(others):
        load.progressed(half_open(load, host, 200.0 + at).place or 0)
    assert load.half_open == HALF_OPEN_MAX
    assert half_open(load, "10.9.9.9", 500.0).evicted == (9,)  # the member above, who is not proven yet
    load.progressed(half_open(load, "10.9.9.8", 501.0).place or 0)
    assert half_open(load, "10.9.9.7", 502.0) == Decision(None)


def test_a_place_that_was_given_back_is_free() -> None:
    load = Load()
    for at in range(HALF_OPEN_PER_ADDRESS * 3):
        decision = half_open(load, OTHER, at)
        assert decision.evicted == ()
        load.closed(decision.place or 0)
    assert load.half_open == 0


def test_a_silent_one_has_five_seconds_and_one_in_a_crowd() -> None:
    load = Load()
    first = silent(load, OTHER, 1.0)
    assert load.deadline == 1.0 + HANDSHAKE_TIMEOUT
    assert load.tick(1.0 + HANDSHAKE_TIMEOUT - 0.1) == ()
    crowd = [silent(load, f"10.0.0.{n}", 2.0) for n in range(CROWDED)]
    assert load.deadline == 1.0 + CROWDED_PATIENCE
    assert load.tick(2.5) == (first,)
    assert load.deadline == 2.0 + HANDSHAKE_TIMEOUT
    assert load.tick(2.0 + HANDSHAKE_TIMEOUT) == tuple(crowd)
    assert load.deadline == math.inf
    assert load.turned_away == CROWDED + 1


def test_who_has_spoken_is_silent_no_more() -> None:
    load = Load()
    load.closed(silent(load, OTHER))
    assert (load.silent, load.tick(100.0), load.deadline) == (0, (), math.inf)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:c000:201", "192.0.2.1", True),
        ("2001:db8:0:1::5", "2001:db8:0:1:ffff::9", True),
        ("2001:db8:0:1::5", "2001:db8:0:2::5", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("fe80::1%eth0", "fe80::1%eth1", False),
        ("::1", "127.0.0.1", False),
        ("not:an:address", "not:an:address", True),
    ],
)
def test_addresses_count_as_one_network_or_two(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


def test_an_attacker_with_many_addresses_in_one_network_is_one_attacker() -> None:
    load = Load()
    assert sum(half_open(load, f"2001:db8::{n:x}", 0.0).place is not None for n in range(100)) == 10


def test_only_so_many_addresses_are_remembered_the_last_ones() -> None:
    table: dict[str, float] = {}
    for number in range(LOAD_ADDRESSES_MAX + 10):
        remember(table, str(number), number)
        remember(table, "0", 0.0)
    assert len(table) == LOAD_ADDRESSES_MAX
    assert "0" in table
    assert "1" not in table


HOSTS = st.sampled_from([f"10.0.0.{n}" for n in range(12)] + ["2001:db8::1", "::ffff:10.0.0.1"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["accept", "enter", "progressed", "admitted", "closed", "tick"]), HOSTS, st.booleans(),
              st.floats(0, 0.5), st.integers(0, 200)),
    max_size=200,
)


@given(STEPS)
def test_whatever_happens_places_are_bounded_and_numbers_never_come_again(
    steps: list[tuple[str, str, bool, float, int]]
) -> None:
    load, now, given_out = Load(), 0.0, set[int]()
    for what, host, gated, later, number in steps:
        now += later
        decision = Decision(None)
        match what:
            case "accept":
                decision = load.accept(host, now)
                assert decision.place is not None
            case "enter":
                decision = load.enter(host, now, gated=gated)
            case "progressed":
                load.progressed(number)
            case "admitted":
                load.admitted(host, now)
            case "closed":
                load.closed(number)
            case _:
                assert set(load.tick(now)) <= given_out
                assert load.deadline > now
        assert decision.place not in given_out
        assert set(decision.evicted) <= given_out
        given_out |= {decision.place} - {None} if decision.place is not None else set()
        assert load.silent <= HALF_OPEN_MAX
        assert load.half_open <= HALF_OPEN_MAX


def test_a_member_gets_in_within_seconds_while_its_address_floods_with_the_gate_key() -> None:
    """A hundred holders of the gate key a second at the member's own address, and it tries twice a second."""
    load = Load()
    load.admitted(MEMBER, 0.0)
    tries = count()
    for thousandth in range(10_000):
        now = thousandth / 1000
        if thousandth % 10 == 0:
            enter_and_leave(load, MEMBER, now, gated=True)
        if thousandth % 497 == 3:
            next(tries)
            if enter_and_leave(load, MEMBER, now, gated=True):
                break
    assert next(tries) <= 10
