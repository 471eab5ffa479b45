"""Tests of overlay/core/liveness.py: when to ask for a sign of life, when a peer is dead, what a pong tells."""

import pytest

from overlay.core.limits import PING_AFTER
from overlay.core.liveness import Liveness, Pong
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import Reason

BEGAN = 1000.0
WALL = 1_700_000_000_000  # milliseconds


def dead(live: Liveness, now: float) -> str:
    """Why the peer is given up now."""
    with pytest.raises(Refused) as caught:
        live.tick(now)
    assert caught.value.reason is Reason.DEAD
    return caught.value.detail


# --- when to ask ------------------------------------------------------------------------------------------------------


def test_a_ping_is_due_after_fifteen_idle_seconds_and_not_before() -> None:
    live = Liveness(BEGAN)
    assert live.deadline == BEGAN + PING_AFTER
    assert not live.tick(BEGAN + PING_AFTER - 0.001)
    assert live.tick(BEGAN + PING_AFTER)


def test_three_pings_are_sent_and_then_the_peer_is_dead() -> None:
    live = Liveness(BEGAN)
    for count in (1, 2, 3):
        assert live.deadline == BEGAN + count * PING_AFTER
        assert live.tick(live.deadline)
        assert not live.tick(live.deadline - 0.001)
    assert live.deadline == BEGAN + 4 * PING_AFTER
    assert "3 pings" in dead(live, live.deadline)


def test_one_record_is_a_sign_of_life_however_many_pings_were_missed() -> None:
    live = Liveness(BEGAN)
    for _ in range(3):
        assert live.tick(live.deadline)
    live.heard(BEGAN + 50)
    assert live.deadline == BEGAN + 50 + PING_AFTER
    for _ in range(3):
        assert live.tick(live.deadline)
    dead(live, live.deadline)


def test_a_ping_that_is_late_counts_from_when_it_was_sent() -> None:
    """A process that stood still does not send three at once, and then call the peer dead."""
    live = Liveness(BEGAN)
    assert live.tick(BEGAN + 500)
    assert not live.tick(BEGAN + 500)
    assert live.deadline == BEGAN + 500 + PING_AFTER


# --- a probe ----------------------------------------------------------------------------------------------------------


def test_a_probe_without_a_sign_of_life_is_death() -> None:
    live = Liveness(BEGAN)
    live.probe(BEGAN, 2.0)
    assert live.deadline == BEGAN + 2
    assert not live.tick(BEGAN + 1.999)
    assert "when asked" in dead(live, BEGAN + 2)


def test_a_probe_is_answered_by_any_record() -> None:
    live = Liveness(BEGAN)
    live.probe(BEGAN, 2.0)
    live.heard(BEGAN + 1.5)
    assert live.deadline == BEGAN + 1.5 + PING_AFTER
    assert not live.tick(BEGAN + 2)


def test_a_probe_does_not_put_off_the_pings() -> None:
    live = Liveness(BEGAN)
    live.probe(BEGAN, 60.0)
    assert live.deadline == BEGAN + PING_AFTER
    assert live.tick(live.deadline)


# --- pings and pongs --------------------------------------------------------------------------------------------------


def test_a_pong_to_the_last_ping_tells_the_round_trip_and_both_clocks() -> None:
    live, peer = Liveness(BEGAN), Liveness(BEGAN)
    answer = peer.on_ping(live.ping(BEGAN + 1, WALL), WALL + 70_000)
    pong = live.on_pong(answer, BEGAN + 1.25)
    assert pong == Pong(sent=BEGAN + 1, received=BEGAN + 1.25, own_wall=WALL, peer_wall=WALL + 70_000)
    assert pong.round_trip == 0.25


def test_pings_are_numbered_from_one() -> None:
    live = Liveness(BEGAN)
    assert [live.ping(BEGAN, WALL), live.ping(BEGAN, WALL + 1)] == [make_map(1, WALL), make_map(2, WALL + 1)]


def test_a_pong_comes_once() -> None:
    live = Liveness(BEGAN)
    answer = live.on_ping(live.ping(BEGAN, WALL), WALL)
    assert live.on_pong(answer, BEGAN + 1) is not None
    assert live.on_pong(answer, BEGAN + 2) is None


@pytest.mark.parametrize("number", [0, 1, 3, 2**64 - 1])
def test_a_pong_to_another_ping_than_the_last_one_tells_nothing(number: int) -> None:
    live = Liveness(BEGAN)
    live.ping(BEGAN, WALL)
    live.ping(BEGAN + 15, WALL)
    assert live.on_pong(make_map(number, WALL), BEGAN + 16) is None
    assert live.on_pong(make_map(2, WALL), BEGAN + 17) is not None


def test_a_pong_that_nobody_asked_for_tells_nothing() -> None:
    assert Liveness(BEGAN).on_pong(make_map(0, WALL), BEGAN) is None


@pytest.mark.parametrize("body", [b"", b"\xff", make_map(1), make_map(1, 2, 3), make_map(1, b"2"), make_map(b"1", 2)])
def test_a_ping_or_pong_of_another_form_is_refused(body: bytes) -> None:
    live = Liveness(BEGAN)
    live.ping(BEGAN, WALL)
    for read in (lambda: live.on_ping(body, WALL), lambda: live.on_pong(body, BEGAN)):
        with pytest.raises(Refused) as caught:
            read()
        assert caught.value.reason is Reason.MALFORMED


def test_a_ping_longer_than_it_can_be_is_refused_before_it_is_read() -> None:
    with pytest.raises(Refused) as caught:
        Liveness(BEGAN).on_ping(bytes(65), WALL)
    assert caught.value.reason is Reason.TOO_LARGE
