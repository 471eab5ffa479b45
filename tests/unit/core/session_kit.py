"""Two ends of a link on a fake wire, so that tests read as conversations."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from overlay.core.epochs import EpochKeys, Kem, MlKem768
from overlay.core.evidence import Appraisal, Binding, Evidence
from overlay.core.frames import Frame, pack
from overlay.core.gate import SeenEphemerals
from overlay.core.handshake import HandshakeContext
from overlay.core.identity import LocalIdentity
from overlay.core.keys import X25519Pair
from overlay.core.limits import AttestTimes, RekeyTimes
from overlay.core.outbox import Lane
from overlay.core.records import Sealer
from overlay.core.session import Session, SessionConfig
from overlay.core.session_events import Event, EvidenceWanted, Failed, MessageReceived, NonceReceived, PeerIdentified
from overlay.core.session_states import State
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import EvidenceKind, FrameFlag, FrameType, Reason, Role
from tests.unit.core.authority_kit import Member, Mesh, make_member, make_mesh

GATE = bytes(range(32))
TAG = b"bobs-tag"
LAB = make_mesh()
OTHER_LAB = make_mesh("other")
ALICE = make_member(LAB, "alice")
BOB = make_member(LAB, "bob")

ChangeBytes = Callable[[bytes], bytes]
ChangeConfig = Callable[[SessionConfig], SessionConfig]


class SeededChance:
    """The Chance port from a seed (ML-KEM excepted, unless another one is given)."""

    def __init__(self, seed: int, kem: Kem | None = None) -> None:
        self._random = random.Random(seed)
        self.kem: Kem = kem or MlKem768()

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def x25519(self) -> X25519Pair:
        return X25519Pair.from_private(self._random.randbytes(32))

    def fraction(self) -> float:
        return 0.0


def evidence_for(binding: Binding, claims: bytes = b"claims") -> Evidence:
    """Stands for a quote: bound to everything, by hash."""
    quote = sha256(repr(binding).encode(), claims)
    return Evidence(count=1, index=0, path=(), claims=claims, ak_public=b"", quote=quote, signature=b"")


class HashAppraiser:
    """Accepts `evidence_for` the right binding and nothing else. `fault` is raised instead, if set."""

    accepted: tuple[EvidenceKind, ...] = (EvidenceKind.SOFTWARE, EvidenceKind.TPM)

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.seen: list[Appraisal | None] = []

    def appraise(self, evidence: Evidence, binding: Binding, peer: VerifiedPeer, previous: Appraisal | None) -> Appraisal:
        self.seen.append(previous)
        if self.fault is not None:
            raise self.fault
        if evidence != evidence_for(binding, evidence.claims):
            raise Refused(Reason.EVIDENCE_NOT_BOUND, "another link")
        return Appraisal(level=1, kind=EvidenceKind.SOFTWARE, software_version="test")


def local(member: Member) -> LocalIdentity:
    return LocalIdentity(credentials=member.credentials, verified=member.peer, static=member.noise, message=member.message)


def unchanged(config: SessionConfig) -> SessionConfig:
    return config


def context(**changes: Any) -> ChangeConfig:
    """A change of the handshake's part of a configuration."""
    return lambda config: replace(config, handshake=replace(config.handshake, **changes))


@dataclass
class End:
    """One side: its session and everything that it told."""

    session: Session
    member: Member
    appraiser: HashAppraiser
    events: list[Event] = field(default_factory=list)

    def take(self, events: list[Event]) -> list[Event]:
        self.events += events
        return events

    @property
    def heard(self) -> list[bytes]:
        """The bodies of all application messages, in order."""
        return [event.body for event in self.events if isinstance(event, MessageReceived)]

    @property
    def wanted(self) -> Binding:
        """What our evidence must be bound to, as last asked: for admission or for a round."""
        return next(event.binding for event in reversed(self.events) if isinstance(event, EvidenceWanted | NonceReceived))

    @property
    def is_silent(self) -> bool:
        """It owes the wire nothing."""
        return not self.session.data_to_send()

    @property
    def sealer(self) -> Sealer:
        """What its records are sealed with now."""
        return self.session._outbox.sealer

    @property
    def keys(self) -> EpochKeys:
        """The keys that it sends under."""
        return self.session._sending

    @property
    def queued_frames(self) -> list[bytes]:
        """The packed frames that it has queued and not sealed."""
        lanes = self.session._outbox._lanes
        return [frame for lane in sorted(lanes) for message in lanes[lane] for frame in message]

    def swallow(self) -> list[bytes]:
        """It does not say what it should: the packed frames that it had queued."""
        outbox = self.session._outbox
        return [frame for lane in Lane for frame in outbox._drain(lane)]


class Pair:
    """Alice dials Bob."""

    def __init__(
        self, *, mesh: Mesh = LAB, alice: Member | None = None, bob: Member | None = None, bob_mesh: Mesh | None = None,
        rekey: RekeyTimes | None = None, attest: AttestTimes | None = None, gate: bytes = GATE, tag: bytes = TAG,
        answer_evidence: bool = True, alice_config: ChangeConfig = unchanged, bob_config: ChangeConfig = unchanged,
    ) -> None:
        self.now = 1000.0
        self.mesh = mesh
        self.at = self.mesh.at
        self.answer_evidence = answer_evidence
        self._times = rekey or RekeyTimes(), attest or AttestTimes()
        alice = alice or (ALICE if mesh is LAB else make_member(mesh, "alice"))
        bob = bob or (BOB if (bob_mesh or mesh) is LAB else make_member(bob_mesh or mesh, "bob"))
        self.alice = self._end(Role.OPENER, alice, mesh, context(gate_keys=(gate,), tag=tag), alice_config)
        self.bob = self._end(Role.OTHER, bob, bob_mesh or mesh, context(seen=SeenEphemerals()), bob_config)

    def _end(self, role: Role, member: Member, mesh: Mesh, side: ChangeConfig, change: ChangeConfig) -> End:
        appraiser = HashAppraiser()
        shaking = HandshakeContext(
            identity=local(member), trust=lambda: mesh.trust, calendar=self.calendar, chance=SeededChance(role),
            gate_keys=(GATE,), tag=TAG,
        )
        config = SessionConfig(
            handshake=shaking, appraiser=appraiser, evidence_kind=EvidenceKind.SOFTWARE, rekey=self._times[0],
            attest=self._times[1],
        )
        return End(Session(role, change(side(config)), self.now), member, appraiser)

    def calendar(self) -> datetime:
        return self.at + timedelta(seconds=self.now - 1000.0)

    @classmethod
    def established(cls, **options: Any) -> "Pair":
        """Both open."""
        pair = cls(**options)
        pair.exchange()
        assert pair.states == (State.OPEN, State.OPEN), pair.alice.events + pair.bob.events
        return pair

    @classmethod
    def admitting(cls, **options: Any) -> "Pair":
        """Both have the other's CHALLENGE and have not answered it; nobody answers for them."""
        pair = cls(answer_evidence=False, **options)
        pair.exchange()
        return pair

    @classmethod
    def agreed(cls, rogue: str = "alice") -> tuple["Pair", End]:
        """Keys are agreed, and the other end waits for the CHALLENGE of this one, which has said nothing yet."""
        pair = cls(answer_evidence=False)
        pair.move(pair.alice)
        pair.move(pair.bob)
        end: End = getattr(pair, rogue)
        if end is pair.alice:
            end.swallow()
        pair.move(pair.alice, lambda data: records(data)[0])
        if end is pair.bob:
            end.swallow()
        return pair, end

    @property
    def states(self) -> tuple[State, State]:
        return self.alice.session.state, self.bob.session.state

    @property
    def ends(self) -> tuple[End, End]:
        return self.alice, self.bob

    def other(self, end: End) -> End:
        return self.bob if end is self.alice else self.alice

    # --- bytes

    def move(self, sender: End, change: ChangeBytes = lambda data: data) -> list[Event]:
        """What one end owes goes to the other, changed on the way."""
        data = change(sender.session.data_to_send())
        return self.deliver(data, to=self.other(sender)) if data else []

    def deliver(self, data: bytes, *, to: End) -> list[Event]:
        events = to.take(to.session.receive(data, self.now))
        if self.answer_evidence:
            self.prove(to, events)
        return events

    def prove(self, end: End, events: Sequence[Event]) -> None:
        """The shell's part: answer what asks for evidence."""
        for event in events:
            if isinstance(event, EvidenceWanted):
                end.take(end.session.supply_evidence(evidence_for(event.binding), self.now))
            elif isinstance(event, NonceReceived):
                end.session.send_evidence(event.number, evidence_for(event.binding))

    def exchange(self) -> None:
        """Move bytes both ways until nobody owes any."""
        for _ in range(50):
            moved = [self.move(end) or end.session.queued for end in self.ends]
            if not any(moved) and not any(end.session.queued for end in self.ends):
                return
        raise AssertionError("the talk does not end")

    # --- time

    def sleep(self, seconds: float) -> None:
        """Let time pass: ticks at every deadline, bytes exchanged at once."""
        until = self.now + seconds
        for _ in range(5_000):
            due = min(end.session.deadline for end in self.ends)
            if due > until:
                self.now = until
                return
            self.now = max(self.now, due)
            for end in self.ends:
                if end.session.deadline <= self.now:
                    end.take(end.session.tick(self.now))
            self.exchange()
        raise AssertionError("a deadline does not pass")

    def tick(self, end: End) -> list[Event]:
        return end.take(end.session.tick(self.now))

    # --- what is said

    def say(self, sender: End, body: bytes, kind: FrameType = FrameType.CALL) -> list[Event]:
        sender.session.send(kind, sender.session.next_stream(), body, self.now)
        return self.move(sender)

    def forge(self, sender: End, *frames: Frame | bytes) -> list[Event]:
        """A record that no end of ours would send: these frames, under the sender's key. The other end's events."""
        plaintext = b"".join(pack(frame) if isinstance(frame, Frame) else frame for frame in frames)
        return self.deliver(sender.session.data_to_send() + sender.sealer.seal(plaintext), to=self.other(sender))


def raw_frame(kind: int, body: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """A packed frame of any type and flags."""
    return bytes([kind, flags]) + stream.to_bytes(4, "big") + len(body).to_bytes(2, "big") + body


def records(data: bytes) -> list[bytes]:
    """A stream cut at its records."""
    found = []
    while data:
        size = 2 + int.from_bytes(data[:2], "big")
        found.append(data[:size])
        data = data[size:]
    return found


def refusal(events: Sequence[Event]) -> Reason:
    """Why the link failed at this end, by its own judgement; that is the last event, and only who the peer is came before."""
    *before, last = events
    assert isinstance(last, Failed), events
    assert not last.by_peer, last
    assert all(isinstance(event, PeerIdentified | EvidenceWanted) for event in before), before
    return last.reason


def flip(index: int, bit: int = 0) -> ChangeBytes:
    """One bit of one byte changed."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[index] ^= 1 << bit
        return bytes(changed)

    return change


MORE = FrameFlag.MORE
