"""Streams between real nodes: as trio has streams, signed or not, beside everything else on the link, and how they end."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial

import pytest
import trio
import trio.testing
from blake3 import blake3

from overlay.core.keys import NodeId
from overlay.core.limits import SEGMENT_BYTES, WINDOW_FIRST, RekeyTimes
from overlay.core.segments import SignedStream, verify_segment
from overlay.errors import NotAllowed, PeerUnreachable, Truncated, UsageError
from overlay.net.request import Request
from overlay.net.stream import BrokenStream, Stream
from overlay.registry import FrameType, Reason
from tests.shell.stream_kit import Bench, WiredEnd, bench, read_all, wired

MIB = 1024 * 1024


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def echo(stream: Stream) -> None:
    """What comes goes back."""
    while part := await stream.receive_some():
        await stream.send_all(part)


async def broken(use: Callable[[], Awaitable[object]]) -> str:
    """Why the stream is broken."""
    with trio.fail_after(5), pytest.raises(BrokenStream) as caught:
        while True:  # it may take a moment until we hear of it
            await use()
    return str(caught.value)


# --- as trio has streams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
async def test_streams_are_what_trio_says_a_stream_is(signed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a turn of the event loop in each send and receive, which trio's checks want and a fast stream gives now and then."""
    monkeypatch.setattr("overlay.net.stream.STREAM_TURNS", 1)
    async with bench() as two:

        async def clogged() -> tuple[Stream, Stream]:
            pair = await two.pair(signed=signed)
            for stream in pair:
                await stream.send_all(bytes(WINDOW_FIRST))
            return pair

        with trio.fail_after(20):
            await trio.testing.check_half_closeable_stream(partial(two.pair, signed=signed), clogged)
            await trio.testing.check_two_way_stream(partial(two.pair, signed=signed), clogged)
        await two.wait_forgotten()


async def test_a_stream_gives_others_their_turn_however_much_waits() -> None:
    async with bench() as two:
        one, other = await two.pair()
        await one.send_all(bytes(WINDOW_FIRST))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for _ in range(1000):
                await other.receive_some(1)
            nursery.cancel_scope.cancel()
        assert turns > 1000 / 20


# --- large, many, both ways -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
async def test_twenty_mebibytes_come_back_while_keys_change(signed: bool) -> None:
    async with bench(streams={"echo": echo}, rekey=RekeyTimes.every(0.5)) as two:
        stream = await two.open("echo", signed=signed)
        sent, got = blake3(), blake3()
        link, _ = two.links

        async def push() -> None:
            number = 0
            while number < 20 or link.session.epoch < 3:
                part = noise(MIB, number)
                sent.update(part)
                await stream.send_all(part)
                number += 1
            await stream.send_eof()

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(push)
                while part := await stream.receive_some():
                    got.update(part)
        assert got.digest() == sent.digest()
        assert link.session.epoch >= 3
        assert bool(stream.segment) is signed
        await two.wait_forgotten()


async def test_many_streams_at_once_each_get_their_own_bytes() -> None:
    async with bench(streams={"echo": echo}) as two:

        async def one(number: int) -> None:
            stream = await two.open("echo", signed=bool(number % 2))
            data = noise(100_000 + number, number)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, data)
                got = b""
                while len(got) < len(data):
                    got += await stream.receive_some()
            await stream.aclose()
            assert got == data

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(one, number)
        await two.wait_forgotten()


async def test_no_more_streams_than_the_link_has_memory_for() -> None:
    async with bench() as two:
        for _ in range(64):
            await two.pair()
        peer = two.bob.node.identity.node_id
        with pytest.raises(UsageError):
            async with two.alice.node.open_stream(peer, "take", b"", signed=True):
                pass
        assert [len(link.streams) for link in two.links] == [64, 64]


async def test_both_sides_push_without_reading_and_nothing_stands_still_for_ever() -> None:
    async with bench() as two:
        one, other = await two.pair()
        data = {one: noise(8 * MIB, 1), other: noise(8 * MIB, 2)}
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for stream in (one, other):
                    nursery.start_soon(stream.send_all, data[stream])
                await trio.testing.wait_all_tasks_blocked(0.02)
                got = {one: bytearray(), other: bytearray()}

                async def read(stream: Stream) -> None:
                    while len(got[stream]) < 8 * MIB:
                        got[stream] += await stream.receive_some()

                nursery.start_soon(read, one)
                nursery.start_soon(read, other)
        assert bytes(got[one]) == data[other] and bytes(got[other]) == data[one]


async def test_a_slow_reader_slows_only_itself() -> None:
    async with bench(streams={"echo": echo}) as two:
        slow, unread = await two.pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.send_all, noise(2 * MIB))
            await trio.testing.wait_all_tasks_blocked(0.02)
            with trio.fail_after(10):
                peer = two.bob.node.identity.node_id
                assert await two.alice.node.call(peer, "shout", b"still there", 5.0) == b"STILL THERE"
                quick = await two.open("echo")
                await quick.send_all(b"me, too")
                assert await quick.receive_some() == b"me, too"
                got = bytearray()
                while len(got) < 2 * MIB:
                    got += await unread.receive_some()
        assert got == noise(2 * MIB)


async def test_what_a_reader_asks_for_is_what_it_gets() -> None:
    async with bench() as two:
        one, other = await two.pair()
        await one.send_all(b"0123456789")
        assert [await other.receive_some(size) for size in (1, 4, 100)] == [b"0", b"1234", b"56789"]
        await one.send_all(memoryview(bytearray(b"abcdef"))[1:3])
        assert await other.receive_some() == b"bc"


# --- who opens what -----------------------------------------------------------------------------------------------------


async def test_a_handler_sees_who_opened_it_and_what_was_said_first() -> None:
    async with bench() as two:
        await two.open("take", b"first words", signed=False)
        stream = await two.desk.next()
        assert (stream.peer.name, stream.peer.node_id) == ("alice", two.alice.node.identity.node_id)
        assert (stream.name, stream.body, stream.signed) == ("take", b"first words", False)


async def test_a_stream_to_no_handler_is_broken() -> None:
    async with bench() as two:
        stream = await two.open("nobody")
        assert "no such method" in await broken(stream.receive_some)
        assert "no such method" in await broken(lambda: stream.send_all(b"x"))
        await two.wait_forgotten()


async def test_there_is_no_stream_without_a_link() -> None:
    async with bench() as two:
        with pytest.raises(PeerUnreachable):
            async with two.alice.node.open_stream(NodeId(bytes(32)), "take", b"", signed=True):
                pass
        assert two.links[0].streams == {}


@pytest.mark.parametrize(("name", "size"), [("", 0), ("x" * 300, 0), ("take", 64 * 1024), ("take", MIB)])
async def test_a_name_or_body_that_no_stream_can_have_harms_nothing(name: str, size: int) -> None:
    async with bench() as two:
        peer = two.bob.node.identity.node_id
        with pytest.raises(UsageError):
            async with two.alice.node.open_stream(peer, name, bytes(size), signed=True):
                pass
        assert await two.alice.node.call(peer, "shout", b"still there", 5.0) == b"STILL THERE"


async def test_what_opened_a_stream_is_no_call_that_runs_again() -> None:
    """A stream and a call begin with the same signed bytes: whichever comes first is the only one."""
    ran: list[str] = []

    async def stream_runs(stream: Stream) -> None:
        ran.append("stream")

    async def call_runs(request: Request) -> bytes:
        ran.append("call")
        return b""

    async with bench(streams={"once": stream_runs}, services={"once": call_runs}) as two:
        link, _ = two.links
        number = link.session.streams.open("once", b"", signed=True, deadline=2**50, now=trio.current_time())
        [(kind, _, raw)] = link.session.streams.frames_to_send()
        link.session._outbox.put(kind, number, raw)
        link.send(FrameType.CALL, link.session.next_stream(), raw)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert ran == ["stream"]


async def test_nothing_is_opened_once_the_lease_has_run_out(autojump_clock: trio.testing.MockClock) -> None:
    """Not even in the moment before the link ends for it."""
    async with wired(*trio.testing.memory_stream_pair()) as (alice, bob):
        await opened(alice, bob)
        lease = alice.link.session.lease
        assert lease is not None
        autojump_clock.jump(lease.ends - trio.current_time())
        with pytest.raises(PeerUnreachable):
            alice.open()


# --- how handlers end ---------------------------------------------------------------------------------------------------


async def test_a_handler_that_returns_has_said_all() -> None:
    async def greet(stream: Stream) -> None:
        await stream.send_all(b"hello, ")
        await stream.send_all(b"and goodbye")

    async with bench(streams={"greet": greet}) as two:
        stream = await two.open("greet")
        with trio.fail_after(5):
            assert await read_all(stream) == b"hello, and goodbye"
        assert stream.signed_up_to == 18
        await broken(lambda: stream.send_all(b"x"))
        await stream.aclose()
        await two.wait_forgotten()


async def test_a_handler_that_raises_is_seen_as_failed_and_ends_nothing_else() -> None:
    async def fail(stream: Stream) -> None:
        await stream.send_all(b"before")
        raise ValueError("no such file")

    async with bench(streams={"fail": fail}) as two:
        stream = await two.open("fail")
        assert await stream.receive_some() == b"before"
        why = await broken(stream.receive_some)
        assert "failed" in why and "ValueError: no such file" in why
        await stream.aclose()
        await two.wait_forgotten()
        peer = two.bob.node.identity.node_id
        assert await two.alice.node.call(peer, "shout", b"still there", 5.0) == b"STILL THERE"


async def test_a_handler_may_refuse_whoever_comes() -> None:
    async def refuse(stream: Stream) -> None:
        raise NotAllowed("not you")

    async with bench(streams={"refuse": refuse}) as two:
        assert "not allowed" in await broken((await two.open("refuse")).receive_some)
        await two.wait_forgotten()


class Ending:
    """A handler that tells how what it read came to its end."""

    def __init__(self) -> None:
        self.got = b""
        self.error: Exception | None = None
        self.over = trio.Event()

    async def read(self, stream: Stream) -> None:
        try:
            while part := await stream.receive_some():
                self.got += part
        except (BrokenStream, Truncated) as error:
            self.error = error
        self.over.set()


@asynccontextmanager
async def watched(**changes: object) -> AsyncIterator[tuple[Bench, Ending]]:
    """Two nodes; the handler `read` reads until the end, of which this waits at the end of the block."""
    ending = Ending()
    async with bench(streams={"read": ending.read}, **changes) as two:
        yield two, ending
        with trio.fail_after(5):
            await ending.over.wait()
        await two.wait_forgotten()


async def test_leaving_the_block_in_order_is_an_end_that_is_signed() -> None:
    async with watched() as (two, ending), two.opened("read") as stream:
        await stream.send_all(b"all of it")
    assert (ending.got, ending.error) == (b"all of it", None)


async def test_an_exception_in_the_block_is_no_clean_end_for_the_other_side() -> None:
    async with watched() as (two, ending):
        with pytest.raises(KeyError):
            async with two.opened("read") as stream:
                await stream.send_all(b"the first half")
                raise KeyError
    assert (ending.got, type(ending.error)) == (b"the first half", BrokenStream)


async def test_a_send_that_is_cancelled_in_the_middle_is_no_clean_end() -> None:
    """Its block is left by trio.Cancelled: the other side gets a beginning, and is told that there was more."""
    data = noise(4 * MIB)
    go = trio.Event()

    async def read(stream: Stream) -> None:
        await go.wait()
        await ending.read(stream)

    ending = Ending()
    async with bench(streams={"read": read}) as two:
        with trio.move_on_after(5) as scope:
            async with two.opened("read") as stream, trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, data)
                await trio.testing.wait_all_tasks_blocked(0.02)
                scope.cancel()
        go.set()
        with trio.fail_after(5):
            await ending.over.wait()
        assert isinstance(ending.error, BrokenStream)
        assert data.startswith(ending.got) and 0 < len(ending.got) < len(data)
        await two.wait_forgotten()


async def test_a_block_left_in_order_after_half_of_a_send_is_no_clean_end_either() -> None:
    """The scope that cancelled the send lay within the block: nobody knows how much went, so nobody signs that it is all."""
    go = trio.Event()

    async def read(stream: Stream) -> None:
        await go.wait()
        await ending.read(stream)

    ending = Ending()
    async with bench(streams={"read": read}) as two:
        async with two.opened("read") as stream:
            with trio.move_on_after(0.05):
                await stream.send_all(noise(4 * MIB))
            await broken(partial(stream.send_all, b"and something else"))
        go.set()
        with trio.fail_after(5):
            await ending.over.wait()
        assert isinstance(ending.error, BrokenStream)
        await two.wait_forgotten()


async def test_a_send_that_was_cancelled_before_it_began_does_no_harm() -> None:
    async with watched() as (two, ending), two.opened("read") as stream:
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.send_all(b"never said")
        await stream.send_all(b"all of it")
    assert (ending.got, ending.error) == (b"all of it", None)


async def test_an_end_of_the_link_breaks_every_stream_on_both_sides() -> None:
    async with bench() as two:
        (one, other), (third, fourth) = await two.pair(), await two.pair()
        links = two.links
        await one.send_all(b"came in time")
        assert await other.receive_some(4) == b"came"
        why: list[str] = []

        async def wait(use: Callable[[], Awaitable[object]]) -> None:
            why.append(await broken(use))

        async with trio.open_nursery() as nursery:
            for stream in (one, third, fourth):
                nursery.start_soon(wait, stream.receive_some)
            nursery.start_soon(wait, partial(one.send_all, noise(MIB)))
            await trio.testing.wait_all_tasks_blocked(0.02)
            links[0].close(Reason.SHUTDOWN)
        assert len(why) == 4 and all("the link ended" in one for one in why)
        assert await other.receive_some() == b" in time"  # it had come
        for stream in (one, other, third, fourth):
            await broken(partial(stream.send_all, b"x"))
        assert [link.streams for link in links] == [{}, {}]


# --- what is signed -----------------------------------------------------------------------------------------------------


async def test_a_segment_can_be_shown_to_others_with_no_node() -> None:
    """By nothing but what stands in it, the opening call, and the certificates of the author."""
    async with bench() as two:
        one, other = await two.pair()
        data = noise(3 * SEGMENT_BYTES // 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send_all, data)
            got = bytearray()
            while len(got) < len(data):
                got += await other.receive_some()
        assert other.signed_up_to == SEGMENT_BYTES
        shown = [(other.segment, other.signed_up_to)]
        await one.send_eof()
        assert await read_all(other) == b""
        shown.append((other.segment, other.signed_up_to))
        _, link = two.links
        held = link.session.streams._held[next(iter(link.streams))]
        assert held.incoming is not None
        named: SignedStream = held.incoming._named
        own_id, peer = two.bob.node.identity.node_id, link.peer
    for number, (segment, offset) in enumerate(shown):
        found = verify_segment(segment, named, own_id=own_id, peer=peer)
        assert (found.index, found.offset, found.final) == (number, offset, number == 1)
        assert found.digest == blake3(data[:offset]).digest()


async def test_an_end_that_is_not_signed_is_truncation() -> None:
    """A peer that says END without its final segment: what came is given, and that there may be more."""
    async with watched() as (two, ending):
        stream = await two.open("read")
        await stream.send_all(b"not the whole")
        link, _ = two.links
        link.session._outbox.put(FrameType.STREAM_END, next(iter(link.streams)), b"")
        link.kick()
        with trio.fail_after(5):
            await ending.over.wait()
        await stream.aclose()
    assert (ending.got, type(ending.error)) == (b"not the whole", Truncated)


async def test_what_is_unsigned_is_signed_after_a_second_of_silence(autojump_clock: trio.testing.MockClock) -> None:
    async with wired(*trio.testing.memory_stream_pair()) as (alice, bob):
        one = alice.open()
        other = await bob.next()
        await one.send_all(b"a few bytes")
        await trio.sleep(0.9)
        assert other.signed_up_to == 0
        await trio.sleep(0.2)
        assert other.signed_up_to == 11
        await one.send_all(b", and more")
        await trio.sleep(1.1)
        assert other.signed_up_to == 21
        assert await other.receive_some() + await other.receive_some() == b"a few bytes, and more"


# --- who carries the bytes in -------------------------------------------------------------------------------------------

WHOSE: ContextVar[str] = ContextVar("WHOSE", default="nobody's")


async def test_what_a_reader_carries_in_for_others_does_not_run_in_its_context() -> None:
    """A task that waits reads for all of its link: handlers that begin meanwhile are not its children in any sense."""
    seen: list[str] = []

    async def note(stream: Stream) -> None:
        seen.append(WHOSE.get())

    async def service(request: Request) -> bytes:
        seen.append(WHOSE.get())
        return b""

    async with bench(streams={"note": note}, services={"note": service}) as two:
        one, other = await two.pair()
        alice, bob = two.alice.node, two.bob.node

        async def read() -> None:
            WHOSE.set("the reader's")
            assert await one.receive_some() == b"over"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await bob.call(alice.identity.node_id, "note", b"", 5.0)
            async with bob.open_stream(alice.identity.node_id, "note", b"", signed=False) as stream:
                assert await read_all(stream) == b""
            await other.send_all(b"over")
        assert seen == ["nobody's", "nobody's"]


Wire = Callable[[], Awaitable[tuple[trio.abc.Stream, trio.abc.Stream]]]


async def tcp() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        one = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return one, await listener.accept()


async def memory() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return trio.testing.memory_stream_pair()


async def lockstep() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Who sends waits until the other reads."""
    return trio.testing.lockstep_stream_pair()


every_wire = pytest.mark.parametrize("wire", [tcp, memory])


async def opened(alice: WiredEnd, bob: WiredEnd, *, signed: bool = True) -> tuple[Stream, Stream]:
    return alice.open(signed=signed), await bob.next()


async def is_read(end: WiredEnd, peer: WiredEnd) -> None:
    """Somebody carries in what comes to this end, though no task waits for it there."""
    peer.open(signed=False)
    (await end.next()).close()


@every_wire
async def test_readers_of_several_streams_each_get_their_own(wire: Wire) -> None:
    async with wired(*await wire()) as (alice, bob), trio.open_nursery() as nursery:
        pairs = [await opened(alice, bob) for _ in range(3)]
        got: dict[int, bytes] = {}

        async def read(number: int) -> None:
            got[number] = await pairs[number][0].receive_some()

        for number in range(3):
            nursery.start_soon(read, number)
        await trio.testing.wait_all_tasks_blocked(0.02)
        for number in (1, 2, 0):  # neither in the order in which they wait
            await pairs[number][1].send_all(b"%d" % number)
            with trio.fail_after(2):
                while number not in got:
                    await trio.lowlevel.checkpoint()
        assert got == {1: b"1", 2: b"2", 0: b"0"}


@every_wire
async def test_a_reader_that_goes_away_leaves_the_link_to_others(wire: Wire) -> None:
    """One that was cancelled while it carried bytes in, and one that got its own and does something else for ever."""
    async with wired(*await wire()) as (alice, bob), trio.open_nursery() as nursery:
        (first, _), (second, to_second), (third, to_third) = [await opened(alice, bob) for _ in range(3)]
        scope, got = trio.CancelScope(), trio.Event()

        async def give_up() -> None:
            with scope:
                await first.receive_some()

        async def never_come_back() -> None:
            assert await second.receive_some() == b"yours"
            got.set()
            await trio.sleep_forever()

        for task in (give_up, never_come_back):
            nursery.start_soon(task)
            await trio.testing.wait_all_tasks_blocked(0.02)
        scope.cancel()
        await to_second.send_all(b"yours")
        with trio.fail_after(2):
            await got.wait()
        await is_read(alice, bob)
        await to_third.send_all(b"and yours")
        with trio.fail_after(2):
            assert await third.receive_some() == b"and yours"
            await third.send_all(b"thanks")
            assert await to_third.receive_some() == b"thanks"
        nursery.cancel_scope.cancel()


@every_wire
async def test_a_link_that_nobody_waits_on_is_read_all_the_same(wire: Wire) -> None:
    """Its pump reads when no task leads: a stream is offered, and credit comes back."""
    async with wired(*await wire()) as (alice, bob):
        one, other = await opened(alice, bob)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.send_all, bytes(3 * WINDOW_FIRST))
                count = 0
                while count < 3 * WINDOW_FIRST:
                    count += len(await other.receive_some())


@every_wire
@pytest.mark.parametrize("readers", [1, 2, 3, 4])
async def test_a_stream_closed_here_wakes_whoever_reads_it(wire: Wire, readers: int) -> None:
    """Whether that task carried bytes in, waited for another one to do it, or was about to take over."""
    async with wired(*await wire()) as (alice, bob):
        streams = [(await opened(alice, bob))[0] for _ in range(readers)]
        for at_once in (True, False):
            for leaver in range(readers):
                async with trio.open_nursery() as nursery:
                    closed, woken = alice.open(), trio.Event()

                    async def read(stream: Stream = closed, woken: trio.Event = woken) -> None:
                        with pytest.raises(trio.ClosedResourceError):
                            await stream.receive_some()
                        woken.set()

                    for number, stream in enumerate(streams):
                        if number == leaver:
                            nursery.start_soon(read)
                        elif not at_once or number < leaver:
                            nursery.start_soon(stream.receive_some)
                    if not at_once:
                        await trio.testing.wait_all_tasks_blocked(0.01)
                    await trio.lowlevel.checkpoint()
                    closed.close()
                    with trio.fail_after(2):
                        await woken.wait()
                    nursery.cancel_scope.cancel()
                await is_read(alice, bob)


@every_wire
async def test_a_link_that_ends_wakes_every_reader(wire: Wire) -> None:
    async with wired(*await wire()) as (alice, bob):
        pairs = [await opened(alice, bob) for _ in range(3)]
        async with trio.open_nursery() as nursery:

            async def read(stream: Stream) -> None:
                with pytest.raises(BrokenStream):
                    await stream.receive_some()

            for pair in pairs:
                for stream in pair:
                    nursery.start_soon(read, stream)
            await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.cancel_scope.deadline = trio.current_time() + 5
            alice.link.close(Reason.SHUTDOWN)
        assert not nursery.cancel_scope.cancelled_caught
        for pair in pairs:
            for stream in pair:
                with pytest.raises(BrokenStream):
                    await stream.receive_some()


@every_wire
async def test_two_tasks_do_not_read_one_stream(wire: Wire) -> None:
    async with wired(*await wire()) as (alice, bob):
        one, other = await opened(alice, bob)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.receive_some)
            await trio.testing.wait_all_tasks_blocked(0.02)
            with trio.fail_after(2), pytest.raises(trio.BusyResourceError):
                await one.receive_some()
            nursery.cancel_scope.cancel()
        await other.send_all(b"one reader again")
        with trio.fail_after(2):
            assert await one.receive_some() == b"one reader again"


async def talk(mine: Stream, theirs: Stream, chance: random.Random, rounds: int) -> None:
    """Questions and answers, some of which nobody waits for in the end; what comes is what was sent, in order."""
    sent = got = 0
    for _ in range(rounds):
        size = chance.choice([1, 100, 70_000])
        await theirs.send_all((bytes([sent % 251]) * 1) + bytes(size - 1))
        sent += size
        while got < sent:
            with trio.move_on_after(chance.choice([0, 0, 0.0005, 10])):
                for _ in range(chance.randrange(3)):
                    await trio.lowlevel.checkpoint()
                got += len(await mine.receive_some(chance.choice([None, 10_000])))


@pytest.mark.parametrize(("wire", "seed"), [(tcp, 0), (tcp, 1), (tcp, 2), (memory, 3), (memory, 4), (lockstep, 5)])
async def test_no_wake_up_is_lost_whoever_leads_waits_or_is_cancelled(wire: Wire, seed: int) -> None:
    """Tasks at both ends wait on streams of one link, give up at random and come back. Then each waits alone, and is woken."""
    chance = random.Random(seed)
    async with wired(*await wire()) as (alice, bob):
        pairs = [await opened(alice, bob, signed=False) for _ in range(4)]
        ends = [pair if number % 2 else pair[::-1] for number, pair in enumerate(pairs)]
        with trio.fail_after(20):
            for _ in range(5):
                async with trio.open_nursery() as nursery:
                    for mine, theirs in ends:
                        nursery.start_soon(talk, mine, theirs, chance, 8)
                for mine, theirs in ends:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(mine.receive_some)
                        await trio.testing.wait_all_tasks_blocked()
                        await theirs.send_all(b"?")
