"""Who holds a copy of what we hold: a peer says so by the root of a size that we have been at, and by nothing else."""

import pytest

from overlay.core.mesh import reconcile
from overlay.core.mesh.reconcile import HeadsDiffer, PeerAgrees
from tests.unit.core.mesh.mesh_kit import LOG, Ours, item, node

ALICE, BOB = node("alice"), node("bob")
OTHER = b"other" + bytes(27)


@pytest.fixture
def ours() -> Ours:
    """Alice herself, linked to bob, with three items of her log."""
    ours = Ours(name=ALICE)
    ours.open(BOB)
    ours.write(ALICE, 3)
    return ours


def test_a_peer_that_shows_our_root_holds_a_copy(ours: Ours) -> None:
    assert ours.machine.agreed(BOB, LOG) == 0
    assert ours.heads(BOB, 3, ALICE) == [PeerAgrees(BOB, LOG, 3)]
    assert ours.machine.agreed(BOB, LOG) == 3
    assert not ours.machine.differs(BOB, LOG)


def test_a_peer_may_be_behind_and_still_hold_a_copy_of_what_it_has(ours: Ours) -> None:
    ours.write(ALICE, 2)
    ours.write(ALICE, 4)
    assert ours.heads(BOB, 5, ALICE) == [PeerAgrees(BOB, LOG, 5)]
    assert ours.heads(BOB, 9, ALICE) == [PeerAgrees(BOB, LOG, 9)]


def test_a_larger_size_of_a_peer_says_nothing(ours: Ours) -> None:
    ours.heads(BOB, 7, ALICE)
    assert ours.machine.agreed(BOB, LOG) == 0


def test_a_size_at_which_we_never_were_says_nothing(ours: Ours) -> None:
    ours.write(ALICE, 2)
    assert ours.heads(BOB, 4, ALICE) == []
    assert ours.machine.agreed(BOB, LOG) == 0


def test_another_root_for_a_size_at_which_we_were_is_another_history(ours: Ours) -> None:
    ours.write(ALICE, 2)
    assert ours.heads(BOB, 3, ALICE, root=OTHER) == [HeadsDiffer(BOB, LOG, 3)]
    assert ours.machine.differs(BOB, LOG)
    assert ours.machine.agreed(BOB, LOG) == 0


def test_a_peer_that_was_ahead_agrees_when_we_are_there() -> None:
    ours = Ours()
    ours.open(BOB)
    ours.heads(BOB, 2, ALICE)
    ours.store(ours.items(BOB, 0, item(0), item(1), wanted=0))
    assert ours.machine.deadline <= ours.now
    assert ours.wait(0) == [PeerAgrees(BOB, LOG, 2)]


def test_what_was_held_before_the_histories_parted_stays_held(ours: Ours) -> None:
    ours.heads(BOB, 3, ALICE)
    ours.write(ALICE, 1)
    assert ours.heads(BOB, 4, ALICE, root=OTHER) == [HeadsDiffer(BOB, LOG, 4)]
    assert (ours.machine.agreed(BOB, LOG), ours.machine.differs(BOB, LOG)) == (3, True)


def test_a_peer_that_has_gone_holds_nothing_that_we_know_of(ours: Ours) -> None:
    ours.heads(BOB, 3, ALICE)
    ours.machine.peer_closed(BOB)
    assert (ours.machine.agreed(BOB, LOG), ours.machine.differs(BOB, LOG)) == (0, False)


def test_another_link_to_the_same_peer_changes_nothing(ours: Ours) -> None:
    ours.heads(BOB, 3, ALICE)
    ours.open(BOB)
    assert ours.machine.agreed(BOB, LOG) == 3


def test_the_roots_that_we_remember_are_bounded(ours: Ours) -> None:
    for _ in range(reconcile.ROOTS_MAX):
        ours.write(ALICE, 1)
    assert ours.heads(BOB, 3, ALICE) == []
    assert ours.heads(BOB, 4, ALICE) == [PeerAgrees(BOB, LOG, 4)]
