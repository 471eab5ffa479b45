"""The signer's end of one joining link: JOIN, CHALLENGE, ANSWER, logs, and an approval that a certificate follows from.

Frames and time in, frames and events out. Rules:

- everything is checked before the driver is asked, and nothing is approved before the driver has made it durable
- the secret and the nonce serve one conversation, and are gone with its end
- logs are asked for when all else is genuine, one part after the other, as on links; `guest_session` bounds size and time
- whatever is refused ends the conversation; on another link the joiner may begin again, which costs it no use
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from overlay.core.certificate_profile import LeafFacts, is_name
from overlay.core.certificate_request import Request, verify_request
from overlay.core.certificates import TOLERANCE, show_time
from overlay.core.chance import Chance
from overlay.core.enrolment_files import Bundle
from overlay.core.guard import asked
from overlay.core.join_binding import JoinBinding
from overlay.core.join_frames import Finish, Join, JoinChallenge, JoinTpm, TpmAnswer, unpack_answer
from overlay.core.join_ports import Approval, GrantedInvite, InviteChecker, JoinAppraiser, JoinFinding, JoinInquiry, JoinLink
from overlay.core.join_result import JoinResult, SignerHint
from overlay.core.join_signer_states import EXPECTED, State
from overlay.core.keys import NodeId
from overlay.core.limits import NONCE_SIZE
from overlay.core.log_parts import LinkLogs, LogPart, NoLogs, unpack
from overlay.core.wire import sha256
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import FrameType, Reason

STEP_TIMEOUT: Final = 30.0  # as admission: a slow TPM makes its EK in seconds, then signs twice
SECRET_SIZE: Final = 32  # the largest that MakeCredential takes for a SHA-256 name

Message = tuple[FrameType, bytes]


@dataclass(frozen=True, slots=True)
class ApprovalWanted:
    """All checks have passed. Bind name, use and serial durably, then `approve`, or `refuse`."""

    approval: Approval
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FinishWanted:
    """Have it signed with the help of these signers, each of which looks at its own approval; then `issue` or `refuse`."""

    approval: Approval
    approvers: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class JoinRefused:
    """The conversation has ended; the joiner has been told the reason, and not the detail."""

    reason: Reason
    detail: str


SignerEvent = ApprovalWanted | FinishWanted | JoinRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What a JOIN asks for, once invite, proof and CSR have verified."""

    request: Request
    name: str
    invite: GrantedInvite
    not_before: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Challenged:
    """What the answer is held against: never the joiner's second word about its TPM, only its first."""

    asked: _Asked
    shown: JoinTpm
    binding: JoinBinding
    secret: bytes = field(repr=False)
    pcr_bitmap: int


def welcome(signers: tuple[SignerHint, ...], authority: tuple[bytes, ...]) -> Message:
    """The first frame to a joiner: where the signers are. It is all that a member which is no signer ever says."""
    return FrameType.JOIN_RESULT, JoinResult(signers=signers, authority=authority).pack()


class SignerSide:
    """The machine of one such link."""

    def __init__(
        self, link: JoinLink, invites: InviteChecker, tpms: JoinAppraiser, chance: Chance, greeting: Message, now: float, *,
        patience: float = STEP_TIMEOUT,
    ) -> None:
        """`greeting` is what `welcome` gives; `patience`: seconds in which the joiner takes its next step."""
        self.state = State.WAITING
        self._link = link
        self._invites = invites
        self._tpms = tpms
        self._chance = chance
        self._messages: list[Message] = [greeting]
        self._patience = patience
        self._due = now + patience
        self._challenged: _Challenged | None = None
        self._logs = LinkLogs(NoLogs())  # a joiner asks for none of ours
        self._inquiry: tuple[_Asked, JoinInquiry] | None = None
        self._approval: Approval | None = None

    @property
    def deadline(self) -> float:
        """When `tick` is due; math.inf while the driver is at work, and at the end."""
        return self._due if self.state in EXPECTED else math.inf

    def messages_to_send(self) -> list[Message]:
        """Frames and their bodies, once."""
        messages, self._messages = self._messages, []
        return messages

    def receive(self, kind: FrameType, body: bytes, now: float, at: datetime) -> list[SignerEvent]:
        """A frame of the joiner."""
        if self.state is State.ENDED:
            return []
        try:
            if kind is not EXPECTED.get(self.state):
                raise Refused(Reason.UNEXPECTED_FRAME, f"{kind.name} to a signer that is {self.state.name.lower()}")
            if self.state is State.WAITING:
                return self._join(Join.unpack(body), now, at)
            if self.state is State.READING:
                return self._log(body, now)
            return self._answer(body, now, at)
        except Refused as refusal:
            return self._end(refusal.reason, refusal.detail)

    def tick(self, now: float) -> list[SignerEvent]:
        """Time in."""
        if now < self.deadline:
            return []
        return self._end(Reason.TIMEOUT, "the joiner is silent")

    def approve(self, now: float) -> None:
        """The driver's yes to `ApprovalWanted`."""
        self._must_be(State.DECIDING)
        self._due = now + self._patience
        self._reply(State.APPROVED, JoinResult(approved=True))

    def issue(self, bundle: Bundle) -> None:
        """The driver's answer to `FinishWanted`."""
        self._must_be(State.FINISHING)
        self._reply(State.ENDED, JoinResult(approved=True, bundle=bundle))

    def refuse(self, reason: Reason, detail: str = "") -> list[SignerEvent]:
        """The driver's no to either."""
        return [] if self.state is State.ENDED else self._end(reason, detail)

    # --- the two frames ---------------------------------------------------------------------------------------------

    def _join(self, join: Join, now: float, at: datetime) -> list[SignerEvent]:
        wanted = self._check(join, at)
        if join.tpm is None:
            return self._decide(wanted, asked(lambda: self._tpms.appraise_file_key(wanted.request)))
        nonce, secret = self._chance.token(NONCE_SIZE), self._chance.token(SECRET_SIZE)
        shown, bitmap = join.tpm, asked(lambda: self._tpms.pcr_bitmap)
        wrapped = asked(lambda: self._tpms.wrap(shown, wanted.request, secret))
        binding = JoinBinding(
            mesh_id=self._link.mesh_id, h=self._link.h, signer=self._link.signer, nonce=nonce,
            csr_hash=sha256(join.csr), invite_id=wanted.invite.invite_id, boot_log_hash=shown.boot_log_hash,
        )
        challenge = JoinChallenge(
            nonce=nonce, blob=wrapped.blob, encrypted_seed=wrapped.encrypted_seed, pcr_bitmap=bitmap
        )
        self._challenged = _Challenged(asked=wanted, shown=shown, binding=binding, secret=secret, pcr_bitmap=bitmap)
        self._due = now + self._patience
        self.state = State.CHALLENGED
        self._messages.append((FrameType.JOIN_CHALLENGE, challenge.pack()))
        return []

    def _check(self, join: Join, at: datetime) -> _Asked:
        """What stands in the JOIN itself."""
        request = verify_request(join.csr)
        invite = asked(lambda: self._invites.check_invite(join, self._link, request, at))
        if abs(at - join.not_before) > TOLERANCE:
            detail = f"the joiner's clock says {show_time(join.not_before)}, it is {show_time(at)} here"
            raise Refused(Reason.CLOCK, detail)
        return _Asked(request=request, name=_name(join, invite, request), invite=invite, not_before=join.not_before)

    def _answer(self, body: bytes, now: float, at: datetime) -> list[SignerEvent]:
        answer = unpack_answer(body)
        if self._approval is not None:
            return self._finish(self._approval, answer)
        if not isinstance(answer, TpmAnswer) or self._challenged is None:
            raise Refused(Reason.UNEXPECTED_FRAME, "there is nothing to finish yet")
        case = self._challenged
        finding = asked(
            lambda: self._tpms.appraise(
                case.shown, answer, case.binding, case.secret, case.asked.request, pcr_bitmap=case.pcr_bitmap, at=at
            )
        )
        return self._judged(case.asked, finding, now)

    def _log(self, body: bytes, now: float) -> list[SignerEvent]:
        """A part of the joiner's logs, the one that was asked for."""
        part = unpack(body)
        if not isinstance(part, LogPart) or self._inquiry is None:
            raise Refused(Reason.UNEXPECTED_FRAME, "a joiner asks for our logs")
        self._logs.take(part)
        wanted, inquiry = self._inquiry
        return self._judged(wanted, asked(lambda: inquiry.take(part)), now)

    def _finish(self, approval: Approval, answer: TpmAnswer | Finish) -> list[SignerEvent]:
        if not isinstance(answer, Finish):
            raise Refused(Reason.UNEXPECTED_FRAME, "the TPM has answered already")
        if self._link.signer not in answer.approvers:
            raise Refused(Reason.NOT_ENOUGH_SIGNERS, "the signer that is asked to finish is not among the approvers")
        self.state = State.FINISHING
        return [FinishWanted(approval, answer.approvers)]

    # --- what follows -----------------------------------------------------------------------------------------------

    def _judged(self, wanted: _Asked, found: JoinFinding | JoinInquiry, now: float) -> list[SignerEvent]:
        """Decide, or ask for the part of the logs that is lacking. The secret has served either way."""
        self._challenged = self._inquiry = None
        if isinstance(found, JoinFinding):
            return self._decide(wanted, found)
        part = asked(lambda: found.wanted)
        self._messages.append((FrameType.EVIDENCE_PART, self._logs.ask(part, found)))
        self._inquiry, self._due, self.state = (wanted, found), now + self._patience, State.READING
        return []

    def _decide(self, wanted: _Asked, finding: JoinFinding) -> list[SignerEvent]:
        facts = LeafFacts(
            roles=wanted.invite.roles, level=finding.level, ak_name=finding.ak_name,
            ak_qualified_name=finding.ak_qualified_name, ek_tag=finding.ek_tag, policy_version=finding.policy_version,
        )
        approval = Approval(
            request=wanted.request, name=wanted.name, facts=LeafFacts.unpack(facts.pack()), not_before=wanted.not_before,
            invite_id=wanted.invite.invite_id, invite_hash=wanted.invite.hash,
        )
        self._approval, self.state = approval, State.DECIDING
        return [ApprovalWanted(approval, finding.warnings)]

    def _reply(self, state: State, result: JoinResult) -> None:
        self._messages.append((FrameType.JOIN_RESULT, result.pack()))
        self.state = state

    def _end(self, reason: Reason, detail: str) -> list[SignerEvent]:
        self._challenged = self._inquiry = self._approval = None
        self._reply(State.ENDED, JoinResult(reason=reason))
        return [JoinRefused(reason, detail)]

    def _must_be(self, state: State) -> None:
        if self.state is not state:
            raise LocalProtocolError(f"a joining link that is {self.state.name.lower()}, and not {state.name.lower()}")


def _name(join: Join, invite: GrantedInvite, request: Request) -> str:
    """The invite's name, else the wanted one, else that of the request; raises Refused(NOT_ALLOWED or MALFORMED)."""
    if invite.name is not None and join.name not in (None, invite.name):
        raise Refused(Reason.NOT_ALLOWED, f"the invite is for {invite.name}")
    name = invite.name or join.name or request.name
    if not is_name(name):
        raise Refused(Reason.MALFORMED, "what the joiner wants to be called is no name")
    return name
