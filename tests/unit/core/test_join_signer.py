"""The signer's end of a joining link: what it approves, what it refuses, and that nothing comes out of order."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from overlay.core.certificate_request import build_request
from overlay.core.certificates import TOLERANCE
from overlay.core.join_binding import JoinBinding
from overlay.core.join_frames import (
    Finish,
    Join,
    JoinChallenge,
    TpmAnswer,
    pack_answer,
    unpack_answer,
)
from overlay.core.join_ports import JoinFinding
from overlay.core.join_result import JoinResult
from overlay.core.join_signer import STEP_TIMEOUT, ApprovalWanted, FinishWanted, JoinRefused
from overlay.core.join_signer_states import State
from overlay.core.joining import AnswerWanted
from overlay.core.keys import Ed25519Signer
from overlay.core.wire import sha256
from overlay.errors import LocalProtocolError
from overlay.registry import FrameType, Reason
from tests.unit.core.authority_kit import seed
from tests.unit.core.join_kit import (
    INVITE,
    INVITE_ID,
    JOIN_KEY,
    MESH,
    NEWCOMER,
    SIGNERS,
    TPM_SHOWN,
    Invites,
    Talk,
    Tpms,
    answer,
    bundle_for,
    h_of,
    make_plan,
    proof_string,
)

SIGNER = SIGNERS[0]
JOIN, ANSWER, CHALLENGE = FrameType.JOIN, FrameType.JOIN_ANSWER, FrameType.JOIN_CHALLENGE
EMPTY_ANSWER = TpmAnswer(activation=bytes(32), quote=b"q", quote_signature=b"s", certify_attest=b"c", certify_signature=b"s")


def join(h: bytes = h_of(1), signer: bytes = SIGNER.node_id, key: Ed25519Signer = NEWCOMER, **changed: Any) -> Join:
    """A good JOIN for the first link, but for what is changed."""
    csr = build_request(key, "newcomer")
    good = Join(
        invite=INVITE, csr=csr, proof=JOIN_KEY.sign(proof_string(h, signer, csr)), not_before=MESH.at, tpm=TPM_SHOWN
    )
    return replace(good, **changed)


class Signer:
    """One link, spoken to frame by frame."""

    def __init__(self, number: int = 1, invites: Invites | None = None, tpms: object = None, member: int = 0) -> None:
        self.talk = Talk(make_plan(), invites=invites or Invites(), tpms=tpms or Tpms(), links=number)
        self.side = self.talk.side(SIGNERS[member], h_of(number))
        assert self.side.messages_to_send()

    def hear(self, kind: FrameType, body: bytes) -> list[object]:
        return list(self.side.receive(kind, body, self.talk.now, self.talk.at))

    def challenge(self, asked: Join | None = None) -> JoinChallenge:
        assert self.hear(JOIN, (asked or join()).pack()) == []
        [(kind, body)] = self.side.messages_to_send()
        assert kind is CHALLENGE
        return JoinChallenge.unpack(body)

    def refusal(self, kind: FrameType, body: bytes) -> Reason:
        """What is refused, which the joiner hears too, and which ends the conversation."""
        [event] = self.hear(kind, body)
        assert isinstance(event, JoinRefused)
        assert self.side.state is State.ENDED
        assert self.said() == JoinResult(reason=event.reason)
        assert self.hear(JOIN, join().pack()) == []
        return event.reason

    def said(self) -> JoinResult:
        [(kind, body)] = self.side.messages_to_send()
        assert kind is FrameType.JOIN_RESULT
        return JoinResult.unpack(body)


def wanted_by(signer: Signer, challenge: JoinChallenge, asked: Join) -> AnswerWanted:
    binding = JoinBinding(
        mesh_id=MESH.mesh_id, h=h_of(signer.talk.links), signer=SIGNER.node_id, nonce=challenge.nonce,
        csr_hash=sha256(asked.csr), invite_id=INVITE_ID, boot_log_hash=sha256(b"log"),
    )
    return AnswerWanted(challenge, binding)


def good_answer(signer: Signer, asked: Join | None = None) -> bytes:
    asked = asked or join()
    return pack_answer(answer(wanted_by(signer, signer.challenge(asked), asked)))


def approved() -> tuple[Signer, ApprovalWanted]:
    signer = Signer()
    [event] = signer.hear(ANSWER, good_answer(signer))
    assert isinstance(event, ApprovalWanted)
    return signer, event


def test_a_good_conversation_ends_in_an_approval_from_which_the_certificate_follows() -> None:
    signer, event = approved()
    approval = event.approval
    assert (approval.name, approval.roles, approval.not_before) == ("newcomer", ("worker",), MESH.at)
    assert (approval.invite_id, approval.invite_hash) == (INVITE_ID, sha256(INVITE))
    assert (approval.facts.level, approval.facts.ek_tag) == (2, bytes(32))
    assert (approval.node_id, approval.csr) == (approval.request.node_id, join().csr)
    assert signer.side.messages_to_send() == []  # nothing is said before the driver has made it durable
    signer.side.approve(signer.talk.now)
    assert signer.said() == JoinResult(approved=True)
    assert approval.to_be_signed(MESH.root.issuer) in bundle_for(approval).leaf


def test_a_joiner_without_a_tpm_is_approved_without_a_challenge() -> None:
    signer = Signer()
    [event] = signer.hear(JOIN, join(tpm=None).pack())
    assert isinstance(event, ApprovalWanted)
    assert (event.approval.facts.level, event.approval.facts.ak_name) == (1, None)


def test_who_is_approved_may_ask_to_finish_and_gets_the_bundle() -> None:
    signer, event = approved()
    signer.side.approve(signer.talk.now)
    signer.said()
    approvers = tuple(sorted([SIGNER.node_id, SIGNERS[1].node_id]))
    assert signer.hear(ANSWER, pack_answer(Finish(approvers))) == [FinishWanted(event.approval, approvers)]
    bundle = bundle_for(event.approval)
    signer.side.issue(bundle)
    assert signer.said() == JoinResult(approved=True, bundle=bundle)
    assert signer.side.deadline == math.inf


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"invite": b"another"}, Reason.BAD_INVITE),
        ({"proof": bytes(64)}, Reason.BAD_SIGNATURE),
        ({"csr": b"no request"}, Reason.BAD_CERTIFICATE),
        ({"not_before": MESH.at + TOLERANCE + timedelta(seconds=4)}, Reason.CLOCK),
        ({"not_before": MESH.at - TOLERANCE}, Reason.CLOCK),
        ({"name": "mallory"}, Reason.NOT_ALLOWED),
        ({"tpm": replace(TPM_SHOWN, ek_public=b"other")}, Reason.BAD_EVIDENCE),
    ],
)
def test_a_join_in_which_one_thing_is_wrong_is_refused(changed: dict[str, Any], reason: Reason) -> None:
    assert Signer().refusal(JOIN, join(**changed).pack()) is reason


def test_clocks_may_differ_by_five_minutes() -> None:
    Signer().challenge(join(not_before=MESH.at - timedelta(minutes=4)))
    Signer().challenge(join(not_before=MESH.at + timedelta(minutes=4)))
    assert Signer().refusal(JOIN, join(not_before=MESH.at - timedelta(minutes=6)).pack()) is Reason.CLOCK


def test_a_join_that_was_recorded_on_another_link_is_refused() -> None:
    assert Signer(number=2).refusal(JOIN, join(h=h_of(1)).pack()) is Reason.BAD_SIGNATURE


def test_a_join_that_was_meant_for_another_signer_is_refused() -> None:
    assert Signer(member=1).refusal(JOIN, join().pack()) is Reason.BAD_SIGNATURE


def test_a_join_with_the_request_of_another_key_is_refused() -> None:
    other = build_request(Ed25519Signer(seed("other")), "newcomer")
    assert Signer().refusal(JOIN, join(csr=other).pack()) is Reason.BAD_SIGNATURE


def test_an_answer_that_was_recorded_on_another_link_is_refused() -> None:
    first = good_answer(Signer())
    second = Signer(number=2)
    second.challenge(join(h=h_of(2)))
    assert second.refusal(ANSWER, first) is Reason.EVIDENCE_NOT_BOUND


@pytest.mark.parametrize("part", ["activation", "quote", "certify_attest"])
def test_an_answer_in_which_one_part_is_wrong_is_refused(part: str) -> None:
    signer = Signer()
    good = unpack_answer(good_answer(signer))
    assert isinstance(good, TpmAnswer)
    changed = replace(good, **{part: bytes(len(getattr(good, part)))})
    assert signer.refusal(ANSWER, pack_answer(changed)) is Reason.EVIDENCE_NOT_BOUND


@pytest.mark.parametrize("kind", [ANSWER, CHALLENGE, FrameType.JOIN_RESULT, FrameType.RENEWAL])
def test_only_a_join_comes_first(kind: FrameType) -> None:
    assert Signer().refusal(kind, pack_answer(EMPTY_ANSWER)) is Reason.UNEXPECTED_FRAME


def test_a_tpm_is_shown_once_it_cannot_be_swapped_after_the_challenge() -> None:
    signer = Signer()
    signer.challenge()
    assert signer.refusal(JOIN, join().pack()) is Reason.UNEXPECTED_FRAME


def test_nobody_finishes_before_the_tpm_has_answered() -> None:
    signer = Signer()
    signer.challenge()
    assert signer.refusal(ANSWER, pack_answer(Finish((SIGNER.node_id,)))) is Reason.UNEXPECTED_FRAME


def test_nothing_is_heard_while_the_driver_decides() -> None:
    signer, _ = approved()
    assert signer.refusal(ANSWER, pack_answer(Finish((SIGNER.node_id,)))) is Reason.UNEXPECTED_FRAME


def test_a_tpm_answers_once() -> None:
    signer, _ = approved()
    signer.side.approve(signer.talk.now)
    signer.said()
    assert signer.refusal(ANSWER, pack_answer(EMPTY_ANSWER)) is Reason.UNEXPECTED_FRAME


def test_a_signer_finishes_only_what_it_has_approved_itself() -> None:
    signer, _ = approved()
    signer.side.approve(signer.talk.now)
    signer.said()
    assert signer.refusal(ANSWER, pack_answer(Finish((SIGNERS[1].node_id,)))) is Reason.NOT_ENOUGH_SIGNERS


def test_the_driver_may_refuse_what_the_checks_let_pass() -> None:
    signer, _ = approved()
    assert signer.side.refuse(Reason.INVITE_SPENT, "used") == [JoinRefused(Reason.INVITE_SPENT, "used")]
    assert signer.said() == JoinResult(reason=Reason.INVITE_SPENT)
    assert signer.side.refuse(Reason.NAME_TAKEN) == []


def test_the_driver_answers_only_what_it_was_asked() -> None:
    signer, event = approved()
    with pytest.raises(LocalProtocolError):
        signer.side.issue(bundle_for(event.approval))
    signer.side.approve(0)
    with pytest.raises(LocalProtocolError):
        signer.side.approve(0)


def test_a_guard_that_fails_refuses() -> None:
    invites = Invites()
    invites.broken = True
    assert Signer(invites=invites).refusal(JOIN, join().pack()) is Reason.INTERNAL


class Broken(Tpms):
    """Every method may be made to raise."""

    def __init__(self, method: str) -> None:
        setattr(self, method, self.fail)

    def fail(self, *_: object, **__: object) -> JoinFinding:
        raise ZeroDivisionError


@pytest.mark.parametrize("method", ["wrap", "appraise_file_key"])
def test_a_judge_of_tpms_that_fails_refuses(method: str) -> None:
    signer = Signer(tpms=Broken(method))
    body = join(tpm=None if method == "appraise_file_key" else TPM_SHOWN).pack()
    assert signer.refusal(JOIN, body) is Reason.INTERNAL


def test_a_judge_of_answers_that_fails_refuses() -> None:
    signer = Signer(tpms=Broken("appraise"))
    assert signer.refusal(ANSWER, good_answer(signer)) is Reason.INTERNAL


def test_who_is_silent_is_given_up() -> None:
    signer = Signer()
    assert signer.side.deadline == 100.0 + STEP_TIMEOUT
    assert signer.side.tick(129.0) == []
    [event] = signer.side.tick(130.0)
    assert isinstance(event, JoinRefused)
    assert event.reason is Reason.TIMEOUT


def test_the_driver_has_all_the_time_it_needs() -> None:
    signer, _ = approved()
    assert signer.side.deadline == math.inf
    signer.side.approve(500.0)
    assert signer.side.deadline == 500.0 + STEP_TIMEOUT


def name_of(invites: Invites, **changed: Any) -> str:
    [event] = Signer(invites=invites).hear(JOIN, join(tpm=None, **changed).pack())
    assert isinstance(event, ApprovalWanted)
    return event.approval.name


def test_the_invite_names_the_joiner_or_lets_it_choose() -> None:
    assert name_of(Invites("alice")) == "alice"
    assert name_of(Invites("alice"), name="alice") == "alice"
    assert name_of(Invites(None), name="bob") == "bob"
    assert name_of(Invites(None)) == "newcomer"


def test_what_is_no_name_is_refused() -> None:
    assert Signer(invites=Invites(None)).refusal(JOIN, join(name="Bob!").pack()) is Reason.MALFORMED


def test_secrets_of_a_conversation_differ_from_link_to_link() -> None:
    one, other = Signer(1).challenge(), Signer(2).challenge(join(h=h_of(2)))
    assert one.nonce != other.nonce
    assert one.blob != other.blob


def test_the_secret_shows_in_no_text() -> None:
    signer = Signer()
    secret = signer.challenge().blob
    challenged = signer.side._challenged
    assert challenged is not None
    assert challenged.secret == secret
    assert secret.hex() not in repr(challenged)
    assert repr(secret) not in repr(challenged)


Cut = Callable[[bytes], bytes]


@pytest.mark.parametrize("cut", [lambda body: body[:-1], lambda body: body + b"\0", lambda _body: b""])
def test_bodies_that_are_cut_never_raise(cut: Cut) -> None:
    assert Signer().refusal(JOIN, cut(join().pack())) is Reason.MALFORMED
    signer = Signer()
    assert signer.refusal(ANSWER, cut(good_answer(signer))) is Reason.MALFORMED
