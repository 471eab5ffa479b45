"""Continuous attestation: nonces of one link, the leader of a node's rounds, and both on a link."""

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.app.config import PERIOD
from overlay.core import limits
from overlay.core.evidence import Binding, Evidence
from overlay.core.frames import Frame
from overlay.core.limits import AttestTimes
from overlay.core.rounds import (
    UNASKED,
    Nonces,
    OpenRound,
    ProofWanted,
    RoundLeader,
    pack_evidence,
    pack_nonce,
    pack_round,
    unpack_evidence,
    unpack_nonce,
    unpack_round,
)
from overlay.core.session_events import Failed, LeaseRenewed, NonceReceived
from overlay.core.session_states import State
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import FrameType, Reason, Role
from tests.unit.core.authority_kit import make_member
from tests.unit.core.session_kit import ALICE, BOB, LAB, End, Pair, SeededChance, evidence_for, local, refusal


def binding(number: int = 0) -> Binding:
    return Binding(
        mesh_id=LAB.mesh_id, h=bytes(32), role=Role.OPENER, attester_leaf=ALICE.peer.certificate.hash,
        verifier_leaf=BOB.peer.certificate.hash, nonce=number.to_bytes(32, "big"), epoch=1,
    )  # fmt: skip


# --- formats --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 2**64 - 1), st.binary(min_size=32, max_size=32))
def test_rounds_and_nonces_are_read_as_they_were_written(number: int, nonce: bytes) -> None:
    assert unpack_round(pack_round(number)) == number
    assert unpack_nonce(pack_nonce(number, nonce)) == (number, nonce)


def test_evidence_is_read_as_it_was_written() -> None:
    evidence = Evidence(
        count=65_536, index=65_535, path=(bytes(32),) * 16, claims=b"c", ak_public=b"a", quote=b"q", signature=b"s"
    )
    assert unpack_evidence(pack_evidence(7, evidence)) == (7, evidence)
    assert pack_evidence(7, evidence) == make_map(7, 65_536, 65_535, [bytes(32)] * 16, b"c", b"a", b"q", b"s")


GOOD: dict[str, object] = {
    "round": 1, "n": 1, "index": 0, "path": [], "claims": b"", "ak": b"", "quote": b"", "signature": b""
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 65_537}, {"index": 65_536}, {"path": [bytes(31)]}, {"path": [bytes(32)] * 17}, {"claims": bytes(1025)},
        {"ak": bytes(1025)}, {"quote": bytes(2049)}, {"signature": bytes(1025)}, {"round": None}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_evidence_of_another_form_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Refused) as caught:
        unpack_evidence(make_map(*(GOOD | changes).values()))
    assert caught.value.reason is Reason.MALFORMED


def test_round_0_is_nobody_s() -> None:
    with pytest.raises(Refused) as caught:
        unpack_round(pack_round(UNASKED))
    assert caught.value.reason is Reason.MALFORMED


# --- the verifier's nonces ------------------------------------------------------------------------------------------


def reason_of(act: Any, *arguments: object) -> Reason:
    with pytest.raises(Refused) as caught:
        act(*arguments)
    return caught.value.reason


def test_a_nonce_is_used_once() -> None:
    nonces = Nonces().give(1, binding(1), 0.0).give(2, binding(2), 0.0)
    found, left = nonces.use(1, 1.0)
    assert found == binding(1)
    assert reason_of(left.use, 1, 1.0) is Reason.EVIDENCE_STALE
    assert left.use(2, 1.0)[0] == binding(2)


def test_a_nonce_lives_ten_seconds() -> None:
    nonces = Nonces().give(1, binding(1), 0.0)
    assert nonces.use(1, 9.9)[0] == binding(1)
    assert reason_of(nonces.use, 1, 10.0) is Reason.EVIDENCE_STALE


def test_a_round_is_opened_once_while_its_nonce_lives() -> None:
    nonces = Nonces().give(1, binding(1), 0.0)
    assert reason_of(nonces.give, 1, binding(2), 9.9) is Reason.BAD_EVIDENCE
    assert nonces.give(1, binding(2), 10.0).use(1, 11.0)[0] == binding(2)


def test_a_nonce_given_unasked_replaces_the_one_before() -> None:
    nonces = Nonces().give(UNASKED, binding(1), 0.0).give(UNASKED, binding(2), 1.0)
    assert nonces.use(UNASKED, 2.0)[0] == binding(2)


def test_sixteen_rounds_may_be_open_at_once() -> None:
    nonces = Nonces()
    for number in range(1, 17):
        nonces = nonces.give(number, binding(number), 0.0)
    assert reason_of(nonces.give, 17, binding(17), 9.9) is Reason.BAD_EVIDENCE
    assert set(nonces.give(17, binding(17), 10.0).given) == {17}


def test_a_prover_that_fails_for_a_whole_lease_at_the_shortest_period_opens_no_more_rounds_than_that() -> None:
    times = AttestTimes.period(PERIOD[0])
    nonces, number, now = Nonces(), 1, 0.0
    while now < times.lease:
        nonces = nonces.give(number, binding(number), now).give(UNASKED, binding(number), now)
        number, now = number + 1, now + times.every - times.jitter


# --- the attester's leader ------------------------------------------------------------------------------------------

LINKS: frozenset[Hashable] = frozenset({"bob", "carol"})


def leader(**changes: Any) -> RoundLeader:
    return RoundLeader(times=AttestTimes(**changes), chance=SeededChance(1), now=0.0)


def wanted(number: int, *answers: tuple[str, int, int]) -> list[ProofWanted]:
    return [ProofWanted(number, tuple((link, asked, binding(nonce)) for link, asked, nonce in answers))]


def test_a_round_every_minute_less_a_jitter() -> None:
    class AllOfIt(SeededChance):
        def fraction(self) -> float:
            return 1.0

    assert leader().deadline == 60.0
    early = RoundLeader(times=AttestTimes(), chance=AllOfIt(1), now=0.0)
    assert early.deadline == 55.0
    assert early.tick(55.0, LINKS) == [OpenRound(1)]
    early.tick(57.0, LINKS)
    assert early.deadline == 110.0


def test_one_proof_as_soon_as_all_have_answered() -> None:
    rounds = leader()
    assert rounds.tick(59.9, LINKS) == []
    assert rounds.tick(60.0, LINKS) == [OpenRound(1)]
    rounds.nonce("bob", 1, binding(1), 60.1)
    assert rounds.tick(60.1, LINKS) == []
    rounds.nonce("carol", 1, binding(2), 60.2)
    assert rounds.tick(60.2, LINKS) == wanted(1, ("bob", 1, 1), ("carol", 1, 2))


def test_who_has_not_answered_after_two_seconds_is_left_out() -> None:
    rounds = leader()
    rounds.tick(60.0, LINKS)
    rounds.nonce("bob", 1, binding(1), 60.1)
    assert rounds.deadline == 62.0
    assert rounds.tick(62.0, LINKS) == wanted(1, ("bob", 1, 1))


def test_a_round_that_nobody_answers_brings_no_proof() -> None:
    rounds = leader()
    rounds.tick(60.0, LINKS)
    assert rounds.tick(62.0, LINKS) == []
    assert rounds.deadline == 120.0


def test_nobody_waits_for_a_link_that_is_gone() -> None:
    rounds = leader()
    rounds.tick(60.0, LINKS)
    rounds.nonce("bob", 1, binding(1), 60.1)
    assert rounds.tick(60.2, frozenset({"bob"})) == wanted(1, ("bob", 1, 1))


def test_without_links_there_is_no_round() -> None:
    rounds = leader()
    assert rounds.tick(60.0, frozenset()) == []
    assert rounds.begin(61.0, frozenset()) == []
    assert rounds.deadline == 120.0


def test_a_round_may_begin_before_its_time_but_not_two_at_once() -> None:
    rounds = leader()
    assert rounds.begin(5.0, LINKS) == [OpenRound(1)]
    assert rounds.begin(5.5, LINKS) == []
    assert rounds.deadline == 7.0


def test_a_period_that_ends_while_nonces_are_gathered_opens_nothing() -> None:
    rounds = leader(every=1.0, jitter=0.0)
    rounds.tick(1.0, LINKS)
    rounds.nonce("bob", 1, binding(1), 1.0)
    assert rounds.tick(2.0, LINKS) == []
    assert rounds.tick(3.0, LINKS) == wanted(1, ("bob", 1, 1))


def test_those_who_join_within_200_ms_share_a_proof() -> None:
    rounds = leader()
    rounds.join("bob", -1, binding(1), 10.0)
    rounds.join("carol", -1, binding(2), 10.1)
    assert rounds.deadline == 10.2
    assert rounds.tick(10.1, LINKS) == []
    assert rounds.tick(10.2, LINKS) == wanted(0, ("bob", -1, 1), ("carol", -1, 2))


def test_who_joins_soon_after_others_waits_for_more_and_after_a_pause_it_does_not() -> None:
    lead, now, windows = leader(), 10.0, []
    for _ in range(5):
        lead.join("dave", -1, binding(1), now)
        windows.append(round(lead.deadline - now, 3))
        now = lead.deadline
        assert lead.tick(now, LINKS) == wanted(0, ("dave", -1, 1))
        lead.proven()
        now += 0.1
    assert windows == [0.2, 0.4, 0.8, 1.6, 2.0]
    lead.join("dave", -1, binding(1), now + 2)
    assert lead.deadline == pytest.approx(now + 2.2)


def test_who_joins_during_a_round_is_proven_with_it() -> None:
    rounds = leader()
    rounds.tick(60.0, LINKS)
    rounds.join("dave", -1, binding(9), 60.0)
    rounds.nonce("bob", 1, binding(1), 60.1)
    rounds.nonce("carol", 1, binding(2), 60.1)
    assert rounds.tick(60.1, LINKS) == wanted(1, ("bob", 1, 1), ("carol", 1, 2), ("dave", -1, 9))


@pytest.mark.parametrize(("link", "number"), [("bob", 9), ("dave", 1), ("bob", UNASKED)])
def test_a_nonce_of_no_round_that_is_open_does_not_wait_for_one(link: str, number: int) -> None:
    rounds = leader()
    rounds.tick(60.0, LINKS)
    rounds.nonce(link, number, binding(1), 60.0)
    assert rounds.tick(60.2, LINKS) == wanted(1, (link, number, 1))


def test_a_second_nonce_for_one_round_goes_into_the_next_proof() -> None:
    rounds = leader()
    rounds.tick(60.0, LINKS)
    rounds.nonce("bob", 1, binding(1), 60.0)
    rounds.nonce("bob", 1, binding(2), 60.0)
    rounds.nonce("carol", 1, binding(3), 60.0)
    assert rounds.tick(60.0, LINKS) == wanted(1, ("bob", 1, 1), ("carol", 1, 3), ("bob", 1, 2))


def test_the_device_does_one_proof_at_a_time() -> None:
    rounds = leader()
    rounds.join("bob", -1, binding(1), 10.0)
    assert rounds.tick(10.2, LINKS) == wanted(0, ("bob", -1, 1))
    rounds.join("carol", -1, binding(2), 10.3)
    assert rounds.deadline == 60.0
    assert rounds.tick(20.0, LINKS) == []
    rounds.proven()
    assert rounds.deadline == pytest.approx(10.7)  # twice 200 ms
    assert rounds.tick(20.0, LINKS) == wanted(0, ("carol", -1, 2))


def test_short_rounds_have_short_windows() -> None:
    rounds = leader(every=0.4, jitter=0.0, window=0.1)
    rounds.join("bob", -1, binding(1), 0.0)
    assert rounds.deadline == 0.1


# --- on a link ------------------------------------------------------------------------------------------------------


def open_round(pair: Pair, attester: End, number: int = 1) -> None:
    """ATTEST_OPEN goes out and the nonce comes back; the attester says nothing yet."""
    pair.answer_evidence = False
    attester.session.open_round(number)
    pair.move(attester)
    [event] = pair.move(pair.other(attester))
    assert isinstance(event, NonceReceived)
    assert event.number == number


def prove(pair: Pair, attester: End, number: int = 1, evidence: Evidence | None = None) -> list[Any]:
    attester.session.send_evidence(number, evidence or evidence_for(attester.wanted))
    return pair.move(attester)


@pytest.mark.parametrize("whose", ["alice", "bob"])
def test_good_evidence_renews_the_lease(whose: str) -> None:
    pair = Pair.established()
    attester: End = getattr(pair, whose)
    verifier = pair.other(attester)
    pair.sleep(50.0)
    open_round(pair, attester)
    [renewed] = prove(pair, attester)
    assert isinstance(renewed, LeaseRenewed) and renewed.round == 1
    assert verifier.session.lease is not None
    assert (verifier.session.lease.since, verifier.session.lease.ends) == (pair.now, pair.now + 150.0)


def test_the_binding_names_link_direction_both_leaves_nonce_and_epoch() -> None:
    pair = Pair.established()
    open_round(pair, pair.bob)
    found = pair.bob.wanted
    assert found == Binding(
        mesh_id=LAB.mesh_id, h=pair.alice.keys.h, role=Role.OTHER, attester_leaf=BOB.peer.certificate.hash,
        verifier_leaf=ALICE.peer.certificate.hash, nonce=found.nonce, epoch=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"mesh_id": bytes(32)}, {"h": bytes(32)}, {"role": Role.OTHER}, {"attester_leaf": bytes(32)},
        {"verifier_leaf": ALICE.peer.certificate.hash}, {"nonce": bytes(32)}, {"epoch": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_evidence_bound_to_something_else_drops_the_lease_at_once(changes: dict[str, Any]) -> None:
    pair = Pair.established()
    open_round(pair, pair.alice)
    other = evidence_for(replace(pair.alice.wanted, **changes))
    assert refusal(prove(pair, pair.alice, evidence=other)) is Reason.EVIDENCE_NOT_BOUND
    assert pair.bob.session.lease is None


def test_a_nonce_used_twice_ends_the_link() -> None:
    pair = Pair.established()
    open_round(pair, pair.alice)
    assert [type(event) for event in prove(pair, pair.alice)] == [LeaseRenewed]
    assert refusal(prove(pair, pair.alice)) is Reason.EVIDENCE_STALE


def test_evidence_that_nobody_asked_for_ends_the_link() -> None:
    pair = Pair.established()
    assert refusal(prove(pair, pair.alice)) is Reason.EVIDENCE_STALE


@pytest.mark.parametrize("seconds", [9.9, 10.0])
def test_evidence_has_ten_seconds(seconds: float) -> None:
    pair = Pair.established()
    open_round(pair, pair.alice)
    pair.now += seconds
    [event] = prove(pair, pair.alice)
    if seconds < 10.0:
        assert isinstance(event, LeaseRenewed)
    else:
        assert refusal([event]) is Reason.EVIDENCE_STALE


def test_a_round_opened_twice_ends_the_link() -> None:
    pair = Pair.established()
    open_round(pair, pair.alice)
    pair.alice.session.open_round(1)
    assert refusal(pair.move(pair.alice)) is Reason.BAD_EVIDENCE


def test_too_many_rounds_at_once_end_the_link() -> None:
    pair = Pair.established()
    pair.answer_evidence = False
    for number in range(1, 18):
        pair.alice.session.open_round(number)
    assert refusal(pair.move(pair.alice)) is Reason.BAD_EVIDENCE


def test_evidence_for_a_nonce_of_the_epoch_before_is_good_after_a_rekey_and_for_the_new_epoch_it_is_not() -> None:
    for epoch, good in ((1, True), (2, False)):
        pair = Pair.established()
        pair.sleep(59.5)
        open_round(pair, pair.alice)
        asked = pair.alice.wanted
        pair.sleep(1.0)
        assert pair.alice.session.epoch == 2
        keys = pair.alice.keys
        evidence = evidence_for(asked if epoch == 1 else replace(asked, h=keys.h, epoch=2))
        [event] = prove(pair, pair.alice, evidence=evidence)
        if good:
            assert isinstance(event, LeaseRenewed)
        else:
            assert refusal([event]) is Reason.EVIDENCE_NOT_BOUND


def test_a_nonce_for_no_round_of_ours_ends_the_link() -> None:
    pair = Pair.established()
    nonce = Frame(FrameType.ROUND_NONCE, body=pack_nonce(1, bytes(32)))
    assert refusal(pair.forge(pair.bob, nonce)) is Reason.UNEXPECTED_FRAME


def test_a_second_nonce_for_a_round_of_ours_ends_the_link() -> None:
    pair = Pair.established()
    open_round(pair, pair.alice)
    nonce = Frame(FrameType.ROUND_NONCE, body=pack_nonce(1, bytes(32)))
    assert refusal(pair.forge(pair.bob, nonce)) is Reason.UNEXPECTED_FRAME


def test_a_late_nonce_for_a_round_before_is_taken() -> None:
    pair = Pair.established()
    pair.answer_evidence = False
    pair.alice.session.open_round(1)
    pair.alice.session.open_round(2)
    pair.move(pair.alice)
    assert [type(event) for event in pair.move(pair.bob)] == [NonceReceived, NonceReceived]


# --- a certificate that changes meanwhile ---------------------------------------------------------------------------

LATER = make_member(LAB, "alice", not_before=LAB.at)


def nonce_and_papers(number: int, *, crossed: bool) -> Pair:
    """Alice has a nonce of Bob's and a new certificate; crossed: Bob gave the nonce before he knew of the certificate."""
    pair = Pair.established(attest=AttestTimes(overdue=20.0))
    pair.answer_evidence = False
    if number == UNASKED:
        pair.sleep(19.9)
        pair.now += 0.1
        pair.tick(pair.bob)
    else:
        pair.alice.session.open_round(number)
        pair.move(pair.alice)
    if not crossed:
        pair.move(pair.bob)
    pair.alice.session.change_credentials(local(LATER))
    pair.exchange()
    return pair


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("number", [1, UNASKED])
def test_evidence_under_way_while_the_certificate_changes_is_good(number: int, crossed: bool) -> None:
    pair = nonce_and_papers(number, crossed=crossed)
    leaf = (LATER if crossed else ALICE).peer.certificate.hash
    assert pair.alice.wanted.attester_leaf == leaf
    assert [type(event) for event in prove(pair, pair.alice, number)] == [LeaseRenewed]


def test_evidence_bound_to_neither_certificate_is_refused() -> None:
    pair = nonce_and_papers(1, crossed=True)
    evidence = evidence_for(replace(pair.alice.wanted, attester_leaf=bytes(32)))
    assert refusal(prove(pair, pair.alice, evidence=evidence)) is Reason.EVIDENCE_NOT_BOUND


def test_evidence_refused_for_another_reason_is_not_tried_again() -> None:
    pair = nonce_and_papers(1, crossed=False)
    pair.bob.appraiser.fault = Refused(Reason.PCR_MISMATCH)
    assert refusal(prove(pair, pair.alice)) is Reason.PCR_MISMATCH
    assert len(pair.bob.appraiser.seen) == 2


# --- a peer that brings none ----------------------------------------------------------------------------------------


def asked_unasked(pair: Pair, end: End) -> list[float]:
    """The times, counted from the opening, at which the other end asked this one without being asked."""
    start = pair.now
    times: list[float] = []
    while pair.now < start + 149.0:
        before = len(end.events)
        pair.sleep(min(1.0, start + 149.0 - pair.now))
        new = [event for event in end.events[before:] if isinstance(event, NonceReceived)]
        assert all(event.number == UNASKED for event in new)
        times += [round(pair.now - start)] * len(new)
    return times


def test_a_verifier_that_has_waited_75_seconds_asks_at_most_every_ten_and_then_the_lease_runs_out() -> None:
    pair = Pair.established()
    pair.answer_evidence = False
    assert asked_unasked(pair, pair.bob) == [75, 85, 95, 105, 115, 125, 135, 145]
    pair.now += 1.0
    assert pair.alice.session.deadline == pair.now
    assert refusal(pair.tick(pair.alice)) is Reason.LEASE_EXPIRED
    assert pair.alice.session.lease is None


def test_evidence_for_an_unasked_nonce_keeps_the_link() -> None:
    pair = Pair.established()
    pair.sleep(400.0)
    assert pair.states == (State.OPEN, State.OPEN)
    assert any(isinstance(event, LeaseRenewed) and event.round == UNASKED for event in pair.alice.events)


def test_a_verifier_that_asks_too_often_is_cut_off() -> None:
    pair = Pair.established()
    pair.answer_evidence = False
    nonce = Frame(FrameType.ROUND_NONCE, body=pack_nonce(UNASKED, bytes(32)))
    assert [type(event) for event in pair.forge(pair.bob, nonce)] == [NonceReceived]
    pair.now += limits.UNASKED_NONCE_EVERY - 1.0  # the network may bring two of them nearer to each other
    assert [type(event) for event in pair.forge(pair.bob, nonce)] == [NonceReceived]
    pair.now += 4.0
    assert refusal(pair.forge(pair.bob, nonce)) is Reason.UNEXPECTED_FRAME


def test_one_round_may_fail() -> None:
    pair = Pair.established(attest=AttestTimes(overdue=1000.0))
    pair.sleep(149.0)
    open_round(pair, pair.alice)
    prove(pair, pair.alice)
    assert pair.bob.session.lease is not None
    assert pair.bob.session.lease.ends == pair.now + 150.0
    pair.now += 1.0
    assert isinstance(pair.tick(pair.alice)[-1], Failed)
