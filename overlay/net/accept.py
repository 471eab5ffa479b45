"""The door: takes connections from the kernel and lets in those that `core/mesh/load.py` has a place for.

Nothing but a socket stands behind a connection before its first 53 bytes are there: no task, no session. Those bytes are
looked at and left in the socket. All silent connections wait in one epoll of their own, watched by one task. Whoever gets
no place is reset at once.
"""

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

import trio

from overlay.core.limits import ACCEPT_AT_ONCE, ACCEPT_BREATH, ACCEPT_FULL_PAUSE, ACCEPT_LET_IN
from overlay.core.mesh.found import Address
from overlay.core.mesh.greeting import GREETING_SIZE, MODE_AT
from overlay.core.mesh.load import Load

FULL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
GONE: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})
RESET: Final = struct.pack("ii", 1, 0)  # struct linger: close drops everything and sends RST
WATCHED: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET  # half of the bytes wake nobody twice

Enter = Callable[[trio.SocketStream, Address, int, int], None]  # the stream, where it comes from, its place, its mode


class Door:
    """Lets in what comes to some listeners. `enter` gets who has a place; `evict` takes back the place of one that did."""

    def __init__(
        self, load: Load, *, shows_gate_key: Callable[[bytes], bool], enter: Enter, evict: Callable[[int], None]
    ) -> None:
        self._load = load
        self._shows_gate_key = shows_gate_key
        self._enter = enter
        self._evict = evict
        self._epoll = select.epoll()
        self._waiting: dict[int, tuple[socket.socket, Address]] = {}  # silent ones, by place
        self._places: dict[int, int] = {}  # the same by descriptor
        self._patience = trio.CancelScope()

    async def serve(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Until it is cancelled; then the listeners are closed, and everybody who waits."""
        try:
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    nursery.start_soon(self._accept_all, listener.socket)
                nursery.start_soon(self._hear)
        finally:
            for listener in listeners:
                listener.socket.close()
            for connection, _ in self._waiting.values():
                reset(connection)
            self._epoll.close()

    # --- from the kernel --------------------------------------------------------------------------------------------

    async def _accept_all(self, listening: trio.socket.SocketType) -> None:
        with socket.socket(fileno=os.dup(listening.fileno())) as plain:  # trio's own accept waits each time
            plain.settimeout(0)
            while True:
                await trio.lowlevel.wait_readable(listening)
                try:
                    if self._accept_some(plain):
                        await trio.sleep(ACCEPT_BREATH)
                except OSError as error:
                    if error.errno in GONE:
                        raise
                    if error.errno in FULL:
                        await trio.sleep(ACCEPT_FULL_PAUSE)

    def _accept_some(self, listening: socket.socket) -> bool:
        """Whether there may be more: what is there is taken as far as it is cheap."""
        budget = ACCEPT_AT_ONCE
        while budget > 0:
            try:
                connection, address = listening.accept()
            except BlockingIOError:
                return False
            connection.settimeout(0)
            budget -= ACCEPT_LET_IN if self._came(connection, (address[0], address[1])) else 1
        return True

    def _came(self, connection: socket.socket, address: Address) -> bool:
        """Whether it was let in."""
        greeting = peek(connection)
        if greeting is None:
            connection.close()
            return False
        if len(greeting) == GREETING_SIZE:
            return self._judge(connection, address, greeting)
        decision = self._load.accept(address[0], trio.current_time())
        self._send_away(decision.evicted)
        if decision.place is None:
            reset(connection)
            return False
        self._waiting[decision.place] = connection, address
        self._places[connection.fileno()] = decision.place
        self._epoll.register(connection, WATCHED)
        self._patience.deadline = self._load.deadline
        return False

    def _judge(self, connection: socket.socket, address: Address, greeting: bytes) -> bool:
        """Let it in, or not: its first bytes are there."""
        decision = self._load.enter(address[0], trio.current_time(), gated=self._shows_gate_key(greeting))
        if decision.place is None:
            reset(connection)
            return False
        for place in decision.evicted:
            self._evict(place)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
        self._enter(stream, address, decision.place, greeting[MODE_AT])
        return True

    # --- the silent ones --------------------------------------------------------------------------------------------

    async def _hear(self) -> None:
        """Look up when one of them has spoken, or has had its time."""
        while True:
            with trio.CancelScope(deadline=self._load.deadline) as self._patience:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._send_away(self._load.tick(trio.current_time()))
            self._hear_some()
            await trio.lowlevel.checkpoint()

    def _hear_some(self) -> None:
        """One by one, because an edge is told once; at most one handshake begins in a turn of the event loop."""
        for _ in range(ACCEPT_AT_ONCE):
            spoken = self._epoll.poll(0, 1)
            if not spoken or self._heard(self._places[spoken[0][0]]):
                return

    def _heard(self, place: int) -> bool:
        """Whether it was let in."""
        connection, address = self._waiting[place]
        greeting = peek(connection)
        if greeting is not None and len(greeting) < GREETING_SIZE:
            return False  # half of it
        self._take_out(place)
        self._load.closed(place)
        if greeting is None:
            connection.close()
            return False
        return self._judge(connection, address, greeting)

    def _send_away(self, places: Iterable[int]) -> None:
        for place in places:
            reset(self._take_out(place))

    def _take_out(self, place: int) -> socket.socket:
        connection, _ = self._waiting.pop(place)
        del self._places[connection.fileno()]
        self._epoll.unregister(connection)
        return connection


def peek(connection: socket.socket) -> bytes | None:
    """Its first bytes, as far as they are there; they stay in the socket. None if nothing more will come."""
    try:
        return connection.recv(GREETING_SIZE, socket.MSG_PEEK) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None


def reset(connection: socket.socket) -> None:
    """Close it at once, and keep nothing for the peer: not even the kernel has to remember it."""
    with suppress(OSError):  # it is gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()
