"""Services behind forwarding, and programs that use them: plain sockets, as any program has them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

Serve = Callable[[trio.SocketStream], Awaitable[None]]


@dataclass
class Service:
    """A TCP server of our own. `ends` tells how each connection ended, as the server saw it."""

    port: int
    ends: list[str] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def wait_ends(self, count: int) -> list[str]:
        with trio.fail_after(10):
            while len(self.ends) < count:
                await self.changed.wait()
        return self.ends


@asynccontextmanager
async def service(serve: Serve) -> AsyncIterator[Service]:
    """A server for the length of the block."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    found = Service(listener.socket.getsockname()[1])

    async def one(stream: trio.SocketStream) -> None:
        try:
            await serve(stream)
            end = "in order"
        except trio.BrokenResourceError:
            end = "reset"
        found.ends.append(end)
        found.changed.set()
        found.changed = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, one, [listener])
        yield found
        nursery.cancel_scope.cancel()


async def echo(stream: trio.SocketStream) -> None:
    """Say it again, until the other side has no more."""
    while data := await stream.receive_some(65_536):
        await stream.send_all(data)


async def count_then_say(stream: trio.SocketStream) -> None:
    """Answer only when the other side has ended, as `nc -N` and some old protocols have it."""
    total = 0
    while data := await stream.receive_some(65_536):
        total += len(data)
    await stream.send_all(b"%d" % total)


async def connect(address: str) -> trio.SocketStream:
    """To what `forward` has given."""
    if address.startswith("unix:"):
        return await trio.open_unix_socket(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def read_all(stream: trio.SocketStream) -> bytes:
    """Until the end; raises BrokenResourceError if there is none in order."""
    found = bytearray()
    while data := await stream.receive_some(65_536):
        found += data
    return bytes(found)


async def until(good: Callable[[], bool]) -> None:
    """Figures tell nobody when they change."""
    with trio.fail_after(10):
        while not good():  # noqa: ASYNC110
            await trio.sleep(0.01)
