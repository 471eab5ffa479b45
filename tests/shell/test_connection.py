"""The two kinds of connection under a link: what goes at once, what waits, who looks up, and what a gone peer looks like."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from overlay.core.limits import RECEIVE_SIZE
from overlay.net.connection import Connection, SocketConnection, StreamConnection, connection_over

Pair = tuple[Connection, Connection]
MIB = 1024 * 1024


async def tcp_streams() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        one = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return one, await listener.accept()


async def sockets() -> Pair:
    one, other = await tcp_streams()
    return connection_over(one), connection_over(other)


async def streams() -> Pair:
    one, other = trio.testing.memory_stream_pair()
    return connection_over(one), connection_over(other)


async def mixed() -> Pair:
    """A socket at one end, a stream that hides its socket at the other."""
    one, other = await tcp_streams()
    return connection_over(one), StreamConnection(other)


async def mixed_the_other_way() -> Pair:
    one, other = await mixed()
    return other, one


every_pair = pytest.mark.parametrize("make", [sockets, streams, mixed, mixed_the_other_way])
Make = Callable[[], Awaitable[Pair]]


@asynccontextmanager
async def connected(make: Make) -> AsyncIterator[Pair]:
    pair = await make()
    try:
        yield pair
    finally:
        for connection in pair:
            await connection.close()


async def send_all(connection: Connection, data: bytes) -> None:
    """As a link does: what goes at once, then the rest."""
    left = memoryview(data)
    left = left[connection.send_now(left) :]
    while left:
        left = left[await connection.send_some(left) :]


async def receive(connection: Connection, count: int) -> bytes:
    """So many bytes, or fewer at the end."""
    buffer, got = memoryview(bytearray(RECEIVE_SIZE)), bytearray()
    with trio.fail_after(5):
        while len(got) < count and (size := await connection.receive_into(buffer)) != 0:
            assert size is not None
            got += buffer[:size]
    return bytes(got)


async def looks_up(connection: Connection) -> None:
    """Whoever waits for bytes gets None instead."""
    with trio.fail_after(2):
        assert await connection.receive_into(memoryview(bytearray(10))) is None


@every_pair
async def test_bytes_come_as_they_were_sent_in_pieces_of_any_size(make: Make) -> None:
    data = os.urandom(3 * MIB)
    async with connected(make) as (one, other), trio.open_nursery() as nursery:
        nursery.start_soon(send_all, one, data)
        assert await receive(other, len(data)) == data
        await send_all(other, b"and back")
        assert await receive(one, 8) == b"and back"


@every_pair
async def test_a_receive_fills_no_more_than_its_buffer(make: Make) -> None:
    async with connected(make) as (one, other):
        await send_all(one, b"0123456789")
        buffer, got = bytearray(b"----"), b""
        with trio.fail_after(5):
            while len(got) < 10:
                count = await other.receive_into(memoryview(buffer)[:3])
                assert count
                assert buffer[3:] == b"-"
                got += buffer[:count]
        assert got == b"0123456789"


@every_pair
async def test_whoever_waits_for_bytes_looks_up_when_interrupted_and_waits_again(make: Make) -> None:
    async with connected(make) as (one, other):
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(looks_up, other)
                await trio.testing.wait_all_tasks_blocked(0.01)
                other.interrupt()
        await send_all(one, b"nothing is lost")
        assert await receive(other, 15) == b"nothing is lost"


@every_pair
async def test_an_interrupt_while_nobody_waits_is_forgotten(make: Make) -> None:
    async with connected(make) as (one, other):
        other.interrupt()
        await send_all(one, b"x")
        assert await receive(other, 1) == b"x"


@every_pair
async def test_a_cancelled_receive_loses_nothing(make: Make) -> None:
    async with connected(make) as (one, other):
        for number in range(20):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(receive, other, 1)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            await send_all(one, bytes([number]))
            assert await receive(other, 1) == bytes([number])


@every_pair
async def test_the_end_of_the_peer_is_no_bytes(make: Make) -> None:
    async with connected(make) as (one, other):
        await send_all(one, b"last words")
        await one.close()
        assert await receive(other, 100) == b"last words"
        with trio.fail_after(5):
            assert await other.receive_into(memoryview(bytearray(10))) == 0


@every_pair
@pytest.mark.parametrize("size", [1, 70_000, 3 * MIB])
async def test_a_few_bytes_behind_many_come_at_once_and_so_does_the_end(make: Make, size: int) -> None:
    """However a connection waits for bulk data: what comes behind it is not kept until there is more."""
    async with connected(make) as (one, other):
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_all, one, bytes(size))
                assert await receive(other, size) == bytes(size)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(looks_up, other)
                await trio.testing.wait_all_tasks_blocked()
                other.interrupt()
            await send_all(one, b"few")
            assert await receive(other, 3) == b"few"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, one, bytes(size))
            assert await receive(other, size) == bytes(size)
            nursery.start_soon(receive, other, 3)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await send_all(one, b"few")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, one, bytes(size))
            assert await receive(other, size) == bytes(size)
        await one.close()
        assert await receive(other, 1) == b""


@every_pair
async def test_sending_to_a_peer_that_is_gone_breaks(make: Make) -> None:
    async with connected(make) as (one, other):
        await other.close()
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
            while True:
                await send_all(one, bytes(MIB))


@every_pair
async def test_hanging_up_waits_until_the_peer_has_read_all_and_closes(make: Make) -> None:
    data = os.urandom(MIB)
    async with connected(make) as (one, other), trio.open_nursery() as nursery:
        await send_all(other, b"still under way")

        async def hang_up() -> None:
            await send_all(one, data)
            await one.hang_up(memoryview(bytearray(4096)))
            over.set()

        over = trio.Event()
        nursery.start_soon(hang_up)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not over.is_set()
        assert await receive(other, len(data) + 1) == data
        await other.close()
        with trio.fail_after(5):
            await over.wait()


async def test_a_stream_that_cannot_end_half_is_only_closed() -> None:
    class Plain(trio.abc.Stream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            raise AssertionError

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            raise AssertionError

        async def wait_send_all_might_not_block(self) -> None:
            raise AssertionError

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    connection = connection_over(Plain())
    assert isinstance(connection, StreamConnection)
    await connection.hang_up(memoryview(bytearray(10)))
    connection.breathe()
    await connection.close()


async def test_half_a_record_is_the_last_of_a_stream_whose_sender_was_cancelled() -> None:
    """What followed would not decrypt."""
    one, other = trio.testing.lockstep_stream_pair()
    connection = connection_over(one)
    assert connection.send_now(memoryview(b"x")) == 0
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.send_some, memoryview(b"a record"))
            assert await other.receive_some(3) == b"a r"
            scope.cancel()
    with pytest.raises(trio.BrokenResourceError):
        await connection.send_some(memoryview(b"another"))


# --- sockets ------------------------------------------------------------------------------------------------------------


async def clogged() -> tuple[SocketConnection, SocketConnection, int]:
    """A connection that takes nothing more, and how much it has taken."""
    one, other = await tcp_streams()
    for stream in (one, other):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    sender, receiver = SocketConnection(one), SocketConnection(other)
    sent = 0
    while count := sender.send_now(memoryview(bytes(MIB))):
        assert count <= MIB
        sent += count
    return sender, receiver, sent


async def test_a_socket_is_known_by_its_type() -> None:
    one, other = await tcp_streams()
    assert isinstance(connection_over(one), SocketConnection)
    await one.aclose()
    await other.aclose()


async def test_a_full_socket_takes_nothing_at_once_and_the_rest_when_it_is_read() -> None:
    sender, receiver, sent = await clogged()
    async with trio.open_nursery() as nursery:

        async def more() -> None:
            assert await sender.send_some(memoryview(b"more"))

        nursery.start_soon(more)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert sender.send_now(memoryview(b"?")) == 0
        assert await receive(receiver, sent + 4) == bytes(sent) + b"more"
    await sender.close()
    await receiver.close()


async def test_a_sender_that_waits_goes_on_waiting_when_a_receive_is_interrupted() -> None:
    sender, receiver, sent = await clogged()

    async def send() -> None:
        while not await sender.send_some(memoryview(b"more")):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for _ in range(3):
            nursery.start_soon(looks_up, sender)
            await trio.testing.wait_all_tasks_blocked(0.01)
            sender.interrupt()
        assert await receive(receiver, sent + 4) == bytes(sent) + b"more"
    await sender.close()
    await receiver.close()


async def test_a_reset_breaks_whoever_reads_and_whoever_sends() -> None:
    one, other = await tcp_streams()
    connection = SocketConnection(one)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    other.socket.close()
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
        await connection.receive_into(memoryview(bytearray(10)))
    with pytest.raises(trio.BrokenResourceError):
        connection.send_now(memoryview(b"x"))
    await connection.close()


async def test_a_descriptor_is_not_used_after_the_close_though_another_file_has_it() -> None:
    """The system gives the number to whatever is opened next."""
    one, other = await tcp_streams()
    connection = SocketConnection(one)
    number = one.socket.fileno()
    await connection.close()
    reading, writing = socket.socketpair()
    copied = number not in {reading.fileno(), writing.fileno()}
    if copied:
        os.dup2(reading.fileno(), number)
    try:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_readable, number)
                await trio.testing.wait_all_tasks_blocked(0.01)
                connection.interrupt()  # wakes nobody
                await trio.testing.wait_all_tasks_blocked(0.01)
                scope.cancel()
        with pytest.raises(trio.BrokenResourceError):
            connection.send_now(memoryview(b"to somebody else"))
        reading.setblocking(False)
        writing.setblocking(False)
        for end in (reading, writing):
            with pytest.raises(BlockingIOError):
                end.recv(100)
    finally:
        reading.close()
        writing.close()
        if copied:
            os.close(number)
    await other.aclose()


async def test_closing_wakes_whoever_waits_for_bytes() -> None:
    for make in (sockets, streams):
        one, other = await make()
        async with trio.open_nursery() as nursery:

            async def wait(connection: Connection = one) -> None:
                with trio.fail_after(2):
                    try:
                        assert not await connection.receive_into(memoryview(bytearray(10)))
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        return

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await one.close()
        await other.close()


async def test_a_socket_that_is_never_empty_leaves_others_their_turn() -> None:
    """What brings much is followed by more without a turn, but not for ever."""
    one, other = await tcp_streams()
    receiver = SocketConnection(one)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = turns
        for _ in range(200):
            await receiver._turn()  # as after a receive that brought much: no socket fills that fast for certain
        assert 200 // 20 <= turns - before < 200 // 10
        before = turns
        for _ in range(3):  # trio runs those who are ready in any order, so that one turn may pass the other task by
            receiver.breathe()
            await receiver._turn()
        assert turns > before
        nursery.cancel_scope.cancel()
    await receiver.close()
    await other.aclose()
