"""Which of two links to one peer stays: both ends must keep the same one."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from overlay.core.keys import NodeId
from overlay.core.mesh.links import Choice, LinkFacts, Starts, choose, dial_delay
from overlay.registry import Role
from tests.unit.core.authority_kit import NOW

LOW, HIGH = NodeId(bytes(32)), NodeId(b"\xff" * 32)
START, LATER = b"start 1" + bytes(9), b"start 2" + bytes(9)


def link(own: NodeId, opener: NodeId, *, peer_has_link: bool = False) -> LinkFacts:
    """A link as its end `own` sees it."""
    peer = HIGH if own == LOW else LOW
    role = Role.OPENER if own == opener else Role.OTHER
    return LinkFacts(own_id=own, peer_id=peer, role=role, start_id=START, started=NOW, peer_has_link=peer_has_link)


def kept(own: NodeId, first: NodeId, second: NodeId, *, probe_answered: bool = True) -> NodeId:
    """Who opened the link that this end keeps, when it saw them open in this order."""
    choice = choose(link(own, first), link(own, second))
    if choice is Choice.PROBE:
        return first if probe_answered else second
    return second if choice is Choice.KEEP_NEW else first


@pytest.mark.parametrize("order_at_low", [(LOW, HIGH), (HIGH, LOW)])
@pytest.mark.parametrize("order_at_high", [(LOW, HIGH), (HIGH, LOW)])
def test_when_both_dial_at_once_both_keep_the_link_of_the_lower_id(
    order_at_low: tuple[NodeId, NodeId], order_at_high: tuple[NodeId, NodeId]
) -> None:
    assert kept(LOW, *order_at_low) == kept(HIGH, *order_at_high) == LOW


@pytest.mark.parametrize("own", [LOW, HIGH])
def test_a_newcomer_that_says_it_has_no_link_makes_us_probe_the_old_one(own: NodeId) -> None:
    peer = HIGH if own == LOW else LOW
    assert choose(link(own, peer), link(own, peer)) is Choice.PROBE
    assert kept(own, peer, peer, probe_answered=False) == peer


def test_a_peer_that_lost_the_link_we_opened_is_not_sent_away_as_a_duplicate() -> None:
    assert choose(link(LOW, LOW), link(LOW, HIGH)) is Choice.PROBE
    assert choose(link(LOW, LOW), link(LOW, HIGH, peer_has_link=True)) is Choice.KEEP_OLD


def test_a_newcomer_that_knows_of_the_old_link_wants_the_new_one() -> None:
    assert choose(link(LOW, HIGH), link(LOW, HIGH, peer_has_link=True)) is Choice.KEEP_NEW


@pytest.mark.parametrize("own", [LOW, HIGH])
def test_who_dials_again_itself_keeps_the_new_link(own: NodeId) -> None:
    assert choose(link(own, own), link(own, own)) is Choice.KEEP_NEW


@pytest.mark.parametrize("new_opener", [LOW, HIGH])
@pytest.mark.parametrize("old_opener", [LOW, HIGH])
@pytest.mark.parametrize(
    ("seconds", "choice"), [(1, Choice.REPLACE), (0, Choice.REPLACE), (-1, Choice.REFUSE)],
)  # fmt: skip
def test_a_later_start_replaces_an_earlier_one_whoever_dialled(
    old_opener: NodeId, new_opener: NodeId, seconds: int, choice: Choice
) -> None:
    old = link(LOW, old_opener)
    new = replace(link(LOW, new_opener), start_id=LATER, started=NOW + timedelta(seconds=seconds))
    assert choose(old, new) is choice


def test_the_opener_is_who_dialled() -> None:
    assert link(LOW, LOW).opener == link(HIGH, LOW).opener == LOW
    assert link(LOW, HIGH).opener == link(HIGH, HIGH).opener == HIGH


def test_the_higher_id_gives_the_lower_a_start() -> None:
    assert dial_delay(LOW, HIGH) == dial_delay(HIGH, None) == 0.0
    assert dial_delay(HIGH, LOW) == 0.5


# --- one identity that runs twice -----------------------------------------------------------------------------------


def changes(*times: float, pairs: tuple[tuple[bytes, bytes], ...] = ((START, LATER), (LATER, START))) -> list[bool]:
    """Whether each change, taking turns between the starts, was an alarm."""
    starts, alarms = Starts(), []
    for index, now in enumerate(times):
        starts, cloned = starts.changed(*pairs[index % len(pairs)], now)
        alarms.append(cloned)
    return alarms


def test_a_restart_is_no_alarm() -> None:
    assert changes(0.0) == [False]


def test_a_third_change_between_the_same_two_starts_is_a_clone() -> None:
    assert changes(0.0, 10.0, 20.0) == [False, False, True]


def test_a_clone_is_told_once_and_not_at_each_change() -> None:
    assert changes(*(10.0 * number for number in range(40))).count(True) == 1


def test_another_pair_of_starts_is_told_again() -> None:
    starts, alarms = Starts(), 0
    for pair in ((START, LATER), (LATER, b"start 3" + bytes(9))):
        for _ in range(5):
            starts, cloned = starts.changed(*pair, 0.0)
            alarms += cloned
    assert alarms == 2


def test_changes_more_than_ten_minutes_apart_do_not_count_together() -> None:
    assert changes(0.0, 300.0, 600.0, 899.0) == [False, False, False, True]


def test_many_restarts_in_a_row_are_no_clone() -> None:
    names = [bytes([number]) * 16 for number in range(30)]
    assert changes(*range(29), pairs=tuple(pairwise(names))) == [False] * 29


def test_no_more_than_sixteen_changes_are_remembered() -> None:
    starts = Starts()
    for number in range(40):
        starts, _ = starts.changed(START, bytes([number]) * 16, 0.0)
    assert len(starts.changes) == 16


def test_the_pairs_that_were_told_are_bounded() -> None:
    starts = Starts()
    for number in range(40):
        for _ in range(3):
            starts, _ = starts.changed(START, bytes([number]) * 16, 0.0)
    assert len(starts.told) == 16
