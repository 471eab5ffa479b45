"""A bad network between two nodes, in user space: late, narrow, stuck, silent, broken off, or with a byte flipped.

`async with bad_network(port) as network:` listens; give `network.seed` to whoever shall dial. Each connection has two
ways, `up` from the one that dialled and `down` to it.
"""

import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

CHUNK = 16 * 1024
QUEUE = 1024  # chunks on their way
RESET = struct.pack("ii", 1, 0)


class Cut(Exception):
    """This connection is over."""


@dataclass(slots=True)
class Way:
    """What happens to bytes in one direction; may be changed at any time."""

    delay: float = 0.0
    jitter: float = 0.0  # seconds at most, on top of the delay; the order stays
    bandwidth: float = float("inf")  # bytes per second
    silent: bool = False  # bytes are taken and go nowhere
    flip: bool = False  # the last byte of the next chunk arrives changed
    reset_at: int | None = None  # once so many bytes came through, the connection is reset; half a chunk comes through
    passed: int = 0
    _flowing: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self._flowing.set()

    def hold(self) -> None:
        """Take nothing more, as a reader that is stuck."""
        self._flowing = trio.Event()

    def release(self) -> None:
        self._flowing.set()

    async def carry(self, source: trio.SocketStream, sink: trio.SocketStream, chance: random.Random) -> None:
        """Until the end of either, which goes on to the other."""
        late, due = trio.open_memory_channel[tuple[float, bytes | bytearray]](QUEUE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver, due, sink)
            async with late:
                while chunk := await self._take(source):
                    await self._flowing.wait()
                    await late.send((trio.current_time() + self.delay + self.jitter * chance.random(), chunk))

    async def _take(self, source: trio.SocketStream) -> bytes | bytearray:
        """The next chunk; empty at the end, of which nobody hears while the way is silent."""
        try:
            chunk = await source.receive_some(CHUNK)
        except trio.BrokenResourceError:
            if not self.silent:
                raise
            chunk = b""
        if not chunk and self.silent:
            await trio.sleep_forever()
        return chunk

    async def _deliver(self, due: trio.MemoryReceiveChannel[tuple[float, bytes | bytearray]], sink: trio.SocketStream) -> None:
        async for when, taken in due:
            chunk = taken
            await trio.sleep_until(when)
            await trio.sleep(len(chunk) / self.bandwidth)
            await self._flowing.wait()
            if self.silent:
                continue
            if self.flip:
                self.flip, chunk = False, chunk[:-1] + bytes([chunk[-1] ^ 1])
            if self.reset_at is not None and self.passed + len(chunk) > self.reset_at:
                await sink.send_all(chunk[: self.reset_at - self.passed])
                raise Cut
            self.passed += len(chunk)
            await sink.send_all(chunk)
        await sink.send_eof()


@dataclass(slots=True)
class Connection:
    """One connection through the bad network."""

    near: trio.SocketStream
    far: trio.SocketStream
    up: Way
    down: Way
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(self, chance: random.Random) -> None:
        with self.scope:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.up.carry, self.near, self.far, chance)
                    nursery.start_soon(self.down.carry, self.far, self.near, chance)
            except* (Cut, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        for stream in (self.near, self.far):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            stream.socket.close()

    def reset(self) -> None:
        """Both ends see a reset."""
        self.scope.cancel()

    def swallow(self) -> None:
        """Neither end sees anything any more, not even an end."""
        self.up.silent = self.down.silent = True


class BadNetwork:
    """A port in front of a node. What a new connection is like stands in `up` and `down`, or in `once` for the next."""

    def __init__(self, target: int, seed: int) -> None:
        self.port = 0
        self.connections: list[Connection] = []
        self.up: dict[str, float] = {}
        self.down: dict[str, float] = {}
        self.once: list[tuple[Way, Way]] = []
        self._target = target
        self._chance = random.Random(seed)

    @property
    def seed(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def last(self) -> Connection:
        """The newest connection."""
        return self.connections[-1]

    async def carry(self, near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self._target)
        except OSError:
            return
        up, down = self.once.pop(0) if self.once else (Way(**self.up), Way(**self.down))  # type: ignore[arg-type]
        connection = Connection(near, far, up, down)
        self.connections.append(connection)
        await connection.run(self._chance)


@asynccontextmanager
async def bad_network(target: int, *, seed: int = 1) -> AsyncIterator[BadNetwork]:
    """In front of the node at this port of the loopback interface; everything is cut after the block."""
    network = BadNetwork(target, seed)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    network.port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, network.carry, [listener])
        yield network
        nursery.cancel_scope.cancel()
