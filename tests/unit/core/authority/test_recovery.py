"""Recovery: it waits a day, the old authority can answer, and it ends a fork."""

from datetime import timedelta

import pytest

from overlay.core.authority.contents import ObjectKind
from overlay.core.authority.recovery import RECOVERY_WAIT
from overlay.core.authority.succession import AuthorityChain, Outcome
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority.generations_kit import MESH, Generation, chain_of, founding
from tests.unit.core.authority_kit import HOUR, NOW

ZERO = founding()
ONE = ZERO.rollover("one")
RESCUE = ONE.recovered("rescue")
OTHER_RESCUE = ONE.recovered("other rescue", by=(1, 2))
ANSWER = ONE.reshared("bcd")
RIVAL = ZERO.rollover("rival")
CHAIN = chain_of(ZERO, ONE)
SECOND = timedelta(seconds=1)
DAY_LATER = NOW + RECOVERY_WAIT


def after(chain: AuthorityChain, *generations: Generation) -> tuple[AuthorityChain, Outcome]:
    """The last outcome."""
    what = Outcome.KNOWN
    for generation in generations:
        change = chain.with_object(generation.raw, NOW)
        chain, what = change.chain, change.outcome
    return chain, what


def test_a_recovery_takes_effect_24_hours_after_it_was_first_seen() -> None:
    waiting, what = after(CHAIN, RESCUE)
    assert what is Outcome.RECOVERY_WAITS
    assert (waiting.newest, waiting.newest_root) == (CHAIN.newest, CHAIN.newest_root)
    assert waiting.candidates[0].takes_effect == DAY_LATER
    assert timedelta(hours=24) == RECOVERY_WAIT
    assert waiting.settle(DAY_LATER - SECOND) is waiting
    done = waiting.settle(DAY_LATER)
    assert done.newest.raw == RESCUE.raw
    assert done.newest.kind is ObjectKind.RECOVERY
    assert done.candidates == ()
    assert done.recovered == ((2, DAY_LATER),)


def test_seeing_it_again_does_not_begin_the_wait_anew() -> None:
    waiting, _ = after(CHAIN, RESCUE)
    again = waiting.with_object(RESCUE.raw, NOW + 20 * HOUR)
    assert (again.chain, again.outcome) == (waiting, Outcome.KNOWN)


def test_another_node_cannot_shorten_the_wait() -> None:
    waiting, _ = after(CHAIN, RESCUE)
    told = CHAIN.merged(waiting.to_show, NOW + 23 * HOUR).chain
    assert told.candidates[0].first_seen == NOW + 23 * HOUR
    assert told.settle(DAY_LATER) is told


def test_a_successor_by_the_old_authority_makes_a_recovery_void_and_is_no_fork() -> None:
    for order in ((RESCUE, ANSWER), (ANSWER, RESCUE)):
        chain, what = after(CHAIN, *order)
        assert what in (Outcome.APPENDED, Outcome.VOID)
        assert chain == chain_of(ZERO, ONE, ANSWER)
        assert chain.settle(NOW + 1000 * HOUR) is chain
    assert after(CHAIN, ANSWER, RESCUE)[1] is Outcome.VOID


def test_an_answer_of_the_old_authority_after_the_effect_comes_too_late() -> None:
    done = after(CHAIN, RESCUE)[0].settle(DAY_LATER)
    for late in (ANSWER, OTHER_RESCUE):
        change = done.with_object(late.raw, DAY_LATER)
        assert (change.chain, change.outcome) == (done, Outcome.VOID)


def test_an_answer_that_is_heard_before_the_effect_counts_whatever_the_time() -> None:
    waiting, _ = after(CHAIN, RESCUE)
    assert waiting.with_object(ANSWER.raw, NOW + 100 * HOUR).chain.settle(NOW + 100 * HOUR).newest.raw == ANSWER.raw


def test_two_recoveries_contest_each_other_and_neither_takes_effect() -> None:
    chain, what = after(CHAIN, RESCUE, OTHER_RESCUE)
    assert what is Outcome.RECOVERY_CONTESTED
    assert chain == after(CHAIN, OTHER_RESCUE, RESCUE)[0]
    assert chain.settle(NOW + 1000 * HOUR) is chain
    assert after(chain, ANSWER)[0] == chain_of(ZERO, ONE, ANSWER)


def test_of_three_recoveries_two_are_kept() -> None:
    third = ONE.recovered("third")
    kept = {after(CHAIN, *order)[0] for order in ((RESCUE, OTHER_RESCUE, third), (third, OTHER_RESCUE, RESCUE))}
    assert len(kept) == 1
    assert len(kept.pop().candidates) == 2


def test_the_old_root_counts_for_48_hours_after_the_effect() -> None:
    done = after(CHAIN, RESCUE)[0].settle(DAY_LATER)
    with_old = (RESCUE.contents.root, ONE.contents.root)
    assert done.roots_in_force(DAY_LATER) == (*with_old, MESH.root)
    assert done.roots_in_force(DAY_LATER + 48 * HOUR - SECOND) == with_old
    assert done.roots_in_force(DAY_LATER + 48 * HOUR) == with_old[:1]


def test_the_recovered_authority_goes_on() -> None:
    done = after(CHAIN, RESCUE)[0].settle(DAY_LATER)
    following = RESCUE.rollover("following")
    assert done.with_object(following.raw, DAY_LATER).outcome is Outcome.APPENDED


# --- after a fork ---------------------------------------------------------------------------------------------------

UNFORK = ZERO.recovered("unfork")


def test_a_recovery_takes_the_place_of_both_forked_successors() -> None:
    frozen, _ = after(CHAIN, ANSWER, RIVAL)
    waiting, what = after(frozen, UNFORK)
    assert what is Outcome.RECOVERY_WAITS
    done = waiting.settle(DAY_LATER)
    assert [item.raw for item in done.objects] == [ZERO.raw, UNFORK.raw]
    assert (done.fork, done.recovered) == (None, ((1, DAY_LATER),))
    for late in (ONE, RIVAL):
        assert done.with_object(late.raw, DAY_LATER).outcome is Outcome.VOID
    with pytest.raises(Refused) as caught:
        done.with_object(ANSWER.raw, DAY_LATER)
    assert caught.value.reason is Reason.BAD_AUTHORITY_OBJECT


def test_nodes_that_took_different_successors_meet_again_by_recovery() -> None:
    one, _ = after(CHAIN, ANSWER, RIVAL, UNFORK)
    other, _ = after(chain_of(ZERO, RIVAL), ONE, UNFORK)
    assert one.newest != other.newest
    assert one.settle(DAY_LATER) == other.settle(DAY_LATER)


def test_a_recovery_of_the_end_of_a_frozen_chain_is_void() -> None:
    frozen, _ = after(CHAIN, RIVAL)
    assert after(frozen, RESCUE) == (frozen, Outcome.VOID)
    late, what = after(CHAIN, RESCUE, RIVAL)
    assert (late, what) == (frozen, Outcome.FORKED)


def test_a_recovery_that_lost_against_a_successor_does_not_come_back_with_a_later_fork() -> None:
    lost, _ = after(CHAIN, UNFORK)
    assert lost == CHAIN
    assert after(lost, RIVAL)[0].settle(NOW + 1000 * HOUR).newest == CHAIN.newest


def test_an_answer_does_not_end_the_wait_for_the_recovery_of_a_fork() -> None:
    frozen, _ = after(CHAIN, RIVAL, UNFORK)
    again, _ = after(frozen, ZERO.rollover("third"))
    assert again.candidates == frozen.candidates
