"""What users see of another node: whom they call, and to whom they open streams."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from overlay.core.keys import NodeId
from overlay.core.limits import CALL_TIMEOUT
from overlay.net.request import PeerInfo
from overlay.net.stream import Stream


class CallPort(Protocol):
    """Through what a `Peer` calls: the node that runs here, or the control socket."""

    async def call(self, peer: NodeId, method: str, body: bytes, timeout: float) -> bytes:  # noqa: ASYNC109
        """See `Peer.call`."""
        ...

    def call_stream(
        self, peer: NodeId, method: str, body: bytes, timeout: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """See `Peer.call_stream`."""
        ...

    def open_stream(self, peer: NodeId, name: str, body: bytes, *, signed: bool) -> AbstractAsyncContextManager[Stream]:
        """See `Peer.open_stream`."""
        ...


class Peer:
    """A linked member. Goes on being valid while links come and go; calls raise PeerUnreachable when there is none."""

    def __init__(self, info: PeerInfo, port: CallPort) -> None:
        self.info = info
        self._port = port

    @property
    def node_id(self) -> NodeId:
        """The peer's id."""
        return self.info.node_id

    @property
    def name(self) -> str:
        """The name in its certificate."""
        return self.info.name

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles in its certificate, sorted."""
        return self.info.roles

    @property
    def level(self) -> int:
        """How well it was attested when this object was made: 0 to 5."""
        return self.info.level

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
        return await self._port.call(self.node_id, method, body, timeout)

    def call_stream(
        self, method: str, body: bytes = b"", *, timeout: float = CALL_TIMEOUT
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
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
        return self._port.call_stream(self.node_id, method, body, timeout)

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
            BrokenStream: when it is used: the peer refused it or broke it off, or the link ended.
        """
        return self._port.open_stream(self.node_id, name, body, signed=signed)

    def __repr__(self) -> str:
        return f"<Peer {self.name} {self.node_id.short}>"
