"""A group whose key is the root of the throw-away mesh, its signers, and a wire between them that tests can tamper with."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from overlay.core.authority.bindings import Bindings
from overlay.core.authority.coordinator import Coordinator
from overlay.core.authority.group import BASE, Scalar
from overlay.core.authority.requests import Request, unpack_request
from overlay.core.authority.round_messages import Outgoing
from overlay.core.authority.sharing import GroupKey, Share, split
from overlay.core.authority.signer import Signer
from overlay.core.authority.signing_bodies import SignRequest
from overlay.core.authority.signing_events import ApprovalWanted, GivenUp, MakeDurable, SignerEvent
from overlay.core.authority.x509_requests import IssueLeaf
from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificate_request import build_request
from overlay.core.keys import Ed25519Signer, NodeId
from overlay.core.policy import Policy
from overlay.registry import Reason, RoundKind
from tests.unit.core.authority_kit import DAY, NOW, make_mesh, seed
from tests.unit.core.session_kit import SeededChance

MESH = make_mesh()
ISSUER = MESH.root.issuer
INVITE = b"i" * 16
SESSION = b"s" * 16
OPERATOR = NodeId(seed("coordinator"))
GENERATION = 3


def names(count: int) -> tuple[NodeId, ...]:
    """Signers in the order of their identifiers."""
    return tuple(sorted(NodeId(seed("signer", str(number))) for number in range(count)))


def shares(threshold: int, count: int) -> list[Share]:
    """The mesh's founding key in parts: what they sign verifies under its root."""
    half = bytearray(hashlib.sha512(seed("root", "lab")).digest()[:32])  # RFC 8032, section 5.1.5
    half[0] &= 248
    half[31] = half[31] & 127 | 64
    secret = Scalar.reduce(bytes(half) + bytes(32))
    rest = [Scalar.reduce(hashlib.sha512(b"coefficient%d" % number).digest()) for number in range(1, threshold)]
    parts = split(secret, threshold, count, rest)
    group = GroupKey(threshold, MESH.root.public_key, {one: (BASE * part).encode() for one, part in parts.items()})
    return [Share(one, GENERATION, part, group) for one, part in sorted(parts.items())]


def leaf(name: str = "alice", **changes: Any) -> IssueLeaf:
    """A certificate for the node with the key of that name (or of `key`)."""
    key = changes.pop("key", name)
    called = changes.pop("asks_for", name)
    fields: dict[str, Any] = {
        "csr": build_request(Ed25519Signer(seed("identity", key)), called), "name": name, "facts": LeafFacts(),
        "not_before": NOW, "not_after": NOW + DAY, "invite_id": INVITE, "use": 0,
    }  # fmt: skip
    return IssueLeaf(**(fields | changes))


def renewal(serial: bytes, name: str = "alice", **changes: Any) -> IssueLeaf:
    """The same, instead of a certificate that is there."""
    return leaf(name, **({"invite_id": None, "use": None, "renews": serial} | changes))


Tamper = Callable[[NodeId, Outgoing], Sequence[tuple[NodeId, Outgoing]]]
Approve = Callable[[NodeId, Request], Reason | None]


@dataclass
class Network:
    """n signers and one coordinator. What is sent waits in `wire` as (sender, message) until it is delivered."""

    threshold: int = 3
    count: int = 4
    now: float = 100.0
    dead: set[NodeId] = field(default_factory=set)
    tamper: Tamper = lambda sender, message: [(sender, message)]
    approve: Approve = lambda signer, request: None
    liars: set[NodeId] = field(default_factory=set)  # forget all that they have bound

    def __post_init__(self) -> None:
        self.names = names(self.count)
        self.shares = dict(zip(self.names, shares(self.threshold, self.count), strict=True))
        self.stored: dict[NodeId, Bindings] = {name: Bindings() for name in self.names}
        self.signers = {name: self.start(name) for name in self.names}
        self.wire: list[tuple[NodeId, Outgoing]] = []
        self.coordinators: dict[tuple[NodeId, bytes], Coordinator] = {}
        self.said: list[Any] = []  # by coordinators
        self.told: list[tuple[NodeId, SignerEvent]] = []  # by signers
        self.sent: list[tuple[NodeId, Outgoing]] = []  # all that was ever delivered
        self._starts = 0

    def start(self, name: NodeId) -> Signer:
        """A signer that comes up with what it had made durable."""
        self._starts = getattr(self, "_starts", 0) + 1
        number = 1000 * self._starts + self.names.index(name)
        bindings = Bindings.unpack(self.stored[name].pack())
        return Signer(self.shares[name], ISSUER, bindings, SeededChance(number))

    def restart(self, name: NodeId) -> None:
        """Nonces and sessions are gone."""
        self.signers[name] = self.start(name)

    @property
    def group(self) -> GroupKey:
        """What everybody knows of the key."""
        return self.shares[self.names[0]].group

    def ask(self, request: Request, *, who: NodeId = OPERATOR, session: bytes = SESSION) -> Coordinator:
        """Begin a signature."""
        found = Coordinator(
            request, ISSUER, self.group, self.names, generation=GENERATION, session=session, now=self.now
        )
        self.coordinators[who, session] = found
        self.collect()
        return found

    def sign(self, request: Request, **options: Any) -> Any:
        """Ask, deliver everything, and give the last event."""
        before = len(self.said)
        self.ask(request, **options)
        self.run()
        return self.said[-1] if len(self.said) > before else None

    def run(self, *, seconds: float = 0.0) -> None:
        """Deliver until nothing is under way; then let time pass, as far as said, in steps to the next deadline."""
        until = self.now + seconds
        while True:
            while self.wire:
                self.deliver(0)
            due = min((one.deadline for one in self.coordinators.values()), default=until + 1)
            if due > until:
                return
            self.advance(max(due - self.now, 0.0))

    def advance(self, seconds: float) -> None:
        """Time passes for everybody."""
        self.now += seconds
        for name, signer in self.signers.items():
            for event in signer.tick(self.now):
                self._told(name, event)
        for coordinator in self.coordinators.values():
            self.said += coordinator.tick(self.now)
        self.collect()

    def collect(self) -> None:
        """Put on the wire what all of them owe."""
        for (who, _), coordinator in self.coordinators.items():
            self._put(who, coordinator.messages_to_send())
        for name, signer in self.signers.items():
            self._put(name, signer.messages_to_send())

    def deliver(self, place: int) -> None:
        """One message of those under way."""
        sender, message = self.wire.pop(place)
        if sender in self.dead or message.to in self.dead:
            return
        self.sent.append((sender, message))
        if message.kind in (RoundKind.SIGN_REQUEST, RoundKind.PACKAGE):
            self.to_signer(sender, message)
        else:
            coordinator = self.coordinators.get((message.to, message.session))
            self.said += coordinator.receive(sender, message.kind, message.body, self.now) if coordinator else []
        self.collect()

    def to_signer(self, sender: NodeId, message: Outgoing) -> list[SignerEvent]:
        """One message to a signer, and all that its shell does about it."""
        name, signer = message.to, self.signers[message.to]
        if name in self.liars:
            signer.bindings = Bindings()
        events = signer.receive(sender, message.session, message.kind, message.body, self.now, NOW)
        for event in events:
            self._told(name, event)
            if isinstance(event, ApprovalWanted):
                self._answer(name, event)
        return events

    def _answer(self, name: NodeId, wanted: ApprovalWanted) -> None:
        signer, reason = self.signers[name], self.approve(name, wanted.request)
        if reason is not None:
            self.told += [(name, event) for event in signer.decline(wanted.session, reason)]
            return
        for event in signer.approve(wanted.session, self.now):
            self.told.append((name, event))
            if isinstance(event, MakeDurable):
                self.stored[name] = self.stored[name].adding(event.added) if name not in self.liars else Bindings()
                self.told += [(name, one) for one in signer.durable(event.session, self.now)]

    def _told(self, name: NodeId, event: SignerEvent) -> None:
        self.told.append((name, event))
        if isinstance(event, GivenUp):
            self.stored[name] = self.stored[name].less(event.rows)

    def _put(self, sender: NodeId, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            self.wire += self.tamper(sender, message)

    def events(self, kind: type) -> list[Any]:
        """Those of all signers."""
        return [event for _, event in self.told if isinstance(event, kind)]


def asked_for(message: Outgoing) -> Request:
    """The request in a SIGN_REQUEST."""
    return unpack_request(SignRequest.unpack(message.body).request)


def policy(version: int, **changes: Any) -> bytes:
    """The payload of a policy."""
    return Policy(version=version, **changes).pack()


