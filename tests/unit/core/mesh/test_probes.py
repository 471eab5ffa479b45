"""One item that a peer is asked to show, of a log of which it has another history."""

import pytest

from overlay.core.limits import REPLICATION_ANSWER_WITHIN
from overlay.core.mesh.reconcile import HeadsDiffer, ItemShown
from overlay.core.mesh.replication_frames import Want, open_want
from overlay.registry import FrameType
from tests.unit.core.mesh.mesh_kit import LOG, Ours, item, node

ALICE, BOB = node("alice"), node("bob")
OTHER = b"other" + bytes(27)


@pytest.fixture
def ours() -> Ours:
    """A node that knows of bob's other history and asks for its item 2."""
    ours = Ours()
    ours.open(ALICE, BOB)
    ours.write(ALICE, 3)
    assert ours.heads(BOB, 3, ALICE, root=OTHER) == [HeadsDiffer(BOB, LOG, 3)]
    ours.machine.messages_to_send()
    ours.machine.probe(BOB, LOG, 2, ours.now)
    return ours


def test_one_item_is_asked_for(ours: Ours) -> None:
    ((peer, body),) = ours.sent(FrameType.WANT)
    assert (peer, open_want(ours.kind, body)) == (BOB, Want(LOG, 2, 1))


def test_what_is_shown_is_not_stored(ours: Ours) -> None:
    other = item(2, "fork")
    assert ours.items(BOB, 2, other, wanted=2) == [ItemShown(BOB, LOG, 2, other)]
    assert ours.machine.heads[LOG].size == 3
    assert ours.items(BOB, 2, other, wanted=2) == []


def test_an_empty_answer_shows_nothing(ours: Ours) -> None:
    assert ours.items(BOB, 2, wanted=2) == [ItemShown(BOB, LOG, 2, None)]


def test_an_item_of_another_number_shows_nothing(ours: Ours) -> None:
    assert ours.items(BOB, 1, item(1), wanted=2) == [ItemShown(BOB, LOG, 2, None)]


def test_pushed_items_and_those_of_others_are_no_answer(ours: Ours) -> None:
    assert ours.items(BOB, 2, item(2, "fork")) == []
    assert ours.items(ALICE, 2, item(2), wanted=2) == []
    assert ours.items(BOB, 2, item(2), wanted=2) == [ItemShown(BOB, LOG, 2, item(2))]


def test_what_does_not_come_in_time_does_not_come(ours: Ours) -> None:
    assert ours.machine.deadline == ours.now + REPLICATION_ANSWER_WITHIN
    assert ours.wait(REPLICATION_ANSWER_WITHIN - 1) == []
    assert ours.wait(1) == [ItemShown(BOB, LOG, 2, None)]
    assert ours.items(BOB, 2, item(2, "fork"), wanted=2) == []


def test_a_peer_that_goes_shows_nothing(ours: Ours) -> None:
    ours.machine.peer_closed(BOB)
    assert ours.wait(0) == [ItemShown(BOB, LOG, 2, None)]
    ours.machine.probe(BOB, LOG, 1, ours.now)
    assert ours.wait(0) == [ItemShown(BOB, LOG, 1, None)]


def test_over_another_link_it_is_asked_again(ours: Ours) -> None:
    ours.machine.messages_to_send()
    ours.now += REPLICATION_ANSWER_WITHIN - 1
    ours.open(BOB)
    assert [(peer, open_want(ours.kind, body)) for peer, body in ours.sent(FrameType.WANT)] == [(BOB, Want(LOG, 2, 1))]
    assert ours.wait(1) == []
    assert ours.items(BOB, 2, item(2, "fork"), wanted=2) == [ItemShown(BOB, LOG, 2, item(2, "fork"))]
