"""A node that runs in this process, as users see it: `NodeApi` over the engine, the audit log and the topics."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from overlay.app.api import NoWork, Published, TopicItem, WorkApi
from overlay.app.authority.api import Authority
from overlay.app.authority.commands import Commands
from overlay.app.authority.seat import Seat
from overlay.app.local_audit import LocalAudit
from overlay.app.telemetry.face import Telemetry
from overlay.app.topic_keeper import TopicKeeper
from overlay.core.authority.succession import AuthorityChain
from overlay.core.keys import MeshId, NodeId
from overlay.net.forward import Forwarding
from overlay.net.node import Node
from overlay.net.peer import Peer
from overlay.net.statistics import NodeStatistics

FOUNDING_KEY_WARNING = "founding key: one machine holds the mesh"
NO_RECOVERY_WARNING = "no recovery keys: if too many signers are lost, so is the mesh"


def authority_warnings(chain: AuthorityChain) -> list[str]:
    """What someone should know of those who hold the mesh key."""
    founding = [FOUNDING_KEY_WARNING] if len(chain.newest.members) == 1 else []
    return founding + [NO_RECOVERY_WARNING] * (not chain.newest.recovery.keys)


@dataclass(frozen=True, slots=True)
class Faces:
    """What users reach through a node."""

    audit: LocalAudit
    topics: TopicKeeper
    forwarding: Forwarding
    telemetry: Telemetry
    exposed: Callable[[], tuple[str, ...]] = tuple  # nodes that have told two stories


class LocalNode:
    """Keeps `NodeApi`; see there for what each method promises."""

    def __init__(
        self, engine: Node, faces: Faces, *, folder: Path, seat: Seat, mesh_name: str, evidence: str,
        warnings: Callable[[], tuple[str, ...]],
    ) -> None:
        self.audit = faces.audit
        self.telemetry = faces.telemetry
        self.seat = seat
        self.authority = Authority(Commands(seat).perform)
        self.engine = engine
        self.folder = folder
        self.mesh_name = mesh_name
        self._topics = faces.topics
        self._forwarding = faces.forwarding
        self._exposed = faces.exposed
        self._evidence = evidence
        self._warnings = warnings
        self._stop = trio.Event()
        self.work: WorkApi = NoWork()

    @property
    def name(self) -> str:
        """The name in our certificate."""
        return self.engine.identity.verified.name

    @property
    def node_id(self) -> NodeId:
        """Our id."""
        return self.engine.identity.node_id

    @property
    def mesh_id(self) -> MeshId:
        """Our mesh."""
        return self.engine.parts.trust().mesh_id

    @property
    def port(self) -> int:
        """The TCP port that we listen on."""
        return self.engine.port

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The members that we are linked to, by name."""
        return self.engine.peers

    async def wait_peers_change(self) -> None:
        """Until a peer came, went or changed."""
        await self.engine.wait_peers_change()

    async def wait_peer(self, name: str) -> Peer:
        """The member of that name or id, as soon as there is a link to it."""
        while True:
            for peer in self.peers:
                if name in (peer.name, str(peer.node_id)):
                    return peer
            await self.engine.wait_peers_change()

    async def wait_members(self, count: int) -> tuple[Peer, ...]:
        """Returns when the mesh has so many linked members, this node included."""
        while len(self.peers) + 1 < count:
            await self.engine.wait_peers_change()
        return self.peers

    async def publish(self, topic: str, body: bytes, *, transient: bool = False) -> Published:
        """See `NodeApi`."""
        if transient:
            return await self._topics.publish_transient(topic, body)
        return await self._topics.publish(topic, body)

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[TopicItem]]:
        """See `NodeApi`."""
        return self._topics.subscribe(topic)

    def expose(self, service: str, to: str, *, allow: Sequence[str]) -> AbstractAsyncContextManager[None]:
        """See `NodeApi`."""
        return self._forwarding.expose(service, to, allow)

    @asynccontextmanager
    async def forward(
        self, service: str, listen: str = "0", *, peer: str | None = None, signed: bool = True
    ) -> AsyncIterator[str]:
        """See `NodeApi`."""
        async with self._forwarding.forward(service, listen, peer=peer, signed=signed) as one:
            yield str(one.listen)

    async def status(self) -> NodeStatistics:
        """All figures at this moment."""
        await trio.lowlevel.checkpoint()
        return self.statistics()

    def statistics(self) -> NodeStatistics:
        """The same, without waiting."""
        own = self.engine.identity.verified
        warnings = [*authority_warnings(self.seat.ledger.chain), *self.seat.warnings, *self._warnings(), *self.audit.warnings]
        warnings += self.engine.peer_warnings
        if self.engine.evidence_warning:
            warnings.append(f"no evidence can be made: {self.engine.evidence_warning}")
        return NodeStatistics(
            name=self.name, node=str(self.node_id), mesh_name=self.mesh_name, mesh=str(self.mesh_id),
            level=own.certificate.facts.level, evidence=self._evidence, port=self.port, roles=own.roles,
            certificate_ends=own.certificate.not_after.isoformat(), endorsement_ends=own.endorsement.not_after.isoformat(),
            links=self.engine.link_statistics(), chains=self.audit.statistics(), refused=self.engine.refused,
            services=self._forwarding.statistics(), exposed=self._exposed(), warnings=tuple(warnings),
        )

    def ask_to_stop(self) -> None:
        """Whoever waits in `wait_stopped` goes on."""
        self._stop.set()

    async def wait_stopped(self) -> None:
        """Until someone asked the node to stop, over the control socket for example."""
        await self._stop.wait()
