"""A join from the joiner's side: over several links to t signers, past liars and silence, to a bundle."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from overlay.core.certificate_profile import LeafFacts
from overlay.core.enrolment_files import Bundle
from overlay.core.join_frames import Finish, TpmAnswer, pack_answer, unpack_answer
from overlay.core.join_plan import Quorum, check_bundle
from overlay.core.join_result import JoinResult
from overlay.core.join_signer import FinishWanted, SignerEvent, SignerSide, welcome
from overlay.core.joiner_states import State
from overlay.core.joining import STEP_TIMEOUT, AnswerWanted, Joiner, JoinFailed, LinkDone
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import FrameType, Reason
from tests.unit.core.authority_kit import make_member, make_mesh, seed
from tests.unit.core.join_kit import (
    AUTHORITY,
    MEMBER,
    MESH,
    SIGNERS,
    TPM_SHOWN,
    Talk,
    answer,
    bundle_for,
    h_of,
    hints,
    make_plan,
)

RESULT, CHALLENGE = FrameType.JOIN_RESULT, FrameType.JOIN_CHALLENGE
A, B, C, D, _ = SIGNERS


def joined(talk: Talk, *members: object) -> Talk:
    for member in members:
        talk.meet(member)  # type: ignore[arg-type]
    return talk


def test_two_of_three_signers_approve_and_the_second_finishes() -> None:
    talk = joined(Talk(make_plan(tpm=TPM_SHOWN)), A, B)
    assert talk.bundle is not None
    certificate = check_bundle(talk.bundle, talk.plan, talk.at)
    assert (certificate.name, certificate.roles, certificate.level) == ("newcomer", ("worker",), 2)
    first, second = talk.approvals
    assert first.to_be_signed(MESH.root.issuer) == second.to_be_signed(MESH.root.issuer)
    [finish] = talk.finished
    assert finish.approvers == tuple(sorted([A.node_id, B.node_id]))
    assert talk.joiner.state is State.DONE
    assert talk.joiner.deadline == math.inf


def test_a_founding_key_takes_one_signer() -> None:
    assert joined(Talk(make_plan(threshold=1, members=(A,))), A).bundle is not None


def test_a_file_key_is_never_challenged() -> None:
    talk = joined(Talk(make_plan()), A, B)
    assert talk.bundle is not None
    assert not any(isinstance(event, AnswerWanted) for event in talk.heard)


def test_any_member_tells_where_the_signers_are_and_gets_nothing() -> None:
    talk = joined(Talk(make_plan()), MEMBER)
    assert talk.links_done == [None]
    assert talk.sent == []
    assert talk.joiner.candidates == tuple(sorted(hints(), key=lambda one: one.node_id))
    assert joined(talk, B, C).bundle is not None


def test_a_member_with_the_role_that_is_not_in_the_authority_object_gets_no_join() -> None:
    talk = joined(Talk(make_plan(members=(B, C))), A)
    assert talk.sent == []


def test_a_member_of_the_authority_without_the_role_gets_no_join() -> None:
    talk = joined(Talk(make_plan(members=(A, MEMBER))), MEMBER)
    assert talk.sent == []


def test_hints_of_nodes_that_are_no_signers_are_not_followed() -> None:
    talk = Talk(make_plan(members=(A, B)))
    talk.meet(MEMBER)
    assert {one.node_id for one in talk.joiner.candidates} == {A.node_id, B.node_id}


def test_a_signer_of_which_no_address_is_known_is_a_candidate_too() -> None:
    talk = joined(Talk(make_plan(members=(A, D))), MEMBER)
    assert {one.addresses for one in talk.joiner.candidates if one.node_id == D.node_id} == {()}


def refusing(reason: Reason) -> bytes:
    return JoinResult(reason=reason).pack()


class Liar(Talk):
    """One signer answers each JOIN with this instead."""

    instead: bytes = refusing(Reason.NAME_TAKEN)
    kind = RESULT
    who = A

    def side(self, member: object, h: bytes) -> SignerSide:
        side = super().side(member, h)  # type: ignore[arg-type]
        if member is self.who:
            side.receive = lambda *_: self.lie(side)  # type: ignore[method-assign]
        return side

    def lie(self, side: SignerSide) -> list[SignerEvent]:
        side._messages.append((self.kind, self.instead))
        return []


def test_one_signer_that_refuses_costs_one_signer() -> None:
    talk = joined(Liar(make_plan()), A, B, C)
    assert talk.links_done == [Reason.NAME_TAKEN, None]
    assert talk.bundle is not None


def test_too_many_refusals_end_the_join_with_the_last_reason() -> None:
    talk = Liar(make_plan())
    talk.meet(A)
    assert talk.failure is None
    talk.who = B
    talk.meet(B)
    assert talk.failure is Reason.NAME_TAKEN
    assert talk.joiner.state is State.DONE
    assert talk.joiner.candidates != ()  # C: but one is too few


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (RESULT, JoinResult().pack()),
        (RESULT, b""),
        (CHALLENGE, b""),
        (FrameType.JOIN, b""),
        (FrameType.JOIN_ANSWER, pack_answer(Finish((A.node_id,)))),
        (FrameType.TRUST_UPDATE, b""),
    ],
)
def test_what_a_signer_may_not_say_costs_that_signer(kind: FrameType, body: bytes) -> None:
    talk = Liar(make_plan(tpm=TPM_SHOWN))
    talk.kind, talk.instead = kind, body
    joined(talk, A)
    assert talk.links_done[0] in (Reason.UNEXPECTED_FRAME, Reason.MALFORMED)
    assert talk.joiner.approved == frozenset()
    assert joined(talk, B, C).bundle is not None


def test_what_is_neither_a_yes_nor_a_no_costs_that_signer() -> None:
    talk = Liar(make_plan())
    talk.instead = JoinResult().pack()
    assert joined(talk, A).links_done == [Reason.UNEXPECTED_FRAME]
    assert talk.joiner.approved == frozenset()


def test_an_approval_before_the_tpm_was_asked_does_not_count() -> None:
    talk = Liar(make_plan(tpm=TPM_SHOWN))
    talk.instead = JoinResult(approved=True).pack()
    joined(talk, A)
    assert talk.links_done == [Reason.UNEXPECTED_FRAME]
    assert talk.joiner.approved == frozenset()


def test_a_joiner_without_a_tpm_answers_no_challenge() -> None:
    talk = Liar(make_plan())
    talk.kind, talk.instead = CHALLENGE, challenge_of(Talk(make_plan(tpm=TPM_SHOWN)))
    assert joined(talk, A).links_done == [Reason.UNEXPECTED_FRAME]


def challenge_of(talk: Talk) -> bytes:
    bodies: list[bytes] = []

    def note(kind: FrameType, body: bytes) -> bytes:
        bodies.append(body) if kind is CHALLENGE else None
        return body

    talk.change = note
    talk.meet(A)
    return bodies[0]


def test_one_signer_counts_once() -> None:
    talk = joined(Talk(make_plan(threshold=2)), A, A)
    assert talk.joiner.approved == {A.node_id}
    assert talk.bundle is None
    assert talk.finished == []


def test_a_challenge_is_answered_for_the_signer_and_the_link_that_it_came_on() -> None:
    talk = joined(Talk(make_plan(tpm=TPM_SHOWN, threshold=3)), A, B)
    first, second = (event.binding for event in talk.heard if isinstance(event, AnswerWanted))
    assert (first.signer, first.h) == (A.node_id, h_of(1))
    assert (second.signer, second.h) == (B.node_id, h_of(2))
    assert first.csr_hash == second.csr_hash
    assert first.nonce != second.nonce


def test_an_answer_that_changes_on_its_way_is_refused() -> None:
    def damage(kind: FrameType, body: bytes) -> bytes:
        if kind is not FrameType.JOIN_ANSWER:
            return body
        answered = unpack_answer(body)
        assert isinstance(answered, TpmAnswer)
        return pack_answer(replace(answered, activation=bytes(32)))

    talk = joined(Talk(make_plan(tpm=TPM_SHOWN), change=damage), A)
    assert talk.links_done == [Reason.EVIDENCE_NOT_BOUND]


def failing(reason: Reason) -> Callable[[SignerSide, FinishWanted], list[SignerEvent]]:
    return lambda side, _event: side.refuse(reason)


def test_another_approver_finishes_when_one_cannot() -> None:
    talk = joined(Talk(make_plan(), finish_with=failing(Reason.NOT_ENOUGH_SIGNERS)), A, B)
    assert talk.failure is None
    assert {one.node_id for one in talk.joiner.candidates} == {A.node_id, C.node_id}
    talk.finish_with = None
    assert joined(talk, A).bundle is not None


def test_the_join_ends_when_no_approver_can_finish() -> None:
    talk = joined(Talk(make_plan(), finish_with=failing(Reason.NOT_ENOUGH_SIGNERS)), A, B, A, C)
    assert talk.failure is Reason.NOT_ENOUGH_SIGNERS


def test_a_signer_that_says_yes_and_does_not_sign_costs_that_signer_and_no_join() -> None:
    talk = joined(Talk(make_plan(), finish_with=failing(Reason.NOT_ENOUGH_SIGNERS)), A, B, A)
    assert talk.failure is None and [one.node_id for one in talk.joiner.candidates] == [C.node_id]
    talk.finish_with = None
    assert joined(talk, C).bundle is not None
    assert set(talk.finished[-1].approvers) == {A.node_id, B.node_id, C.node_id}


def test_a_link_that_ends_in_the_middle_costs_that_signer() -> None:
    joiner = Joiner(make_plan())
    joiner.begin(A.peer.certificate, h_of(1), 0.0)
    joiner.receive(*welcome(hints(), AUTHORITY), 0.0, MESH.at)
    assert joiner.lost(Reason.LOST) == [LinkDone(A.node_id, Reason.LOST)]
    assert joiner.lost(Reason.LOST) == []
    assert A.node_id not in {one.node_id for one in joiner.candidates}
    assert joiner.messages_to_send() == []


def test_a_silent_signer_is_given_up() -> None:
    joiner = Joiner(make_plan())
    assert joiner.deadline == math.inf
    joiner.begin(A.peer.certificate, h_of(1), 0.0)
    assert joiner.tick(STEP_TIMEOUT - 1) == []
    assert joiner.tick(STEP_TIMEOUT) == [LinkDone(A.node_id, Reason.TIMEOUT)]


def test_the_tpm_has_all_the_time_it_needs_and_may_come_too_late() -> None:
    late: list[AnswerWanted] = []

    def slow(wanted: AnswerWanted) -> TpmAnswer:
        late.append(wanted)
        assert talk.joiner.deadline == math.inf
        talk.take(talk.joiner.lost(Reason.LOST))
        return answer(wanted)

    talk = Talk(make_plan(tpm=TPM_SHOWN), answers=slow)
    talk.meet(A)
    assert late
    assert talk.joiner.messages_to_send() == []
    assert talk.joiner.state is State.IDLE


def test_while_the_tpm_works_the_signer_may_only_wait() -> None:
    talk = Talk(make_plan(tpm=TPM_SHOWN))
    challenge = challenge_of(Talk(make_plan(tpm=TPM_SHOWN)))
    joiner = talk.joiner
    joiner.begin(A.peer.certificate, h_of(1), 0.0)
    joiner.receive(*welcome(hints(), AUTHORITY), 0.0, MESH.at)
    assert len(joiner.receive(CHALLENGE, challenge, 0.0, MESH.at)) == 1
    approved = JoinResult(approved=True).pack()
    assert joiner.receive(RESULT, approved, 0.0, MESH.at) == [LinkDone(A.node_id, Reason.UNEXPECTED_FRAME)]
    assert joiner.approved == frozenset()


def test_an_authority_object_that_does_not_verify_costs_that_member() -> None:
    def refuse(_objects: tuple[bytes, ...]) -> Quorum:
        raise Refused(Reason.BAD_AUTHORITY_OBJECT, "not under the pinned root")

    talk = joined(Talk(replace(make_plan(), read_authority=refuse)), A)
    assert talk.links_done == [Reason.BAD_AUTHORITY_OBJECT]
    assert talk.sent == []
    assert talk.joiner.candidates == ()


def test_the_authority_objects_are_those_of_the_welcome() -> None:
    seen: list[tuple[bytes, ...]] = []

    def read(objects: tuple[bytes, ...]) -> Quorum:
        seen.append(objects)
        raise ZeroDivisionError

    talk = joined(Talk(replace(make_plan(), read_authority=read)), A)
    assert seen == [AUTHORITY]
    assert talk.links_done == [Reason.INTERNAL]


OTHER = make_member(MESH, "other", facts=LeafFacts(roles=("worker",)))


def of_another_mesh(event: FinishWanted) -> Bundle:
    """All of it is good, but for the mesh that it is of."""
    other, approval = make_mesh("other").authority, event.approval
    leaf = other.issue(
        approval.request, name="newcomer", facts=approval.facts, not_before=approval.not_before,
        not_after=approval.not_before + timedelta(hours=1),
    )
    return replace(bundle_for(approval), root=other.root.der, leaf=leaf)


def finishing(change: Callable[[FinishWanted], object]) -> Talk:
    def finish(side: SignerSide, event: FinishWanted) -> list[SignerEvent]:
        side._messages.append((RESULT, JoinResult(approved=True, bundle=change(event)).pack()))  # type: ignore[arg-type]
        return []

    return joined(Talk(make_plan(threshold=1), finish_with=finish), A)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda event: None, Reason.UNEXPECTED_FRAME),
        (lambda event: replace(bundle_for(event.approval), leaf=OTHER.credentials.leaf), Reason.WRONG_RECIPIENT),
        (of_another_mesh, Reason.OTHER_MESH),
        (lambda event: replace(bundle_for(event.approval), root=b"no root"), Reason.BAD_CERTIFICATE),
        (lambda event: replace(bundle_for(event.approval), leaf=b"no leaf"), Reason.BAD_CERTIFICATE),
    ],
)
def test_a_bundle_that_is_not_ours_is_not_taken(change: Callable[[FinishWanted], object], reason: Reason) -> None:
    talk = finishing(change)
    assert talk.bundle is None
    assert talk.links_done == [reason]


def test_a_certificate_under_another_name_than_the_wanted_one_is_not_taken() -> None:
    talk = Talk(make_plan(threshold=1, name="newcomer"))
    talk.finish_with = lambda side, event: side.issue(bundle_for(event.approval, "somebody")) or []  # type: ignore[func-returns-value]
    assert joined(talk, A).links_done == [Reason.BAD_CERTIFICATE]


def test_a_certificate_that_has_ended_is_not_taken() -> None:
    talk = Talk(make_plan(threshold=1))
    talk.finish_with = lambda side, event: late(talk, side, event)
    assert joined(talk, A).links_done == [Reason.CERTIFICATE_EXPIRED]


def late(talk: Talk, side: SignerSide, event: FinishWanted) -> list[SignerEvent]:
    talk.at += timedelta(days=2)
    side.issue(bundle_for(event.approval))
    return []


def test_one_link_at_a_time() -> None:
    joiner = Joiner(make_plan())
    joiner.begin(A.peer.certificate, h_of(1), 0.0)
    with pytest.raises(LocalProtocolError):
        joiner.begin(B.peer.certificate, h_of(2), 0.0)


def test_what_comes_when_all_is_done_is_not_heard() -> None:
    talk = joined(Talk(make_plan(threshold=1)), A)
    assert talk.bundle is not None
    assert talk.joiner.receive(RESULT, b"", 0.0, MESH.at) == []
    assert talk.joiner.lost(Reason.LOST) == []
    assert not any(isinstance(event, JoinFailed) for event in talk.heard)


def test_bodies_of_any_bytes_never_raise() -> None:
    for size in range(40):
        joiner = Joiner(make_plan())
        joiner.begin(A.peer.certificate, h_of(1), 0.0)
        [event] = joiner.receive(RESULT, seed(str(size))[:size], 0.0, MESH.at)
        assert isinstance(event, LinkDone)
