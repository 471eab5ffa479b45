"""Two pools without nodes around them: real sessions over streams in memory, so that time may jump."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing

from overlay.core.gate import SeenEphemerals
from overlay.core.handshake import HandshakeContext
from overlay.core.keys import NodeId
from overlay.core.mesh.found import Candidate
from overlay.core.session import Session, SessionConfig
from overlay.core.session_events import Event, EvidenceWanted, Opened
from overlay.net.link import Link
from overlay.net.pool import Pool, Target
from overlay.net.system import SystemChance
from overlay.registry import EvidenceKind, Role
from tests.shell.test_link import Valve
from tests.unit.core.authority_kit import Member
from tests.unit.core.session_kit import ALICE, BOB, GATE, LAB, TAG, HashAppraiser, evidence_for, local

LOW, HIGH = sorted((ALICE, BOB), key=lambda member: member.peer.node_id)


class Gate(Valve):
    """A valve that keeps what has arrived, too."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._inner.receive_some(max_bytes))
        await self._open.wait()
        return data


class MemoryPool(Pool):
    """Dials another owner over streams in memory, whatever the address is."""

    reach: "Owner"

    async def _dial(self, target: Target) -> Link | None:
        link = await self.reach.dialled_by(self)
        target.node_id = self.reach.node_id
        return link


class Owner:
    """What a node is to its pool: it answers for evidence, and remembers what it was told."""

    def __init__(self, member: Member, nursery: trio.Nursery) -> None:
        self.member = member
        self.nursery = nursery
        self.random = random.Random(1)
        self.pool = MemoryPool(own_id=self.node_id, owner=self, nursery=nursery, fraction=self.random.random)
        self.on_open: Callable[[Link], None] = lambda _link: None
        self.open: list[Link] = []  # in the order in which they were
        self.ups: list[Link] = []
        self.downs: list[Link] = []
        self.replaced: list[NodeId] = []
        self.clones = 0
        self.dials: list[float] = []
        self.gates: list[Gate] = []  # of the connections that others opened to us

    @property
    def node_id(self) -> NodeId:
        return self.member.peer.node_id

    @property
    def current(self) -> Link | None:
        """Its only current link."""
        return next(iter(self.pool.links.values()), None)

    async def dialled_by(self, pool: Pool) -> Link:
        """Somebody opens a connection to us: his link, when it has ended."""
        self.dials.append(trio.current_time())
        one, other = trio.testing.memory_stream_pair()
        gate = Gate(other)
        self.gates.append(gate)
        self.nursery.start_soon(self.pool._carry, self.pool._make(gate, Role.OTHER, TAG, ("memory", 1)))
        link = pool._make(one, Role.OPENER, TAG, ("memory", 2))
        await pool._carry(link)
        return link

    def find(self, other: "Owner") -> None:
        """Dial it from now on."""
        self.pool.reach = other
        self.pool.found(Candidate(addresses=(("memory", 1),), node_id=other.node_id, ours=True, source="static"))

    # --- PoolOwner

    def make_session(self, role: Role, tag: bytes, gate_key: bytes | None = None) -> Session:
        handshake = HandshakeContext(
            identity=local(self.member), trust=lambda: LAB.trust, calendar=lambda: LAB.at, chance=SystemChance(),
            gate_keys=(GATE,), tag=tag, seen=SeenEphemerals(),
        )
        config = SessionConfig(
            handshake=handshake, appraiser=HashAppraiser(), evidence_kind=EvidenceKind.SOFTWARE,
            has_link=lambda peer: NodeId(peer) in self.pool.links,
        )
        return Session(role, config, trio.current_time())

    def link_event(self, link: Link, event: Event) -> None:
        if isinstance(event, EvidenceWanted):
            link.supply_evidence(evidence_for(event.binding))
        elif isinstance(event, Opened):
            self.open.append(link)
            self.on_open(link)

    def peer_up(self, link: Link) -> None:
        self.ups.append(link)

    def link_replaced(self, peer: NodeId) -> None:
        self.replaced.append(peer)

    def peer_down(self, peer: NodeId, link: Link) -> None:
        self.downs.append(link)

    def cloned(self, link: Link) -> None:
        self.clones += 1


@asynccontextmanager
async def two_pools() -> AsyncIterator[tuple[Owner, Owner]]:
    """The one with the lower id, and the other one; nobody has dialled yet."""
    async with trio.open_nursery() as nursery:
        yield Owner(LOW, nursery), Owner(HIGH, nursery)
        nursery.cancel_scope.cancel()
