"""A node for tests of the control socket: it keeps NodeApi, and its peers are whatever a test says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from overlay.app.api import EntryFilter, EntryReceipt, EntryView, Published, TopicItem
from overlay.app.client import RemoteNode, connect_local
from overlay.app.control import serve_control
from overlay.core.keys import MeshId, NodeId
from overlay.errors import OverlayError
from overlay.net.peer import Peer
from overlay.net.request import PeerInfo
from overlay.net.statistics import ChainStatistics, LinkStatistics, NodeStatistics
from overlay.store.state import StateFolder

AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
ALICE = NodeId(b"a" * 32)
BOB = PeerInfo(NodeId(b"b" * 32), "bob", ("worker",), 2)
CAROL = PeerInfo(NodeId(b"c" * 32), "carol", (), 1)
LOG = bytes(16)


class FakeAudit:
    """A log in memory."""

    def __init__(self) -> None:
        self.entries: list[EntryView] = []
        self._news = trio.Event()

    async def append(self, kind: str, value: Any = None) -> EntryReceipt:
        body = {"type": kind, "value": value}
        seq = len(self.entries)
        view = EntryView(
            node_id=ALICE, node_name="alice", log_id=LOG, seq=seq, hash=bytes([seq % 256]) * 32, at=AT,
            type="application", body=body,
        )  # fmt: skip
        self.entries.append(view)
        self._news.set()
        self._news = trio.Event()
        return EntryReceipt(node_id=ALICE, log_id=LOG, seq=seq, hash=view.hash)

    async def wait_replicated(self, entry: EntryReceipt) -> int:
        while entry.seq >= len(self.entries):
            await self._news.wait()
        return 3

    async def read(
        self, *, node: str | None = None, last: int | None = None, only: EntryFilter | None = None
    ) -> list[EntryView]:
        types = () if only is None else only.types
        found = [entry for entry in self.entries if node in (None, entry.node_name, str(entry.node_id))]
        found = [entry for entry in found if not types or entry.type in types]
        return found if last is None else found[-last:]

    @asynccontextmanager
    async def follow(self, *, only: EntryFilter | None = None) -> AsyncIterator[AsyncIterator[EntryView]]:
        async def entries() -> AsyncIterator[EntryView]:
            position = 0
            while True:
                while position >= len(self.entries):
                    await self._news.wait()
                yield self.entries[position]
                position += 1

        yield entries()


class FakeNode:
    """A node whose peers answer with what they were asked, in capitals."""

    name, node_id, mesh_id, mesh_name = "alice", ALICE, MeshId(b"m" * 32), "test"

    def __init__(self) -> None:
        self.audit = FakeAudit()
        self.stopped = trio.Event()
        self.failure: OverlayError | None = None
        self.asked: list[tuple[str, float]] = []
        self.pushed = 0
        self.letters = 0
        self._infos: tuple[PeerInfo, ...] = ()
        self._changed = trio.Event()
        self._items: trio.Event = trio.Event()
        self.published: list[TopicItem] = []
        self.cancelled = trio.Event()

    @property
    def peers(self) -> tuple[Peer, ...]:
        return tuple(Peer(info, self) for info in self._infos)

    def set_peers(self, *infos: PeerInfo) -> None:
        self._infos = infos
        self._changed.set()
        self._changed = trio.Event()

    async def wait_peers_change(self) -> None:
        await self._changed.wait()

    async def call(self, peer: NodeId, method: str, body: bytes, timeout: float) -> bytes:
        self.asked.append((method, timeout))
        if self.failure is not None:
            raise self.failure
        if method == "never":
            try:
                await trio.sleep_forever()
            finally:
                self.cancelled.set()
        return body.upper()

    @asynccontextmanager
    async def call_stream(
        self, peer: NodeId, method: str, body: bytes, timeout: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body in capitals, letter by letter, and then what `call` says."""

        async def letters() -> AsyncIterator[bytes]:
            for letter in body.upper():
                self.letters += 1
                yield bytes([letter])
            if method != "letters":
                await self.call(peer, method, body, timeout)

        try:
            yield letters()
        finally:
            self.cancelled.set()

    async def wait_peer(self, name: str) -> Peer:
        raise NotImplementedError

    async def wait_members(self, count: int) -> tuple[Peer, ...]:
        raise NotImplementedError

    async def publish(self, topic: str, body: bytes, *, transient: bool = False) -> Published:
        info = PeerInfo(ALICE, "alice", (), 1)
        self.published.append(TopicItem(topic=topic, author=info, seq=len(self.published), at=AT, body=body))
        self._items.set()
        self._items = trio.Event()
        return Published(topic=topic, seq=None if transient else len(self.published) - 1, peers=len(self._infos))

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[TopicItem]]:
        async def items() -> AsyncIterator[TopicItem]:
            position = 0
            while True:
                while position >= len(self.published):
                    await self._items.wait()
                self.pushed = position + 1
                yield self.published[position]
                position += 1

        try:
            yield items()
        finally:
            self.cancelled.set()

    async def status(self) -> NodeStatistics:
        link = LinkStatistics(
            name="bob", node=str(BOB.node_id), level=2, opener=True, address="127.0.0.1 4711", epoch=3, epoch_age=1.5,
            rounds=2, evidence_age=float("inf"), round_trip=0.001, clock_ahead=None, lease_left=100.0,
        )  # fmt: skip
        return NodeStatistics(
            name="alice", node=str(ALICE), mesh_name="test", mesh=str(self.mesh_id), level=1, evidence="software",
            port=4711, roles=("operator",), certificate_ends="2026-03-02T12:00:00Z",
            endorsement_ends="2026-03-02T12:00:00Z", links=(link,),
            chains=(ChainStatistics(node=str(ALICE), log=LOG.hex(), size=3, root="00"),), refused=0, warnings=("look",),
        )  # fmt: skip


@asynccontextmanager
async def served(
    folder: Path, node: FakeNode, users: frozenset[int] | None = None
) -> AsyncIterator[trio.CancelScope]:
    """Serve the node in a new state folder, as a process that holds its lock does. Gives what ends the server."""
    if not folder.exists():
        StateFolder.create(folder).close()
    with StateFolder.open(folder, exclusive=True):
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def serve(task_status: trio.TaskStatus[None]) -> None:
                with scope:
                    await serve_control(node, folder, stop=node.stopped.set, users=users, task_status=task_status)

            await nursery.start(serve)
            yield scope
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(folder: Path, node: FakeNode) -> AsyncIterator[RemoteNode]:
    """The node through its control socket."""
    async with served(folder, node), connect_local(folder) as remote:
        yield remote


