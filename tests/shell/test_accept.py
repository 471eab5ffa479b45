"""The door over real sockets: who is let in, who waits, and who is reset."""

import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from overlay.core.limits import HALF_OPEN_PER_ADDRESS
from overlay.core.mesh.found import Address
from overlay.core.mesh.greeting import GREETING_SIZE
from overlay.core.mesh.load import CROWDED, Load
from overlay.net.accept import Door

OURS, STRANGE = b"o" * GREETING_SIZE, b"s" * GREETING_SIZE
LOOPBACK = [f"127.0.0.{number}" for number in range(1, 9)]


@dataclass(slots=True)
class House:
    """What is behind the door."""

    load: Load
    port: int = 0
    inside: list[tuple[trio.SocketStream, Address, int]] = field(default_factory=list)
    evicted: list[int] = field(default_factory=list)
    news: trio.Event = field(default_factory=trio.Event)

    def enter(self, stream: trio.SocketStream, address: Address, place: int, mode: int) -> None:
        del mode
        self.inside.append((stream, address, place))
        self.news.set()
        self.news = trio.Event()

    async def wait_inside(self, count: int) -> None:
        with trio.fail_after(5):
            while len(self.inside) < count:
                await self.news.wait()


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    one = House(Load())
    door = Door(one.load, shows_gate_key=lambda greeting: greeting == OURS, enter=one.enter, evict=one.evicted.append)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    one.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve, listeners)
        yield one
        nursery.cancel_scope.cancel()
    for stream, _, _ in one.inside:
        await trio.aclose_forcefully(stream)
    assert listeners[0].socket.fileno() == -1


@contextmanager
def visitors(port: int, sources: list[str]) -> Iterator[list[trio.SocketStream]]:
    """Connections from these addresses, made one after the other."""
    with ExitStack() as stack:
        found = []
        for source in sources:
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), source_address=(source, 0)))
            plain.setblocking(False)
            found.append(trio.SocketStream(trio.socket.from_stdlib_socket(plain)))
        yield found


async def was_reset(stream: trio.SocketStream) -> bool:
    with trio.fail_after(5):
        try:
            return await stream.receive_some() != b""
        except trio.BrokenResourceError:
            return True


async def test_whoever_shows_the_gate_key_comes_in_with_all_its_bytes() -> None:
    async with house() as one:
        with visitors(one.port, LOOPBACK[:2]) as (first, second):
            await first.send_all(OURS + b"more")
            await one.wait_inside(1)
            await second.send_all(OURS)
            await one.wait_inside(2)
            stream, address, place = one.inside[0]
            assert await stream.receive_some() == OURS + b"more"
            assert address == first.socket.getsockname()
            assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert one.load.half_open == 2
            one.load.closed(place)
            assert one.load.half_open == 1


async def test_a_silent_one_is_not_let_in_and_neither_is_one_that_has_said_half() -> None:
    async with house() as one:
        with visitors(one.port, LOOPBACK[:2]) as (first, second):
            await second.send_all(OURS[:20])
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert (one.inside, one.load.silent) == ([], 2)
            await second.send_all(OURS[20:])
            await one.wait_inside(1)
            assert one.load.silent == 1
            await first.send_all(OURS)
            await one.wait_inside(2)
            assert one.load.silent == 0


async def test_whoever_leaves_without_a_word_leaves_nothing_behind() -> None:
    async with house() as one:
        with visitors(one.port, LOOPBACK[:1]) as [first]:
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert one.load.silent == 1
            await first.aclose()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert one.load.silent == 0
    assert one.inside == []


async def test_over_the_rate_of_strangers_a_connection_is_reset_and_one_with_the_gate_key_comes_in() -> None:
    async with house() as one:
        with visitors(one.port, ["127.0.0.1"] * 7) as streams:
            *strangers, member = streams
            for number, stranger in enumerate(strangers):
                await stranger.send_all(STRANGE)
                if number < 5:
                    await one.wait_inside(number + 1)
                    one.load.closed(one.inside[-1][2])
            assert await was_reset(strangers[5])
            await member.send_all(OURS)
            await one.wait_inside(6)
        assert one.load.turned_away == 1


async def test_the_oldest_silent_one_of_an_address_is_reset_for_the_ninth() -> None:
    async with house() as one:
        with visitors(one.port, ["127.0.0.1"] * HALF_OPEN_PER_ADDRESS) as streams:
            await trio.testing.wait_all_tasks_blocked(0.05)
            with visitors(one.port, ["127.0.0.1"]) as [ninth]:
                assert await was_reset(streams[0])
                await ninth.send_all(OURS)
                await one.wait_inside(1)


async def test_the_oldest_half_open_one_of_an_address_gives_way_to_the_ninth() -> None:
    async with house() as one:
        with visitors(one.port, ["127.0.0.1"] * (HALF_OPEN_PER_ADDRESS + 1)) as streams:
            for number, stream in enumerate(streams, 1):
                await stream.send_all(OURS)
                await one.wait_inside(number)
        assert one.evicted == [one.inside[0][2]]


async def test_in_a_crowd_a_silent_one_is_reset_after_a_second() -> None:
    async with house() as one:
        began = trio.current_time()
        with visitors(one.port, [source for source in LOOPBACK[:5] for _ in range(HALF_OPEN_PER_ADDRESS)]) as streams:
            assert len(streams) > CROWDED
            assert await was_reset(streams[0])
        assert 0.9 < trio.current_time() - began < 4


async def test_without_a_free_descriptor_the_door_waits_and_then_goes_on() -> None:
    async with house() as one:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with visitors(one.port, LOOPBACK[:1]) as [first], socket.socket() as plain:
            await first.send_all(OURS)
            await one.wait_inside(1)
            resource.setrlimit(resource.RLIMIT_NOFILE, (plain.fileno(), hard))
            try:
                plain.connect(("127.0.0.1", one.port))
                plain.send(OURS)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert len(one.inside) == 1
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await one.wait_inside(2)


async def test_a_listener_that_somebody_else_closed_is_no_silent_failure() -> None:
    door = Door(Load(), shows_gate_key=lambda _: False, enter=lambda *_: None, evict=lambda _: None)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with pytest.RaisesGroup(trio.ClosedResourceError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.serve, listeners)
            await trio.testing.wait_all_tasks_blocked()
            await listeners[0].aclose()
