"""Two ends of a link on a fake wire, so that tests read as conversations."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from overlay.core.epochs import MlKem768
from overlay.core.evidence import Appraisal, Binding, Evidence
from overlay.core.gate import SeenEphemerals
from overlay.core.handshake import HandshakeContext
from overlay.core.identity import LocalIdentity
from overlay.core.keys import X25519Pair
from overlay.core.limits import AttestTimes, RekeyTimes
from overlay.core.session import Session, SessionConfig
from overlay.core.session_events import Event, EvidenceWanted, NonceReceived
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import EvidenceKind, FrameType, Reason, Role
from tests.unit.core.authority_kit import Member, Mesh, make_member, make_mesh

GATE = bytes(range(32))


class SeededChance:
    """The Chance port from a seed (ML-KEM excepted)."""

    kem = MlKem768()

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def x25519(self) -> X25519Pair:
        return X25519Pair.from_private(self._random.randbytes(32))

    def fraction(self) -> float:
        return 0.0


def evidence_for(binding: Binding) -> Evidence:
    """Stands for a quote: bound to everything, by hash."""
    return Evidence(count=1, index=0, path=(), claims=b"claims", ak_public=b"", quote=sha256(repr(binding).encode()), signature=b"")


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
        if evidence.quote != sha256(repr(binding).encode()):
            raise Refused(Reason.EVIDENCE_NOT_BOUND, "another link")
        return Appraisal(level=1, kind=EvidenceKind.SOFTWARE, software_version="test")


def local(member: Member) -> LocalIdentity:
    return LocalIdentity(credentials=member.credentials, verified=member.peer, static=member.noise, message=member.message)


@dataclass
class End:
    """One side: its session, its events, what it has not sent yet."""

    session: Session
    member: Member
    appraiser: HashAppraiser
    events: list[Event]

    def take(self, events: list[Event]) -> list[Event]:
        self.events += events
        return events


class Pair:
    """Alice dials Bob."""

    def __init__(
        self, *, mesh: Mesh | None = None, alice: Member | None = None, bob: Member | None = None, bob_mesh: Mesh | None = None,
        rekey: RekeyTimes | None = None, attest: AttestTimes | None = None, gate: bytes = GATE, tag: bytes = b"bobs-tag",
        answer_evidence: bool = True,
    ) -> None:
        self.now = 1000.0
        self.mesh = mesh or make_mesh()
        self.at = self.mesh.at
        self.answer_evidence = answer_evidence
        rekey = rekey or RekeyTimes()
        attest = attest or AttestTimes()
        seen = SeenEphemerals()
        self.alice = self._end(Role.OPENER, alice or make_member(self.mesh, "alice"), self.mesh, gate, tag, None, rekey, attest, 1)
        bob_mesh = bob_mesh or self.mesh
        self.bob = self._end(Role.OTHER, bob or make_member(bob_mesh, "bob"), bob_mesh, GATE, b"bobs-tag", seen, rekey, attest, 2)

    def _end(self, role, member, mesh, gate, tag, seen, rekey, attest, seed) -> End:  # type: ignore[no-untyped-def]
        appraiser = HashAppraiser()
        context = HandshakeContext(
            identity=local(member), trust=lambda: mesh.trust, calendar=self.calendar, chance=SeededChance(seed),
            gate_keys=(gate,), tag=tag, seen=seen,
        )
        config = SessionConfig(
            handshake=context, appraiser=appraiser, evidence_kind=EvidenceKind.SOFTWARE, rekey=rekey, attest=attest
        )
        return End(Session(role, config, self.now), member, appraiser, [])

    def calendar(self) -> datetime:
        return self.at + timedelta(seconds=self.now - 1000.0)

    @classmethod
    def established(cls, **options: object) -> "Pair":
        """Both open."""
        pair = cls(**options)  # type: ignore[arg-type]
        pair.exchange()
        return pair

    def other(self, end: End) -> End:
        return self.bob if end is self.alice else self.alice

    def move(self, sender: End, change: Callable[[bytes], bytes] = lambda data: data) -> list[Event]:
        """What one end owes goes to the other, changed on the way."""
        data = change(sender.session.data_to_send())
        return self.deliver(data, to=self.other(sender)) if data else []

    def deliver(self, data: bytes, *, to: End) -> list[Event]:
        events = to.take(to.session.receive(data, self.now))
        if self.answer_evidence:
            self.prove(to, events)
        return events

    def prove(self, end: End, events: list[Event]) -> None:
        """The shell's part: answer what asks for evidence."""
        for event in events:
            if isinstance(event, EvidenceWanted):
                end.take(end.session.supply_evidence(evidence_for(event.binding), self.now))
            elif isinstance(event, NonceReceived):
                end.session.send_evidence(event.number, evidence_for(event.binding))

    def exchange(self) -> None:
        """Move bytes both ways until nobody owes any."""
        for _ in range(50):
            moved = [self.move(end) or end.session.queued for end in (self.alice, self.bob)]
            if not any(moved) and not self.alice.session.queued and not self.bob.session.queued:
                return
        raise AssertionError("the talk does not end")

    def sleep(self, seconds: float) -> None:
        """Let time pass: ticks at every deadline, bytes exchanged at once."""
        until = self.now + seconds
        while True:
            due = min(self.alice.session.deadline, self.bob.session.deadline)
            if due > until:
                break
            self.now = max(self.now, due)
            for end in (self.alice, self.bob):
                if end.session.deadline <= self.now:
                    end.take(end.session.tick(self.now))
            self.exchange()
        self.now = until

    def say(self, sender: End, body: bytes, kind: FrameType = FrameType.CALL) -> list[Event]:
        sender.session.send(kind, sender.session.next_stream(), body, self.now)
        return self.move(sender)


def flip(index: int) -> Callable[[bytes], bytes]:
    """One bit of one byte changed."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[index] ^= 1
        return bytes(changed)

    return change


__all__ = ["GATE", "End", "HashAppraiser", "Pair", "SeededChance", "evidence_for", "flip", "local", "replace"]
