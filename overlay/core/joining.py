"""The joiner: one conversation after the other, with each of t signers by itself; then one of them finishes.

Frames and time in, frames and events out. Rules:

- JOIN goes only to a node that shows a leaf with role `signer` and is in the authority object under the pinned root
- an approval counts for the signer whose link it came on, once
- a signer gets our logs when our TPM has answered it, in the parts that it asks for, and no more than there are
- addresses are hints; a signer that refuses or is silent costs one signer, not the join
- a bundle is taken when the leaf in it verifies under this mesh and is for the key that asked
"""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from overlay.core.certificates import VerifiedCertificate
from overlay.core.enrolment_files import Bundle
from overlay.core.guard import asked
from overlay.core.join_binding import JoinBinding
from overlay.core.join_frames import Finish, Join, JoinChallenge, TpmAnswer, pack_answer
from overlay.core.join_plan import JoinPlan, Quorum, check_bundle
from overlay.core.join_result import JoinResult, SignerHint
from overlay.core.joiner_states import State
from overlay.core.keys import NodeId
from overlay.core.log_parts import LinkLogs, LogWanted, unpack
from overlay.core.wire import sha256
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import FrameType, Reason

STEP_TIMEOUT: Final = 30.0  # as the signer's; its finishing asks other signers, which takes seconds at worst
SIGNER: Final = "signer"  # the role

Message = tuple[FrameType, bytes]


@dataclass(frozen=True, slots=True)
class AnswerWanted:
    """Let the TPM answer, which takes time, then `supply_answer`."""

    challenge: JoinChallenge
    binding: JoinBinding


@dataclass(frozen=True, slots=True)
class LinkDone:
    """This link has served; dial the next of `candidates`. `refused`: why this signer said no, if it did."""

    peer: NodeId
    refused: Reason | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """The node is a member: install this."""

    bundle: Bundle


@dataclass(frozen=True, slots=True)
class JoinFailed:
    """There are not enough signers left that could still say yes; the reason is that of the last one."""

    reason: Reason
    detail: str


JoinerEvent = AnswerWanted | LinkDone | Joined | JoinFailed


class Joiner:
    """One join, over as many links as it takes, one at a time: a TPM does one thing at a time, too."""

    def __init__(self, plan: JoinPlan) -> None:
        self.state = State.IDLE
        self._plan = plan
        self._quorum: Quorum | None = None
        self._hints: dict[NodeId, tuple[str, ...]] = {}
        self._approved: frozenset[NodeId] = frozenset()
        self._failed: frozenset[NodeId] = frozenset()
        self._messages: list[Message] = []
        self._due = math.inf
        self._peer: VerifiedCertificate | None = None
        self._h = b""
        self._logs = LinkLogs(plan.logs)

    @property
    def approved(self) -> frozenset[NodeId]:
        """The signers that have said yes."""
        return self._approved

    @property
    def candidates(self) -> tuple[SignerHint, ...]:
        """Whom to dial next, in any order; none before the first welcome, when any member will do."""
        return tuple(SignerHint(node, self._hints.get(node, ())) for node in sorted(self._open()))

    @property
    def deadline(self) -> float:
        """When `tick` is due; math.inf for never."""
        return self._due

    def messages_to_send(self) -> list[Message]:
        """Frames and their bodies, once."""
        messages, self._messages = self._messages, []
        return messages

    def begin(self, peer: VerifiedCertificate, h: bytes, now: float) -> None:
        """A link of mode 2 has keys: `peer` is what its handshake has verified under the pinned root, `h` is h(1)."""
        if self.state is not State.IDLE:
            raise LocalProtocolError(f"a joiner that is {self.state.name.lower()} begins no other link")
        self._peer, self._h, self._logs = peer, h, LinkLogs(self._plan.logs)
        self._wait(State.GREETING, now)

    def receive(self, kind: FrameType, body: bytes, now: float, at: datetime) -> list[JoinerEvent]:
        """A frame of the member at the other end."""
        if self.state in (State.IDLE, State.DONE):
            return []
        try:
            if kind is FrameType.JOIN_RESULT:
                return self._result(JoinResult.unpack(body), now, at)
            if kind is FrameType.JOIN_CHALLENGE and self.state is State.ASKED and self._plan.tpm is not None:
                return self._challenge(JoinChallenge.unpack(body))
            if kind is FrameType.EVIDENCE_PART and self.state is State.ANSWERED:
                return self._log(body, now)
            raise Refused(Reason.UNEXPECTED_FRAME, f"{kind.name} to a joiner that is {self.state.name.lower()}")
        except Refused as refusal:
            return self._no(refusal.reason, refusal.detail)

    def supply_answer(self, answer: TpmAnswer, now: float) -> None:
        """What the TPM made of `AnswerWanted`; too late is no error, the link may have gone meanwhile."""
        if self.state is State.PROVING:
            self._logs.shown()
            self._messages.append((FrameType.JOIN_ANSWER, pack_answer(answer)))
            self._wait(State.ANSWERED, now)

    def tick(self, now: float) -> list[JoinerEvent]:
        """Time in."""
        return [] if now < self._due else self._no(Reason.TIMEOUT, "the member is silent")

    def lost(self, reason: Reason) -> list[JoinerEvent]:
        """The link has ended before its conversation."""
        return [] if self.state in (State.IDLE, State.DONE) else self._no(reason, "the link has ended")

    # --- frames -----------------------------------------------------------------------------------------------------

    def _result(self, result: JoinResult, now: float, at: datetime) -> list[JoinerEvent]:
        if result.reason is not None:
            return self._no(result.reason, "refused")
        if self.state is State.GREETING:
            return self._welcome(result, now)
        if self.state is State.FINISHING:
            return self._take(result, at)
        if self._plan.tpm is not None and self.state is not State.ANSWERED:
            raise Refused(Reason.UNEXPECTED_FRAME, "approved before the TPM was asked")
        if not result.approved:
            raise Refused(Reason.UNEXPECTED_FRAME, "neither approved nor refused")
        self._approved |= {self._signer}
        return self._finish_or_go_on(now)

    def _welcome(self, result: JoinResult, now: float) -> list[JoinerEvent]:
        quorum = asked(lambda: self._plan.read_authority(result.authority))
        self._quorum = quorum
        self._hints |= {one.node_id: one.addresses for one in result.signers if one.node_id in quorum.members}
        peer = self._peer
        assert peer is not None
        if SIGNER not in peer.roles or peer.node_id not in quorum.members:
            return self._leave(None)
        plan = self._plan
        proof = plan.prove(self._h, peer.node_id)
        join = Join(
            invite=plan.invite, csr=plan.csr, proof=proof, not_before=plan.not_before, name=plan.name, tpm=plan.tpm
        )
        self._messages.append((FrameType.JOIN, join.pack()))
        self._wait(State.ASKED, now)
        return []

    def _challenge(self, challenge: JoinChallenge) -> list[JoinerEvent]:
        plan = self._plan
        assert plan.tpm is not None
        binding = JoinBinding(
            mesh_id=plan.mesh_id, h=self._h, signer=self._signer, nonce=challenge.nonce, csr_hash=sha256(plan.csr),
            invite_id=plan.invite_id, boot_log_hash=plan.tpm.boot_log_hash,
        )
        self.state, self._due = State.PROVING, math.inf
        return [AnswerWanted(challenge, binding)]

    def _log(self, body: bytes, now: float) -> list[JoinerEvent]:
        """The signer asks for a part of our logs."""
        wanted = unpack(body)
        if not isinstance(wanted, LogWanted):
            raise Refused(Reason.UNEXPECTED_FRAME, "a part of a log that nobody asked for")
        self._messages.append((FrameType.EVIDENCE_PART, self._logs.answer(wanted)))
        self._wait(State.ANSWERED, now)
        return []

    def _finish_or_go_on(self, now: float) -> list[JoinerEvent]:
        quorum = self._quorum
        assert quorum is not None
        approvers = self._approved & quorum.members
        if len(approvers) < quorum.threshold:
            return self._leave(None)
        self._messages.append((FrameType.JOIN_ANSWER, pack_answer(Finish(tuple(sorted(approvers))))))
        self._wait(State.FINISHING, now)
        return []

    def _take(self, result: JoinResult, at: datetime) -> list[JoinerEvent]:
        if result.bundle is None:
            raise Refused(Reason.UNEXPECTED_FRAME, "finished without a certificate")
        check_bundle(result.bundle, self._plan, at)
        self.state, self._due = State.DONE, math.inf
        return [Joined(result.bundle)]

    # --- what follows -----------------------------------------------------------------------------------------------

    @property
    def _signer(self) -> NodeId:
        assert self._peer is not None
        return self._peer.node_id

    def _open(self) -> frozenset[NodeId]:
        """Who could still help: to approve, or, when enough have, to finish."""
        if self._quorum is None:
            return frozenset()
        approved = self._approved & self._quorum.members
        fresh = self._quorum.members - approved - self._failed
        if len(approved) < self._quorum.threshold:
            return fresh
        finishing = approved - self._failed
        return finishing if finishing == approved else finishing | fresh  # one may have said yes and not signed

    def _leave(self, refused: Reason | None) -> list[JoinerEvent]:
        self.state, self._due, self._messages = State.IDLE, math.inf, []
        return [LinkDone(self._signer, refused)]

    def _no(self, reason: Reason, detail: str) -> list[JoinerEvent]:
        """This one does not help; is there still a way?"""
        self._failed |= {self._signer}
        events = self._leave(reason)
        if self._quorum is None or len(self._open()) >= self._missing(self._quorum):
            return events
        self.state = State.DONE
        return [*events, JoinFailed(reason, detail)]

    def _missing(self, quorum: Quorum) -> int:
        """How many more must help; one, if it is only to finish."""
        return max(1, quorum.threshold - len(self._approved & quorum.members))

    def _wait(self, state: State, now: float) -> None:
        self.state, self._due = state, now + STEP_TIMEOUT
