"""A node without async: plain calls that wait, usable from any thread. trio runs in a thread of its own.

What each method promises stands at its namesake in `overlay.NodeApi`, `AuditApi`, `Peer` and `Stream`. Beyond that:

- What may wait for long takes `timeout=` in seconds, and then raises DeadlineExceeded.
- Services are plain functions, each call in a worker thread: at most 40 at once, the others wait. When nobody waits for the
  answer any more, the function goes on to its end and what it returns is dropped. A generator is closed in its `yield`; its
  steps may run in several threads, one after the other.
- Ctrl-C ends what the main thread waits for, and the `with` block of a node ends within two seconds then. A node that nobody
  closed says goodbye when it is garbage, or when the interpreter ends.
- Whatever is used after its `with` block, or in a process that was forked off in it, raises UsageError.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from overlay.app import client, compose, local
from overlay.app.api import AuditApi, EntryFilter, EntryReceipt, EntryView, NodeApi, Published, TopicItem
from overlay.app.bridge import streams as stream_steps
from overlay.app.bridge.portal import Portal, lent, open_thread
from overlay.app.bridge.streams import Buffer, StreamView
from overlay.app.bridge.threads import Service, ServiceThreads
from overlay.app.bridge.views import NodeView, PeerView
from overlay.app.bridge.waiting import Items, Opened, Waiting
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

SERVICE_THREADS = 40  # for the services and streams of one node: trio's default for threads
N = TypeVar("N", bound=NodeApi)
StreamHandler = Callable[["Stream"], None]


class Stream(StreamView, Waiting[TrioStream]):
    """A byte stream to or from a peer; see `overlay.Stream`. `for data in stream` reads to its end.

    Leaving its `with` block in order finishes it; leaving it by an exception breaks it off, and the peer sees that.
    """

    def __init__(self, portal: Portal[TrioStream]) -> None:
        StreamView.__init__(self, portal.value)
        Waiting.__init__(self, portal)

    def send_all(self, data: Buffer, *, timeout: float | None = None) -> None:
        """Returns when all bytes are on their way. After DeadlineExceeded nobody knows how many are.

        Raises:
            StreamReset: the peer or the end of the link broke it off.
            DeadlineExceeded: it took longer.
            UsageError: it was closed for sending.
        """
        self._ask(partial(stream_steps.send, self._stream, data), timeout=timeout, late="not everything was sent")

    def send_eof(self) -> None:
        """Nothing more will be sent; the final segment says so."""
        self._ask(partial(stream_steps.send_eof, self._stream))

    def receive_some(self, max_bytes: int | None = None, *, timeout: float | None = None) -> bytes:
        """What has come, at least one byte; nothing at the end, which the peer has then signed.

        Raises:
            Truncated: the peer ended a signed stream without signing the end.
            StreamReset: it was broken off; what had come before was given first.
            DeadlineExceeded: nothing came in time; nothing is lost.
            UsageError: another thread receives from it.
        """
        return self._ask(partial(stream_steps.receive, self._stream, max_bytes), timeout=timeout, late="nothing came")

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.receive_some, b"")


class Peer(PeerView, Waiting[Any]):
    """A linked member. Goes on being valid while links come and go; calls raise PeerUnreachable when there is none."""

    def __init__(self, portal: Portal[Any], peer: trio_peer.Peer) -> None:
        PeerView.__init__(self, peer)
        Waiting.__init__(self, portal)

    def call(self, method: str, body: bytes = b"", *, timeout: float = CALL_TIMEOUT) -> bytes:
        """Call a service of the peer; both ways are signed. Waits for the answer; interrupted, it ends the handler there, too.

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
        return self._ask(partial(self._peer.call, method, body, timeout=timeout))

    def call_stream(
        self, method: str, body: bytes = b"", *, timeout: float = CALL_TIMEOUT
    ) -> AbstractContextManager[Items[bytes]]:
        """Call a service that answers in parts: `with peer.call_stream(...) as parts: for part in parts: ...`.

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

    def open_stream(self, name: str, body: bytes = b"", *, signed: bool = True) -> AbstractContextManager[Stream]:
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


class Audit(Waiting[Any]):
    """The audit log of a node, and the copies of the others' logs that it holds."""

    def __init__(self, portal: Portal[Any], audit: AuditApi) -> None:
        super().__init__(portal)
        self._audit = audit

    def append(self, kind: str, value: Any = None) -> EntryReceipt:
        """Append an application entry; returns when it is durable here. `value` is anything JSON can hold."""
        return self._ask(partial(self._audit.append, kind, value))

    def wait_replicated(self, entry: EntryReceipt, *, timeout: float | None = None) -> int:
        """Returns when the head of every linked peer covers the entry: how many they are. With no peer it waits for one."""
        waiting = partial(self._audit.wait_replicated, entry)
        return self._ask(waiting, timeout=timeout, late="not every linked peer held the entry")

    def wait_witnessed(self, entry: EntryReceipt, *, timeout: float | None = None) -> str:
        """Returns when the witnesses of its log have signed that they saw it: how many, and how many of them may lie."""
        waiting = partial(self._audit.wait_witnessed, entry)
        return self._ask(waiting, timeout=timeout, late="too few witnesses have signed that they saw the entry")

    def read(
        self, *, node: str | None = None, last: int | None = None, only: EntryFilter | None = None
    ) -> list[EntryView]:
        """Stored entries, oldest first; of one node (name or id), or all; those that match, the last so many."""
        return self._ask(partial(self._audit.read, node=node, last=last, only=only))

    def follow(self, *, only: EntryFilter | None = None) -> AbstractContextManager[Items[EntryView]]:
        """Entries as they are stored, ours and others': those that match."""
        return self._open("list of entries", partial(self._audit.follow, only=only), Items[EntryView])


class Node(NodeView, Waiting[N]):
    """A node; keeps to `overlay.NodeApi`, without async."""

    def __init__(self, portal: Portal[N]) -> None:
        NodeView.__init__(self, portal.value)
        Waiting.__init__(self, portal)
        self.audit = Audit(portal, portal.value.audit)

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The members it is linked to, by name."""

        async def look() -> tuple[trio_peer.Peer, ...]:
            return self._portal.value.peers

        return self._peers(self._ask(look))

    def wait_peer(self, name: str, *, timeout: float | None = None) -> Peer:
        """The member of that name or id, as soon as there is a link to it."""
        found = self._ask(partial(self._portal.value.wait_peer, name), timeout=timeout, late=f"there was no link to {name}")
        return Peer(self._portal, found)

    def wait_members(self, count: int, *, timeout: float | None = None) -> tuple[Peer, ...]:
        """Returns when the mesh has so many linked members, this node included."""
        waiting = partial(self._portal.value.wait_members, count)
        return self._peers(self._ask(waiting, timeout=timeout, late=f"there were fewer than {count} members"))

    def publish(self, topic: str, body: bytes, *, transient: bool = False) -> Published:
        """Say something to whoever subscribes, now or later; durable here before it is pushed, unless transient."""
        return self._ask(partial(self._portal.value.publish, topic, body, transient=transient))

    def subscribe(self, topic: str) -> AbstractContextManager[Items[TopicItem]]:
        """What others and this node publish on a topic: what is kept of it, then what comes."""
        return self._open("subscription", partial(self._portal.value.subscribe, topic), Items[TopicItem])

    def status(self) -> NodeStatistics:
        """All figures at this moment."""
        return self._ask(self._portal.value.status)

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

    def wait_stopped(self, *, timeout: float | None = None) -> None:
        """Until someone asked the node to stop: `overlay stop` for example."""
        self._ask(self._portal.value.wait_stopped, timeout=timeout, late="nobody asked it to stop")


class RemoteNode(Node[client.RemoteNode]):
    """A node that runs in another process of this machine."""

    def stop(self) -> None:
        """End the node in order; returns when it has taken note."""
        self._ask(self._portal.value.stop)


def open_node(
    state: str | Path | None = None,
    *,
    services: Mapping[str, Service] | None = None,
    streams: Mapping[str, StreamHandler] | None = None,
    listen: tuple[str, int] | None = None,
    config: Config | None = None,
    observers: Sequence[Callable[[NodeEvent], None]] = (),
) -> AbstractContextManager[LocalNode]:
    """Run the node of a state folder for the length of the block; see `overlay.open_node`.

    Args:
        state: the folder; None for $OVERLAY_STATE or the default place.
        services: what peers may call, by name: `def f(request: Request) -> bytes`, in worker threads; or a generator function,
            for an answer in parts.
        streams: to what peers may open streams, by name: `def f(stream: Stream) -> None`, in worker threads.
        listen: address and TCP port, instead of the configuration's; port 0 for any.
        config: instead of `overlay.toml` and the environment.
        observers: called with every event, at once, in the node's thread; they must neither block nor use the node.

    Raises:
        As `overlay.open_node`.
    """
    threads = ServiceThreads(SERVICE_THREADS)
    opening = partial(
        compose.open_node, state, services={name: threads.handler(one) for name, one in (services or {}).items()},
        streams={name: _stream(one, threads) for name, one in (streams or {}).items()}, listen=listen, config=config,
        observers=observers,
    )
    return Opened(partial(open_thread, opening), LocalNode)


def connect_local(state: str | Path | None = None) -> AbstractContextManager[RemoteNode]:
    """The node that runs in a state folder of this machine, for the length of the block; see `overlay.connect_local`."""
    return Opened(partial(open_thread, partial(client.connect_local, state)), RemoteNode)


def _stream(handler: StreamHandler, threads: ServiceThreads) -> TrioStreamHandler:
    """A plain function as trio calls handlers of streams."""

    async def handle(stream: TrioStream) -> None:
        async with lent("stream", stream) as portal:
            await threads.run(partial(handler, Stream(portal)))

    return handle
