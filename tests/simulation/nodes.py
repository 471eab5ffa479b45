"""Nodes of a simulated world: the real machines (Reconcile, AuditReplica, Exposer, OwnLog), and around them what a shell does.

A disk takes time, and a node may crash while it does: then what was under way is there or not, as chance has it, and nobody
has heard of it. Every node would verify each entry; here the first one does it for all, by what is verified and nothing else.
"""

from collections import deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from audit.author import LogSigner, OwnLog, former_of
from audit.batch import RESTORED
from audit.bodies import application, read_credentials
from audit.chain import Append, ChainState, Extension, KeyInForce, extend, verify_key
from audit.entry import Entry, parse_entry
from audit.exposer import Compare, Exposed, Exposer, ExposerEvent, Suspected
from audit.exposer import Misbehaved as LiedAboutForks
from audit.fork_sides import Side
from audit.forks import ForkProof
from audit.replica import AuditReplica
from overlay.core.keys import NodeId
from overlay.core.limits import RANGE_BYTES
from overlay.core.mesh.reconcile import (
    Head,
    HeadsDiffer,
    ItemShown,
    ItemsVerified,
    Misbehaved,
    RangeWanted,
    Reconcile,
    ReconcileEvent,
)
from overlay.registry import ChainKind, EntryType, ForkKind, FrameType
from tests.simulation.world import End, World
from tests.unit.core.authority_kit import Mesh, make_member

COMMIT = (0.001, 0.01)  # seconds of a commit
SKEW = 120.0  # seconds by which a clock may be wrong, either way


class Verified:
    """Verification that all nodes share: the same entries after the same state come out the same."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.seen: dict[tuple[bytes, int, bytes, tuple[int, ...]], tuple[tuple[bytes, ...], Extension]] = {}
        self.keys: dict[bytes, KeyInForce] = {}
        self.published: dict[tuple[bytes, int], bytes] = {}  # by log and number: of honest nodes
        self.opened: dict[tuple[NodeId, int], bytes] = {}

    def publish(self, append: Append) -> None:
        """Entries of an honest node are durable. No two of them may ever stand in one place, whatever has happened."""
        for entry in append.entries:
            place = entry.log_id, entry.seq
            assert self.published.setdefault(place, entry.hash) == entry.hash, f"two entries by one honest node at {place}"
        state = append.state
        opened = self.opened.setdefault((state.node_id, state.k), state.log_id)
        assert opened == state.log_id, f"two logs of one honest node with number {state.k}"

    def extend(self, state: ChainState, items: Sequence[bytes]) -> Extension:
        """As `extend`, for clocks that are right to the tolerance. Raises Refused."""
        key = (state.log_id, state.size, state.last, tuple(map(hash, items)))
        found = self.seen.get(key)
        if found is None or found[0] != tuple(items):
            found = self.seen[key] = (tuple(items), extend(state, items, self.mesh.root, at=None))
        return found[1]

    def key_of(self, entry: Entry) -> KeyInForce:
        """As `verify_key`."""
        if entry.hash not in self.keys:
            self.keys[entry.hash] = verify_key(entry, self.mesh.root)
        return self.keys[entry.hash]


class SharedReplica(AuditReplica):
    """The replica, verifying by `Verified`."""

    shared: Verified

    def judge(self, state: ChainState, items: Sequence[bytes]) -> Extension:
        """See `AuditReplica`."""
        return self.shared.extend(state, items)

    def _learn_from(self, entry: Entry) -> None:
        self._learn(self.shared.key_of(entry))


@dataclass
class Disk:
    """What outlives a crash."""

    states: dict[bytes, ChainState] = field(default_factory=dict)
    raws: dict[bytes, list[bytes]] = field(default_factory=dict)
    proofs: dict[NodeId, ForkProof] = field(default_factory=dict)

    def write(self, append: Append) -> None:
        """One commit."""
        self.states[append.state.log_id] = append.state
        self.raws.setdefault(append.state.log_id, []).extend(entry.raw for entry in append.entries)

    def read(self, log_id: bytes, start: int, count: int) -> list[bytes]:
        """As much of a range as one answer holds."""
        found, size = [], 0
        for raw in self.raws.get(log_id, [])[start : start + count]:
            size += len(raw)
            if found and size > RANGE_BYTES:
                break
            found.append(raw)
        return found


Work = Callable[[], list[Append]]


class Node:
    """One node. `complaints` are peers that it thinks have lied; `told` is what it has been exposed to."""

    def __init__(self, world: World, shared: Verified, name: str, address: int) -> None:
        self.world = world
        self.shared = shared
        self.name = name
        self.address = address
        self.up = False
        self.skew = timedelta(seconds=world.chance.uniform(-SKEW, SKEW))
        self.disk = Disk()
        self.complaints: list[tuple[NodeId, str]] = []
        self.suspects: list[NodeId] = []
        self.lies = False
        self.lowest_k = 0
        self.life = 0  # how often it was started
        self._jobs: deque[Work] = deque()
        self._under_way: list[Append] | None = None
        self._wakes_at = float("inf")
        self._links: dict[NodeId, End] = {}
        self.member = make_member(shared.mesh, name, start=1)

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> "Node":
        """Come up, with new keys, on what the disk has."""
        self.life += 1
        self.member = make_member(self.shared.mesh, self.name, start=self.life)
        self._make_machines()
        self._open_log()
        return self

    def _make_machines(self) -> None:
        root = self.shared.mesh.root
        SharedReplica.shared = self.shared
        self.replica = SharedReplica(root, self.at, self.disk.states)
        for raws in self.disk.raws.values():
            self.replica.remember([parse_entry(raws[0]).says])
        heads = {log: Head(state.node_id, state.size, state.root) for log, state in self.disk.states.items()}
        self.machine = Reconcile(ChainKind.AUDIT, self.node_id, self.replica, heads.items())
        self.exposer = Exposer(root, self.at, self.replica.credentials_of, self.disk.proofs.values())
        self._jobs.clear()
        self._under_way, self._links, self._wakes_at = None, {}, float("inf")
        self.up = True

    def _open_log(self) -> None:
        """Our newest log goes on, or the first begins; after a restore another one, with a number above all others."""
        root, signer, at = self.shared.mesh.root, LogSigner(self.member.message, self.member.credentials), self.at()
        own = max(self.replica.logs_of(self.node_id), key=lambda state: state.k, default=None)
        if own is None or own.k < self.lowest_k:
            former = None if own is None else former_of(own, RESTORED)
            self.own, entry = OwnLog.begin(root, signer, at, self.lowest_k if former else 0, former)
        else:
            self.own, entry = OwnLog(root=root, state=own, signer=signer).go_on(signer, at)
        opening = Append(state=self.own.state, entries=(entry,), ours=True)
        self._do(lambda: [opening])

    @property
    def node_id(self) -> NodeId:
        """Who it is; the two halves of a forker are one."""
        return self.member.node_id

    def at(self) -> datetime:
        """By its own clock."""
        return self.shared.mesh.at + timedelta(hours=1, seconds=self.world.now) + self.skew

    def crash(self, again: float) -> None:
        """The power fails, and is back after a while."""
        if not self.up:
            return
        if self._under_way is not None and self.world.chance.random() < 0.5:
            for append in self._under_way:
                self.disk.write(append)
        self.up, self._under_way = False, None
        self.world.down(self)
        self.world.after(again, lambda: self.world.up(self.start()) if not self.up else None)

    def restore(self, disk: Disk) -> None:
        """Come back from a backup, as `overlay restore` does: with a number above all that were counted one by one."""
        self.lowest_k = int(self.at().timestamp())
        self.put_back(disk)

    def put_back(self, disk: Disk) -> None:
        """Somebody has put back an old copy of the folder by hand, and the node goes on where that ends."""
        self.up, self._under_way = False, None
        self.world.down(self)
        self.disk = disk
        self.world.up(self.start())

    def write(self, count: int) -> None:
        """Append so many entries in one commit."""
        if self.up:
            self._do(lambda: self._written(count))

    def _written(self, count: int) -> list[Append]:
        entries = []
        for _ in range(count):
            number = self.own.state.size
            self.own, entry = self.own.write(EntryType.APPLICATION, application("door.opened", {"door": number}), self.at())
            entries.append(entry)
        return [Append(state=self.own.state, entries=tuple(entries), ours=True)]

    # --- the disk ---------------------------------------------------------------------------------------------------

    def _do(self, work: Work) -> None:
        self._jobs.append(work)
        self._commit_next()

    def _commit_next(self) -> None:
        if self._under_way is not None or not self._jobs:
            return
        self._under_way, life = self._jobs.popleft()(), self.life
        self.world.after(self.world.chance.uniform(*COMMIT), lambda: self._committed(life))

    def _committed(self, life: int) -> None:
        """It is on the disk: now others may know."""
        if life != self.life or not self.up or self._under_way is None:
            return
        appends, self._under_way = self._under_way, None
        for append in appends:
            self._settle(append)
        self._commit_next()
        self._flush()

    def _settle(self, append: Append) -> None:
        state = append.state
        self.disk.write(append)
        self.replica.stored(state, append.entries)
        head = Head(state.node_id, state.size, state.root)
        if append.ours and not self.lies:
            self.shared.publish(append)
        if append.ours:
            self.machine.appended(state.log_id, head, [entry.raw for entry in append.entries])
        else:
            self.machine.stored(state.log_id, head, self.world.now)
        if append.entries[0].type == EntryType.LOG_OPEN:
            self._look_at_opening(append.entries[0])

    def _stored(self, items: ItemsVerified) -> list[Append]:
        found = self.replica.checked(items.log_id, items.start, len(items.items))
        ours = items.log_id == self.own.state.log_id
        assert not ours or self.lies, f"{self.name}: others hold more of its open log than its own disk"
        if found is None or ours:
            self.machine.dropped(items.log_id, self.world.now)
            return []
        return [Append(state=found.state, entries=found.entries)]

    # --- links ------------------------------------------------------------------------------------------------------

    def link_opened(self, other: End) -> None:
        """See `End`."""
        peer = self._id_of(other)
        if peer in self.exposer.exposed:
            return
        self._links[peer] = other
        self.machine.peer_opened(peer, self.world.now)
        for proof in self.exposer.exposed.values():
            self.world.send(self, other, FrameType.FORK_PROOF, proof.raw)
        self._flush()

    def link_closed(self, other: End) -> None:
        """See `End`."""
        peer = self._id_of(other)
        if self._links.pop(peer, None) is not None and self.up:
            self.machine.peer_closed(peer)
            self.exposer.peer_closed(peer)
            self._flush()

    def heard(self, other: End, frame: FrameType, body: bytes) -> None:
        """See `End`."""
        peer = self._id_of(other)
        if peer not in self._links:
            return
        if frame is FrameType.FORK_PROOF:
            self._act(self.exposer.heard(peer, body))
        else:
            self._take(self.machine.receive(peer, frame, body, self.world.now))
        self._flush()

    def _id_of(self, other: End) -> NodeId:
        assert isinstance(other, Node)
        return other.node_id

    def _flush(self) -> None:
        for peer, frame, body in self.machine.messages_to_send():
            if peer in self._links:
                self.world.send(self, self._links[peer], frame, body)
        due = max(self.machine.deadline, self.world.now)
        if due < self._wakes_at:
            self._wakes_at = due
            life = self.life
            self.world.after(due - self.world.now, lambda: self._wake(life))

    def _wake(self, life: int) -> None:
        if life == self.life and self.up:
            self._wakes_at = float("inf")
            if self.machine.deadline <= self.world.now:
                self._take(self.machine.tick(self.world.now))
            self._flush()

    # --- what the machines say --------------------------------------------------------------------------------------

    def _take(self, events: Sequence[ReconcileEvent]) -> None:
        for event in events:
            match event:
                case ItemsVerified():
                    self._do(lambda items=event: self._stored(items))  # type: ignore[misc]
                case RangeWanted(log_id=log_id, start=start, count=count):
                    self.machine.supply(event, self.disk.read(log_id, start, count))
                case HeadsDiffer(peer=peer, log_id=log_id, size=size):
                    author, agreed = self.replica.states[log_id].node_id, self.machine.agreed(peer, log_id)
                    self._act(self.exposer.histories_differ(peer, author, log_id, agreed=agreed, size=size))
                case ItemShown(peer=peer, log_id=log_id, index=index, item=item):
                    ours = self.disk.read(log_id, index, 1)
                    self._act(self.exposer.compared(peer, log_id, index, ours[0] if ours else None, item))
                case Misbehaved(peer=peer, reason=reason, detail=detail):
                    self._hang_up(peer, f"{reason.name} {detail}")

    def _act(self, events: Sequence[ExposerEvent]) -> None:
        for event in events:
            match event:
                case Compare(peer=peer, log_id=log_id, index=index):
                    self.machine.probe(peer, log_id, index, self.world.now)
                case Exposed(proof=proof, sender=sender):
                    self.disk.proofs[proof.node_id] = proof
                    for peer, end in self._links.items():
                        if peer != sender:
                            self.world.send(self, end, FrameType.FORK_PROOF, proof.raw)
                    self._forget(proof.node_id)
                case Suspected(node_id=node_id):
                    self.suspects.append(node_id)
                case LiedAboutForks(peer=peer, reason=reason, detail=detail):
                    self._hang_up(peer, f"{reason.name} {detail}")

    def _look_at_opening(self, opening: Entry) -> None:
        """A node opens each number once."""
        logs = {log.log_id: log for log in self.replica.logs_of(opening.node_id)}
        for log_id, log in logs.items():
            if log_id != opening.log_id and log.k == logs[opening.log_id].k:
                other = self.disk.raws[log_id][0]
                self._act(self.exposer.contradict(ForkKind.OPENINGS, _opening(opening.raw), _opening(other)))

    def _hang_up(self, peer: NodeId, why: str) -> None:
        self.complaints.append((peer, why))
        self._forget(peer)

    def _forget(self, peer: NodeId) -> None:
        if peer in self._links:
            self.world.unlink(self, self._links[peer])


def _opening(raw: bytes) -> Side:
    entry = parse_entry(raw).says
    return Side.of_entry(raw, read_credentials(entry.type, entry.body))


def fork(node: Node, address: int) -> Node:
    """A second half of a node: the same keys and, until now, the same log. Each second neighbour is its own from now on."""
    twin = Node(node.world, node.shared, node.name, address)
    twin.skew, twin.disk, twin.life, twin.member = node.skew, deepcopy(node.disk), node.life, node.member
    node.lies = twin.lies = True
    twin._make_machines()
    twin.own = node.own
    for other in node.world.neighbours(node)[::2]:
        node.world.unlink(node, other)
        node.world.link(twin, other)
    return twin
