"""One signer: what it checks, binds and commits to before it gives a share of a signature (RFC 9591; ROAST, section 4).

    SIGN_REQUEST -> ApprovalWanted -> approve -> MakeDurable -> durable -> COMMITMENT
    PACKAGE -> SIGNATURE_SHARE and the commitment for another attempt

The coordinator is trusted with nothing: the message is derived here, one package is signed per nonce, nonces are only in memory
and gone before the share leaves. Nothing that a peer does raises out of `receive`. A new share needs a new machine.
"""

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Final

from overlay.core.authority import frost
from overlay.core.authority.bindings import Bindings, check_time
from overlay.core.authority.requests import Request, unpack_request
from overlay.core.authority.reservations import Reservations
from overlay.core.authority.round_messages import Outgoing
from overlay.core.authority.sharing import Share
from overlay.core.authority.signing_bodies import Committed, Package, ShareSent, SignRequest, pack_commitment, pack_declined
from overlay.core.authority.signing_events import (
    ApprovalWanted,
    Declined,
    Equivocated,
    GivenUp,
    MakeDurable,
    SessionKey,
    SignerEvent,
    Signing,
)
from overlay.core.authority.x509_requests import IssueLeaf
from overlay.core.certificate_profile import Issuer
from overlay.core.chance import Chance
from overlay.core.keys import NodeId
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason, RoundKind

SESSIONS_MAX: Final = 64  # at once: our guess
SESSIONS_PER_COORDINATOR: Final = 8  # our guess; another one takes the place of its oldest
ATTEMPTS_MAX: Final = 16  # shares of one session: our guess; ROAST needs at most n - t + 1
ANSWER_WITHIN: Final = 30.0  # for the shell: our guess
NONCE_LIFE: Final = 30.0  # our guess, longer than a coordinator's patience
LEAF_BURST: Final = 64.0  # certificates at once: our guess, a mesh that comes back
LEAF_RATE: Final = 1.0  # per second, after that: our guess; 1,000 nodes renew every minute or so


class _State(Enum):
    ASKED = "the shell is asked whether it approves"
    BOUND = "the shell is making the bindings durable"
    COMMITTED = "a commitment is out"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    key: SessionKey
    asked: bytes  # hash of the body that began it
    request: Request = field(repr=False)
    message: bytes = field(repr=False)
    until: float
    state: _State = _State.ASKED
    nonces: frost.Nonces | None = field(default=None, repr=False)
    commitment: bytes = b""
    answers: tuple[tuple[bytes, bytes, bytes], ...] = field(default=(), repr=False)  # commitment, package, answer


class Signer:
    """Every signature that one share takes part in."""

    def __init__(self, share: Share, issuer: Issuer, bindings: Bindings, chance: Chance) -> None:
        """Raises ValueError if the share is not of the issuer's key."""
        if not issuer.spki.endswith(share.group.public):
            raise ValueError("the share is of another root")
        self.bindings = bindings
        self._share, self._issuer, self._chance = share, issuer, chance
        self._reserved = Reservations(issuer)
        self._sessions: dict[SessionKey, _Session] = {}
        self._outgoing: list[Outgoing] = []
        self._leaves, self._counted = LEAF_BURST, -math.inf

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        return min((session.until for session in self._sessions.values()), default=math.inf)

    def messages_to_send(self) -> list[Outgoing]:
        """What we owe the coordinators."""
        messages, self._outgoing = self._outgoing, []
        return messages

    def receive(
        self, sender: NodeId, session: bytes, kind: RoundKind, body: bytes, now: float, at: datetime
    ) -> list[SignerEvent]:
        """A message from a coordinator, whose name is authentic."""
        events, key = self.tick(now), SessionKey(sender, session)
        try:
            if kind is RoundKind.SIGN_REQUEST:
                return events + self._asked(key, body, now, at)
            if kind is RoundKind.PACKAGE:
                return events + self._package(key, body, now)
            raise Refused(Reason.UNEXPECTED_FRAME, kind.name)
        except Refused as error:
            return events + self._decline(key, error)

    def approve(self, key: SessionKey, now: float) -> list[SignerEvent]:
        """The shell agrees with a request. A session that has ended meanwhile gives no event."""
        session = self._in_state(key, _State.ASKED)
        if session is None:
            return []
        try:
            added = self.bindings.missing(session.request, self._issuer, session.message)
            if added and isinstance(session.request, IssueLeaf):
                self._count_leaf(now)
            self.bindings = self.bindings.adding(added)
        except Refused as error:
            return self.decline(key, error.reason)
        self._reserved = self._reserved.with_bound((session.request, session.message), added)
        self._sessions[key] = replace(session, state=_State.BOUND, until=now + ANSWER_WITHIN)
        return [MakeDurable(key, self.bindings, added)]

    def decline(self, key: SessionKey, reason: Reason) -> list[SignerEvent]:
        """The shell does not agree."""
        return self._end(key, Refused(reason)) if key in self._sessions else []

    def durable(self, key: SessionKey, now: float) -> list[SignerEvent]:
        """The bindings of MakeDurable outlive a crash: now, and not before, we commit."""
        session = self._in_state(key, _State.BOUND)
        if session is not None:
            self._sessions[key] = session = self._commit(session, now)
            self._send_commitment(session)
        return []

    def tick(self, now: float) -> list[SignerEvent]:
        """Forget what took too long, nonces with it."""
        over = [key for key, session in self._sessions.items() if session.until <= now]
        for key in over:
            del self._sessions[key]
        return [*(Declined(key, Reason.TIMEOUT) for key in over), *self._give_up()]

    def _asked(self, key: SessionKey, body: bytes, now: float, at: datetime) -> list[SignerEvent]:
        session = self._sessions.get(key)
        if session is not None:
            return self._asked_again(session, body, now)
        asked = SignRequest.unpack(body)
        self._check_generation(asked.generation)
        request = unpack_request(asked.request)
        check_time(request, at)
        message = request.derive(self._issuer)
        self.bindings.missing(request, self._issuer, message)
        events = self._make_room(key.coordinator)
        self._sessions[key] = _Session(
            key=key, asked=sha256(body), request=request, message=message, until=now + ANSWER_WITHIN
        )
        return [*events, ApprovalWanted(key, request)]

    def _asked_again(self, session: _Session, body: bytes, now: float) -> list[SignerEvent]:
        """An answer was lost: the same commitment, if nothing was signed with it."""
        if sha256(body) != session.asked:
            raise Refused(Reason.EQUIVOCATION, "another request under the same session")
        if session.state is _State.COMMITTED:
            if session.nonces is None:
                raise Refused(Reason.TOO_MANY, "attempts")
            self._send_commitment(session)
        return []

    def _make_room(self, coordinator: NodeId) -> list[SignerEvent]:
        own = [key for key in self._sessions if key.coordinator == coordinator]
        if len(own) >= SESSIONS_PER_COORDINATOR:
            del self._sessions[own[0]]
            return [Declined(own[0], Reason.SUPERSEDED)]
        if len(self._sessions) < SESSIONS_MAX:
            return []
        [(most, count)] = Counter(key.coordinator for key in self._sessions).most_common(1)
        if count <= len(own) + 1:
            raise Refused(Reason.TOO_MANY, "sessions")
        oldest = next(key for key in self._sessions if key.coordinator == most)  # a few do not keep the others out
        del self._sessions[oldest]
        return [Declined(oldest, Reason.SUPERSEDED)]

    def _count_leaf(self, now: float) -> None:
        left = min(LEAF_BURST, self._leaves + (now - self._counted) * LEAF_RATE)
        if left < 1:
            raise Refused(Reason.TOO_MANY, "certificates")
        self._leaves, self._counted = left - 1, now

    def _package(self, key: SessionKey, body: bytes, now: float) -> list[SignerEvent]:
        session = self._in_state(key, _State.COMMITTED)
        if session is None:
            raise Refused(Reason.LOST, "no commitment of ours is out")
        package = Package.unpack(body)
        own = dict(package.commitments).get(self._share.identifier)
        for commitment, signed, answer in session.answers:
            if commitment == own:
                return self._signed_before(session, (signed, body), answer)
        self._check_package(session, package, own)
        assert session.nonces is not None  # _check_package has seen to it
        points = package.points(session.nonces.commitment)
        del self._sessions[key]  # whatever happens from here on, these nonces are gone
        share = frost.sign(self._share, session.nonces, session.message, points)
        self._reserved = self._reserved.with_signed((session.request, session.message))
        self._answer(replace(session, nonces=None), package, share, now)
        return [Signing(key, session.request, session.message)]

    def _check_package(self, session: _Session, package: Package, own: bytes | None) -> None:
        self._check_generation(package.generation)
        if package.message_hash != sha256(session.message):
            raise Refused(Reason.EQUIVOCATION, "another message than the request gives")
        if session.nonces is None or own != session.commitment:
            raise Refused(Reason.LOST, "not the commitment of ours that is out")
        if len(package.commitments) != self._share.group.threshold:
            raise Refused(Reason.MALFORMED, "exactly t sign together")

    def _answer(self, session: _Session, package: Package, share: bytes, now: float) -> None:
        used = session.commitment
        if len(session.answers) + 1 < ATTEMPTS_MAX:
            session = self._commit(session, now)
        following = session.commitment if session.nonces is not None else None
        body = ShareSent(package.hash, share, following).pack()
        answers = (*session.answers, (used, package.pack(), body))
        self._sessions[session.key] = replace(session, answers=answers)
        self._send(session.key, RoundKind.SIGNATURE_SHARE, body)

    def _signed_before(self, session: _Session, bodies: tuple[bytes, bytes], answer: bytes) -> list[SignerEvent]:
        """The same package again gets the same answer; another one would have given our secret away."""
        if bodies[0] == bodies[1]:
            self._send(session.key, RoundKind.SIGNATURE_SHARE, answer)
            return []
        ended = self._end(session.key, Refused(Reason.EQUIVOCATION, "two packages under one nonce"))
        return [Equivocated(session.key, bodies), *ended]

    def _commit(self, session: _Session, now: float) -> _Session:
        nonces, commitment = frost.commit(self._share, self._chance)
        return replace(
            session, state=_State.COMMITTED, nonces=nonces, commitment=pack_commitment(commitment), until=now + NONCE_LIFE
        )

    def _send_commitment(self, session: _Session) -> None:
        body = Committed(self._share.generation, sha256(session.message), session.commitment).pack()
        self._send(session.key, RoundKind.COMMITMENT, body)

    def _check_generation(self, generation: int) -> None:
        if generation != self._share.generation:
            raise Refused(Reason.WRONG_GENERATION, f"{generation} where we have {self._share.generation}")

    def _give_up(self) -> list[SignerEvent]:
        """Let go of what was bound for signatures that have ended before any share of ours left: their nonces are gone."""
        rows = self._reserved.given_up((session.request, session.message) for session in self._sessions.values())
        if not rows:
            return []
        self._reserved, self.bindings = replace(self._reserved, rows=self._reserved.rows - rows), self.bindings.less(rows)
        return [GivenUp(rows)]

    def _in_state(self, key: SessionKey, state: _State) -> _Session | None:
        session = self._sessions.get(key)
        return session if session is not None and session.state is state else None

    def _end(self, key: SessionKey, error: Refused) -> list[SignerEvent]:
        del self._sessions[key]
        return self._decline(key, error)

    def _decline(self, key: SessionKey, error: Refused) -> list[SignerEvent]:
        self._send(key, RoundKind.DECLINED, pack_declined(error.reason))
        return [Declined(key, error.reason, error.detail), *self._give_up()]

    def _send(self, key: SessionKey, kind: RoundKind, body: bytes) -> None:
        self._outgoing.append(Outgoing(key.coordinator, key.session, kind, body))
