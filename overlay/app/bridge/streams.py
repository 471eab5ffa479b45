"""A stream as other threads see it: what can be said of it without waiting, and its operations with errors of our own."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from overlay.errors import UsageError
from overlay.net.request import PeerInfo
from overlay.net.stream import Stream

Buffer = bytes | bytearray | memoryview


class StreamView:
    """A byte stream to or from a peer."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def peer(self) -> PeerInfo:
        """Who is at the other end."""
        return self._stream.peer

    @property
    def name(self) -> str:
        """The handler's."""
        return self._stream.name

    @property
    def body(self) -> bytes:
        """What its opener said first."""
        return self._stream.body

    @property
    def signed(self) -> bool:
        """Whether its senders sign it, segment by segment."""
        return self._stream.signed

    @property
    def signed_up_to(self) -> int:
        """How many bytes the peer's signature covers by now."""
        return self._stream.signed_up_to

    @property
    def segment(self) -> bytes:
        """The peer's last signature: COSE_Sign1."""
        return self._stream.segment


async def send(stream: Stream, data: Buffer) -> None:
    """See `Stream.send_all`."""
    with own_errors():
        await stream.send_all(data)


async def send_eof(stream: Stream) -> None:
    """See `Stream.send_eof`."""
    with own_errors():
        await stream.send_eof()


async def receive(stream: Stream, max_bytes: int | None) -> bytes:
    """See `Stream.receive_some`."""
    with own_errors():
        return await stream.receive_some(max_bytes)


@contextmanager
def own_errors() -> Iterator[None]:
    """What trio says to somebody who uses a stream wrongly, as UsageError."""
    try:
        yield
    except (trio.ClosedResourceError, trio.BusyResourceError) as error:
        raise UsageError(str(error)) from error
