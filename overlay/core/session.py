"""One link: handshake -> admission -> open <-> rekey -> closed. Bytes and time in, bytes and events out.

Failed: once `Failed` or `Closed` was given, the machine takes nothing more; what `data_to_send` still holds (a verdict, a
GOODBYE) should reach the peer before the connection is closed. What a peer does never raises: it is the last event.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from overlay.core import limits, rounds
from overlay.core.admission import (
    Challenge,
    Proof,
    ProofFacts,
    common_kind,
    pack_goodbye,
    pack_verdict,
    unpack_goodbye,
    unpack_verdict,
)
from overlay.core.evidence import Appraisal, Appraiser, Binding, Evidence, Lease
from overlay.core.frames import Frame, Reassembler, coalesce, pack_message, parse_frames
from overlay.core.guard import asked
from overlay.core.handshake import Agreement, HandshakeContext, Opener, Responder
from overlay.core.identity import LocalIdentity
from overlay.core.limits import AttestTimes, RekeyTimes
from overlay.core.records import Opener as RecordOpener
from overlay.core.records import RecordReader
from overlay.core.records import Sealer as RecordSealer
from overlay.core.rekey import Action, ReceiveUnder, Rekey, RekeyLink, Send, SendUnder
from overlay.core.rounds import Nonces
from overlay.core.session_events import (
    Closed,
    CredentialsChanged,
    Event,
    EvidenceWanted,
    Failed,
    LeaseRenewed,
    MessageReceived,
    NonceReceived,
    Opened,
    PeerIdentified,
    Rekeyed,
)
from overlay.core.session_states import ADMISSION, HANDSHAKE, State, Step, after
from overlay.core.trust import Credentials, VerifiedPeer
from overlay.core.wire import Array, Bytes, UInt, make_map, open_map
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import RESERVED_FRAMES, EvidenceKind, FrameFlag, FrameType, Reason, Role

APPLICATION = frozenset(
    {
        FrameType.CALL, FrameType.REPLY, FrameType.TRANSIENT, FrameType.HEADS, FrameType.WANT,
        FrameType.ITEMS,
    }
)
_CERTIFICATE = Bytes(1, limits.CHAIN_BYTES_MAX)
REKEY = frozenset({FrameType.OFFER, FrameType.INIT, FrameType.RESP, FrameType.DONE, FrameType.CONFIRM})


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """What a link is made with: its ports and its times."""

    handshake: HandshakeContext
    appraiser: Appraiser
    evidence_kind: EvidenceKind
    has_link: Callable[[bytes], bool] = lambda _node_id: False
    rekey: RekeyTimes = field(default_factory=RekeyTimes)
    attest: AttestTimes = field(default_factory=AttestTimes)


class Session:
    """The machine of one link, seen from one end."""

    def __init__(self, role: Role, config: SessionConfig, now: float) -> None:
        self.role = role
        self._config = config
        self._identity = config.handshake.identity
        self._next_identity: LocalIdentity | None = None
        self._began = now
        self._events: list[Event] = []
        self._out = bytearray()
        self._frames: list[bytes] = []
        self._queued = 0
        self._reader = RecordReader(maximum=limits.HANDSHAKE_MESSAGE_MAX)
        self._hello: bytes | None = None
        self._keyed = False  # the handshake is done: `_peer`, `_rekey` and both record layers are there
        self._own_nonce = config.handshake.chance.token(limits.NONCE_SIZE)
        self._their_challenge: Challenge | None = None
        self._proof_sent = False
        self._appraisal: Appraisal | None = None
        self._lease: Lease | None = None
        self._nonces = Nonces()
        self._unasked_at = -math.inf
        self._asked_at = -math.inf
        self._rounds: tuple[int, ...] = ()  # of ours, for which the peer has given no nonce yet
        self._pings = 0
        self._ping_at = math.inf
        self._ping_number = 0
        self._probe_ends = math.inf
        self._must_begin: FrameType | None = FrameType.CHALLENGE  # the next record, with this
        self._reassembler = Reassembler(_limit_of)
        self._stream = -1 if role is Role.OPENER else 0
        self._side: Opener | Responder | None = None
        self._state = State.AWAIT_HELLO
        if role is Role.OPENER:
            self._side = side = Opener(config.handshake)
            self._state = State.AWAIT_MESSAGE_2
            self._out += side.first_bytes
        else:
            self._side = Responder(config.handshake)

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the link is in its life."""
        return self._state

    @property
    def peer(self) -> VerifiedPeer | None:
        """Who the peer is, as soon as its credentials have verified."""
        return self._peer if self._keyed else None

    @property
    def lease(self) -> Lease | None:
        """The trust in the peer, if it was admitted."""
        return self._lease

    @property
    def epoch(self) -> int:
        """The last confirmed key epoch; 0 before there are keys."""
        return self._rekey.keys.epoch if self._keyed else 0

    @property
    def epoch_began(self) -> float:
        """When that epoch was confirmed (monotonic)."""
        return self._rekey.confirmed_at if self._keyed else self._began

    @property
    def first_h(self) -> bytes:
        """h(1): names this link in signed messages."""
        return self._first_h

    @property
    def queued(self) -> int:
        """Bytes that wait to be sealed or taken."""
        return self._queued + len(self._out)

    @property
    def deadline(self) -> float:
        """When `tick` is due; math.inf for never."""
        if self._state is State.CLOSED:
            return math.inf
        if self._state in HANDSHAKE:
            return self._began + limits.HANDSHAKE_TIMEOUT
        if self._state in ADMISSION:
            return self._began + limits.ADMISSION_TIMEOUT
        assert self._lease is not None
        return min(
            self._ping_at, self._probe_ends, self._rekey.deadline, self._overdue(self._lease), self._lease.ends
        )

    # --- the verbs --------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Bytes from the peer."""
        return self._run(lambda: self._take(data, now))

    def eof(self, now: float) -> list[Event]:
        """The connection ended. Without a GOODBYE before it, that is a failure: truncation shows."""
        del now
        return self._run(lambda: _lost(self._state))

    def tick(self, now: float) -> list[Event]:
        """Time in."""
        return self._run(lambda: self._on_time(now))

    def data_to_send(self) -> bytes:
        """What we owe the wire."""
        self._seal()
        data = bytes(self._out)
        self._out.clear()
        return data

    # --- what the shell answers and asks ----------------------------------------------------------------------------

    def supply_evidence(self, evidence: Evidence, now: float) -> list[Event]:
        """The answer to `EvidenceWanted`: PROOF goes out."""
        return self._run(lambda: self._prove(evidence, now))

    def evidence_failed(self, detail: str) -> list[Event]:
        """The other answer: our prover could not. The link ends."""
        return self._run(lambda: _refuse(Reason.EVIDENCE_UNAVAILABLE, detail))

    def open_round(self, number: int) -> None:
        """Lead a round on this link: ATTEST_OPEN goes out. Nothing happens unless the link is open."""
        if self._state is State.OPEN:
            self._rounds = (*self._rounds, number)[-limits.ROUNDS_OPEN :]
            self._send(FrameType.ATTEST_OPEN, rounds.pack_round(number))

    def send_evidence(self, number: int, evidence: Evidence) -> None:
        """Our evidence for a round. Nothing happens unless the link is open."""
        if self._state is State.OPEN:
            self._send(FrameType.EVIDENCE, rounds.pack_evidence(number, evidence))

    def change_credentials(self, identity: LocalIdentity) -> None:
        """Go on with another endorsement or certificate: CREDENTIALS goes out before the next message under a new key."""
        if identity.node_id != self._identity.node_id:
            raise LocalProtocolError("credentials of another node")
        self._next_identity = identity  # the handshake and the proofs keep the one that they began with
        if self._state is State.OPEN:
            self._show_credentials(identity)

    def next_stream(self) -> int:
        """A stream id of ours: odd for the opener of the connection, even for the other; never used again."""
        self._stream += 2
        return self._stream

    def send(self, frame: FrameType, stream: int, body: bytes, now: float) -> None:
        """Queue an application message; once the lease has run out it is dropped. Raises LocalProtocolError unless open."""
        if self._state is not State.OPEN or frame not in APPLICATION:
            raise LocalProtocolError(f"{frame.name} in state {self._state.name}")
        if self._lease is None or now >= self._lease.ends:
            return
        for part in pack_message(frame, stream, body):
            self._queue(part)
        if self._sealer.records >= self._config.rekey.records or self._sealer.volume >= self._config.rekey.volume:
            self._rekey.request()

    def probe(self, now: float, within: float) -> None:
        """Ask for a sign of life; without one the link fails as DEAD."""
        if self._state is State.OPEN:
            self._probe_ends = now + within
            self._ping()

    def woke(self, now: float, within: float) -> None:
        """This machine has slept: fresh keys at once, and a sign of life, or the link is dead."""
        if self._state is State.OPEN:
            self._rekey.woke(now)
            self.probe(now, within)

    def close(self, reason: Reason) -> list[Event]:
        """Say GOODBYE and end the link."""
        return self._run(lambda: self._leave(reason))

    def fail(self, reason: Reason, detail: str) -> list[Event]:
        """End the link for what the peer did above it: a bad signature, a broken chain, a full queue."""
        return self._run(lambda: _refuse(reason, detail))

    # --- one guard around every verb --------------------------------------------------------------------------------

    def _run(self, step: Callable[[], None]) -> list[Event]:
        if self._state is State.CLOSED:
            return []
        self._events = []
        try:
            step()
        except Refused as error:
            self._fail(error)
        return self._events

    def _fail(self, error: Refused) -> None:
        """The end of the link: tell the peer, if it is known, and then us."""
        if self._keyed and error.reason is not Reason.LOST:
            if self._state in ADMISSION and self._appraisal is None:
                self._send(FrameType.VERDICT, pack_verdict(error.reason))
            self._send(FrameType.GOODBYE, pack_goodbye(error.reason))
        self._end(Failed(error.reason, error.detail))

    def _leave(self, reason: Reason) -> None:
        if self._keyed:
            self._send(FrameType.GOODBYE, pack_goodbye(reason))
        self._end(Closed(reason, by_peer=False))

    def _end(self, event: Closed | Failed) -> None:
        self._lease = None
        self._state = after(self._state, Step.CLOSE)
        self._events.append(event)

    # --- bytes ------------------------------------------------------------------------------------------------------

    def _take(self, data: bytes, now: float) -> None:
        self._reader.feed(data)
        if self._state is State.AWAIT_HELLO and self._hello is None:
            self._hello = self._reader.take(limits.HELLO_SIZE)
            if self._hello is None:
                return
        while self._state is not State.CLOSED:
            record = self._reader.next_record()
            if record is None:
                return
            if self._state in HANDSHAKE:
                self._handshake(record, now)
            else:
                self._record(record, now)

    def _handshake(self, message: bytes, now: float) -> None:
        side, hello = self._side, self._hello
        if isinstance(side, Opener):
            answer, agreement = side.message_2(message)
            self._out += answer
            self._agree(agreement, Step.GOT_MESSAGE_2, now)
            return
        assert side is not None
        if hello is not None:
            self._out += side.message_1(hello, message)
            self._hello, self._state = None, after(self._state, Step.GOT_HELLO)
        else:
            self._agree(side.message_3(message), Step.GOT_MESSAGE_3, now)

    def _agree(self, agreement: Agreement, step: Step, now: float) -> None:
        """Epoch 1 begins: everything that needs keys is made here, and CHALLENGE is our first record."""
        config = self._config
        keys, peer = agreement.keys, agreement.peer
        link = RekeyLink(
            mesh_id=config.handshake.trust().mesh_id, role=self.role, own_id=self._identity.node_id, peer_id=peer.node_id,
            static=self._identity.static, remote_static=agreement.remote_static,
        )
        self._sealer = RecordSealer(keys.sending(self.role))
        self._opener = RecordOpener(keys.receiving(self.role))
        self._sending, self._receiving = keys, keys
        self._rekey = Rekey(link, keys, times=config.rekey, chance=config.handshake.chance, now=now)
        self._first_h = keys.h
        self._peer = peer
        self._ping_at = now + limits.PING_AFTER
        self._side = None
        self._reader.maximum = limits.RECORD_MAX
        self._keyed = True
        self._state = after(self._state, step)
        self._events.append(PeerIdentified(peer))
        self._send(FrameType.CHALLENGE, self._challenge().pack())

    def _challenge(self) -> Challenge:
        config, trust = self._config, self._config.handshake.trust()
        return Challenge(
            nonce=self._own_nonce, start_id=self._identity.verified.start_id,
            kinds=asked(lambda: tuple(config.appraiser.accepted)), trust_number=trust.number, trust_hash=trust.hash,
            policy_version=trust.policy.policy.version, has_link=config.has_link(self._peer.node_id),
        )

    def _record(self, record: bytes, now: float) -> None:
        frames = parse_frames(self._opener.open(record))
        self._alive(now)
        if self._state is State.OPEN:
            self._check_lease(now)
        if self._must_begin is not None and (not frames or frames[0].type is not self._must_begin):
            raise Refused(Reason.UNEXPECTED_FRAME, f"the first record under a key begins with {self._must_begin.name}")
        self._must_begin = None
        for frame in frames:
            if self._must_begin is not None:
                raise Refused(Reason.UNEXPECTED_FRAME, "DONE is the last frame under a key")
            self._frame(frame, now)
            if self._state is State.CLOSED:
                return
        if self.queued > limits.SEND_QUEUE_MAX + limits.MESSAGE_MAX:
            raise Refused(Reason.SLOW_CONSUMER, "asks faster than it takes the answers")

    def _alive(self, now: float) -> None:
        """A record of the peer has decrypted."""
        self._pings, self._ping_at, self._probe_ends = 0, now + limits.PING_AFTER, math.inf
        self._rekey.heard(now)

    # --- frames -----------------------------------------------------------------------------------------------------

    def _frame(self, frame: Frame, now: float) -> None:
        kind, body = FrameType(frame.type), frame.body
        if kind not in APPLICATION | RESERVED_FRAMES and (frame.flags or frame.stream):
            raise Refused(Reason.MALFORMED, f"{kind.name} in parts or on a stream")
        if kind is FrameType.GOODBYE:
            self._goodbye(unpack_goodbye(body))
        elif self._state is State.AWAIT_CHALLENGE and kind is FrameType.CHALLENGE:
            self._on_challenge(Challenge.unpack(body))
        elif self._state in ADMISSION - {State.AWAIT_CHALLENGE} and kind is FrameType.PROOF:
            self._on_proof(body, now)
        elif self._state in ADMISSION - {State.AWAIT_CHALLENGE} and kind is FrameType.VERDICT:
            self._on_verdict(unpack_verdict(body), now)
        elif self._state is not State.OPEN:
            raise Refused(Reason.UNEXPECTED_FRAME, f"{kind.name} in state {self._state.name}")
        else:
            self._open_frame(kind, frame, now)

    def _open_frame(self, kind: FrameType, frame: Frame, now: float) -> None:
        body = frame.body
        if kind in APPLICATION:
            whole = self._reassembler.add(frame)
            if whole is not None:
                self._events.append(MessageReceived(kind, frame.stream, whole.body, self._peer))
        elif kind in REKEY:
            self._act(self._rekey.receive(kind, body, now))
        elif kind in RESERVED_FRAMES:
            if not frame.flags & FrameFlag.MORE:
                self._send(FrameType.UNSUPPORTED, make_map(int(kind), frame.stream))
        else:
            self._control_frame(kind, body, now)

    def _control_frame(self, kind: FrameType, body: bytes, now: float) -> None:
        match kind:
            case FrameType.ATTEST_OPEN:
                self._give_nonce(rounds.unpack_round(body), now)
            case FrameType.ROUND_NONCE:
                self._on_nonce(*rounds.unpack_nonce(body), now)
            case FrameType.EVIDENCE:
                self._on_evidence(*rounds.unpack_evidence(body), now)
            case FrameType.CREDENTIALS:
                self._on_credentials(body, now)
            case FrameType.PING:
                number, _ = open_map(body, UInt(), UInt(), limit=64)
                self._send(FrameType.PONG, make_map(number, self._wall_ms()))
            case FrameType.PONG | FrameType.UNSUPPORTED:
                open_map(body, UInt(), UInt(), limit=64)
            case _:
                raise Refused(Reason.UNEXPECTED_FRAME, f"{kind.name} on an open link")

    def _goodbye(self, reason: Reason) -> None:
        if self._state is State.OPEN:
            self._end(Closed(reason, by_peer=True))
        else:
            self._end(Failed(reason, "the peer ended the link before it was open", by_peer=True))

    # --- admission --------------------------------------------------------------------------------------------------

    def _on_challenge(self, challenge: Challenge) -> None:
        if challenge.start_id != self._peer.start_id:
            raise Refused(Reason.BAD_ENDORSEMENT, "CHALLENGE names another start than the endorsement")
        common_kind(self._config.evidence_kind, challenge.kinds)
        self._state = after(self._state, Step.GOT_CHALLENGE)
        self._their_challenge = challenge
        self._events.append(EvidenceWanted(self._binding(self.role, challenge.nonce)))

    def _prove(self, evidence: Evidence, now: float) -> None:
        del now
        challenge = self._their_challenge
        if challenge is None or self._proof_sent:
            raise LocalProtocolError("evidence that nobody asked for")
        facts = self._proof_facts(self.role, challenge.nonce)
        self._send(FrameType.PROOF, Proof.make(facts, evidence, self._identity.message))
        self._proof_sent = True

    def _on_proof(self, body: bytes, now: float) -> None:
        if self._appraisal is not None:
            raise Refused(Reason.UNEXPECTED_FRAME, "a second PROOF")
        facts = self._proof_facts(self.role.peer, self._own_nonce)
        evidence = Proof.verify(body, facts, self._peer.message_public)
        binding = self._binding(self.role.peer, self._own_nonce)
        appraisal = self._appraise(evidence, binding, None)
        state = after(self._state, Step.SENT_VERDICT_OK)
        self._grant(appraisal, now, since=now)
        self._appraisal = appraisal
        self._send(FrameType.VERDICT, pack_verdict(None))
        self._move(state)

    def _on_verdict(self, refusal: Reason | None, now: float) -> None:
        del now
        if refusal is not None:
            self._end(Failed(refusal, "the peer refused us", by_peer=True))
            return
        if not self._proof_sent or self._state is State.ADMITTED_US:
            raise Refused(Reason.UNEXPECTED_FRAME, "VERDICT without PROOF, or a second one")
        self._move(after(self._state, Step.GOT_VERDICT_OK))

    def _move(self, state: State) -> None:
        self._state = state
        challenge, appraisal = self._their_challenge, self._appraisal
        if state is State.OPEN and challenge is not None and appraisal is not None:
            self._events.append(Opened(self._peer, appraisal, challenge.has_link))
            self._show_credentials(self._next_identity)

    def _show_credentials(self, identity: LocalIdentity | None) -> None:
        """Go on as this identity, if there is a new one."""
        if identity is not None:
            self._identity, own = identity, identity.credentials
            self._send(FrameType.CREDENTIALS, make_map(own.endorsement, own.leaf, list(own.chain)))

    def _proof_facts(self, prover: Role, nonce: bytes) -> ProofFacts:
        own, peer = self._identity.verified, self._peer
        one, other = (own, peer) if prover is self.role else (peer, own)
        return ProofFacts(
            mesh_id=self._config.handshake.trust().mesh_id, h=self._first_h, role=prover,
            own_leaf=one.certificate.hash, own_endorsement=one.kid,
            peer_leaf=other.certificate.hash, peer_endorsement=other.kid, nonce=nonce,
        )

    def _binding(self, attester: Role, nonce: bytes) -> Binding:
        """What evidence is bound to, under the keys of the record that carried the nonce: sent by us or received."""
        keys = self._receiving if attester is self.role else self._sending
        own, peer = self._identity.verified.certificate.hash, self._peer.certificate.hash
        one, other = (own, peer) if attester is self.role else (peer, own)
        return Binding(
            mesh_id=self._config.handshake.trust().mesh_id, h=keys.h, role=attester, attester_leaf=one,
            verifier_leaf=other, nonce=nonce, epoch=keys.epoch,
        )

    def _appraise(self, evidence: Evidence, binding: Binding, previous: Appraisal | None) -> Appraisal:
        return asked(lambda: self._config.appraiser.appraise(evidence, binding, self._peer, previous))

    def _grant(self, appraisal: Appraisal, now: float, since: float) -> None:
        config = self._config
        self._lease = Lease.grant(
            appraisal, self._peer, since=since, life=config.attest.lease, now=now, at=config.handshake.calendar()
        )

    def _check_lease(self, now: float) -> Lease:
        """The lease in force; without one nothing is taken from an open link."""
        assert self._lease is not None
        self._lease.check(now)
        return self._lease

    # --- evidence on an open link -----------------------------------------------------------------------------------

    def _give_nonce(self, number: int, now: float) -> None:
        nonce = self._config.handshake.chance.token(limits.NONCE_SIZE)
        self._nonces = self._nonces.give(number, self._binding(self.role.peer, nonce), now)
        self._send(FrameType.ROUND_NONCE, rounds.pack_nonce(number, nonce))

    def _on_nonce(self, number: int, nonce: bytes, now: float) -> None:
        """One for each round of ours, and one unasked now and then: nobody else makes our TPM work."""
        if number == rounds.UNASKED and now >= self._asked_at + limits.UNASKED_NONCE_EVERY / 2:
            self._asked_at = now
        elif number in self._rounds:
            self._rounds = tuple(one for one in self._rounds if one != number)
        else:
            raise Refused(Reason.UNEXPECTED_FRAME, f"a nonce that round {number} did not ask for")
        self._events.append(NonceReceived(number, self._binding(self.role, nonce)))

    def _on_evidence(self, number: int, evidence: Evidence, now: float) -> None:
        binding, nonces = self._nonces.use(number, now)
        appraisal = self._judge(evidence, binding, self._check_lease(now).appraisal)
        self._nonces = nonces
        self._grant(appraisal, now, since=now)
        self._events.append(LeaseRenewed(appraisal, number))

    def _judge(self, evidence: Evidence, binding: Binding, previous: Appraisal) -> Appraisal:
        """Evidence that was under way when the peer's certificate changed may be bound to the old one or to the new one."""
        present = replace(binding, attester_leaf=self._peer.certificate.hash)
        try:
            return self._appraise(evidence, binding, previous)
        except Refused as error:
            if error.reason is not Reason.EVIDENCE_NOT_BOUND or present == binding:
                raise
        return self._appraise(evidence, present, previous)

    def _on_credentials(self, body: bytes, now: float) -> None:
        endorsement, leaf, chain = open_map(
            body, Bytes(1, 4096), _CERTIFICATE, Array(_CERTIFICATE, limits.CHAIN_DEPTH_MAX), limit=limits.CONTROL_MAX
        )
        context = self._config.handshake
        shown = Credentials(endorsement, leaf, tuple(chain))
        peer = asked(lambda: context.trust().verify(shown, context.calendar()))
        if peer.node_id != self._peer.node_id or peer.start_id != self._peer.start_id:
            raise Refused(Reason.BAD_ENDORSEMENT, "CREDENTIALS of another node or start")
        self._peer = peer
        lease = self._check_lease(now)
        self._grant(lease.appraisal, now, since=lease.since)
        self._events.append(CredentialsChanged(peer))

    def _overdue(self, lease: Lease) -> float:
        return max(lease.since + self._config.attest.overdue, self._unasked_at + limits.UNASKED_NONCE_EVERY)

    # --- time -------------------------------------------------------------------------------------------------------

    def _on_time(self, now: float) -> None:
        if self._state in HANDSHAKE:
            if now >= self._began + limits.HANDSHAKE_TIMEOUT:
                _refuse(Reason.TIMEOUT, "handshake")
            return
        if self._state in ADMISSION and now >= self._began + limits.ADMISSION_TIMEOUT:
            _refuse(Reason.TIMEOUT, "admission")
        if now >= self._probe_ends:
            _refuse(Reason.DEAD, "no sign of life when asked")
        if self._state is State.OPEN:
            self._on_open_time(now)
            self._act(self._rekey.tick(now))

    def _on_open_time(self, now: float) -> None:
        lease = self._check_lease(now)
        if now >= self._overdue(lease):
            self._unasked_at = now
            self._give_nonce(rounds.UNASKED, now)
        if now >= self._ping_at:
            if self._pings == limits.PINGS_MISSED:
                _refuse(Reason.DEAD, f"{self._pings} pings were not answered")
            self._pings, self._ping_at = self._pings + 1, now + limits.PING_AFTER
            self._ping()

    def _ping(self) -> None:
        self._ping_number += 1
        self._send(FrameType.PING, make_map(self._ping_number, self._wall_ms()))

    def _wall_ms(self) -> int:
        at: datetime = self._config.handshake.calendar()
        return int(at.timestamp() * 1000)

    # --- sending ----------------------------------------------------------------------------------------------------

    def _act(self, actions: list[Action]) -> None:
        """Carry out what the rekey machine decided, in its order."""
        for action in actions:
            match action:
                case Send(type=kind, body=body):
                    self._send(kind, body)
                case SendUnder(keys=keys):
                    self._seal()
                    self._sealer = RecordSealer(keys.sending(self.role))
                    self._sending = keys
                case ReceiveUnder(keys=keys):
                    self._opener = RecordOpener(keys.receiving(self.role))
                    self._receiving = keys
                    self._must_begin = FrameType.CONFIRM
                case _:
                    self._events.append(Rekeyed(action.keys.epoch))

    def _send(self, kind: FrameType, body: bytes) -> None:
        for part in pack_message(kind, 0, body):
            self._queue(part)

    def _queue(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._queued += len(frame)

    def _seal(self) -> None:
        """Everything that is queued becomes records under the key in force."""
        if not self._frames:
            return
        for plaintext in coalesce(self._frames):
            self._out += self._sealer.seal(plaintext)
        self._frames.clear()
        self._queued = 0


def _limit_of(kind: int) -> int:
    """The largest message of a type, its parts put together."""
    return limits.ITEMS_MAX + limits.ENTRY_MAX if kind == FrameType.ITEMS else limits.MESSAGE_MAX


def _refuse(reason: Reason, detail: str) -> None:
    raise Refused(reason, detail)


def _lost(state: State) -> None:
    raise Refused(Reason.LOST, f"the connection ended without GOODBYE in state {state.name.lower()}")
