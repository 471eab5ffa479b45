"""Several addresses of one node: who is tried first, who is tried meanwhile, and what becomes of the others."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
import trio.testing

from overlay.core.mesh.found import Address
from overlay.net.dial import Race, connect_any, dial_order

FAR = 60.0  # seconds: longer than any of these tests
SIX, SIX_TOO, FOUR, FOUR_TOO = ("2001:db8::1", 1), ("fe80::1%eth0", 1), ("192.0.2.1", 1), ("192.0.2.2", 1)


@asynccontextmanager
async def listening(count: int = 1) -> AsyncIterator[tuple[list[Address], list[trio.SocketStream]]]:
    """Nodes that take connections: their addresses, and what they took."""
    taken: list[trio.SocketStream] = []

    async def take(stream: trio.SocketStream) -> None:
        taken.append(stream)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        addresses = []
        for _ in range(count):
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, take, [listener])
            addresses.append(listener.socket.getsockname()[:2])
        yield addresses, taken
        nursery.cancel_scope.cancel()


@contextmanager
def closed_port() -> Iterator[Address]:
    """An address that refuses at once."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()


@contextmanager
def black_hole() -> Iterator[Address]:
    """An address that does not answer: its queue is full."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        yield full.getsockname()


async def close(found: tuple[Address, trio.SocketStream] | None) -> Address | None:
    if found is None:
        return None
    await found[1].aclose()
    return found[0]


async def test_the_first_address_wins_and_the_second_is_not_tried() -> None:
    async with listening(2) as (addresses, taken):
        assert await close(await connect_any(addresses, delay=FAR)) == addresses[0]
        await trio.testing.wait_all_tasks_blocked()
        assert len(taken) == 1


async def test_an_address_that_refuses_is_left_at_once() -> None:
    missed: list[Address] = []
    with closed_port() as nobody, trio.fail_after(5):
        async with listening() as ([somebody], _):
            assert await close(await connect_any([nobody, somebody], delay=FAR, missed=missed.append)) == somebody
    assert missed == [nobody]


async def test_an_address_that_does_not_answer_holds_nobody_up_and_is_not_said_to_have_failed() -> None:
    missed: list[Address] = []
    with black_hole() as hole, trio.fail_after(2):
        async with listening() as ([somebody], _):
            assert await close(await connect_any([hole, somebody], delay=0.05, missed=missed.append)) == somebody
    assert missed == []


async def test_each_address_has_its_time() -> None:
    missed: list[Address] = []
    with black_hole() as hole, trio.fail_after(5):
        assert await connect_any([hole], within=0.1, missed=missed.append) is None
    assert missed == [hole]


async def test_nobody_is_there() -> None:
    missed: list[Address] = []
    with closed_port() as one, closed_port() as other:
        assert await connect_any([one, other], delay=FAR, missed=missed.append) is None
        assert missed == [one, other]
    assert await connect_any([]) is None


async def test_whoever_connects_in_the_same_moment_as_another_is_closed() -> None:
    race = Race(FAR, None)
    async with listening(2) as (addresses, taken):
        async with trio.open_nursery() as nursery:
            for address in addresses:
                nursery.start_soon(race.run, address, trio.Event(), trio.CancelScope())
        assert race.won is not None
        with trio.fail_after(5):
            [loser] = [stream for stream in taken if stream.socket.getpeername() != race.won[1].socket.getsockname()]
            assert await loser.receive_some() == b""
        await close(race.won)


async def test_those_who_lose_the_race_are_closed() -> None:
    async with listening(8) as (addresses, taken):
        found = await connect_any(addresses, delay=0)
        assert found is not None
        winner = found[1].socket.getsockname()
        with trio.fail_after(5):
            for stream in taken:
                if stream.socket.getpeername() != winner:
                    assert await stream.receive_some() == b""
        await close(found)


async def test_whoever_gives_up_leaves_nothing_open() -> None:
    with black_hole() as hole, trio.move_on_after(0.1) as scope:
        await connect_any([hole], delay=FAR)
    assert scope.cancelled_caught


async def test_small_packets_are_not_held_back() -> None:
    async with listening() as ([address], _):
        found = await connect_any([address])
        assert found is not None
        assert found[1].socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await close(found)


async def test_a_name_is_looked_up() -> None:
    async with listening() as ([(_, port)], _):
        assert await close(await connect_any([("localhost", port)])) == ("localhost", port)


@pytest.mark.parametrize(
    ("addresses", "order"),
    [
        ([], []),
        ([FOUR, FOUR_TOO, SIX, SIX_TOO], [FOUR, SIX, FOUR_TOO, SIX_TOO]),
        ([SIX, SIX_TOO, FOUR], [SIX, FOUR, SIX_TOO]),
        ([FOUR, SIX, FOUR, SIX], [FOUR, SIX]),
    ],
)
def test_the_families_take_turns_as_the_first_address_begins(addresses: list[Address], order: list[Address]) -> None:
    assert list(dial_order(addresses, {})) == order


def test_what_failed_is_tried_last_and_what_worked_first() -> None:
    addresses = [SIX, FOUR, SIX_TOO, FOUR_TOO]
    assert dial_order(addresses, {SIX: 1, FOUR: 2}) == (SIX_TOO, FOUR_TOO, SIX, FOUR)
    assert dial_order(addresses, {}, worked=FOUR_TOO) == (FOUR_TOO, SIX, FOUR, SIX_TOO)
    assert dial_order(addresses, {SIX: 1}, worked=("192.0.2.9", 1)) == (FOUR, SIX_TOO, FOUR_TOO, SIX)
