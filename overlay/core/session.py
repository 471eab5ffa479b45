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
from overlay.core.evidence import Appraisal, Appraiser, Binding, Evidence, Inquiry, Lease
from overlay.core.frames import Frame, Reassembler, parse_frames, stream_data
from overlay.core.guard import asked
from overlay.core.handshake import Agreement, HandshakeContext, Opener, Responder, Side
from overlay.core.identity import LocalIdentity
from overlay.core.limits import AttestTimes, RekeyTimes
from overlay.core.link_rounds import LinkRounds
from overlay.core.liveness import Liveness
from overlay.core.log_parts import LinkLogs, LogSource, LogWanted, NoLogs, unpack
from overlay.core.outbox import Outbox
from overlay.core.records import Opener as RecordOpener
from overlay.core.records import RecordReader
from overlay.core.records import Sealer as RecordSealer
from overlay.core.rekey import Action, ReceiveUnder, Rekey, RekeyLink, Send, SendUnder
from overlay.core.rpc import SeenCalls
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
    Ponged,
    Rekeyed,
)
from overlay.core.session_states import ADMISSION, HANDSHAKE, State, Step, after
from overlay.core.stream_events import StreamEvent
from overlay.core.streams import StreamContext, Streams
from overlay.core.trust import Credentials, VerifiedPeer
from overlay.core.wire import Array, Bytes, UInt, make_map, open_map
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import RESERVED_FRAMES, EvidenceKind, FrameFlag, FrameType, Mode, Reason, Role

APPLICATION = frozenset(
    {
        FrameType.CALL, FrameType.REPLY, FrameType.REPLY_CREDIT, FrameType.CANCEL, FrameType.TRANSIENT_BATCH,
        FrameType.HEADS, FrameType.WANT, FrameType.ITEMS, FrameType.TRUST_UPDATE, FrameType.AUTHORITY_OBJECT,
        FrameType.AUTHORITY_ROUND, FrameType.ORDER, FrameType.CHECKPOINT, FrameType.COSIGNATURE,
        FrameType.FORK_PROOF,
    }
)
STREAM = frozenset(
    {
        FrameType.STREAM_OPEN, FrameType.STREAM_DATA, FrameType.STREAM_CREDIT, FrameType.STREAM_SEGMENT, FrameType.STREAM_END,
        FrameType.STREAM_RESET,
    }
)
_CERTIFICATE = Bytes(1, limits.CHAIN_BYTES_MAX)
_ON_STREAMS = APPLICATION | STREAM | RESERVED_FRAMES
REKEY = frozenset({FrameType.OFFER, FrameType.INIT, FrameType.RESP, FrameType.DONE, FrameType.CONFIRM})
Then = Callable[[Appraisal, float], None]  # what good evidence leads to, and when it is


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """What a link is made with: its ports and its times."""

    handshake: HandshakeContext
    appraiser: Appraiser
    evidence_kind: EvidenceKind
    logs: LogSource = field(default_factory=NoLogs)  # our own
    has_link: Callable[[bytes], bool] = lambda _node_id: False
    seen_calls: SeenCalls = field(default_factory=SeenCalls)  # of the node, for all its links
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
        self._outbox = Outbox()
        self._reader = RecordReader(maximum=limits.HANDSHAKE_MESSAGE_MAX)
        self._hello: bytes | None = None
        self._keyed = False  # the handshake is done: `_peer`, `_rekey` and both record layers are there
        self._own_nonce = config.handshake.chance.token(limits.NONCE_SIZE)
        self._their_challenge: Challenge | None = None
        self._proof_sent = False
        self._appraisal: Appraisal | None = None
        self._lease: Lease | None = None
        self._rounds = LinkRounds(config.attest)
        self._logs = LinkLogs(config.logs)
        self._inquiry: tuple[Inquiry, Then] | None = None  # the peer's newest evidence, while parts of its logs are lacking
        self._liveness = Liveness(now)
        self._streams: Streams | None = None  # most links have none
        self._bulk: list[memoryview] = []
        self._bulk_stream = 0
        self._heard_at = -math.inf
        self._must_begin: FrameType | None = FrameType.CHALLENGE  # the next record, with this
        self._reassembler = Reassembler(_limit_of)
        self._stream = -1 if role is Role.OPENER else 0
        self._side: Opener | Responder | None = None
        self.state = State.AWAIT_HELLO  # where the link is in its life; nobody else changes it
        if role is Role.OPENER:
            self._side = side = Opener(config.handshake.entrance, config.handshake.side())
            self.state = State.AWAIT_MESSAGE_2
            self._outbox.raw(side.first_bytes)
        else:
            self._side = Responder(config.handshake.entrance, self._member_side)

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def peer(self) -> VerifiedPeer | None:
        """Who the peer is, as soon as its credentials have verified."""
        return self._peer if self._keyed else None

    @property
    def lease(self) -> Lease | None:
        """The trust in the peer, if it was admitted."""
        return self._lease

    def leased(self, now: float) -> bool:
        """Whether the peer is trusted now: a lease may have run out before the tick that ends the link."""
        return self._lease is not None and now < self._lease.ends

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
    def statics_changed(self) -> bool:
        """Whether a new link between the two would have another Noise static key at one end than this one has."""
        if not self._keyed or self.state is not State.OPEN:
            return False
        return (self._identity.static.public, self._peer.noise_public) != self._statics

    @property
    def queued(self) -> int:
        """Bytes that wait to be sealed or taken."""
        return self._outbox.queued

    @property
    def deadline(self) -> float:
        """When `tick` is due; math.inf for never."""
        if self.state is State.CLOSED:
            return math.inf
        if self.state in HANDSHAKE:
            return self._began + limits.HANDSHAKE_TIMEOUT
        if self.state in ADMISSION:
            return self._began + limits.ADMISSION_TIMEOUT
        assert self._lease is not None
        return min(
            self._liveness.deadline, self._rekey.deadline, self._rounds.overdue(self._lease.since), self._lease.ends,
            math.inf if self._streams is None else self._streams.deadline,
        )

    # --- the verbs --------------------------------------------------------------------------------------------------

    def receive(self, data: bytes | bytearray | memoryview, now: float) -> list[Event]:
        """Bytes from the peer. A writable buffer is overwritten, and may be used again afterwards."""
        if self.state is State.CLOSED:
            return []
        self._events = []
        try:
            self._take(data, now)
        except Refused as error:
            self._fail(error)
        return self._events

    def eof(self, now: float) -> list[Event]:
        """The connection ended. Without a GOODBYE before it, that is a failure: truncation shows."""
        del now
        return self._run(lambda: _lost(self.state))

    def tick(self, now: float) -> list[Event]:
        """Time in."""
        return self._run(lambda: self._on_time(now))

    def data_to_send(self) -> bytes:
        """What we owe the wire, about half a MiB at most: call it until it gives nothing."""
        return self._outbox.take()

    # --- what the shell answers and asks ----------------------------------------------------------------------------

    def supply_evidence(self, evidence: Evidence, now: float) -> list[Event]:
        """The answer to `EvidenceWanted`: PROOF goes out."""
        return self._run(lambda: self._prove(evidence, now))

    def evidence_failed(self, detail: str) -> list[Event]:
        """The other answer: our prover could not. The link ends."""
        return self._run(lambda: _refuse(Reason.EVIDENCE_UNAVAILABLE, detail))

    def open_round(self, number: int) -> None:
        """Lead a round on this link: ATTEST_OPEN goes out. Nothing happens unless the link is open."""
        if self.state is State.OPEN:
            self._rounds.opened(number)
            self._send(FrameType.ATTEST_OPEN, rounds.pack_round(number))

    def send_evidence(self, number: int, evidence: Evidence) -> None:
        """Our evidence for a round. Nothing happens unless the link is open."""
        if self.state is State.OPEN:
            self._logs.shown()
            self._send(FrameType.EVIDENCE, rounds.pack_evidence(number, evidence))

    def change_credentials(self, identity: LocalIdentity) -> None:
        """Go on with another endorsement or certificate: CREDENTIALS goes out before the next message under a new key."""
        if identity.node_id != self._identity.node_id:
            raise LocalProtocolError("credentials of another node")
        self._next_identity = identity  # the handshake and the proofs keep the one that they began with
        if self.state is State.OPEN:
            self._show_credentials(identity)

    def next_stream(self) -> int:
        """A stream id of ours: odd for the opener of the connection, even for the other; never used again."""
        self._stream += 2
        return self._stream

    def send(self, frame: FrameType, stream: int, body: bytes, now: float) -> None:
        """Queue an application message; once the lease has run out it is dropped. Raises LocalProtocolError unless open."""
        if self.state is not State.OPEN or frame not in APPLICATION:
            raise LocalProtocolError(f"{frame.name} in state {self.state.name}")
        if not self.leased(now):
            return
        self._outbox.put(frame, stream, body)
        self._count_volume()

    def probe(self, now: float, within: float) -> None:
        """Ask for a sign of life; without one the link fails as DEAD."""
        if self.state is State.OPEN:
            self._liveness.probe(now, within)
            self._heard_at = -math.inf  # a record that comes in this very moment counts
            self._ping(now)

    def woke(self, now: float, within: float) -> None:
        """This machine has slept: fresh keys at once, and a sign of life, or the link is dead."""
        if self.state is State.OPEN:
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
        if self.state is State.CLOSED:
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
            if self.state in ADMISSION and self._appraisal is None:
                self._send(FrameType.VERDICT, pack_verdict(error.reason))
            self._outbox.put_last(FrameType.GOODBYE, pack_goodbye(error.reason))
        self._end(Failed(error.reason, error.detail))

    def _leave(self, reason: Reason) -> None:
        if self._keyed:
            self._outbox.put_last(FrameType.GOODBYE, pack_goodbye(reason))
        self._end(Closed(reason, by_peer=False))

    def _end(self, event: Closed | Failed) -> None:
        self._lease = None
        self.state = after(self.state, Step.CLOSE)
        self._events.append(event)

    # --- bytes ------------------------------------------------------------------------------------------------------

    def _take(self, data: bytes | bytearray | memoryview, now: float) -> None:
        self._reader.feed(data)
        if self.state is State.AWAIT_HELLO and self._hello is None:
            self._hello = self._reader.take(limits.HELLO_SIZE)
            if self._hello is None:
                return
        try:
            self._take_records(now)
        finally:
            self._hand_over_bulk(now)  # what came before whatever ended the link

    def _take_records(self, now: float) -> None:
        reader = self._reader
        while reader.buffered and self.state is not State.CLOSED:
            if not self._keyed:
                record = reader.next_record()
                if record is None:
                    return
                self._handshake(bytes(record), now)
                continue
            records = reader.next_records()
            if not records:
                return
            for record in records:
                if self._take_record(record, now):
                    return

    def _take_record(self, record: memoryview, now: float) -> bool:
        """Whether that was the end of the link."""
        plaintext = self._open(record, now)
        bulk = stream_data(plaintext) if self.state is State.OPEN and self._must_begin is None else None
        if bulk is None:
            self._hand_over_bulk(now)
            self._frames(plaintext, now)
            return self.state is State.CLOSED
        stream, body = bulk
        if stream != self._bulk_stream:
            self._hand_over_bulk(now)
            self._bulk_stream = stream
        self._bulk.append(body)
        return False

    def _hand_over_bulk(self, now: float) -> None:
        """Data of one stream, from one record after the other, is one piece: less work for all above.

        A run that does not fit goes up frame by frame: what was good before the fault is delivered, however TCP cut it.
        """
        if not self._bulk:
            return
        run, self._bulk = self._bulk, []
        streams, stream = self._streams or self.streams, self._bulk_stream
        whole = len(run) > 1 and streams.takes(stream, sum(map(len, run)))
        for data in [b"".join(run)] if whole else map(bytes, run):
            self._events += streams.receive(FrameType.STREAM_DATA, stream, data, now)  # owes no answer

    def _handshake(self, message: bytes, now: float) -> None:
        side, hello = self._side, self._hello
        if isinstance(side, Opener):
            answer, agreement = side.message_2(message)
            self._outbox.raw(answer)
            self._agree(agreement, Step.GOT_MESSAGE_2, now)
            return
        assert side is not None
        if hello is not None:
            self._outbox.raw(side.message_1(hello, message))
            self._hello, self.state = None, after(self.state, Step.GOT_HELLO)
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
        self._outbox.begin(RecordSealer(keys.sending(self.role)))
        self._opener = RecordOpener(keys.receiving(self.role))
        self._sending, self._receiving = keys, keys
        self._rekey = Rekey(link, keys, times=config.rekey, chance=config.handshake.chance, now=now)
        self._first_h = keys.h
        self._statics = self._identity.static.public, agreement.remote_static
        self._peer = peer
        self._liveness.heard(now)
        self._side = None
        self._reader.maximum = limits.RECORD_MAX
        self._keyed = True
        self.state = after(self.state, step)
        self._events.append(PeerIdentified(peer))
        self._send(FrameType.CHALLENGE, self._challenge().pack())

    def _member_side(self, mode: Mode) -> Side | None:
        return self._config.handshake.side() if mode is Mode.MEMBER else None

    def _challenge(self) -> Challenge:
        config, trust = self._config, self._config.handshake.trust()
        return Challenge(
            nonce=self._own_nonce, start_id=self._identity.verified.start_id,
            kinds=asked(lambda: tuple(config.appraiser.accepted)), trust_number=trust.number, trust_hash=trust.hash,
            policy_version=trust.policy.policy.version, has_link=config.has_link(self._peer.node_id),
        )

    def _open(self, record: memoryview, now: float) -> memoryview:
        """Decrypt a record: the peer lives, and is still trusted."""
        plaintext = self._opener.open_in_place(record)
        if now != self._heard_at:
            self._heard_at = now
            self._liveness.heard(now)
            self._rekey.heard(now)
        lease = self._lease
        if lease is not None and now >= lease.ends and self.state is State.OPEN:
            lease.check(now)
        return plaintext

    def _frames(self, plaintext: memoryview, now: float) -> None:
        frames = parse_frames(plaintext)
        if self._must_begin is not None and (not frames or frames[0].type is not self._must_begin):
            raise Refused(Reason.UNEXPECTED_FRAME, f"the first record under a key begins with {self._must_begin.name}")
        self._must_begin = None
        for frame in frames:
            if self._must_begin is not None:
                raise Refused(Reason.UNEXPECTED_FRAME, "DONE is the last frame under a key")
            self._frame(frame, now)
            if self.state is State.CLOSED:
                return
        if self.queued > limits.SEND_QUEUE_MAX + limits.MESSAGE_MAX:
            raise Refused(Reason.SLOW_CONSUMER, "asks faster than it takes the answers")

    # --- frames -----------------------------------------------------------------------------------------------------

    def _frame(self, frame: Frame, now: float) -> None:
        kind, body = frame.type, frame.body
        if kind in APPLICATION and self.state is State.OPEN:
            whole = self._reassembler.add(frame)
            if whole is not None:
                self._events.append(MessageReceived(kind, frame.stream, whole.body, self._peer))
            return
        if kind in STREAM and frame.flags:
            raise Refused(Reason.MALFORMED, f"{kind.name} in parts")
        if kind not in _ON_STREAMS and (frame.flags or frame.stream):
            raise Refused(Reason.MALFORMED, f"{kind.name} in parts or on a stream")
        if kind is FrameType.GOODBYE:
            self._goodbye(unpack_goodbye(body))
        elif self.state is State.AWAIT_CHALLENGE and kind is FrameType.CHALLENGE:
            self._on_challenge(Challenge.unpack(body))
        elif self.state in ADMISSION - {State.AWAIT_CHALLENGE} and kind is FrameType.PROOF:
            self._on_proof(body, now)
        elif self.state in ADMISSION - {State.AWAIT_CHALLENGE} and kind is FrameType.VERDICT:
            self._on_verdict(unpack_verdict(body), now)
        elif self.state in ADMISSION - {State.AWAIT_CHALLENGE} and kind is FrameType.EVIDENCE_PART:
            self._on_log(body, now)
        elif self.state is not State.OPEN:
            raise Refused(Reason.UNEXPECTED_FRAME, f"{kind.name} in state {self.state.name}")
        else:
            self._open_frame(kind, frame, now)

    def _open_frame(self, kind: FrameType, frame: Frame, now: float) -> None:
        body = frame.body
        if kind in STREAM:
            self._stream_frame(kind, frame.stream, body, now)
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
            case FrameType.EVIDENCE_PART:
                self._on_log(body, now)
            case FrameType.CREDENTIALS:
                self._on_credentials(body, now)
            case FrameType.PING:
                self._send(FrameType.PONG, self._liveness.on_ping(body, self._wall_ms()))
            case FrameType.PONG:
                pong = self._liveness.on_pong(body, now)
                if pong is not None:
                    self._events.append(Ponged(pong))
            case FrameType.UNSUPPORTED:
                open_map(body, UInt(), UInt(), limit=64)
            case _:
                raise Refused(Reason.UNEXPECTED_FRAME, f"{kind.name} on an open link")

    def _goodbye(self, reason: Reason) -> None:
        if self.state is State.OPEN:
            self._end(Closed(reason, by_peer=True))
        else:
            self._end(Failed(reason, "the peer ended the link before it was open", by_peer=True))

    # --- admission --------------------------------------------------------------------------------------------------

    def _on_challenge(self, challenge: Challenge) -> None:
        if challenge.start_id != self._peer.start_id:
            raise Refused(Reason.BAD_ENDORSEMENT, "CHALLENGE names another start than the endorsement")
        common_kind(self._config.evidence_kind, challenge.kinds)
        self.state = after(self.state, Step.GOT_CHALLENGE)
        self._their_challenge = challenge
        self._events.append(EvidenceWanted(self._binding(self.role, challenge.nonce)))

    def _prove(self, evidence: Evidence, now: float) -> None:
        del now
        challenge = self._their_challenge
        if challenge is None or self._proof_sent:
            raise LocalProtocolError("evidence that nobody asked for")
        facts = self._proof_facts(self.role, challenge.nonce)
        self._logs.shown()
        self._send(FrameType.PROOF, Proof.make(facts, evidence, self._identity.message))
        self._proof_sent = True

    def _on_proof(self, body: bytes, now: float) -> None:
        if self._appraisal is not None or self._inquiry is not None:
            raise Refused(Reason.UNEXPECTED_FRAME, "a second PROOF")
        facts = self._proof_facts(self.role.peer, self._own_nonce)
        evidence = Proof.verify(body, facts, self._peer.message_public)
        binding = self._binding(self.role.peer, self._own_nonce)
        self._judged(self._appraise(evidence, binding, None), lambda appraisal, at: self._admit(appraisal, at, since=now), now)

    def _admit(self, appraisal: Appraisal, now: float, since: float) -> None:
        """The peer's first evidence was good."""
        state = after(self.state, Step.SENT_VERDICT_OK)
        self._grant(appraisal, now, since=since)
        self._appraisal = appraisal
        self._send(FrameType.VERDICT, pack_verdict(None))
        self._move(state)

    def _on_verdict(self, refusal: Reason | None, now: float) -> None:
        del now
        if refusal is not None:
            self._end(Failed(refusal, "the peer refused us", by_peer=True))
            return
        if not self._proof_sent or self.state is State.ADMITTED_US:
            raise Refused(Reason.UNEXPECTED_FRAME, "VERDICT without PROOF, or a second one")
        self._move(after(self.state, Step.GOT_VERDICT_OK))

    def _move(self, state: State) -> None:
        self.state = state
        challenge, appraisal = self._their_challenge, self._appraisal
        if state is State.OPEN and challenge is not None and appraisal is not None:
            self._events.append(Opened(self._peer, appraisal, challenge.has_link))
            self._show_credentials(self._next_identity)

    def _show_credentials(self, identity: LocalIdentity | None) -> None:
        """Go on as this identity, if there is a new one."""
        if identity is not None:
            self._identity, own = identity, identity.credentials  # what was signed under the old ones goes first
            self._outbox.put_last(FrameType.CREDENTIALS, make_map(own.endorsement, own.leaf, list(own.chain)))

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

    def _appraise(self, evidence: Evidence, binding: Binding, previous: Appraisal | None) -> Appraisal | Inquiry:
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
        self._rounds.give(number, self._binding(self.role.peer, nonce), now)
        self._send(FrameType.ROUND_NONCE, rounds.pack_nonce(number, nonce))

    def _on_nonce(self, number: int, nonce: bytes, now: float) -> None:
        self._rounds.answer(number, now)
        self._events.append(NonceReceived(number, self._binding(self.role, nonce)))

    def _on_evidence(self, number: int, evidence: Evidence, now: float) -> None:
        binding, left = self._rounds.take(number, now)
        found = self._judge(evidence, binding, self._check_lease(now).appraisal)
        self._rounds.used(left)
        self._judged(found, lambda appraisal, at: self._renew(appraisal, number, at, since=now), now)

    def _renew(self, appraisal: Appraisal, number: int, now: float, since: float) -> None:
        self._check_lease(now)
        self._grant(appraisal, now, since=since)
        self._events.append(LeaseRenewed(appraisal, number))

    def _judged(self, found: Appraisal | Inquiry, then: Then, now: float) -> None:
        """Go on with evidence that is good, or ask for a part of the logs that are lacking. Newer evidence takes the place."""
        if isinstance(found, Appraisal):
            self._inquiry = None
            then(found, now)
            return
        wanted: LogWanted = asked(lambda: found.wanted)
        self._inquiry = found, then
        self._send(FrameType.EVIDENCE_PART, self._logs.ask(wanted, found))

    def _on_log(self, body: bytes, now: float) -> None:
        """The peer asks for a part of our logs, or sends one of its own."""
        said = unpack(body)
        if isinstance(said, LogWanted):
            self._send(FrameType.EVIDENCE_PART, self._logs.answer(said))
            return
        asker = self._logs.take(said)
        if self._inquiry is not None and self._inquiry[0] is asker:
            inquiry, then = self._inquiry
            self._judged(asked(lambda: inquiry.take(said)), then, now)

    def _judge(self, evidence: Evidence, binding: Binding, previous: Appraisal) -> Appraisal | Inquiry:
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

    # --- time -------------------------------------------------------------------------------------------------------

    def _on_time(self, now: float) -> None:
        if self.state in HANDSHAKE:
            if now >= self._began + limits.HANDSHAKE_TIMEOUT:
                _refuse(Reason.TIMEOUT, "handshake")
            return
        if self.state in ADMISSION and now >= self._began + limits.ADMISSION_TIMEOUT:
            _refuse(Reason.TIMEOUT, "admission")
        if self.state is State.OPEN:
            self._on_open_time(now)
            self._act(self._rekey.tick(now))

    def _on_open_time(self, now: float) -> None:
        lease = self._check_lease(now)
        if now >= self._rounds.overdue(lease.since):
            self._give_nonce(rounds.UNASKED, now)
        if self._liveness.tick(now):
            self._ping(now)
        if self._streams is not None:
            self._moved(self._streams.tick(now))

    def _ping(self, now: float) -> None:
        self._send(FrameType.PING, self._liveness.ping(now, self._wall_ms()))

    def _wall_ms(self) -> int:
        at: datetime = self._config.handshake.calendar()
        return int(at.timestamp() * 1000)

    # --- streams ----------------------------------------------------------------------------------------------------

    @property
    def streams(self) -> Streams:
        """The streams of this link. After any use of them call `stirred`. Raises LocalProtocolError unless open."""
        if self.state is not State.OPEN:
            raise LocalProtocolError(f"streams in state {self.state.name}")
        if self._streams is None:
            config = self._config.handshake
            context = StreamContext(
                identity=lambda: self._identity, mesh_id=config.trust().mesh_id, first_h=self._first_h,
                peer=lambda: self._peer, seen=self._config.seen_calls, chance=config.chance,
            )
            self._streams = Streams(self.role, context, self.next_stream)
        return self._streams

    def stirred(self) -> bool:
        """The streams were used: what they have to say is queued. Whether there is anything to send."""
        if self._streams is not None:
            for kind, stream, body in self._streams.frames_to_send():
                self._outbox.put(kind, stream, body)
        return self._outbox.queued > 0

    def write_stream(self, stream: int, data: memoryview, now: float, room: memoryview) -> tuple[int, int]:
        """Seal bytes of a stream: how many were taken, and how much of `room` (`outbox.ROOM` bytes) is to be sent now.

        Nothing is taken without credit, and once the lease has run out.
        """
        outbox = self._outbox
        if not self.leased(now):
            return 0, 0
        if outbox.queued:
            raise LocalProtocolError("send what is queued first")
        taken, pieces = self.streams.write(stream, data, now)
        self._count_volume()
        return taken, outbox.seal_into(pieces, room)

    def finish_stream(self, stream: int, now: float) -> None:
        """Nothing more will be written. Nothing is said once the lease has run out."""
        if not self.leased(now):
            return
        self._outbox.seal_pieces(self.streams.finish(stream, now))

    def _stream_frame(self, kind: FrameType, stream: int, body: bytes, now: float) -> None:
        self._moved(self.streams.receive(kind, stream, body, now))

    def _moved(self, events: list[StreamEvent]) -> None:
        self._events += events
        self.stirred()

    # --- sending ----------------------------------------------------------------------------------------------------

    def _act(self, actions: list[Action]) -> None:
        """Carry out what the rekey machine decided, in its order."""
        for action in actions:
            match action:
                case Send(type=kind, body=body):
                    self._send(kind, body)
                case SendUnder(keys=keys):
                    self._outbox.change(RecordSealer(keys.sending(self.role)))
                    self._sending = keys
                case ReceiveUnder(keys=keys):
                    self._opener = RecordOpener(keys.receiving(self.role))
                    self._receiving = keys
                    self._must_begin = FrameType.CONFIRM
                case _:
                    self._events.append(Rekeyed(action.keys.epoch))

    def _send(self, kind: FrameType, body: bytes) -> None:
        self._outbox.put(kind, 0, body)

    def _count_volume(self) -> None:
        """A key that has carried enough is replaced."""
        sealer, times = self._outbox.sealer, self._config.rekey
        if sealer.records >= times.records or sealer.volume >= times.volume:
            self._rekey.request()


def _limit_of(kind: int) -> int:
    """The largest message of a type, its parts put together."""
    return limits.ITEMS_MAX + limits.ENTRY_MAX if kind == FrameType.ITEMS else limits.MESSAGE_MAX


def _refuse(reason: Reason, detail: str) -> None:
    raise Refused(reason, detail)


def _lost(state: State) -> None:
    raise Refused(Reason.LOST, f"the connection ended without GOODBYE in state {state.name.lower()}")
