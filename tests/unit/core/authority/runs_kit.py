"""Members, machines and a wire for tests of key generation, resharing and repair."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from overlay.core.authority.dealing import Plan
from overlay.core.authority.group import BASE, Scalar
from overlay.core.authority.key_generation import KeyGeneration, KeyPlan
from overlay.core.authority.repair import Repair, RepairPlan
from overlay.core.authority.resharing import Resharing
from overlay.core.authority.run_events import Event
from overlay.core.authority.sharing import GroupKey, Share, lagrange
from overlay.core.authority.statements import Board, Statement, Terms
from overlay.core.keys import Ed25519Signer, MeshId, NodeId
from overlay.core.wire import sha256
from overlay.registry import RoundKind
from tests.unit.core.session_kit import SeededChance

MESH = MeshId(sha256(b"mesh"))
SESSION = b"s" * 16
Sent = tuple[NodeId, NodeId, RoundKind, bytes]  # from, to, kind, body


class Machine(Protocol):
    """What all of them have."""

    @property
    def deadline(self) -> float: ...
    def receive(self, sender: NodeId, kind: RoundKind, body: bytes, now: float) -> list[Event]: ...
    def tick(self, now: float) -> list[Event]: ...
    def messages_to_send(self) -> list[tuple[NodeId, RoundKind, bytes]]: ...


def signer(number: int) -> Ed25519Signer:
    """The message key of a member."""
    return Ed25519Signer(sha256(b"message key", bytes([number])))


def ids(count: int, start: int = 0) -> tuple[NodeId, ...]:
    """Members in the order of their ids; the n-th has `signers[n-th]`."""
    return tuple(bytes_to_id(number) for number in range(start + 1, start + count + 1))


def bytes_to_id(number: int) -> NodeId:
    """A node id that begins with its number."""
    return NodeId(bytes([number]) + sha256(bytes([number]))[1:])


def signer_of(member: NodeId) -> Ed25519Signer:
    """Its message key."""
    return signer(member[0])


def message_keys(members: Iterable[NodeId]) -> dict[NodeId, bytes]:
    """Everyone's."""
    return {member: signer_of(member).public_key for member in members}


class Wire:
    """Machines and the messages between them. Whatever is queued can be delivered, dropped or changed by the test."""

    def __init__(self, machines: Mapping[NodeId, Any]) -> None:
        self.machines = dict(machines)
        self.queue: list[Sent] = []
        self.events: dict[NodeId, list[Event]] = {member: [] for member in machines}
        self.now = 0.0
        self.collect()

    def collect(self) -> None:
        """Take what the machines owe."""
        for member, machine in self.machines.items():
            self.queue += [(member, to, kind, body) for to, kind, body in machine.messages_to_send()]

    def deliver(self, sent: Sent) -> list[Event]:
        """One message, and what follows is queued."""
        sender, to, kind, body = sent
        if to not in self.machines:
            return []
        events: list[Event] = self.machines[to].receive(sender, kind, body, self.now)
        self.events[to] += events
        self.collect()
        return events

    def run(
        self, pick: Callable[[int], int] = lambda count: 0, change: Callable[[Sent], Sequence[Sent]] = lambda sent: [sent]
    ) -> None:
        """Until the wire is empty; `pick` says which of so many is next, `change` what becomes of it."""
        while self.queue:
            for sent in change(self.queue.pop(pick(len(self.queue)))):
                self.deliver(sent)

    def tick_all(self, now: float) -> None:
        """Time goes on for everyone whose deadline has come; what they say of it is delivered."""
        self.now = now
        for member, machine in self.machines.items():
            if machine.deadline <= now:
                self.events[member] += machine.tick(now)
        self.collect()

    def remove(self, member: NodeId) -> None:
        """It is gone, with what it had not got out yet."""
        del self.machines[member]
        self.queue = [sent for sent in self.queue if sent[0] != member]


def key_plan(members: Sequence[NodeId], threshold: int, session: bytes = SESSION) -> KeyPlan:
    """To make a key of these members."""
    return KeyPlan(
        mesh_id=MESH, session=session, members=tuple(members), threshold=threshold, message_keys=message_keys(members)
    )


def key_generation(count: int, threshold: int, *, seed: int = 0, session: bytes = SESSION, **more: Any) -> Wire:
    """Everyone of a new key generation."""
    members = ids(count)
    return Wire({
        member: KeyGeneration(
            key_plan(members, threshold, session), member, SeededChance(seed * 100 + member[0]), 0.0,
            signer=signer_of(member), **more,
        )
        for member in members
    })  # fmt: skip


def generated(count: int, threshold: int, seed: int = 0) -> dict[NodeId, Share]:
    """Shares of a fresh key."""
    wire = key_generation(count, threshold, seed=seed)
    wire.run()
    return {member: machine.result.share for member, machine in wire.machines.items()}


def plan(shares: Mapping[NodeId, Share], new: Sequence[NodeId], new_threshold: int, **more: Any) -> Plan:
    """To reshare from these to those, all of the old ones deal."""
    old = tuple(sorted(shares))
    share = shares[old[0]]
    given: dict[str, Any] = {
        "mesh_id": MESH, "session": SESSION, "order_number": 7, "generation": share.generation, "group": share.group,
        "old_members": old, "dealers": old, "new_members": tuple(new),
        "threshold": new_threshold, "message_keys": message_keys({*old, *new}),
    }  # fmt: skip
    return Plan(**given | more)


def resharing(shares: Mapping[NodeId, Share], the_plan: Plan, *, without: Sequence[NodeId] = (), **more: Any) -> Wire:
    """Everyone of a resharing, except those who are not there."""
    here = [member for member in the_plan.participants if member not in without]
    return Wire({
        member: Resharing(
            the_plan, member, shares.get(member) if member in the_plan.dealers else None, SeededChance(900 + member[0]), 0.0,
            signer=signer_of(member), **more,
        )
        for member in here
    })  # fmt: skip


def repair_plan(shares: Mapping[NodeId, Share], lost: NodeId, members: Sequence[NodeId], **more: Any) -> RepairPlan:
    """The first t others help."""
    some = next(iter(shares.values()))
    helpers = tuple(member for member in sorted(shares) if member != lost)[: some.group.threshold]
    given: dict[str, Any] = {
        "mesh_id": MESH, "session": SESSION, "generation": some.generation, "group": some.group, "members": tuple(members),
        "helpers": helpers, "lost": lost, "message_keys": message_keys(members),
    }  # fmt: skip
    return RepairPlan(**given | more)


def repairing(shares: Mapping[NodeId, Share], the_plan: RepairPlan) -> Wire:
    """Helpers and loser."""
    return Wire({
        member: Repair(
            the_plan, member, None if member == the_plan.lost else shares[member], SeededChance(700 + member[0]), 0.0,
            signer=signer_of(member),
        )
        for member in the_plan.participants
    })  # fmt: skip


def secret_of(shares: Iterable[Share], count: int | None = None) -> Scalar:
    """The mesh key itself: what no member may ever compute, and a test may."""
    some = list(shares)
    some = some[: count or some[0].group.threshold]
    identifiers = [share.identifier for share in some]
    parts = [lagrange(share.identifier, identifiers) * share.secret for share in some]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def check_shares(shares: Iterable[Share], group: GroupKey) -> None:
    """All are of one key, and the first t as well as the last t have it."""
    some = sorted(shares, key=lambda share: share.identifier)
    assert all(share.group == group for share in some)
    assert all((BASE * share.secret).encode() == group.shares[share.identifier] for share in some)
    assert (BASE * secret_of(some)).encode() == group.public
    assert (BASE * secret_of(reversed(some))).encode() == group.public


def said_otherwise(terms: Terms, author: NodeId, kind: RoundKind, content: bytes) -> bytes:
    """A body that this author has signed, with other content."""
    statement: Statement = Board(terms, author, signer_of(author)).say(kind, content)
    return statement.pack()
