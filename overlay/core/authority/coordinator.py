"""Who asks for one signature and puts the shares together (RFC 9591, section 5.3), trying again as ROAST does.

ROAST (Ruffing and others, 2022), section 4: all are asked; as soon as t have shown a commitment, these t are an attempt. Each
share brings a commitment for another attempt, so whoever answers can take the place of one who does not, and with n - t silent
or lying signers there is a signature all the same. A coordinator is trusted with nothing; any member can be one, also of a
group of one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from overlay.core.authority import frost
from overlay.core.authority.requests import Request, pack_request
from overlay.core.authority.round_messages import SESSION_SIZE, Outgoing
from overlay.core.authority.sharing import GroupKey
from overlay.core.authority.signing_bodies import (
    Committed,
    Package,
    ShareSent,
    SignRequest,
    pack_commitment,
    read_commitment,
    unpack_declined,
)
from overlay.core.authority.signing_events import CoordinatorEvent, Failed, Misbehaved, OutOfStep, Signed
from overlay.core.certificate_profile import Issuer
from overlay.core.keys import NodeId
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason, RoundKind

SIGN_WITHIN: Final = 20.0  # our guess, shorter than a nonce lives
PATIENCE: Final = 0.25  # with an attempt, before others take the place of who is slow: our guess, as RFC 8305 has for dialling
ASK_AGAIN: Final = 2.0  # our guess: links lose nothing, but they break
ASKS_MAX: Final = 6  # of one signer: our guess
COME_BACK: Final = frozenset({Reason.LOST, Reason.TIMEOUT, Reason.SUPERSEDED})  # its nonces are gone: it is asked again
BUSY: Final = frozenset({Reason.TOO_MANY, Reason.BUSY})  # it is asked again later


class _State(Enum):
    ASKED = "owes a commitment"
    READY = "has shown a commitment that nobody has used"
    SIGNING = "owes a share"
    SPENT = "has given its last share"
    OUT = "takes no part any more"


@dataclass(frozen=True, slots=True)
class _Member:
    identifier: int
    state: _State = _State.ASKED
    asks: int = 1
    commitment: frost.Commitment | None = None
    package: bytes = b""  # hash of the one that it owes a share of
    reason: Reason = Reason.TIMEOUT


@dataclass(frozen=True, slots=True)
class _Attempt:
    package: Package
    gathering: frost.Gathering
    members: tuple[NodeId, ...]
    patience: float
    shares: dict[int, bytes] = field(default_factory=dict, repr=False)


class Coordinator:
    """One signature."""

    def __init__(
        self, request: Request, issuer: Issuer, group: GroupKey, members: Sequence[NodeId], *, generation: int,
        session: bytes, now: float,
    ) -> None:
        """Asks at once. `members` are all of the group; `session` is 16 random bytes.

        Raises:
            ValueError: members, group, issuer or session do not fit together.
            Refused: the request cannot be derived.
        """
        everyone = sorted(set(members))
        if len(everyone) != len(group.shares) or not issuer.spki.endswith(group.public) or len(session) != SESSION_SIZE:
            raise ValueError("members, group, issuer and session of a signature do not fit together")
        self.message = request.derive(issuer)
        self._request, self._group, self._session, self._generation = request, group, session, generation
        self._hash = sha256(self.message)
        self._members = {node_id: _Member(number) for number, node_id in enumerate(everyone, 1)}
        self._ready: list[NodeId] = []
        self._attempts: dict[bytes, _Attempt] = {}
        self._outgoing: list[Outgoing] = []
        self._until, self._again, self._done = now + SIGN_WITHIN, now + ASK_AGAIN, False
        self._question = SignRequest(generation, pack_request(request)).pack()
        for node_id in everyone:
            self._send(node_id, RoundKind.SIGN_REQUEST, self._question)

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        if self._done:
            return math.inf
        patience = max((one.patience for one in self._attempts.values() if self._may_end(one)), default=math.inf)
        return min(self._until, self._again, patience if self._enough else math.inf)

    def messages_to_send(self) -> list[Outgoing]:
        """What we owe the signers."""
        messages, self._outgoing = self._outgoing, []
        return messages

    def receive(self, sender: NodeId, kind: RoundKind, body: bytes, now: float) -> list[CoordinatorEvent]:
        """A message of this session from a signer, whose name is authentic."""
        member = self._members.get(sender)
        if self._done or member is None or member.state is _State.OUT:
            return []
        try:
            if kind is RoundKind.COMMITMENT:
                self._committed(sender, member, Committed.unpack(body))
            elif kind is RoundKind.SIGNATURE_SHARE:
                return self._shared(sender, member, ShareSent.unpack(body), now)
            elif kind is RoundKind.DECLINED:
                self._declined(sender, member, unpack_declined(body))
            else:
                raise Refused(Reason.UNEXPECTED_FRAME, kind.name)
        except Refused as error:
            return self._misbehaved(now, sender, error.reason, body)
        return self._go_on(now)

    def lost(self, node_id: NodeId, now: float) -> list[CoordinatorEvent]:
        """There is no link to this signer: nobody waits for it. For a member whose link comes back, begin anew."""
        if self._done or node_id not in self._members:
            return []
        self._leave_out(node_id, Reason.LOST)
        return self._go_on(now)

    def tick(self, now: float) -> list[CoordinatorEvent]:
        """Ask again those who are silent, let others take the place of who is slow, give up when it takes too long."""
        if self._done:
            return []
        if now >= self._until:
            return self._fail()
        if now >= self._again:
            self._again = now + ASK_AGAIN
            for node_id, member in self._members.items():
                self._ask_again(node_id, member)
        return self._go_on(now)

    # --- what signers say ---------------------------------------------------------------------------------------------

    def _committed(self, sender: NodeId, member: _Member, found: Committed) -> None:
        if member.state is not _State.ASKED:
            return
        if found.generation != self._generation:
            self._leave_out(sender, Reason.WRONG_GENERATION)
        elif found.message_hash != self._hash:
            self._leave_out(sender, Reason.EQUIVOCATION)
        else:
            self._ready_with(sender, found.commitment)

    def _shared(self, sender: NodeId, member: _Member, found: ShareSent, now: float) -> list[CoordinatorEvent]:
        attempt = self._attempts.get(found.package_hash)
        if attempt is None or sender not in attempt.members or member.identifier in attempt.shares:
            return []
        if not attempt.gathering.fits(member.identifier, found.share):
            return self._misbehaved(now, sender, Reason.BAD_SHARE, attempt.package.pack(), found.pack())
        attempt.shares[member.identifier] = found.share
        if len(attempt.shares) == len(attempt.members):
            return self._finish(attempt)
        if member.state is _State.SIGNING and member.package == found.package_hash:
            if found.following is None:
                self._members[sender] = replace(member, state=_State.SPENT)
            else:
                self._ready_with(sender, found.following)
        return self._go_on(now)

    def _declined(self, sender: NodeId, member: _Member, reason: Reason) -> None:
        if reason in COME_BACK and member.asks < ASKS_MAX:
            self._forget_commitment(sender)
            self._members[sender] = replace(member, state=_State.ASKED, asks=member.asks + 1, reason=reason)
            self._send(sender, RoundKind.SIGN_REQUEST, self._question)
        elif reason in BUSY and member.asks < ASKS_MAX:
            self._members[sender] = replace(member, reason=reason)
        else:
            self._leave_out(sender, reason)

    def _misbehaved(self, now: float, sender: NodeId, reason: Reason, *evidence: bytes) -> list[CoordinatorEvent]:
        self._leave_out(sender, reason)
        return [Misbehaved(sender, reason, evidence), *self._go_on(now)]

    # --- attempts -----------------------------------------------------------------------------------------------------

    @property
    def _enough(self) -> bool:
        return len(self._ready) >= self._group.threshold

    def _go_on(self, now: float) -> list[CoordinatorEvent]:
        """Begin an attempt when t are ready and no other promises more; fail when none can come to an end any more."""
        promising = any(self._may_end(one) and now < one.patience for one in self._attempts.values())
        if self._enough and not promising:
            self._begin(sorted(self._ready[: self._group.threshold]), now)
        left = [member for member in self._members.values() if member.state not in (_State.OUT, _State.SPENT)]
        if len(left) < self._group.threshold and not any(map(self._may_end, self._attempts.values())):
            return self._fail()
        return []

    def _begin(self, chosen: list[NodeId], now: float) -> None:
        commitments = [found for one in chosen if (found := self._members[one].commitment) is not None]
        rows = tuple((one.identifier, pack_commitment(one)) for one in commitments)
        package = Package(self._generation, self._hash, rows)
        gathering = frost.Gathering(self._group, self.message, commitments)
        self._ready = [node_id for node_id in self._ready if node_id not in chosen]
        self._attempts[package.hash] = _Attempt(package, gathering, tuple(chosen), now + PATIENCE)
        for node_id in chosen:
            self._members[node_id] = replace(self._members[node_id], state=_State.SIGNING, package=package.hash)
            self._send(node_id, RoundKind.PACKAGE, package.pack())

    def _may_end(self, attempt: _Attempt) -> bool:
        owing = [self._members[one] for one in attempt.members if self._members[one].identifier not in attempt.shares]
        return all(one.state is _State.SIGNING and one.package == attempt.package.hash for one in owing)

    def _finish(self, attempt: _Attempt) -> list[CoordinatorEvent]:
        self._done = True
        signature = attempt.gathering.aggregate(attempt.shares)  # verifies it, too
        return [*self._out_of_step(), Signed(self._request, self.message, signature, attempt.members)]

    def _fail(self) -> list[CoordinatorEvent]:
        self._done = True
        said = {one: member.reason for one, member in self._members.items()}
        return [*self._out_of_step(), Failed(Reason.NOT_ENOUGH_SIGNERS, said)]

    def _out_of_step(self) -> list[CoordinatorEvent]:
        """Signers of another generation; if so many say so that nothing can be signed without them, it is ours that is old."""
        found = [one for one, member in self._members.items() if member.reason is Reason.WRONG_GENERATION]
        return [OutOfStep(one, ours=len(found) > len(self._members) - self._group.threshold) for one in found]

    # --- one signer ---------------------------------------------------------------------------------------------------

    def _ready_with(self, node_id: NodeId, commitment: bytes) -> None:
        """Raises Refused(BAD_SHARE) for what is no commitment."""
        member = self._members[node_id]
        found = read_commitment(member.identifier, commitment)
        self._members[node_id] = replace(member, state=_State.READY, commitment=found)
        self._ready.append(node_id)

    def _leave_out(self, node_id: NodeId, reason: Reason) -> None:
        self._forget_commitment(node_id)
        self._members[node_id] = replace(self._members[node_id], state=_State.OUT, reason=reason)

    def _forget_commitment(self, node_id: NodeId) -> None:
        self._ready = [one for one in self._ready if one != node_id]

    def _ask_again(self, node_id: NodeId, member: _Member) -> None:
        if member.asks >= ASKS_MAX:
            return
        if member.state is _State.SIGNING:
            self._send(node_id, RoundKind.PACKAGE, self._attempts[member.package].package.pack())
        elif member.state is _State.ASKED:
            self._members[node_id] = replace(member, asks=member.asks + 1)
            self._send(node_id, RoundKind.SIGN_REQUEST, self._question)

    def _send(self, to: NodeId, kind: RoundKind, body: bytes) -> None:
        self._outgoing.append(Outgoing(to, self._session, kind, body))
