"""A node for asyncio. trio runs in a thread of its own; everything here is awaited in the loop that opened the node.

What each method promises stands at its namesake in `overlay.NodeApi`, `AuditApi`, `Peer` and `Stream`. Beyond that:

- Cancelling a task cancels what it waits for in trio, and the task ends when trio has left it. So `asyncio.timeout` works.
- Services are coroutines of asyncio in the loop that opened the node. They are cancelled when nobody waits for the answer.
- `peers` is a method that is awaited, as it asks another thread.
- A node that nobody closed says goodbye when it is garbage, or when the interpreter ends.
- Whatever is used after its `async with` block, or in a process that was forked off in it, raises UsageError.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from overlay.app import client, compose, local
from overlay.app.api import AuditApi, EntryFilter, EntryReceipt, EntryView, NodeApi, Published, TopicItem
from overlay.app.bridge import streams as stream_steps
from overlay.app.bridge.awaiting import Awaiting, Items, Opened, result_of
from overlay.app.bridge.home import HomeLoop, Service
from overlay.app.bridge.portal import Portal, lent, open_thread
from overlay.app.bridge.streams import Buffer, StreamView
from overlay.app.bridge.views import NodeView, PeerView
from overlay.app.config import Config
from overlay.core.limits import CALL_TIMEOUT
from overlay.events import NodeEvent
from overlay.net import peer as trio_peer
from overlay.net.node import StreamHandler as TrioStreamHandler
from overlay.net.statistics import NodeStatistics
from overlay.net.stream import Stream as TrioStream

__all__ = [
    "Audit", "Items", "LocalNode", "Node", "Peer", "RemoteNode", "Service", "Stream", "StreamHandler", "connect_local",
    "open_node",
]

N = TypeVar("N", bound=NodeApi)
StreamHandler = Callable[["Stream"], Coroutine[Any, Any, None]]
Observer = Callable[[NodeEvent], object]


class Stream(StreamView, Awaiting[TrioStream]):
    """A byte stream to or from a peer; see `overlay.Stream`. `async for data in stream` reads to its end.

    Leaving its `async with` block in order finishes it; leaving it by an exception breaks it off, and the peer sees that.
    """

    def __init__(self, portal: Portal[TrioStream]) -> None:
        StreamView.__init__(self, portal.value)
        Awaiting.__init__(self, portal)
        self._left = b""  # came when nobody waited any more

    async def send_all(self, data: Buffer) -> None:
        """Returns when all bytes are on their way. When it is cancelled, nobody knows how many are.

        Raises:
            StreamReset: the peer or the end of the link broke it off.
            UsageError: it was closed for sending, or another task sends on it.
        """
        await self._ask(partial(stream_steps.send, self._stream, data))

    async def send_eof(self) -> None:
        """Nothing more will be sent; the final segment says so."""
        await self._ask(partial(stream_steps.send_eof, self._stream))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has come, at least one byte; nothing at the end, which the peer has then signed. Cancelled, it loses nothing.

        Raises:
            Truncated: the peer ended a signed stream without signing the end.
            StreamReset: it was broken off; what had come before was given first.
            UsageError: another task receives from it.
        """
        if self._left:
            taken = self._left[:max_bytes]
            self._left = self._left[len(taken) :]
            return taken
        work = self._portal.start(partial(stream_steps.receive, self._stream, max_bytes))
        try:
            return await result_of(work)
        except asyncio.CancelledError:
            self._left = b"" if work.done.exception() else work.done.result()
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.receive_some():
            yield data


class Peer(PeerView, Awaiting[Any]):
    """A linked member. Goes on being valid while links come and go; calls raise PeerUnreachable when there is none."""

    def __init__(self, portal: Portal[Any], peer: trio_peer.Peer) -> None:
        PeerView.__init__(self, peer)
        Awaiting.__init__(self, portal)

    async def call(self, method: str, body: bytes = b"", *, timeout: float = CALL_TIMEOUT) -> bytes:  # noqa: ASYNC109
        """Call a service of the peer; both ways are signed. Waits for the answer; cancelled, it ends the handler there, too.

        Args:
            method: the service's name.
            body: at most 1 MiB.
            timeout: seconds; math.inf for no end.

        Raises:
            PeerUnreachable: there is no link, or it ended before the answer.
            DeadlineExceeded: no answer in time.
            RemoteError: the handler failed there, there is no such service, or it answers in parts.
            NotAllowed: the peer does not let us.
        """
        return await self._ask(partial(self._peer.call, method, body, timeout=timeout))

    def call_stream(
        self, method: str, body: bytes = b"", *, timeout: float = CALL_TIMEOUT
    ) -> AbstractAsyncContextManager[Items[bytes]]:
        """Call a service that answers in parts: `async with peer.call_stream(...) as parts: async for part in parts: ...`.

        Each part is signed, at most 1 MiB, and comes in order; who reads slowly slows the handler. Leaving the block ends the
        handler. A service that answers in one piece gives one part; an empty answer gives none.

        Args:
            method: the service's name.
            body: at most 1 MiB.
            timeout: seconds to wait for each next part; all of them together may take any time.

        Raises:
            as `call` does, here and between parts. Without an error, what was read is all.
        """
        return self._open("answer", partial(self._peer.call_stream, method, body, timeout=timeout), Items[bytes])

    def open_stream(self, name: str, body: bytes = b"", *, signed: bool = True) -> AbstractAsyncContextManager[Stream]:
        """A stream of bytes to a handler of the peer, for the length of the block; both ways, with credit of its own.

        Leaving the block in order finishes it; leaving it by an exception breaks it off, and the peer sees that.

        Args:
            name: the handler's name.
            body: what the handler sees first, as `stream.body`; at most 60 KiB.
            signed: each side signs what it sends, by segment, so that it can be shown to others. Without it bytes are
                authenticated by the link alone.

        Raises:
            PeerUnreachable: there is no link.
            UsageError: a name or body that is too long, or too many streams.
            StreamReset: when it is used: the peer refused it or broke it off, or the link ended.
        """
        return self._open("stream", partial(self._peer.open_stream, name, body, signed=signed), Stream)


class Audit(Awaiting[Any]):
    """The audit log of a node, and the copies of the others' logs that it holds."""

    def __init__(self, portal: Portal[Any], audit: AuditApi) -> None:
        super().__init__(portal)
        self._audit = audit

    async def append(self, kind: str, value: Any = None) -> EntryReceipt:
        """Append an application entry; returns when it is durable here. `value` is anything JSON can hold."""
        return await self._ask(partial(self._audit.append, kind, value))

    async def wait_replicated(self, entry: EntryReceipt) -> int:
        """Returns when the head of every linked peer covers the entry: how many they are. With no peer it waits for one."""
        return await self._ask(partial(self._audit.wait_replicated, entry))

    async def wait_witnessed(self, entry: EntryReceipt) -> str:
        """Returns when the witnesses of its log have signed that they saw it: how many, and how many of them may lie."""
        return await self._ask(partial(self._audit.wait_witnessed, entry))

    async def read(
        self, *, node: str | None = None, last: int | None = None, only: EntryFilter | None = None
    ) -> list[EntryView]:
        """Stored entries, oldest first; of one node (name or id), or all; those that match, the last so many."""
        return await self._ask(partial(self._audit.read, node=node, last=last, only=only))

    def follow(self, *, only: EntryFilter | None = None) -> AbstractAsyncContextManager[Items[EntryView]]:
        """Entries as they are stored, ours and others': those that match."""
        return self._open("list of entries", partial(self._audit.follow, only=only), Items[EntryView])


class Node(NodeView, Awaiting[N]):
    """A node; keeps to `overlay.NodeApi`, for asyncio."""

    def __init__(self, portal: Portal[N]) -> None:
        NodeView.__init__(self, portal.value)
        Awaiting.__init__(self, portal)
        self.audit = Audit(portal, portal.value.audit)

    async def peers(self) -> tuple[Peer, ...]:
        """The members it is linked to, by name."""

        async def look() -> tuple[trio_peer.Peer, ...]:
            return self._portal.value.peers

        return self._peers(await self._ask(look))

    async def wait_peer(self, name: str) -> Peer:
        """The member of that name or id, as soon as there is a link to it."""
        return Peer(self._portal, await self._ask(partial(self._portal.value.wait_peer, name)))

    async def wait_members(self, count: int) -> tuple[Peer, ...]:
        """Returns when the mesh has so many linked members, this node included."""
        return self._peers(await self._ask(partial(self._portal.value.wait_members, count)))

    async def publish(self, topic: str, body: bytes, *, transient: bool = False) -> Published:
        """Say something to whoever subscribes, now or later; durable here before it is pushed, unless transient."""
        return await self._ask(partial(self._portal.value.publish, topic, body, transient=transient))

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[Items[TopicItem]]:
        """What others and this node publish on a topic: what is kept of it, then what comes."""
        return self._open("subscription", partial(self._portal.value.subscribe, topic), Items[TopicItem])

    async def status(self) -> NodeStatistics:
        """All figures at this moment."""
        return await self._ask(self._portal.value.status)

    def _peers(self, peers: tuple[trio_peer.Peer, ...]) -> tuple[Peer, ...]:
        return tuple(Peer(self._portal, peer) for peer in peers)


class LocalNode(Node[local.LocalNode]):
    """A node that runs in this process."""

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        return self._portal.value.port

    def ask_to_stop(self) -> None:
        """Whoever waits in `wait_stopped` goes on; for signal handlers, too."""
        self._portal.soon(self._portal.value.ask_to_stop)

    async def wait_stopped(self) -> None:
        """Until someone asked the node to stop: `overlay stop` for example."""
        await self._ask(self._portal.value.wait_stopped)


class RemoteNode(Node[client.RemoteNode]):
    """A node that runs in another process of this machine."""

    async def stop(self) -> None:
        """End the node in order; returns when it has taken note."""
        await self._ask(self._portal.value.stop)


def open_node(
    state: str | Path | None = None,
    *,
    services: Mapping[str, Service] | None = None,
    streams: Mapping[str, StreamHandler] | None = None,
    listen: tuple[str, int] | None = None,
    config: Config | None = None,
    observers: Sequence[Observer] = (),
) -> AbstractAsyncContextManager[LocalNode]:
    """Run the node of a state folder for the length of the block; see `overlay.open_node`. Call it where the loop runs.

    Args:
        state: the folder; None for $OVERLAY_STATE or the default place.
        services: what peers may call, by name: `async def f(request: Request) -> bytes`, in this loop; or an async generator
            function, for an answer in parts.
        streams: to what peers may open streams, by name: `async def f(stream: Stream) -> None`, in this loop.
        listen: address and TCP port, instead of the configuration's; port 0 for any.
        config: instead of `overlay.toml` and the environment.
        observers: called with every event, in this loop, as soon as it comes to that.

    Raises:
        As `overlay.open_node`.
    """
    home = HomeLoop()
    opening = partial(
        compose.open_node, state, services={name: home.handler(one) for name, one in (services or {}).items()},
        streams={name: _stream(one, home) for name, one in (streams or {}).items()}, listen=listen, config=config,
        observers=[_observer(one, home) for one in observers],
    )
    return Opened(partial(open_thread, opening), LocalNode)


def connect_local(state: str | Path | None = None) -> AbstractAsyncContextManager[RemoteNode]:
    """The node that runs in a state folder of this machine, for the length of the block; see `overlay.connect_local`."""
    return Opened(partial(open_thread, partial(client.connect_local, state)), RemoteNode)


# --- what runs in the user's loop -----------------------------------------------------------------------------------


def _stream(handler: StreamHandler, home: HomeLoop) -> TrioStreamHandler:
    async def handle(stream: TrioStream) -> None:
        async with lent("stream", stream) as portal:
            await home.run(partial(handler, Stream(portal)))

    return handle


def _observer(observer: Observer, home: HomeLoop) -> Callable[[NodeEvent], None]:
    def observe(event: NodeEvent) -> None:
        with suppress(RuntimeError):  # the loop was closed before the node
            home.soon(observer, event)

    return observe
