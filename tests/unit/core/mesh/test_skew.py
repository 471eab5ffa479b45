"""What pings tell about the clocks of others."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.keys import NodeId
from overlay.core.limits import SKEW_PEERS_MAX, SKEW_SAMPLES
from overlay.core.mesh.skew import Sample, Skews, clock_sentence, measure

AT = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def test_a_pong_in_the_middle_of_its_round_trip_tells_the_difference() -> None:
    assert measure(10.0, 10.5, 1_000_000, 1_002_250) == Sample(2.0, 0.5)
    assert measure(10.0, 10.0, 1_000_000, 999_000) == Sample(-1.0, 0.0)


def test_a_time_a_hundred_years_away_is_no_sample() -> None:
    assert measure(0.0, 0.1, 1_000_000, 2**64 - 1) is None
    skews = Skews()
    skews.heard(node(1), measure(0.0, 0.1, 1_000_000, 2**64 - 1))
    assert (skews.peers, skews.median) == (0, None)


@given(st.floats(0, 1e6), st.floats(-10, 1e6), st.integers(0, 2**64), st.integers(0, 2**64))
def test_no_time_raises_and_every_sentence_can_be_said(sent: float, received: float, own: int, peer: int) -> None:
    skews = Skews()
    skews.heard(node(1), measure(sent, received, own, peer))
    assert clock_sentence(AT, skews).startswith("this machine's clock says 2026-05-01T12:00:00Z")


def test_the_shortest_round_trip_of_the_last_eight_counts() -> None:
    skews = Skews()
    skews.heard(node(1), Sample(1.0, 0.001))
    for _ in range(SKEW_SAMPLES - 1):
        skews.heard(node(1), Sample(9.0, 0.5))
    assert skews.of(node(1)) == Sample(1.0, 0.001)
    skews.heard(node(1), Sample(9.0, 0.4))
    assert skews.of(node(1)) == Sample(9.0, 0.4)


def test_one_liar_among_three_moves_the_median_little() -> None:
    skews = Skews()
    for number, ahead in enumerate((0.1, 0.2, 1e9)):
        skews.heard(node(number), Sample(ahead, 0.01))
    assert skews.median == pytest.approx(0.2)


def test_a_peer_that_is_gone_is_forgotten() -> None:
    skews = Skews()
    skews.heard(node(1), Sample(1.0, 0.1))
    skews.forget(node(1))
    skews.forget(node(2))
    assert (skews.of(node(1)), skews.median) == (None, None)


def test_only_so_many_peers_are_remembered() -> None:
    skews = Skews()
    for number in range(SKEW_PEERS_MAX + 1):
        skews.heard(node(number), Sample(1.0, 0.1))
    assert skews.peers == SKEW_PEERS_MAX
    assert skews.of(node(0)) is None


def test_the_sentence_shows_both_times() -> None:
    skews = Skews()
    assert clock_sentence(AT, skews) == "this machine's clock says 2026-05-01T12:00:00Z; no peer has told its time"
    skews.heard(node(1), Sample(7200.0, 0.1))
    assert clock_sentence(AT, skews) == "this machine's clock says 2026-05-01T12:00:00Z, 1 peer says 2026-05-01T14:00:00Z"
    skews.heard(node(2), Sample(7260.0, 0.1))
    skews.heard(node(3), Sample(-5.0, 0.1))
    assert clock_sentence(AT, skews) == (
        "this machine's clock says 2026-05-01T12:00:00Z, 3 peers say 2026-05-01T14:00:00Z, the middle one"
    )
