"""Properties of replication: whatever is lost, late or out of order, all honest nodes end with the same logs.

Nodes run the real machine over the real checks of audit logs; the network between them loses and reorders messages, and
the clock is a number. A liar says anything at all.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from audit.entry import Entry
from audit.replica import AuditReplica
from overlay.core.keys import NodeId
from overlay.core.mesh.reconcile import Head, HeadsDiffer, ItemsVerified, Misbehaved, RangeWanted, Reconcile, ReconcileEvent
from overlay.core.wire import make_map
from overlay.registry import ChainKind, FrameType
from tests.unit.audit.audit_kit import Writer, state_after
from tests.unit.core.authority_kit import make_member, make_mesh

MESH = make_mesh()
NAMES = ("alice", "bob", "carol", "dave", "erin")
MEMBERS = [make_member(MESH, name) for name in NAMES]
FRAMES = (FrameType.HEADS, FrameType.WANT, FrameType.ITEMS)

few = settings(deadline=None, max_examples=25)


@dataclass
class Node:
    """A node with its logs in memory; storing takes until the simulator says so."""

    writer: Writer
    now: float = 0.0
    stored: dict[bytes, list[bytes]] = field(default_factory=dict)
    waiting: list[ItemsVerified] = field(default_factory=list)
    complaints: list[ReconcileEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.replica = AuditReplica(MESH.root, lambda: MESH.at + timedelta(hours=1))
        self.machine = Reconcile(ChainKind.AUDIT, self.node_id, self.replica)

    @property
    def node_id(self) -> NodeId:
        return self.writer.member.node_id

    def write(self, count: int) -> None:
        entries = [self.writer.note() if self.writer.entries else self.writer.open() for _ in range(count)]
        state = state_after(self.writer)
        self._keep(self.writer.log_id, entries)
        self.replica.stored(state, entries)
        self.machine.appended(state.log_id, Head(state.node_id, state.size, state.root), [one.raw for one in entries])

    def store_one(self) -> None:
        if not self.waiting:
            return
        items = self.waiting.pop(0)
        found = self.replica.checked(items.log_id, items.start, len(items.items))
        if found is None:
            self.machine.dropped(items.log_id, self.now)
            return
        self._keep(items.log_id, found.entries)
        self.replica.stored(found.state, found.entries)
        state = found.state
        self.machine.stored(items.log_id, Head(state.node_id, state.size, state.root), self.now)

    def take(self, events: Sequence[ReconcileEvent]) -> None:
        for event in events:
            match event:
                case ItemsVerified():
                    self.waiting.append(event)
                case RangeWanted(log_id=log_id, start=start, count=count):
                    self.machine.supply(event, self.stored[log_id][start : start + count])
                case Misbehaved() | HeadsDiffer():
                    self.complaints.append(event)

    def heads(self) -> dict[bytes, Head]:
        return self.machine.heads

    def _keep(self, log_id: bytes, entries: Sequence[Entry]) -> None:
        self.stored.setdefault(log_id, []).extend(entry.raw for entry in entries)


class Network:
    """Messages under way between linked nodes: any of them may be next, or lost."""

    def __init__(self, nodes: Sequence[Node], seed: int, loss: float) -> None:
        self.nodes = {node.node_id: node for node in nodes}
        self.chance = random.Random(seed)
        self.loss = loss
        self.now = 0.0
        self.under_way: list[tuple[NodeId, NodeId, FrameType, bytes]] = []

    def link_all(self) -> None:
        for node_id, node in self.nodes.items():
            for other in self.nodes:
                if other != node_id:
                    node.machine.peer_opened(other, self.now)

    def collect(self) -> None:
        for node_id, node in self.nodes.items():
            for to, frame, body in node.machine.messages_to_send():
                if to in self.nodes and self.chance.random() >= self.loss:
                    self.under_way.append((node_id, to, frame, body))

    def step(self) -> None:
        """Deliver one message, or let time pass; store something here and there."""
        self.collect()
        if self.under_way and self.chance.random() < 0.95:
            sender, to, frame, body = self.under_way.pop(self.chance.randrange(len(self.under_way)))
            node = self.nodes[to]
            node.take(node.machine.receive(sender, frame, body, self.now))
        else:
            self.pass_time(self.chance.random())
        for node in self.nodes.values():
            if self.chance.random() < 0.5:
                node.store_one()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for node in self.nodes.values():
            node.now = self.now
            if node.machine.deadline <= self.now:
                node.take(node.machine.tick(self.now))

    def settle(self) -> None:
        """No more losses, and time enough for everything that is repeated."""
        self.loss = 0.0
        for _ in range(30):
            self.pass_time(5.0)
            while self.under_way or any(node.waiting for node in self.nodes.values()):
                self.step()
                self.collect()
            self.collect()


def equal(nodes: Sequence[Node]) -> bool:
    return all(node.heads() == nodes[0].heads() and node.stored == nodes[0].stored for node in nodes)


@few
@given(st.integers(3, 5), st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.5]), st.data())
def test_all_logs_are_equal_in_the_end(count: int, seed: int, loss: float, data: st.DataObject) -> None:
    nodes = [Node(Writer.begin(MESH, member)) for member in MEMBERS[:count]]
    network = Network(nodes, seed, loss)
    network.link_all()
    for _ in range(data.draw(st.integers(1, 8))):
        nodes[data.draw(st.integers(0, count - 1))].write(data.draw(st.integers(1, 5)))
        for _ in range(data.draw(st.integers(0, 30))):
            network.step()
    network.settle()
    assert equal(nodes)
    assert [node.complaints for node in nodes] == [[] for _ in nodes]
    written = {node.writer.log_id: node.writer.raws for node in nodes if node.writer.entries}
    assert nodes[0].stored == written


@few
@given(st.integers(0, 2**32))
def test_a_node_that_was_away_catches_up_from_any_other(seed: int) -> None:
    alice, bob = (Node(Writer.begin(MESH, member)) for member in MEMBERS[:2])
    network = Network([alice, bob], seed, 0.2)
    network.link_all()
    alice.write(40)
    network.settle()
    carol = Node(Writer.begin(MESH, MEMBERS[2]))
    later = Network([bob, carol], seed, 0.2)
    later.now = network.now
    bob.machine.peer_closed(alice.node_id)
    bob.machine.peer_opened(carol.node_id, later.now)
    carol.machine.peer_opened(bob.node_id, later.now)
    later.settle()
    assert carol.stored == alice.stored


@few
@given(st.integers(0, 2**32), st.integers(1, 4), st.booleans())
def test_two_histories_by_one_author_are_seen_and_nobody_else_is_blamed(seed: int, common: int, rotated: bool) -> None:
    alice, bob, carol = (Node(Writer.begin(MESH, member)) for member in MEMBERS[:3])
    alice.writer.open()
    for _ in range(common):
        alice.writer.note()
    for node, stories in ((bob, 2), (carol, 3)):
        told = Writer(MESH, MEMBERS[0], alice.writer.opening, alice.writer.log_id, list(alice.writer.entries))
        if rotated and node is carol:
            told.change_to(make_member(MESH, "alice", start=2))
        for number in range(stories):
            told.note(f"{node.node_id} {number}")
        node.replica.check(told.log_id, MEMBERS[0].node_id, 0, told.raws)
        found = node.replica.checked(told.log_id, 0, len(told.raws))
        assert found is not None
        node.replica.stored(found.state, found.entries)
        node.stored[told.log_id] = list(told.raws)
        head = Head(MEMBERS[0].node_id, found.state.size, found.state.root)
        node.machine.stored(told.log_id, head, 0.0)
    network = Network([bob, carol], seed, 0.1)
    network.link_all()
    network.settle()
    assert bob.complaints == [HeadsDiffer(carol.node_id, alice.writer.log_id, common + 3)]
    assert not any(isinstance(one, Misbehaved) for one in carol.complaints)


def lies(network: Network, liar: NodeId, victim: Node, data: st.DataObject) -> tuple[FrameType, bytes]:
    """Garbage, or well-formed messages about real and invented logs with real, wrong and invented content."""
    real = list(victim.stored)
    log_id = data.draw(st.sampled_from([*real, b"invented log id!"]))
    author = data.draw(st.sampled_from([*network.nodes, liar]))
    number = data.draw(st.integers(0, 12))
    every = [raw for raws in victim.stored.values() for raw in raws] or [b"\xd2"]
    items: list[Any] = data.draw(st.lists(st.sampled_from(every) | st.binary(min_size=1, max_size=20), max_size=4))
    body = {
        FrameType.HEADS: make_map(1, [[log_id, author, number, data.draw(st.binary(min_size=32, max_size=32))]]),
        FrameType.WANT: make_map(1, log_id, number, 1 + number),
        FrameType.ITEMS: make_map(1, log_id, number, items),
    }
    frame = data.draw(st.sampled_from(FRAMES))
    return frame, data.draw(st.sampled_from([body[frame], body[frame], body[frame], b"garbage"]))


@few
@given(st.integers(0, 2**32), st.data())
def test_a_liar_changes_nothing_and_makes_no_honest_node_suspect(seed: int, data: st.DataObject) -> None:
    nodes = [Node(Writer.begin(MESH, member)) for member in MEMBERS[:3]]
    network = Network(nodes, seed, 0.1)
    network.link_all()
    liar = MEMBERS[4].node_id
    for node in nodes:
        node.machine.peer_opened(liar, 0.0)
    for _ in range(data.draw(st.integers(3, 10))):
        nodes[data.draw(st.integers(0, 2))].write(data.draw(st.integers(1, 3)))
        victim = nodes[data.draw(st.integers(0, 2))]
        frame, body = lies(network, liar, victim, data)
        before = victim.heads()
        victim.take(victim.machine.receive(liar, frame, body, network.now))
        assert victim.heads() == before
        for _ in range(data.draw(st.integers(0, 10))):
            network.step()
    network.settle()
    assert equal(nodes)
    accused = {one.peer for node in nodes for one in node.complaints if isinstance(one, Misbehaved | HeadsDiffer)}
    assert accused <= {liar}
