"""CHALLENGE, PROOF, VERDICT: their formats, what the proof covers, and the order of the talk."""

from dataclasses import replace
from typing import Any

import pytest

from overlay.core import limits
from overlay.core.admission import (
    Challenge,
    Proof,
    ProofFacts,
    common_kind,
    pack_goodbye,
    pack_verdict,
    read_reason,
    unpack_goodbye,
    unpack_verdict,
)  # fmt: skip
from overlay.core.frames import Frame
from overlay.core.keys import Ed25519Signer
from overlay.core.session_events import Closed, EvidenceWanted, Failed, Opened, PeerIdentified
from overlay.core.session_states import State
from overlay.core.wire import decode, make_map, sha256
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import EvidenceKind, FrameType, Label, Reason, Role
from tests.unit.core.authority_kit import make_member, seed
from tests.unit.core.session_kit import (
    ALICE,
    BOB,
    LAB,
    End,
    HashAppraiser,
    Pair,
    evidence_for,
    raw_frame,
    refusal,
)  # fmt: skip

CHALLENGE = Challenge(
    nonce=bytes(32), start_id=bytes(16), kinds=(2, 1), trust_number=3, trust_hash=b"t" * 32, policy_version=4, has_link=True
)


def challenge_of(pair: Pair, end: End) -> Challenge:
    """What this end would have said itself: the nonce is the one it asked the other for."""
    return Challenge(
        nonce=pair.other(end).wanted.nonce, start_id=end.member.start_id, kinds=(1, 2), trust_number=0,
        trust_hash=LAB.trust.hash, policy_version=1, has_link=False,
    )  # fmt: skip


def facts_of(pair: Pair, prover: End, **changes: object) -> ProofFacts:
    """What the proof of this end must cover."""
    own, peer = prover.member.peer, pair.other(prover).member.peer
    facts = ProofFacts(
        mesh_id=LAB.mesh_id, h=prover.session.first_h, role=prover.session.role, own_leaf=own.certificate.hash,
        own_endorsement=own.kid, peer_leaf=peer.certificate.hash, peer_endorsement=peer.kid, nonce=prover.wanted.nonce,
    )  # fmt: skip
    return replace(facts, **changes)  # type: ignore[arg-type]


def proof_of(pair: Pair, prover: End, key: Ed25519Signer | None = None, **changes: object) -> Frame:
    """A PROOF of this end, by its own key unless said, with some facts changed."""
    evidence = evidence_for(prover.wanted)
    body = Proof.make(facts_of(pair, prover, **changes), evidence, key or prover.member.message)
    return Frame(FrameType.PROOF, body=body)


def heard_about_it(pair: Pair, refuser: End) -> Reason:
    """The reason that the refused end is told."""
    last = pair.move(refuser)[-1]
    assert isinstance(last, Failed | Closed) and last.by_peer
    return last.reason


# --- formats --------------------------------------------------------------------------------------------------------


def test_a_challenge_is_read_as_it_was_written() -> None:
    assert Challenge.unpack(CHALLENGE.pack()) == replace(CHALLENGE, kinds=(1, 2))
    assert CHALLENGE.pack() == make_map(bytes(32), bytes(16), [1, 2], 3, b"t" * 32, 4, True)


@pytest.mark.parametrize(
    "changes",
    [{"nonce": bytes(31)}, {"start_id": bytes(17)}, {"kinds": (256,)}, {"kinds": tuple(range(17))}, {"trust_hash": b""},
     {"has_link": 1}],
    ids=str,
)  # fmt: skip
def test_a_challenge_of_another_form_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Refused) as caught:
        Challenge.unpack(replace(CHALLENGE, **changes).pack())  # type: ignore[arg-type]
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("read", "limit"), [(Challenge.unpack, 1024), (unpack_verdict, 256), (unpack_goodbye, 256)], ids=lambda one: str(one)[:30]
)
def test_what_is_longer_than_its_limit_is_refused_unread(read: object, limit: int) -> None:
    with pytest.raises(Refused) as caught:
        read(bytes(limit + 1))  # type: ignore[operator]
    assert caught.value.reason is Reason.TOO_LARGE


def test_verdicts_and_farewells_carry_a_reason_of_the_registry() -> None:
    assert pack_verdict(None) == make_map(0)
    assert unpack_verdict(pack_verdict(None)) is None
    for reason in Reason:
        assert unpack_verdict(pack_verdict(reason)) is reason
        assert unpack_goodbye(pack_goodbye(reason)) is reason


@pytest.mark.parametrize("code", [0, 200])
def test_a_number_that_is_no_reason_is_refused(code: int) -> None:
    with pytest.raises(Refused) as caught:
        read_reason(code)
    assert caught.value.reason is Reason.MALFORMED
    with pytest.raises(Refused):
        unpack_goodbye(make_map(code))


def test_the_signed_string_of_a_proof_written_out() -> None:
    facts = ProofFacts(
        mesh_id=b"m" * 32, h=b"h" * 32, role=Role.OTHER, own_leaf=b"l" * 32, own_endorsement=b"e" * 32, peer_leaf=b"L" * 32,
        peer_endorsement=b"E" * 32, nonce=b"n" * 32,
    )  # fmt: skip
    long = [b"\0\x20" + letter * 32 for letter in (b"m", b"h", b"l", b"e", b"L", b"E", b"n")]
    expected = b"overlay/1 proof\0" + b"".join([*long[:2], b"\0\x01\x02", *long[2:], b"\0\x20" + sha256(b"evidence")])
    assert facts.to_sign(b"evidence") == expected
    assert expected.startswith(Label.PROOF)


def test_a_node_whose_evidence_the_peer_does_not_take_does_not_even_try() -> None:
    common_kind(EvidenceKind.TPM, (1, 2))
    with pytest.raises(Refused) as caught:
        common_kind(EvidenceKind.TPM, (1,))
    assert caught.value.reason is Reason.EVIDENCE_NOT_ACCEPTED


# --- the talk -------------------------------------------------------------------------------------------------------


def test_both_sides_prove_and_then_both_are_open() -> None:
    pair = Pair.established()
    for end in pair.ends:
        of_peer = pair.other(end).member.peer
        assert [type(event) for event in end.events] == [PeerIdentified, EvidenceWanted, Opened]
        assert end.events[-1] == Opened(of_peer, end.session.lease.appraisal, peer_has_link=False)  # type: ignore[union-attr]
        assert end.appraiser.seen == [None]


def test_neither_side_waits_for_the_other_s_proof() -> None:
    pair = Pair.admitting()
    for end in pair.ends:
        assert end.session.supply_evidence(evidence_for(end.wanted), pair.now) == []
        assert not end.is_silent


@pytest.mark.parametrize("first", ["alice", "bob"])
def test_either_side_may_be_the_slower_one(first: str) -> None:
    pair = Pair.admitting()
    quick = getattr(pair, first)
    slow = pair.other(quick)
    quick.take(quick.session.supply_evidence(evidence_for(quick.wanted), pair.now))
    pair.exchange()
    assert (quick.session.state, slow.session.state) == (State.ADMITTED_US, State.ADMITTED_PEER)
    slow.take(slow.session.supply_evidence(evidence_for(slow.wanted), pair.now))
    pair.exchange()
    assert pair.states == (State.OPEN, State.OPEN)


def test_the_challenge_says_what_the_node_accepts_and_whether_it_has_a_link() -> None:
    asked = []

    def has_link(node_id: bytes) -> bool:
        asked.append(node_id)
        return True

    pair = Pair.established(alice_config=lambda config: replace(config, has_link=has_link))
    assert asked == [BOB.node_id]
    opened = pair.bob.events[-1]
    assert isinstance(opened, Opened) and opened.peer_has_link


def test_a_prover_that_cannot_ends_the_link_and_says_why() -> None:
    pair = Pair.admitting()
    assert refusal(pair.alice.session.evidence_failed("no TPM")) is Reason.EVIDENCE_UNAVAILABLE
    assert heard_about_it(pair, pair.alice) is Reason.EVIDENCE_UNAVAILABLE
    assert pair.alice.session.evidence_failed("no TPM") == []
    assert pair.alice.session.supply_evidence(evidence_for(pair.alice.wanted), pair.now) == []


def test_admission_has_thirty_seconds() -> None:
    pair = Pair.admitting()
    assert pair.alice.session.deadline == pair.now + 30.0
    pair.now += 29.9
    assert pair.tick(pair.alice) == []
    pair.now += 0.1
    assert refusal(pair.tick(pair.alice)) is Reason.TIMEOUT
    assert heard_about_it(pair, pair.alice) is Reason.TIMEOUT


# --- CHALLENGE ------------------------------------------------------------------------------------------------------


def test_a_second_challenge_is_refused() -> None:
    pair = Pair.admitting()
    again = Frame(FrameType.CHALLENGE, body=challenge_of(pair, pair.alice).pack())
    assert refusal(pair.forge(pair.alice, again)) is Reason.UNEXPECTED_FRAME


FAIR = replace(CHALLENGE, start_id=ALICE.start_id)


@pytest.mark.parametrize("rogue", ["alice", "bob"])
@pytest.mark.parametrize(
    "kind", [FrameType.PROOF, FrameType.VERDICT, FrameType.GOODBYE, FrameType.PING, FrameType.CALL, FrameType.TRUST_UPDATE]
)
def test_a_first_record_that_is_no_challenge_is_refused(rogue: str, kind: FrameType) -> None:
    pair, end = Pair.agreed(rogue)
    assert refusal(pair.forge(end, Frame(kind, body=pack_verdict(None)))) is Reason.UNEXPECTED_FRAME


def test_a_first_record_of_unknown_frames_is_refused() -> None:
    pair, end = Pair.agreed()
    assert refusal(pair.forge(end, raw_frame(0x90))) is Reason.UNEXPECTED_FRAME


def test_a_challenge_and_more_may_share_a_record() -> None:
    pair, end = Pair.agreed()
    events = pair.forge(end, Frame(FrameType.CHALLENGE, body=FAIR.pack()), raw_frame(0x90, b"of a later version"))
    assert [type(event) for event in events] == [EvidenceWanted]


def test_a_challenge_of_another_start_than_the_endorsement_is_refused() -> None:
    pair, end = Pair.agreed()
    other = replace(FAIR, start_id=make_member(LAB, "alice", start=2).start_id)
    assert refusal(pair.forge(end, Frame(FrameType.CHALLENGE, body=other.pack()))) is Reason.BAD_ENDORSEMENT


def test_a_challenge_that_takes_other_evidence_than_ours_ends_it_before_we_prove_anything() -> None:
    pair, end = Pair.agreed()
    other = replace(FAIR, kinds=(EvidenceKind.TPM,))
    assert refusal(pair.forge(end, Frame(FrameType.CHALLENGE, body=other.pack()))) is Reason.EVIDENCE_NOT_ACCEPTED


@pytest.mark.parametrize("changes", [{"flags": 1}, {"stream": 1}])
def test_a_challenge_in_parts_or_on_a_stream_is_refused(changes: dict[str, int]) -> None:
    pair, end = Pair.agreed()
    assert refusal(pair.forge(end, raw_frame(FrameType.CHALLENGE, FAIR.pack(), **changes))) is Reason.MALFORMED


# --- PROOF ----------------------------------------------------------------------------------------------------------


def refused_proof(pair: Pair, frame: Frame) -> Reason:
    """Why Bob refuses Alice's PROOF; she hears the same reason, and nobody has a lease."""
    reason = refusal(pair.forge(pair.alice, frame))
    assert pair.bob.session.lease is None
    assert heard_about_it(pair, pair.bob) is reason
    return reason


def test_the_proof_written_out_by_hand_is_accepted() -> None:
    pair = Pair.admitting()
    assert pair.forge(pair.alice, proof_of(pair, pair.alice)) == []
    assert pair.bob.session.state is State.ADMITTED_PEER


def test_a_proof_by_another_key_is_refused() -> None:
    pair = Pair.admitting()
    assert refused_proof(pair, proof_of(pair, pair.alice, key=Ed25519Signer(seed("thief")))) is Reason.BAD_PROOF


@pytest.mark.parametrize(
    "changes",
    [
        {"mesh_id": bytes(32)}, {"h": bytes(32)}, {"role": Role.OTHER}, {"nonce": bytes(32)},
        {"own_leaf": BOB.peer.certificate.hash}, {"own_endorsement": BOB.kid}, {"peer_leaf": ALICE.peer.certificate.hash},
        {"peer_endorsement": ALICE.kid},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_a_proof_of_something_else_is_refused(changes: dict[str, Any]) -> None:
    pair = Pair.admitting()
    assert refused_proof(pair, proof_of(pair, pair.alice, **changes)) is Reason.BAD_PROOF


def test_the_verifier_s_own_proof_sent_back_to_it_is_refused() -> None:
    pair = Pair.admitting()
    assert refused_proof(pair, proof_of(pair, pair.bob)) is Reason.BAD_PROOF


def test_a_proof_recorded_on_another_link_is_refused() -> None:
    recorded = Pair.admitting()
    frame = proof_of(recorded, recorded.alice)
    fresh = Pair.admitting()
    assert refused_proof(fresh, frame) is Reason.BAD_PROOF


def with_other(frame: Frame, field: int, value: bytes) -> Frame:
    """The PROOF with one of its fields replaced after signing: 1 signature, 2 claims, 3 evidence."""
    found = decode(frame.body, limit=limits.PROOF_MAX)
    return Frame(FrameType.PROOF, body=make_map(*({**found, field: value}[index] for index in (1, 2, 3))))


def test_evidence_swapped_after_signing_is_refused() -> None:
    pair = Pair.admitting()
    other = replace(evidence_for(pair.alice.wanted), quote=b"another").pack()
    assert refused_proof(pair, with_other(proof_of(pair, pair.alice), 3, other)) is Reason.BAD_PROOF


def test_claims_swapped_after_signing_are_refused_by_the_evidence_that_covers_them() -> None:
    pair = Pair.admitting()
    assert refused_proof(pair, with_other(proof_of(pair, pair.alice), 2, b"others")) is Reason.EVIDENCE_NOT_BOUND


def test_a_proof_whose_evidence_is_none_is_refused() -> None:
    pair = Pair.admitting()
    signature = ALICE.message.sign(facts_of(pair, pair.alice).to_sign(b"junk"))
    assert refused_proof(pair, Frame(FrameType.PROOF, body=make_map(signature, b"", b"junk"))) is Reason.MALFORMED


def test_a_proof_above_16_kib_is_refused() -> None:
    pair = Pair.admitting()
    body = bytes(limits.PROOF_MAX + 1)
    assert refused_proof(pair, Frame(FrameType.PROOF, body=body)) is Reason.TOO_LARGE


def test_a_second_proof_is_refused() -> None:
    pair = Pair.admitting()
    proof = proof_of(pair, pair.alice)
    assert pair.forge(pair.alice, proof) == []
    assert refusal(pair.forge(pair.alice, proof)) is Reason.UNEXPECTED_FRAME
    assert pair.bob.session.lease is None


def test_a_proof_on_an_open_link_is_refused() -> None:
    pair = Pair.established()
    assert refusal(pair.forge(pair.alice, proof_of(pair, pair.alice))) is Reason.UNEXPECTED_FRAME


def test_evidence_that_the_appraiser_refuses_gives_no_lease() -> None:
    pair = Pair.admitting()
    pair.bob.appraiser.fault = Refused(Reason.PCR_MISMATCH, "not what the policy lists")
    assert refused_proof(pair, proof_of(pair, pair.alice)) is Reason.PCR_MISMATCH


def test_an_appraiser_that_raises_refuses() -> None:
    pair = Pair.admitting()
    pair.bob.appraiser.fault = RuntimeError("disk on fire")
    assert refused_proof(pair, proof_of(pair, pair.alice)) is Reason.INTERNAL


class NoKinds(HashAppraiser):
    @property
    def accepted(self) -> tuple[EvidenceKind, ...]:  # type: ignore[override]
        raise RuntimeError("disk on fire")


def test_an_appraiser_that_cannot_say_what_it_accepts_ends_the_link() -> None:
    pair = Pair(bob_config=lambda config: replace(config, appraiser=NoKinds()))
    pair.move(pair.alice)
    pair.move(pair.bob)
    assert refusal(pair.move(pair.alice)) is Reason.INTERNAL


def test_evidence_for_admission_is_supplied_once_and_when_asked() -> None:
    pair = Pair.admitting()
    evidence = evidence_for(pair.alice.wanted)
    pair.alice.session.supply_evidence(evidence, pair.now)
    with pytest.raises(LocalProtocolError, match="nobody asked for"):
        pair.alice.session.supply_evidence(evidence, pair.now)
    with pytest.raises(LocalProtocolError, match="nobody asked for"):
        Pair().bob.session.supply_evidence(evidence, pair.now)


# --- VERDICT --------------------------------------------------------------------------------------------------------

OK = Frame(FrameType.VERDICT, body=pack_verdict(None))


def test_a_verdict_before_our_proof_is_refused() -> None:
    pair = Pair.admitting()
    assert refusal(pair.forge(pair.alice, OK)) is Reason.UNEXPECTED_FRAME
    assert heard_about_it(pair, pair.bob) is Reason.UNEXPECTED_FRAME


def test_a_verdict_before_our_proof_opens_nothing_even_if_theirs_was_good() -> None:
    pair = Pair.admitting()
    pair.forge(pair.alice, proof_of(pair, pair.alice))
    assert refusal(pair.forge(pair.alice, OK)) is Reason.UNEXPECTED_FRAME


def test_a_second_verdict_is_refused() -> None:
    pair = Pair.admitting()
    pair.bob.session.supply_evidence(evidence_for(pair.bob.wanted), pair.now)
    assert pair.forge(pair.alice, OK) == []
    assert pair.bob.session.state is State.ADMITTED_US
    assert refusal(pair.forge(pair.alice, OK)) is Reason.UNEXPECTED_FRAME


def test_a_refusal_by_the_peer_ends_the_link_with_its_reason() -> None:
    pair = Pair.admitting()
    events = pair.forge(pair.bob, Frame(FrameType.VERDICT, body=pack_verdict(Reason.LEVEL_TOO_LOW)))
    assert events == [Failed(Reason.LEVEL_TOO_LOW, "the peer refused us", by_peer=True)]
    assert pair.alice.is_silent


def test_a_goodbye_before_the_link_was_open_is_a_failure() -> None:
    pair = Pair.admitting()
    events = pair.forge(pair.bob, Frame(FrameType.GOODBYE, body=pack_goodbye(Reason.SHUTDOWN)))
    assert events == [Failed(Reason.SHUTDOWN, "the peer ended the link before it was open", by_peer=True)]


def test_an_end_that_closes_in_admission_says_goodbye_and_in_the_handshake_nothing() -> None:
    pair = Pair.admitting()
    assert pair.alice.session.close(Reason.SHUTDOWN) == [Closed(Reason.SHUTDOWN, by_peer=False)]
    assert heard_about_it(pair, pair.alice) is Reason.SHUTDOWN
    stranger = Pair()
    assert stranger.bob.session.close(Reason.SHUTDOWN) == [Closed(Reason.SHUTDOWN, by_peer=False)]
    assert stranger.bob.is_silent


# --- application before OPEN ------------------------------------------------------------------------------------------


def test_an_application_frame_before_any_verdict_is_refused() -> None:
    pair = Pair.admitting()
    assert refusal(pair.forge(pair.alice, Frame(FrameType.CALL, stream=1, body=b"now"))) is Reason.UNEXPECTED_FRAME


def test_an_application_frame_of_a_peer_that_has_not_admitted_us_is_refused() -> None:
    pair = Pair.admitting()
    pair.forge(pair.alice, proof_of(pair, pair.alice))
    assert pair.bob.session.state is State.ADMITTED_PEER
    assert refusal(pair.forge(pair.alice, Frame(FrameType.CALL, stream=1, body=b"now"))) is Reason.UNEXPECTED_FRAME


def test_an_application_frame_of_a_peer_that_we_have_not_admitted_is_refused() -> None:
    pair = Pair.admitting()
    pair.bob.session.supply_evidence(evidence_for(pair.bob.wanted), pair.now)
    pair.forge(pair.alice, OK)
    assert pair.bob.session.state is State.ADMITTED_US
    assert refusal(pair.forge(pair.alice, Frame(FrameType.CALL, stream=1, body=b"now"))) is Reason.UNEXPECTED_FRAME
