"""Who carries bytes out when the connection is full: a task that waits to send, and the link where that task goes away."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from overlay.core.session_events import Closed, Failed
from overlay.net.stream import BrokenStream, Stream
from overlay.registry import Reason
from tests.shell.stream_kit import WiredEnd, wired

SIZE = 200 * 1024  # within the credit of a new stream, and more than the connection takes
DATA = bytes(range(256)) * (SIZE // 256)


class Valve(trio.abc.ReceiveStream):
    """The receiving half of a stream, that can be shut."""

    def __init__(self, inner: trio.abc.ReceiveStream) -> None:
        self._inner = inner
        self._open = trio.Event()
        self._open.set()

    def shut(self) -> None:
        self._open = trio.Event()

    def open(self) -> None:
        self._open.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._open.wait()
        return bytes(await self._inner.receive_some(4096 if max_bytes is None else min(max_bytes, 4096)))

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass(frozen=True, slots=True)
class Ends:
    """Alice, over a socket that takes little; and Bob, who reads while his valve is open."""

    alice: WiredEnd
    bob: WiredEnd
    valve: Valve

    async def opened(self, *, signed: bool = True) -> tuple[Stream, Stream]:
        return self.alice.open(signed=signed), await self.bob.next()


Wire = Callable[[], AbstractAsyncContextManager[Ends]]


@asynccontextmanager
async def narrow() -> AsyncIterator[Ends]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        one = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        other = await listener.accept()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    valve = Valve(other)
    async with wired(one, trio.StapledStream(other, valve)) as (alice, bob):
        yield Ends(alice, bob, valve)


@asynccontextmanager
async def in_memory() -> AsyncIterator[Ends]:
    """Without a socket: half a send would be half a record."""
    one, other = trio.testing.lockstep_stream_pair()
    valve = Valve(other)
    async with wired(one, trio.StapledStream(other, valve)) as (alice, bob):
        yield Ends(alice, bob, valve)


async def blocked() -> None:
    await trio.testing.wait_all_tasks_blocked(0.02)


async def read(stream: Stream, size: int) -> bytes:
    got = b""
    while len(got) < size:
        got += await stream.receive_some(size - len(got))
    return got


async def test_a_sender_that_waits_carries_its_bytes_out() -> None:
    async with narrow() as ends, trio.open_nursery() as nursery:
        one, other = await ends.opened()
        ends.valve.shut()
        nursery.start_soon(one.send_all, DATA)
        await blocked()
        assert ends.alice.link.waiting
        ends.valve.open()
        with trio.fail_after(5):
            assert await read(other, SIZE) == DATA


@pytest.mark.parametrize("wire", [narrow, in_memory])
async def test_a_sender_that_is_cancelled_leaves_its_bytes_to_the_link(wire: Wire) -> None:
    async with wire() as ends, trio.open_nursery() as nursery:
        one, other = await ends.opened()
        ends.valve.shut()
        nursery.start_soon(one.send_all, DATA * 2)  # the rest has no credit yet
        await blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await blocked()
            ends.valve.open()
            with trio.fail_after(5):
                with pytest.raises(BrokenStream):
                    await read(other, 2 * SIZE)
                next_one, next_other = await ends.opened()
                await next_one.send_all(b"the link goes on")
                assert await next_other.receive_some() == b"the link goes on"


async def test_the_end_of_the_link_sends_a_sender_home_and_its_last_words_still_go() -> None:
    async with narrow() as ends:
        one, _ = await ends.opened()
        ends.valve.shut()
        with trio.fail_after(0.5):  # less than the link waits for its last words to go
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    with pytest.raises(BrokenStream):
                        await one.send_all(DATA * 2)

                nursery.start_soon(send)
                await blocked()
                ends.alice.link.close(Reason.SHUTDOWN)
        ends.valve.open()
        with trio.fail_after(5):
            while ends.bob.link.ended is None:
                await trio.lowlevel.checkpoint()
        assert ends.bob.link.ended == Closed(Reason.SHUTDOWN, by_peer=True)


async def test_senders_of_several_streams_all_get_their_turn() -> None:
    """Also when the first one has no credit left and writes no more."""
    async with narrow() as ends, trio.open_nursery() as nursery:
        pairs = [await ends.opened() for _ in range(3)]
        ends.valve.shut()
        for one, _ in pairs:
            nursery.start_soon(one.send_all, DATA * 2)
            await blocked()
        ends.valve.open()
        with trio.fail_after(10):
            for _, other in pairs[1:]:
                assert await read(other, SIZE) == DATA
        nursery.cancel_scope.cancel()


async def test_a_message_that_waits_behind_a_sender_follows_though_that_one_sends_nothing_more() -> None:
    async with narrow() as ends, trio.open_nursery() as nursery:
        one, _ = await ends.opened(signed=False)  # no segment falls due
        ends.valve.shut()

        async def send() -> None:
            await one.send_all(DATA)
            await ends.alice.link.wait_may_write()

        nursery.start_soon(send)
        await blocked()
        ends.alice.open()
        ends.valve.open()
        await ends.bob.next()


async def test_a_peer_that_takes_nothing_from_a_sender_for_ten_seconds_is_cut(mock_clock: trio.testing.MockClock) -> None:
    mock_clock.rate = 1
    async with narrow() as ends, trio.open_nursery() as nursery:
        one, _ = await ends.opened()
        ends.valve.shut()

        async def send() -> None:
            with pytest.raises(BrokenStream):
                await one.send_all(DATA * 2)

        nursery.start_soon(send)
        await blocked()
        assert ends.alice.link.ended is None
        mock_clock.jump(9)
        await blocked()
        assert ends.alice.link.ended is None
        mock_clock.jump(1.1)
        await blocked()
        assert isinstance(ends.alice.link.ended, Failed)
        assert ends.alice.link.ended.reason is Reason.SLOW_CONSUMER
