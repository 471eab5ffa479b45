"""A link that takes the place of another one: what was lost on the way is told and asked for again, and nobody pays for it."""

import pytest

from overlay.core.limits import REPLICATION_ANSWER_WITHIN
from overlay.core.mesh.replication_frames import Want, open_heads, open_want
from overlay.registry import FrameType
from tests.unit.core.mesh.mesh_kit import LOG, Ours, head, item, node

ALICE, BOB, CAROL = node("alice"), node("bob"), node("carol")


@pytest.fixture
def ours() -> Ours:
    ours = Ours()
    ours.open(BOB)
    return ours


def wants(ours: Ours) -> list[Want]:
    return [open_want(ours.kind, body) for _, body in ours.sent(FrameType.WANT)]


def test_all_heads_are_told_again(ours: Ours) -> None:
    ours.write(ours.name, 2)
    ours.machine.messages_to_send()
    ours.open(BOB)
    assert [(peer, open_heads(ours.kind, body)) for peer, body in ours.sent(FrameType.HEADS)] == [
        (BOB, {LOG: head(2, ours.name)})
    ]


def test_a_want_that_was_lost_with_its_link_is_said_again_at_once(ours: Ours) -> None:
    ours.heads(BOB, 2, ALICE)
    assert wants(ours) == [Want(LOG, 0, 2)]
    ours.open(BOB)
    ours.wait(0)
    assert wants(ours) == [Want(LOG, 0, 2)]


def test_an_answer_that_was_lost_with_its_link_puts_no_pause_on_the_peer(ours: Ours) -> None:
    ours.heads(BOB, 2, ALICE)
    ours.wait(REPLICATION_ANSWER_WITHIN)
    wants(ours)
    ours.open(BOB)
    ours.wait(0)
    assert wants(ours) == [Want(LOG, 0, 2)]


def test_an_answer_that_comes_twice_puts_no_pause_on_the_peer(ours: Ours) -> None:
    ours.open(CAROL)
    ours.heads(BOB, 2, ALICE)
    ours.store(ours.items(BOB, 0, item(0), item(1), wanted=0))
    ours.heads(BOB, 4, ALICE)
    ours.heads(CAROL, 4, ALICE)
    assert Want(LOG, 2, 2) in wants(ours)
    ours.items(BOB, 0, item(0), item(1), wanted=0)
    assert wants(ours) == []  # bob still owes it, so nobody else is asked


def test_an_answer_of_another_history_is_not_waited_for(ours: Ours) -> None:
    ours.open(CAROL)
    ours.store(ours.items(BOB, 0, item(0), item(1)))
    for peer in (BOB, CAROL):
        ours.heads(peer, 3, BOB)
    assert Want(LOG, 2, 1) in wants(ours)
    ours.items(BOB, 2, item(2, "fork"), wanted=2)
    assert wants(ours) == [Want(LOG, 2, 1)]  # of carol
