"""Streams between real nodes, handed to the test: both ends of as many as it wants, over one link."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import trio

from overlay.core.gate import SeenEphemerals
from overlay.core.handshake import HandshakeContext
from overlay.core.limits import WINDOW_FIRST
from overlay.core.session import Session, SessionConfig
from overlay.core.session_events import Event, EvidenceWanted, Opened
from overlay.core.stream_events import StreamOffered
from overlay.core.stream_formats import Opening
from overlay.net.link import Link
from overlay.net.request import PeerInfo
from overlay.net.stream import Stream
from overlay.net.system import SystemChance
from overlay.registry import EvidenceKind, Role
from tests.shell.node_kit import Watched, fresh_mesh, linked
from tests.unit.core.authority_kit import Member
from tests.unit.core.session_kit import ALICE, BOB, GATE, LAB, TAG, HashAppraiser, evidence_for, local

NOBODY = PeerInfo(BOB.node_id, "somebody", (), 0)


class Desk:
    """A stream handler that hands what comes to the test, which keeps it for as long as it likes."""

    def __init__(self) -> None:
        self._in, self.streams = trio.open_memory_channel[Stream](1000)

    async def take(self, stream: Stream) -> None:
        self._in.send_nowait(stream)
        await trio.sleep_forever()

    async def next(self) -> Stream:
        with trio.fail_after(10):
            return await self.streams.receive()


class Bench:
    """Alice, who opens streams, and Bob, whose handler gives them to the test."""

    def __init__(self, alice: Watched, bob: Watched, desk: Desk, nursery: trio.Nursery) -> None:
        self.alice, self.bob = alice, bob
        self.desk = desk
        self._nursery = nursery

    def opened(self, name: str, body: bytes = b"", *, signed: bool = True) -> AbstractAsyncContextManager[Stream]:
        """A stream of Alice's to any handler of Bob's."""
        return self.alice.node.open_stream(self.bob.node.identity.node_id, name, body, signed=signed)

    async def open(self, name: str = "take", body: bytes = b"", *, signed: bool = True) -> Stream:
        """The same, for as long as the test."""
        stream: Stream = await self._nursery.start(partial(self._hold, name, body, signed=signed))
        return stream

    async def pair(self, *, signed: bool = True) -> tuple[Stream, Stream]:
        """Both ends of a new stream, Alice's first."""
        return await self.open(signed=signed), await self.desk.next()

    async def _hold(
        self, name: str, body: bytes, *, signed: bool, task_status: trio.TaskStatus[Stream] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with self.opened(name, body, signed=signed) as stream:
            task_status.started(stream)
            await trio.sleep_forever()

    @property
    def links(self) -> tuple[Link, Link]:
        """The link between them, seen from Alice and from Bob."""
        return link_of(self.alice, self.bob), link_of(self.bob, self.alice)

    async def wait_forgotten(self) -> None:
        """Until nobody holds anything of any stream: neither the links nor their sessions."""
        with trio.fail_after(5):
            for link in self.links:
                while link.streams or link.session.streams.count:
                    await trio.lowlevel.checkpoint()


def link_of(node: Watched, peer: Watched) -> Link:
    """The link of one node to another."""
    return node.node.pool.links[peer.node.identity.node_id]


@asynccontextmanager
async def bench(**changes: Any) -> AsyncIterator[Bench]:
    """Two linked nodes; `changes` are of both nodes' parts, `streams` further handlers of both."""
    desk = Desk()
    handlers = {"take": desk.take, **changes.pop("streams", {})}
    nodes = linked(fresh_mesh(), "alice", "bob", streams=handlers, **changes)
    async with nodes as (alice, bob), trio.open_nursery() as nursery:
        yield Bench(alice, bob, desk, nursery)
        nursery.cancel_scope.cancel()


async def read_all(stream: Stream) -> bytes:
    """Until the end."""
    data = bytearray()
    while part := await stream.receive_some():
        data += part
    return bytes(data)


# --- links without nodes ------------------------------------------------------------------------------------------------


class WiredEnd:
    """A link over any trio stream, with an owner that admits everybody and takes every stream that is offered."""

    def __init__(self, wire: trio.abc.Stream, role: Role, member: Member) -> None:
        handshake = HandshakeContext(
            identity=local(member), trust=lambda: LAB.trust, calendar=lambda: LAB.at, chance=SystemChance(),
            gate_keys=(GATE,), tag=TAG, seen=SeenEphemerals(),
        )
        config = SessionConfig(handshake=handshake, appraiser=HashAppraiser(), evidence_kind=EvidenceKind.SOFTWARE)
        self.link = Link(wire, Session(role, config, trio.current_time()), owner=self._on_event, address="memory")
        self.opened = trio.Event()
        self._in, self._offered = trio.open_memory_channel[Stream](1000)

    def _on_event(self, link: Link, event: Event) -> None:
        match event:
            case EvidenceWanted(binding=binding):
                link.supply_evidence(evidence_for(binding))
            case Opened():
                self.opened.set()
            case StreamOffered(stream=number, opening=opening):
                link.streams[number] = stream = self._stream(number, opening)
                link.answer_stream(number)
                self._in.send_nowait(stream)

    def _stream(self, number: int, opening: Opening) -> Stream:
        return Stream(self.link, number, opening, peer=NOBODY, name="any")

    def open(self, *, signed: bool = True, window: int = WINDOW_FIRST) -> Stream:
        """Our end of a new stream."""
        opening = Opening(signed, b"", window)
        number = self.link.open_stream("any", opening, deadline=0)
        self.link.streams[number] = stream = self._stream(number, opening)
        return stream

    async def next(self) -> Stream:
        """The next stream that the peer has opened."""
        with trio.fail_after(10):
            return await self._offered.receive()


@asynccontextmanager
async def wired(one: trio.abc.Stream, other: trio.abc.Stream) -> AsyncIterator[tuple[WiredEnd, WiredEnd]]:
    """Alice and Bob at the two ends of a wire, linked."""
    ends = WiredEnd(one, Role.OPENER, ALICE), WiredEnd(other, Role.OTHER, BOB)
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.link.run)
        for end in ends:
            await end.opened.wait()
        yield ends
        nursery.cancel_scope.cancel()
