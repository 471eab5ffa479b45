"""Tests of overlay/core/link_rounds.py: the nonces of one link, who may ask our TPM for work, when we ask unasked."""

import math

import pytest

from overlay.core.evidence import Binding
from overlay.core.limits import NONCE_LIFE, ROUNDS_OPEN, UNASKED_NONCE_EVERY, AttestTimes
from overlay.core.link_rounds import LinkRounds
from overlay.core.rounds import UNASKED
from overlay.errors import Refused
from overlay.registry import Reason, Role
from tests.unit.core.session_kit import ALICE, BOB, LAB

NOW = 1000.0
TIMES = AttestTimes()


def binding(number: int = 0) -> Binding:
    return Binding(
        mesh_id=LAB.mesh_id, h=bytes(32), role=Role.OPENER, attester_leaf=ALICE.peer.certificate.hash,
        verifier_leaf=BOB.peer.certificate.hash, nonce=number.to_bytes(32, "big"), epoch=1,
    )  # fmt: skip


def unwanted(rounds: LinkRounds, number: int, now: float = NOW) -> None:
    """A nonce for this round is refused."""
    with pytest.raises(Refused) as caught:
        rounds.answer(number, now)
    assert caught.value.reason is Reason.UNEXPECTED_FRAME


# --- rounds of ours ---------------------------------------------------------------------------------------------------


def test_a_round_of_ours_gets_one_nonce() -> None:
    rounds = LinkRounds(TIMES)
    rounds.opened(7)
    rounds.opened(8)
    rounds.answer(8, NOW)
    rounds.answer(7, NOW)
    unwanted(rounds, 7)
    unwanted(rounds, 8)


def test_a_nonce_for_a_round_that_nobody_opened_is_refused() -> None:
    rounds = LinkRounds(TIMES)
    unwanted(rounds, 7)
    rounds.opened(7)
    unwanted(rounds, 6)
    rounds.answer(7, NOW)


def test_only_the_last_rounds_wait_for_a_nonce() -> None:
    rounds = LinkRounds(TIMES)
    for number in range(1, ROUNDS_OPEN + 2):
        rounds.opened(number)
    unwanted(rounds, 1)
    for number in range(2, ROUNDS_OPEN + 2):
        rounds.answer(number, NOW)


def test_a_peer_may_ask_unasked_now_and_then_and_no_more_often() -> None:
    """Half the time at which it does: clocks and wires are not even."""
    rounds = LinkRounds(TIMES)
    rounds.answer(UNASKED, NOW)
    unwanted(rounds, UNASKED, NOW + UNASKED_NONCE_EVERY / 2 - 0.001)
    rounds.answer(UNASKED, NOW + UNASKED_NONCE_EVERY / 2)
    unwanted(rounds, UNASKED, NOW + UNASKED_NONCE_EVERY - 0.001)


def test_a_nonce_that_was_not_asked_for_does_not_stand_for_a_round_of_ours() -> None:
    rounds = LinkRounds(TIMES)
    rounds.opened(7)
    rounds.answer(UNASKED, NOW)
    rounds.answer(7, NOW)


# --- rounds of the peer -----------------------------------------------------------------------------------------------


def test_evidence_is_bound_to_the_nonce_of_its_round_which_is_used_once() -> None:
    rounds = LinkRounds(TIMES)
    rounds.give(7, binding(7), NOW)
    rounds.give(8, binding(8), NOW)
    found, left = rounds.take(7, NOW + 1)
    assert found == binding(7)
    rounds.used(left)
    with pytest.raises(Refused) as caught:
        rounds.take(7, NOW + 1)
    assert caught.value.reason is Reason.EVIDENCE_STALE
    assert rounds.take(8, NOW + 1)[0] == binding(8)


def test_a_nonce_is_gone_only_when_the_evidence_was_good() -> None:
    rounds = LinkRounds(TIMES)
    rounds.give(7, binding(7), NOW)
    rounds.take(7, NOW)
    assert rounds.take(7, NOW)[0] == binding(7)


def test_a_nonce_that_is_too_old_is_stale() -> None:
    rounds = LinkRounds(TIMES)
    rounds.give(7, binding(7), NOW)
    rounds.take(7, NOW + NONCE_LIFE - 0.001)
    with pytest.raises(Refused) as caught:
        rounds.take(7, NOW + NONCE_LIFE)
    assert caught.value.reason is Reason.EVIDENCE_STALE


def test_a_round_is_opened_once_and_not_too_many_at_a_time() -> None:
    rounds = LinkRounds(TIMES)
    for number in range(1, ROUNDS_OPEN + 1):
        rounds.give(number, binding(number), NOW)
    for number in (1, ROUNDS_OPEN + 1):
        with pytest.raises(Refused) as caught:
            rounds.give(number, binding(number), NOW)
        assert caught.value.reason is Reason.BAD_EVIDENCE
    assert rounds.take(1, NOW)[0] == binding(1)


# --- when the peer's proof is overdue -----------------------------------------------------------------------------------


def test_we_ask_unasked_when_the_last_good_evidence_is_too_old() -> None:
    assert LinkRounds(TIMES).overdue(NOW) == NOW + TIMES.overdue


def test_having_asked_unasked_we_wait_before_we_ask_again() -> None:
    rounds = LinkRounds(TIMES)
    late = NOW + TIMES.overdue
    rounds.give(UNASKED, binding(), late)
    assert rounds.overdue(NOW) == late + UNASKED_NONCE_EVERY
    rounds.give(UNASKED, binding(1), late + UNASKED_NONCE_EVERY)
    assert rounds.overdue(NOW) == late + 2 * UNASKED_NONCE_EVERY
    assert rounds.take(UNASKED, late + UNASKED_NONCE_EVERY)[0] == binding(1)


def test_a_nonce_for_a_round_of_the_peer_is_not_a_question_of_ours() -> None:
    rounds = LinkRounds(TIMES)
    rounds.give(7, binding(7), NOW)
    assert rounds.overdue(-math.inf) == -math.inf


def test_a_nonce_that_was_refused_is_not_a_question_either() -> None:
    rounds = LinkRounds(TIMES)
    for number in range(1, ROUNDS_OPEN + 1):
        rounds.give(number, binding(number), NOW)
    with pytest.raises(Refused):
        rounds.give(UNASKED, binding(), NOW)
    assert rounds.overdue(NOW) == NOW + TIMES.overdue
