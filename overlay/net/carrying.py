"""One forwarded connection: bytes both ways between a socket and a stream, half-closes and broken ends too.

An end that closes in order is closed in order at the other side; one that breaks is broken off there: a stream by a reset, a
TCP connection by RST, so that nobody takes half an answer for a whole one.
"""

import socket
import struct
from dataclasses import dataclass
from typing import Final

import trio

from overlay.errors import Truncated
from overlay.net.stream import BrokenStream, Stream
from overlay.registry import ReplyStatus

READ: Final = 128 * 1024  # bytes at once from a socket: measured, larger ones are not faster
NO_LINGER: Final = struct.pack("ii", 1, 0)  # close sends RST (socket(7), SO_LINGER)


@dataclass(slots=True)
class Traffic:
    """What passed through a service, seen from this node."""

    open: int = 0  # connections now
    connections: int = 0  # that were carried, ever
    refused: int = 0  # callers that may not
    failed: int = 0  # the service did not take the connection, or there was nobody to ask
    broken: int = 0  # ended by a reset, a link or a revocation
    received: int = 0  # bytes from the mesh
    sent: int = 0  # bytes into the mesh


class Carrier:
    """Carries one connection until both directions have ended."""

    def __init__(self, connection: trio.SocketStream, stream: Stream, traffic: Traffic) -> None:
        self._connection = connection
        self._stream = stream
        self._traffic = traffic
        self._scope = trio.CancelScope()
        self._broken = ""  # why; empty while it is not

    def cut(self, why: str) -> None:
        """Break it off, at both ends."""
        self._broken = self._broken or why
        self._scope.cancel()

    async def run(self) -> bool:
        """Whether both directions ended in order. Cancelled, it breaks both off."""
        traffic, whole = self._traffic, False
        traffic.open += 1
        traffic.connections += 1
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._outwards)
                    nursery.start_soon(self._inwards)
            whole = not self._broken and not self._scope.cancelled_caught
        finally:
            traffic.open -= 1
            if whole:
                self._stream.close()
                self._connection.socket.close()
            else:
                traffic.broken += 1
                self._stream.break_off(ReplyStatus.CANCELLED, self._broken or "the connection was broken off")
                reset(self._connection)
        return whole

    async def _outwards(self) -> None:
        """From the socket into the mesh."""
        try:
            while data := await self._connection.receive_some(READ):
                self._traffic.sent += len(data)
                await self._stream.send_all(data)
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.cut(_why(error, "the connection was reset"))

    async def _inwards(self) -> None:
        """From the mesh into the socket."""
        try:
            while data := await self._stream.receive_some():
                self._traffic.received += len(data)
                await self._connection.send_all(data)
            await self._connection.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, Truncated) as error:
            self.cut(_why(error, "the connection was reset"))


def _why(error: Exception, otherwise: str) -> str:
    return str(error) if isinstance(error, BrokenStream | Truncated) else otherwise


def reset(connection: trio.SocketStream) -> None:
    """Close a connection so that the other end sees a reset, where there is such a thing."""
    try:
        if connection.socket.family != socket.AF_UNIX:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    except OSError:
        pass  # it is closed already
    connection.socket.close()


def keep_alive(connection: trio.SocketStream) -> None:
    """A peer that is gone without a word is noticed by the kernel, after two hours unless the host says otherwise."""
    if connection.socket.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
