"""The bytes under a link: a socket that is tried before anybody waits for it, or any trio stream.

A link asks first what goes at once (`send_now`), and waits only for the rest. That saves a turn of the event loop for
each message, and leaves nothing half sent when whoever sends is cancelled.
"""

import os
import socket
from typing import Protocol

import trio

from overlay.core.limits import BULK_FROM, BULK_PATIENCE, BULK_WANTED, CONNECTION_TURNS


class Connection(Protocol):
    """What a link needs. All but `interrupt` raise trio.BrokenResourceError when the connection is gone."""

    sends_in_parts: bool  # a `send_some` that is cancelled has sent nothing, and may be called again

    async def receive_into(self, buffer: memoryview) -> int | None:
        """Wait for bytes: how many there are; 0 at the end; None after `interrupt`. One task at a time."""
        ...

    def interrupt(self) -> None:
        """Whoever waits for bytes looks up."""
        ...

    def breathe(self) -> None:
        """Others have their turn before the next receive."""
        ...

    def send_now(self, data: memoryview) -> int:
        """What goes without waiting."""
        ...

    async def send_some(self, data: memoryview) -> int:
        """Wait until something goes: how much; perhaps 0 after `interrupt`. One task at a time."""
        ...

    async def hang_up(self, buffer: memoryview) -> None:
        """Send the end and wait for the peer's: a socket closed with unread bytes would reset the connection."""
        ...

    async def close(self) -> None:
        """At once."""
        ...


class SocketConnection:
    """Over a TCP socket."""

    sends_in_parts = True

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket
        self._descriptor: int = stream.socket.fileno()
        self._turns = 0
        self._drained = True  # the last receive was not so much that there is probably more by now
        self._bulk = False  # it was much: the kernel wakes us for more only when there is much again

    async def receive_into(self, buffer: memoryview) -> int | None:
        """See `Connection`."""
        try:
            if self._drained:
                await self._wait()
            else:
                await self._turn()
            while (count := self._receive_now(buffer)) is None:
                await self._wait()
        except trio.ClosedResourceError:  # what `interrupt` raises in whoever waits
            return None
        self._drained = count < BULK_WANTED
        self._expect(bulk=count >= BULK_FROM)
        return count

    async def _wait(self) -> None:
        """Until something has come; under bulk data until it is much, for a millisecond."""
        if not self._bulk:
            await trio.lowlevel.wait_readable(self._descriptor)
            return
        with trio.move_on_after(BULK_PATIENCE) as patience:
            await trio.lowlevel.wait_readable(self._descriptor)
        if patience.cancelled_caught:
            self._expect(bulk=False)

    def _expect(self, *, bulk: bool) -> None:
        """Under bulk data each turn of the event loop shall bring much; after a millisecond it brings what there is."""
        if bulk != self._bulk:
            self._bulk = bulk
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, BULK_WANTED if bulk else 1)

    async def _turn(self) -> None:
        self._turns += 1
        if self._turns % CONNECTION_TURNS:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    def breathe(self) -> None:
        """See `Connection`."""
        self._turns = -1

    def _receive_now(self, buffer: memoryview) -> int | None:
        try:
            return os.readv(self._descriptor, (buffer,))
        except BlockingIOError:
            return None
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from None

    def interrupt(self) -> None:
        """See `Connection`. A sender that waits looks up, too."""
        if self._descriptor >= 0:
            trio.lowlevel.notify_closing(self._descriptor)

    def send_now(self, data: memoryview) -> int:
        """See `Connection`."""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from None

    async def send_some(self, data: memoryview) -> int:
        """See `Connection`."""
        try:
            await trio.lowlevel.wait_writable(self._descriptor)
        except trio.ClosedResourceError:
            await trio.lowlevel.checkpoint()
            return 0
        return self.send_now(data)

    async def hang_up(self, buffer: memoryview) -> None:
        """See `Connection`."""
        self._expect(bulk=False)
        await self._stream.send_eof()
        while await self._stream.receive_some(len(buffer)):
            pass

    async def close(self) -> None:
        """See `Connection`."""
        self._descriptor = -1  # may be another file's from here on
        await trio.aclose_forcefully(self._stream)


class StreamConnection:
    """Over any other trio stream, in memory for example."""

    sends_in_parts = False

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._receiving = trio.CancelScope()
        self._cut = False  # a send was cancelled: what followed half a record would not decrypt

    async def receive_into(self, buffer: memoryview) -> int | None:
        """See `Connection`."""
        with trio.CancelScope() as self._receiving:
            data = await self._stream.receive_some(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        return None

    def interrupt(self) -> None:
        """See `Connection`."""
        self._receiving.cancel()

    def breathe(self) -> None:
        """See `Connection`: every receive of trio's gives a turn."""

    def send_now(self, data: memoryview) -> int:
        """See `Connection`: nothing is known to go without waiting."""
        del data
        return 0

    async def send_some(self, data: memoryview) -> int:
        """See `Connection`."""
        if self._cut:
            raise trio.BrokenResourceError("half of a record is out")
        self._cut = True
        await self._stream.send_all(data)
        self._cut = False
        return len(data)

    async def hang_up(self, buffer: memoryview) -> None:
        """See `Connection`."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
            while await self._stream.receive_some(len(buffer)):
                pass

    async def close(self) -> None:
        """See `Connection`."""
        await trio.aclose_forcefully(self._stream)


def connection_over(stream: trio.abc.Stream) -> Connection:
    """The fastest for this stream."""
    return SocketConnection(stream) if isinstance(stream, trio.SocketStream) else StreamConnection(stream)
