"""Real nodes on loopback, with software evidence and no state folders: what the shell tests start."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import trio

from attest.appraiser import PolicyAppraiser
from attest.evidence import Claims
from attest.software import SoftwareProver
from discovery.static import StaticFinder
from overlay.core.identity import LocalIdentity
from overlay.core.limits import AttestTimes, RekeyTimes
from overlay.events import NodeEvent
from overlay.net.node import Node, NodeParts, run_node
from overlay.net.request import PeerInfo, Request
from overlay.net.system import SystemChance, wall_clock
from overlay.registry import EvidenceKind
from tests.unit.core.authority_kit import Mesh, make_member, make_mesh
from tests.unit.core.session_kit import GATE, local


class Watched:
    """A running node with everything it said."""

    def __init__(self, parts: NodeParts) -> None:
        self.parts = parts
        self.events: list[NodeEvent] = []
        self.node: Node
        self._news = trio.Event()

    def take(self, event: NodeEvent) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    @property
    def seed(self) -> str:
        return f"127.0.0.1:{self.node.port}"

    async def saw(self, kind: type[NodeEvent], match: Callable[[Any], bool] = lambda _: True, *, times: int = 1) -> NodeEvent:
        """The event, as soon as it has come so often; fails the test after ten seconds."""
        with trio.fail_after(10):
            while True:
                found = [event for event in self.events if isinstance(event, kind) and match(event)]
                if len(found) >= times:
                    return found[times - 1]
                await self._news.wait()


async def shout(request: Request) -> bytes:
    return request.body.upper()


async def ignore(raw: bytes, sender: PeerInfo) -> None:
    del raw, sender


def fresh_mesh() -> Mesh:
    return make_mesh(at=wall_clock())


def make_parts(mesh: Mesh, name: str, *, seeds: Sequence[str] = (), start: int = 1, **changes: Any) -> NodeParts:
    member = make_member(mesh, name, start=start)
    policy = mesh.trust.policy.policy
    claims = Claims(
        software_version="test", policy_version=policy.version, kind=EvidenceKind.SOFTWARE, pcr_bitmap=0, manifest=bytes(32)
    )

    def prover(identity: LocalIdentity) -> SoftwareProver:
        return SoftwareProver(signer=identity.message, kid=identity.kid, mesh_id=mesh.mesh_id, claims=claims)

    async def renew() -> LocalIdentity:
        return local(member)

    parts = NodeParts(
        identity=local(member), trust=lambda: mesh.trust, gate_keys=(GATE,), tag=secrets.token_bytes(8), calendar=wall_clock,
        chance=SystemChance(), appraiser=PolicyAppraiser(lambda: policy, wall_clock), prover=prover, renew=renew,
        finders=(StaticFinder(seeds),) if seeds else (), known=lambda: (), keepers=(), services={"shout": shout},
        transient=ignore, listen=("127.0.0.1", 0), rekey=RekeyTimes.every(60), attest=AttestTimes.period(60),
    )
    return replace(parts, **changes)


@asynccontextmanager
async def running(parts: NodeParts) -> AsyncIterator[Watched]:
    watched = Watched(parts)
    async with run_node(parts, (watched.take,)) as node:
        watched.node = node
        yield watched


@asynccontextmanager
async def linked(mesh: Mesh, *names: str, **changes: Any) -> AsyncIterator[list[Watched]]:
    """Nodes of which each dials all before it; yields when every pair is linked."""
    async with AsyncExitStack() as stack:
        nodes: list[Watched] = []
        for name in names:
            parts = make_parts(mesh, name, seeds=[node.seed for node in nodes], **changes)
            nodes.append(await stack.enter_async_context(running(parts)))
        with trio.fail_after(15):
            for watched in nodes:
                while len(watched.node.peers) < len(names) - 1:
                    await watched.node.wait_peers_change()
        yield nodes
