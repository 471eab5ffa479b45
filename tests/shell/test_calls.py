"""Calls between two nodes' desks: answers in parts, credit, cancellation, deadlines, and links that end."""

import math
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
import trio.testing

from overlay.core import limits
from overlay.core.limits import REPLY_WINDOW
from overlay.core.messages import sign_call
from overlay.core.rpc import Calls, SeenCalls
from overlay.core.session_events import MessageReceived
from overlay.errors import DeadlineExceeded, NotAllowed, PeerUnreachable, RemoteError, UsageError
from overlay.net.desk import CallDesk
from overlay.net.peer import Peer
from overlay.net.request import Handler, PeerInfo, Request
from overlay.registry import FrameType, Reason
from tests.shell.node_kit import fresh_mesh, linked
from tests.unit.core.authority_kit import Member
from tests.unit.core.session_kit import ALICE, BOB, LAB, SeededChance, local

H1 = b"h" * 32
EPOCH = datetime(2026, 3, 1, tzinfo=UTC)
MIB = 1024 * 1024


class Numbers:
    """Stream ids, as a session gives them."""

    def __init__(self, first: int) -> None:
        self._next = first - 2

    def next_stream(self) -> int:
        self._next += 2
        return self._next


class FakeLink:
    """One end of a link without bytes: messages go to the other end's desk as they are."""

    def __init__(self, own: Member, peer: Member, first: int) -> None:
        self.peer = peer.peer
        self.replies: set[bytes] = set()
        self.is_open = True
        self.session = Numbers(first)
        self.full = False
        self.said: list[FrameType] = []
        self.waits = 0
        self._room = trio.Event()
        self.out, self.queue = trio.open_memory_channel[MessageReceived](math.inf)
        self._author = own.peer
        identity = local(own)
        self.calls = Calls(
            identity=lambda: identity, mesh_id=LAB.mesh_id, first_h=H1, chance=SeededChance(first), seen=SeenCalls(),
            send=self.send,
        )  # fmt: skip

    def send(self, frame: FrameType, stream: int, body: bytes) -> None:
        if not self.is_open:
            raise PeerUnreachable("the link is not open")
        self.said.append(frame)
        self.out.send_nowait(MessageReceived(frame, stream, body, self._author))

    async def wait_room(self) -> None:
        while self.full and self.is_open:
            self.waits += 1
            await self._room.wait()

    async def wait_for(self, lot: trio.lowlevel.ParkingLot) -> None:
        await lot.park()

    def empty(self) -> None:
        self.full = False
        self._room.set()


@dataclass
class End:
    """A node, as far as calls know it: CallPort over one link."""

    desk: CallDesk
    link: FakeLink
    caller: PeerInfo  # who is at the other end

    async def call(self, peer: Any, method: str, body: bytes, timeout: float) -> bytes:
        return await self.desk.call(self.link, peer, method, body, timeout)

    def call_stream(self, peer: Any, method: str, body: bytes, timeout: float) -> Any:
        return self.desk.call_stream(self.link, peer, method, body, timeout)

    @property
    def other(self) -> Peer:
        return Peer(self.caller, self)

    async def read(self, messages: trio.MemoryReceiveChannel[MessageReceived]) -> None:
        """What the reader of a link does."""
        desk, link = self.desk, self.link
        async for message in messages:
            match message.type:
                case FrameType.CALL:
                    desk.on_call(link, link.calls, message, self.caller)
                case FrameType.REPLY:
                    desk.on_reply(link.calls, message)
                case FrameType.CANCEL:
                    desk.on_cancel(link, link.calls, message)
                case FrameType.REPLY_CREDIT:
                    desk.on_credit(link.calls, message)

    def lose_link(self) -> None:
        self.link.is_open = False
        self.link.empty()
        self.desk.link_ended(self.link)


@dataclass
class Pair:
    """Alice calls, Bob answers."""

    alice: End
    bob: End

    @property
    def peer(self) -> Peer:
        return self.alice.other

    async def settle(self) -> None:
        """Until nobody can go on."""
        await trio.testing.wait_all_tasks_blocked()

    @property
    def under_way(self) -> tuple[int, int]:
        return self.alice.link.calls.under_way, self.bob.link.calls.under_way


@asynccontextmanager
async def pair(services: Mapping[str, Handler], *, skew: float = 0.0) -> AsyncIterator[Pair]:
    """`skew`: seconds that Bob's clock is ahead of Alice's."""
    began = trio.current_time()

    def clock() -> datetime:
        return EPOCH + timedelta(seconds=trio.current_time() - began)

    def clock_ahead() -> datetime:
        return clock() + timedelta(seconds=skew)

    async with trio.open_nursery() as nursery:
        alice = End(CallDesk({}, nursery, clock), FakeLink(ALICE, BOB, 1), PeerInfo(BOB.node_id, "bob", (), 1))
        bob = End(CallDesk(services, nursery, clock_ahead), FakeLink(BOB, ALICE, 2), PeerInfo(ALICE.node_id, "alice", (), 1))
        nursery.start_soon(alice.read, bob.link.queue)
        nursery.start_soon(bob.read, alice.link.queue)
        yield Pair(alice, bob)
        nursery.cancel_scope.cancel()


@dataclass
class Service:
    """Services that say what happened to them."""

    started: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    given: int = 0
    requests: list[Request] = field(default_factory=list)

    async def hang(self, request: Request) -> bytes:
        self.requests.append(request)
        self.started.set()
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()
        raise AssertionError

    async def count(self, request: Request) -> AsyncIterator[bytes]:
        """As many parts as the body says, each of a quarter of the window."""
        try:
            for number in range(int(request.body)):
                self.given = number + 1
                yield bytes([number]) * (REPLY_WINDOW // 4)
        finally:
            self.ended.set()

    @property
    def all(self) -> dict[str, Handler]:
        return {"hang": self.hang, "count": self.count, "shout": shout, "three": three, "none": none}


async def shout(request: Request) -> bytes:
    return request.body.upper()


async def three(request: Request) -> AsyncIterator[bytes]:
    for number in range(3):
        yield request.body + b"%d" % number


async def none(request: Request) -> AsyncIterator[bytes]:
    for _ in ():
        yield b""


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_a_call_is_answered() -> None:
    async with pair(Service().all) as both:
        assert await both.peer.call("shout", b"hello") == b"HELLO"
        assert both.under_way == (0, 0)


async def test_an_answer_in_parts_comes_part_by_part() -> None:
    async with pair(Service().all) as both:
        async with both.peer.call_stream("three", b"x") as parts:
            assert [part async for part in parts] == [b"x0", b"x1", b"x2"]
            assert [part async for part in parts] == []
        assert both.under_way == (0, 0)
        assert FrameType.CANCEL not in both.alice.link.said


@pytest.mark.parametrize(("method", "body", "expected"), [("shout", b"hi", [b"HI"]), ("shout", b"", []), ("none", b"", [])])
async def test_an_answer_in_one_piece_is_one_part_and_an_empty_one_is_none(method: str, body: bytes, expected: Any) -> None:
    async with pair(Service().all) as both, both.peer.call_stream(method, body) as parts:
        assert [part async for part in parts] == expected


async def test_a_call_in_one_piece_of_a_service_that_answers_in_parts_is_an_error_with_a_hint_and_ends_it() -> None:
    service = Service()
    async with pair(service.all) as both:
        with pytest.raises(RemoteError, match="answers in parts") as caught:
            await both.peer.call("count", b"99")
        assert "call_stream" in caught.value.hint
        await both.settle()
        assert service.ended.is_set()
        assert both.under_way == (0, 0)


async def test_other_objects_with_parts_may_answer_too() -> None:
    class Two:
        """An async iterator that is no generator."""

        def __init__(self) -> None:
            self._left = [b"1", b"2"]

        def __aiter__(self) -> "Two":
            return self

        async def __anext__(self) -> bytes:
            if not self._left:
                raise StopAsyncIteration
            return self._left.pop(0)

    async with pair({"two": lambda _: Two()}) as both, both.peer.call_stream("two") as parts:
        assert [part async for part in parts] == [b"1", b"2"]


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_what_a_handler_raises_reaches_the_caller_with_its_kind() -> None:
    async def fail(request: Request) -> bytes:
        raise ValueError("no such door")

    async def fail_late(request: Request) -> AsyncIterator[bytes]:
        yield b"one"
        raise LookupError("\ud800")  # no text that could be sent as it is

    async with pair({"fail": fail, "late": fail_late}) as both:
        with pytest.raises(RemoteError, match="ValueError: no such door") as caught:
            await both.peer.call("fail")
        assert caught.value.kind == "ValueError"
        async with both.peer.call_stream("late") as parts:
            assert await anext(parts) == b"one"
            with pytest.raises(RemoteError) as caught:
                await anext(parts)
        assert caught.value.kind == "LookupError"
        assert both.under_way == (0, 0)


async def test_a_handler_may_refuse_before_and_between_parts() -> None:
    async def refuse(request: Request) -> bytes:
        raise NotAllowed("not you")

    async def refuse_late(request: Request) -> AsyncIterator[bytes]:
        yield b"one"
        raise NotAllowed("no more")

    async with pair({"no": refuse, "late": refuse_late}) as both:
        with pytest.raises(NotAllowed):
            await both.peer.call("no")
        with pytest.raises(NotAllowed):
            async with both.peer.call_stream("late") as parts:
                assert [part async for part in parts] == [b"one"]


@pytest.mark.parametrize("given", ["text", None, bytes(MIB + 1)], ids=["text", "None", "too long"])
async def test_a_handler_that_gives_no_bytes_or_too_many_has_failed(given: Any) -> None:
    async def wrong(request: Request) -> Any:
        return given

    async def wrong_parts(request: Request) -> AsyncIterator[Any]:
        yield given

    async with pair({"wrong": wrong, "parts": wrong_parts}) as both:
        with pytest.raises(RemoteError, match="a service gives"):
            await both.peer.call("wrong")
        with pytest.raises(RemoteError, match="a service gives"):
            async with both.peer.call_stream("parts") as parts:
                await anext(parts)


async def test_a_service_that_is_not_there_is_an_error_in_both_forms() -> None:
    async with pair({}) as both:
        with pytest.raises(RemoteError, match="no service"):
            await both.peer.call("nothing")
        async with both.peer.call_stream("nothing") as parts:
            with pytest.raises(RemoteError, match="no service"):
                await anext(parts)


@pytest.mark.parametrize("timeout", [-1.0, math.nan])
async def test_a_timeout_is_a_number_from_zero(timeout: float) -> None:
    async with pair(Service().all) as both:
        with pytest.raises(UsageError):
            await both.peer.call("shout", timeout=timeout)
        with pytest.raises(UsageError):
            async with both.peer.call_stream("three", timeout=timeout):
                raise AssertionError


# --- credit -----------------------------------------------------------------------------------------------------------


async def test_a_reader_that_does_not_read_stops_that_handler_and_no_other_call() -> None:
    service = Service()
    async with pair(service.all) as both:
        async with both.peer.call_stream("count", b"40") as parts:
            await both.settle()
            assert service.given == 5  # four fill the window, and the fifth waits in its yield
            assert await both.peer.call("shout", b"still here") == b"STILL HERE"
            assert [part[0] async for part in parts] == list(range(40))
        assert both.under_way == (0, 0)
        assert service.ended.is_set()


async def test_a_part_waits_for_room_on_the_link() -> None:
    service = Service()
    async with pair(service.all) as both, both.peer.call_stream("three") as parts:
        both.bob.link.full = True
        await both.settle()
        assert FrameType.REPLY not in both.bob.link.said
        both.bob.link.empty()
        assert len([part async for part in parts]) == 3


async def test_an_answer_and_a_call_wait_for_room_on_the_link() -> None:
    async with pair(Service().all) as both, trio.open_nursery() as nursery:
        both.alice.link.full = both.bob.link.full = True
        nursery.start_soon(both.peer.call, "shout", b"x")
        await both.settle()
        assert both.alice.link.said == []
        both.alice.link.empty()
        await both.settle()
        assert both.alice.link.said == [FrameType.CALL]
        assert both.bob.link.said == []
        both.bob.link.empty()


async def test_a_call_for_which_no_room_comes_in_time_is_never_sent(autojump_clock: trio.testing.MockClock) -> None:
    async with pair(Service().all) as both:
        both.alice.link.full = True
        with pytest.raises(DeadlineExceeded):
            await both.peer.call("shout")
        with pytest.raises(DeadlineExceeded):
            async with both.peer.call_stream("three"):
                raise AssertionError
        assert both.alice.link.said == []


async def test_a_peer_that_is_busy_says_so() -> None:
    async with pair(Service().all) as both:
        for _ in range(limits.CALLS_UNDER_WAY):
            raw = sign_call(
                local(ALICE), LAB.mesh_id, to=BOB.node_id, call_id=secrets.token_bytes(16), first_h=H1, method="hang",
                deadline=0, body=b"",
            )
            both.alice.link.send(FrameType.CALL, 1, raw)
        with pytest.raises(RemoteError, match="busy"):
            await both.peer.call("shout")


# --- cancelled --------------------------------------------------------------------------------------------------------


async def test_a_cancelled_call_ends_the_handler_and_counts_nowhere_after_that() -> None:
    service = Service()
    async with pair(service.all) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.peer.call, "hang")
            await service.started.wait()
            assert both.under_way == (1, 1)
            nursery.cancel_scope.cancel()
        await both.settle()
        assert service.ended.is_set()
        assert both.under_way == (0, 0)


async def test_a_call_that_takes_too_long_ends_the_handler(autojump_clock: trio.testing.MockClock) -> None:
    service = Service()
    async with pair(service.all) as both:
        began = trio.current_time()
        with pytest.raises(DeadlineExceeded):
            await both.peer.call("hang", timeout=7)
        await both.settle()
        assert service.ended.is_set()
        assert trio.current_time() - began == pytest.approx(7)
        await both.settle()
        assert both.under_way == (0, 0)


async def test_leaving_the_block_early_ends_a_handler_that_waits_for_credit() -> None:
    service = Service()
    async with pair(service.all) as both:
        async with both.peer.call_stream("count", b"99") as parts:
            assert (await anext(parts))[0] == 0
            await both.settle()
        await both.settle()
        assert service.ended.is_set()
        assert service.given < 10
        assert both.under_way == (0, 0)


async def test_an_error_in_the_block_ends_the_handler_and_comes_out_as_it_was() -> None:
    service = Service()
    async with pair(service.all) as both:
        with pytest.raises(KeyError, match="mine"):
            async with both.peer.call_stream("count", b"99"):
                await both.settle()
                raise KeyError("mine")
        await both.settle()
        assert service.ended.is_set()


async def test_a_part_that_does_not_come_in_time_is_an_error_and_reading_slowly_is_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(request: Request) -> AsyncIterator[bytes]:
        for pause in (5, 5, 20):
            await trio.sleep(pause)
            yield b"part"

    async with pair({"slow": slow}) as both, both.peer.call_stream("slow", timeout=10) as parts:
        assert await anext(parts) == b"part"
        await trio.sleep(100)
        assert await anext(parts) == b"part"
        await trio.lowlevel.checkpoint()
        assert await anext(parts) == b"part"
    async with pair({"slow": slow}) as both, both.peer.call_stream("slow", timeout=10) as parts:
        assert [await anext(parts) for _ in range(2)] == [b"part"] * 2
        with pytest.raises(DeadlineExceeded):
            await anext(parts)


async def test_a_call_that_is_cancelled_before_its_handler_has_begun_never_runs() -> None:
    service = Service()
    async with pair({"hang": service.hang}) as both:
        calls, end = both.alice.link.calls, both.bob
        calls.cancel(calls.call(BOB.node_id, 1, "hang", b"", 0))
        call, cancel = (both.alice.link.queue.receive_nowait() for _ in range(2))  # as if they came in one record
        end.desk.on_call(end.link, end.link.calls, call, end.caller)
        end.desk.on_cancel(end.link, end.link.calls, cancel)
        await both.settle()
        assert not service.requests
        assert both.under_way == (0, 0)


async def test_a_handler_may_finish_what_it_must_when_it_is_cancelled() -> None:
    started, finished = trio.Event(), trio.Event()

    async def careful(request: Request) -> bytes:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                finished.set()
        raise AssertionError

    async with pair({"careful": careful}) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.peer.call, "careful")
            await started.wait()
            nursery.cancel_scope.cancel()
        await both.settle()
        assert finished.is_set()


async def test_a_handler_with_tasks_of_its_own_that_fails_while_it_is_cancelled_harms_nobody() -> None:
    started = trio.Event()

    async def clumsy() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in the middle of the end")

    async def nested(request: Request) -> bytes:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clumsy)
            nursery.start_soon(trio.sleep_forever)
        raise AssertionError

    async with pair({"nested": nested, "shout": shout}) as both:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.peer.call, "nested")
            await started.wait()
            nursery.cancel_scope.cancel()
        await both.settle()
        assert both.under_way == (0, 0)
        assert await both.peer.call("shout", b"x") == b"X"


# --- deadlines --------------------------------------------------------------------------------------------------------


async def test_a_handler_knows_how_many_seconds_are_left(autojump_clock: trio.testing.MockClock) -> None:
    service = Service()
    async with pair(service.all) as both:
        for timeout in (8.0, math.inf):
            with trio.move_on_after(9), pytest.raises(DeadlineExceeded):
                await both.peer.call("hang", timeout=timeout)
        async with both.peer.call_stream("hang", timeout=8):
            await both.settle()
        assert [request.deadline for request in service.requests] == [pytest.approx(8.0), math.inf, math.inf]


async def test_a_handler_whose_clock_is_ahead_runs_on_until_its_caller_gives_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = Service()
    async with pair(service.all, skew=200) as both:
        with pytest.raises(DeadlineExceeded):
            await both.peer.call("hang", timeout=100)
        assert service.requests[0].deadline == 0.0
        assert await both.peer.call("shout", b"x", timeout=1) == b"X"


async def test_a_handler_is_ended_when_its_deadline_is_over_even_if_its_caller_does_not_say_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    service = Service()
    async with pair(service.all) as both:
        began = trio.current_time()
        both.alice.link.calls.call(BOB.node_id, 1, "hang", b"", int((EPOCH.timestamp() + 30) * 1000))
        await service.ended.wait()
        assert trio.current_time() - began == pytest.approx(30 + limits.CLOCK_TOLERANCE)
        await both.settle()
        assert both.under_way == (0, 0)


async def test_a_call_that_comes_far_too_late_never_runs() -> None:
    service = Service()
    async with pair(service.all, skew=limits.CLOCK_TOLERANCE + 31) as both:
        with pytest.raises(DeadlineExceeded, match="clock"):
            await both.peer.call("hang", timeout=30)
        assert not service.requests


# --- links that end -----------------------------------------------------------------------------------------------------


async def test_when_the_link_ends_callers_hear_it_and_handlers_end() -> None:
    service = Service()
    async with pair(service.all) as both:

        async def call() -> None:
            with pytest.raises(PeerUnreachable):
                await both.peer.call("hang")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await service.started.wait()
            both.alice.lose_link()
        both.bob.lose_link()
        await both.settle()
        assert service.ended.is_set()
        assert both.bob.link.calls.under_way == 0


async def test_what_came_before_the_link_ended_can_still_be_read() -> None:
    async with pair(Service().all) as both, both.peer.call_stream("count", b"99") as parts:
        await both.settle()
        both.alice.lose_link()
        for number in range(4):
            assert (await anext(parts))[0] == number
        for _ in range(2):
            with pytest.raises(PeerUnreachable):
                await anext(parts)


async def test_a_handler_that_waits_for_room_on_a_dead_link_ends() -> None:
    service = Service()
    async with pair(service.all) as both, both.peer.call_stream("count", b"99"):
        both.bob.link.full = True
        await both.settle()
        both.bob.lose_link()
        await both.settle()
        assert service.ended.is_set()
        assert both.bob.link.calls.under_way == 0


async def test_without_a_link_nobody_is_reached() -> None:
    async with pair({}) as both:
        both.alice.lose_link()
        with pytest.raises(PeerUnreachable):
            await both.peer.call("shout")
        with pytest.raises(PeerUnreachable):
            async with both.peer.call_stream("shout"):
                raise AssertionError


async def test_a_caller_that_takes_no_answers_ends_its_own_link_and_not_the_node() -> None:
    async with pair({}) as both:
        raw = sign_call(
            local(ALICE), LAB.mesh_id, to=BOB.node_id, call_id=bytes(16), first_h=H1, method="m", deadline=1, body=b""
        )
        both.bob.link.is_open = False  # as it is when too much waits to be sent
        both.bob.desk.on_call(
            both.bob.link, both.bob.link.calls, MessageReceived(FrameType.CALL, 1, raw, ALICE.peer), both.bob.caller
        )
        assert both.bob.link.calls.under_way == 0


# --- over real links ------------------------------------------------------------------------------------------------------


async def test_parts_cross_a_real_link_and_a_slow_reader_slows_only_itself() -> None:
    service = Service()
    async with linked(fresh_mesh(), "alice", "bob", services=service.all) as (_, bob):
        (peer,) = bob.node.peers
        with trio.fail_after(10):
            async with peer.call_stream("count", b"40") as parts:
                assert (await anext(parts))[0] == 0
                assert await peer.call("shout", b"x") == b"X"
                assert service.given < 10
                assert [part[0] async for part in parts] == list(range(1, 40))


async def test_a_handler_on_another_node_ends_with_its_call_and_with_its_link() -> None:
    service = Service()
    async with linked(fresh_mesh(), "alice", "bob", services=service.all) as (alice, bob):
        (peer,) = bob.node.peers
        with trio.fail_after(10):
            with pytest.raises(DeadlineExceeded):
                await peer.call("hang", timeout=0.1)
            await service.ended.wait()
            service.started, service.ended = trio.Event(), trio.Event()
            async with peer.call_stream("hang"):
                await service.started.wait()
                alice.node.pool.close(Reason.SHUTDOWN)
                await service.ended.wait()
