"""Meshes whose authority works: founders and joiners in state folders, with tokens, and with a calendar that can be set on.

A node's calendar is the later of the machine's and of its clock floor, so a floor in the future is a later day.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import trio

from overlay.app.authority.joining import join_mesh
from overlay.app.compose import Assembly, open_node, unaltered
from overlay.app.config import Config
from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.app.local import LocalNode
from overlay.core import certificate_profile as profile
from overlay.core.authority.order_bodies import Body
from overlay.core.authority.order_payload import Order
from overlay.core.authority.orders import SignedOrder, sign_order
from overlay.core.certificate_request import build_request
from overlay.core.certificates import VerifiedCertificate
from overlay.core.guest_session import GuestReady
from overlay.core.guests import joiner
from overlay.core.handshake import Entrance
from overlay.core.join_frames import Finish, Join, pack_answer
from overlay.core.join_key import JoinKey
from overlay.core.join_result import JoinResult
from overlay.core.keys import Ed25519Signer, NodeId
from overlay.core.policy import Policy
from overlay.core.revocation_profile import (
    LIST_LIFE,
    ListFacts,
    Mark,
    RevocationReason,
    Revocations,
    revocation_list_to_be_signed,
)
from overlay.core.token import Token, parse_token
from overlay.events import NodeEvent
from overlay.net.guest import GuestLink, dial_guest
from overlay.net.system import SystemChance, wall_clock
from overlay.registry import FrameType, Mode
from overlay.store.clock import raise_floor
from overlay.store.identity import load_founding_key
from overlay.store.state import StateFolder
from tests.shell.folder_kit import ALONE, Started
from tests.unit.core.authority_kit import seed

PATIENCE = 30.0
POLL = 0.005
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
T = TypeVar("T", bound=NodeEvent)


def founded(path: Path, name: str = "alice", mesh: str = "home") -> Path:
    """The folder of a founder."""
    with StateFolder.create(path / name) as folder:
        found_mesh(folder, name, mesh, Policy.default(), None)
    return path / name


def admitted(founder: Path, name: str, *roles: str) -> Path:
    """The folder of a member that came by file, for seven days."""
    path = founder.parent / name
    with StateFolder.create(path) as folder:
        install(folder, admit(founder, make_request(folder, None), name, roles), None)
    return path


def set_calendar(path: Path, at: datetime) -> None:
    """From the next start on it is that late for this node, and not earlier for good."""
    with StateFolder.open(path, exclusive=True) as folder:
        raise_floor(folder, at)


class Running(Started):
    """A node, and everything it said."""

    async def heard(self, kind: type[T], match: Callable[[T], bool] = lambda _: True, *, times: int = 1) -> T:
        """Such an event, as soon as it has come so often."""
        with trio.fail_after(PATIENCE):
            while True:
                found = self.all(kind, match)
                if len(found) >= times:
                    return found[times - 1]
                await self._news.wait()

    def all(self, kind: type[T], match: Callable[[T], bool] = lambda _: True) -> list[T]:
        """Those that have come."""
        return [event for event in self.events if isinstance(event, kind) and match(event)]

    @property
    def seed(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.node.port}"


@asynccontextmanager
async def opened(
    path: Path, *seeds: Running, alter: Callable[[Assembly], Assembly] = unaltered, **settings: Any
) -> AsyncIterator[Running]:
    """The node of a folder, which is told of these; it waits for no link."""
    config = replace(ALONE, seeds=tuple(one.seed for one in seeds), **settings)
    found = Running()
    async with open_node(path, config=config, observers=[found.take], alter=alter) as node:
        found.node = node
        yield found


@asynccontextmanager
async def linked(*paths: Path) -> AsyncIterator[tuple[Running, ...]]:
    """Nodes of which each dials all before it; yields when all are linked."""
    async with AsyncExitStack() as stack:
        nodes: list[Running] = []
        for path in paths:
            nodes.append(await stack.enter_async_context(opened(path, *nodes)))
        with trio.fail_after(PATIENCE):
            for one in nodes:
                await one.node.wait_members(len(nodes))
        yield tuple(nodes)


async def met(*nodes: Running) -> None:
    """Until each of these is linked to all others."""
    with trio.fail_after(PATIENCE):
        for one in nodes:
            for other in nodes:
                if one is not other:
                    await one.node.wait_peer(str(other.node.node_id))


async def parted(one: LocalNode, name: str) -> None:
    """Until it has no link to a node of that name."""
    with trio.fail_after(PATIENCE):
        while any(peer.name == name for peer in one.peers):
            await one.wait_peers_change()


async def until(what: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Until it is so, which nobody tells."""
    with trio.fail_after(patience):
        while not what():  # noqa: ASYNC110
            await trio.sleep(POLL)


def signed_list(host: Running, node: NodeId, number: int) -> bytes:
    """A revocation list as the founding key of that founder signs it, DER."""
    with StateFolder.open(host.node.folder, exclusive=False) as folder:
        key = Ed25519Signer(load_founding_key(folder) or b"")
    begin = wall_clock().replace(microsecond=0)
    found = Revocations(nodes={node: Mark(begin, begin, RevocationReason.KEY_COMPROMISE)})
    facts = ListFacts(number=number, this_update=begin, next_update=begin + LIST_LIFE, revocations=found)
    content = revocation_list_to_be_signed(host.node.seat.ledger.chain.newest.root.issuer, facts)
    return profile.seal(content, profile.ED25519_OID, key.sign(content))


async def token_of(host: Running, *, at: Sequence[Running] = (), **options: Any) -> Token:
    """An invite of this operator; the joiner is sent to `at`, or to the operator."""
    addresses = [one.seed for one in at or (host,)]
    report = await host.node.authority.invite(addresses=addresses, **options)
    return parse_token(report.fields["token"])


async def join(path: Path, token: Token, *, name: str | None = None, patience: float = PATIENCE) -> VerifiedCertificate:
    """Join with a new folder, or with one that has an identity."""
    config = Config(mdns=False, evidence="software")
    with StateFolder.open(path, exclusive=True) if path.exists() else StateFolder.create(path) as folder:
        return await join_mesh(folder, token, config, None, name=name, patience=patience)


@dataclass
class Visitor:
    """A joiner that goes step by step, and may say what an honest one would not."""

    token: Token
    name: str = "bob"
    word: str = "visitor"  # another word, another node
    chance: SystemChance = field(default_factory=SystemChance)
    said: list[tuple[FrameType, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.signer = Ed25519Signer(seed("visitor", self.word))
        self.csr = build_request(self.signer, self.name)
        self.node_id = NodeId.of_key(self.signer.spki)
        self.key = JoinKey.of(self.token.seed, self.token.mesh_id)
        self.not_before = wall_clock().replace(microsecond=0)

    @asynccontextmanager
    async def at(self, where: Running) -> AsyncIterator["Visit"]:
        """On a link to that node, whose greeting has come."""
        token = self.token
        entrance = Entrance(chance=self.chance, gate_keys=(token.gate_key,), tag=bytes(8))
        side = joiner(token.mesh_id, token.root_hash, self.chance.x25519(), wall_clock)
        address = "127.0.0.1", where.node.port
        async with dial_guest(address, entrance, lambda _mode: side, Mode.JOIN) as link:
            visit = Visit(self, link, await link.ready())
            visit.greeting = JoinResult.unpack((await link.receive()).body)
            yield visit


class Visit:
    """One link of a visitor."""

    def __init__(self, visitor: Visitor, link: GuestLink, ready: GuestReady) -> None:
        assert ready.peer is not None
        self.visitor = visitor
        self.link = link
        self.peer = ready.peer
        self.h = ready.first_h
        self.greeting: JoinResult

    def request(self, **changes: Any) -> Join:
        """JOIN, as an honest joiner says it on this link, but for the changes."""
        visitor, token = self.visitor, self.visitor.token
        proof = visitor.key.prove(mesh_id=token.mesh_id, h=self.h, signer=self.peer.node_id, csr=visitor.csr)
        name = None if token.says.name else visitor.name
        honest = Join(invite=token.invite, csr=visitor.csr, proof=proof, not_before=visitor.not_before, name=name, tpm=None)
        return replace(honest, **changes)

    async def says(self, kind: FrameType, body: bytes) -> JoinResult:
        """A frame, and its answer."""
        await self.link.send(kind, body)
        with trio.fail_after(PATIENCE):
            return JoinResult.unpack((await self.link.receive()).body)

    async def asks(self, **changes: Any) -> JoinResult:
        """For an approval."""
        return await self.says(FrameType.JOIN, self.request(**changes).pack())

    async def finishes(self, *approvers: NodeId) -> JoinResult:
        """For a certificate."""
        return await self.says(FrameType.JOIN_ANSWER, pack_answer(Finish(tuple(approvers or (self.peer.node_id,)))))


def order_of(node: LocalNode, body: Body, *, number: int, life: timedelta = HOUR, begin: timedelta = timedelta()) -> Order:
    """An order by this node, whatever its book says."""
    at = wall_clock().replace(microsecond=0) + begin
    return Order(operator=node.node_id, number=number, not_before=at, not_after=at + life, body=body)


def signed_by(node: LocalNode, order: Order) -> SignedOrder:
    """As an operator's node signs."""
    identity = node.engine.identity
    return sign_order(order, signer=identity.message, credentials=identity.credentials, mesh_id=node.mesh_id)


def files_of(path: Path) -> dict[str, bytes]:
    """What lies in a folder."""
    return {one.name: one.read_bytes() for one in path.iterdir() if one.is_file()}
