"""A link over streams in memory: three pumps, tasks that lead, and an end that the other side understands."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest
import trio
import trio.testing

from overlay.core.gate import SeenEphemerals
from overlay.core.handshake import HandshakeContext
from overlay.core.limits import RECEIVE_SIZE
from overlay.core.session import Session, SessionConfig
from overlay.core.session_events import Closed, Event, EvidenceWanted, Failed, MessageReceived, Opened
from overlay.errors import PeerUnreachable
from overlay.net.link import Link
from overlay.net.system import SystemChance
from overlay.registry import EvidenceKind, FrameType, Reason, Role
from tests.unit.core.authority_kit import Member
from tests.unit.core.session_kit import ALICE, BOB, GATE, LAB, TAG, HashAppraiser, evidence_for, local

MIB = 1024 * 1024


class Valve(trio.abc.HalfCloseableStream):
    """A stream that can be made to take nothing, or to lose what is sent, without anyone being told."""

    def __init__(self, inner: trio.abc.HalfCloseableStream) -> None:
        self._inner = inner
        self._open = trio.Event()
        self._open.set()
        self.cut = False

    def shut(self) -> None:
        self._open = trio.Event()

    def open(self) -> None:
        self._open.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._open.wait()
        return await self._inner.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.cut:
            await trio.lowlevel.checkpoint()
        else:
            await self._inner.send_all(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        if not self.cut:
            await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._inner.aclose()


class End:
    """A link and its owner, who answers for evidence and remembers what it was told."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, role: Role, member: Member) -> None:
        handshake = HandshakeContext(
            identity=local(member), trust=lambda: LAB.trust, calendar=lambda: LAB.at, chance=SystemChance(),
            gate_keys=(GATE,), tag=TAG, seen=SeenEphemerals(),
        )
        config = SessionConfig(handshake=handshake, appraiser=HashAppraiser(), evidence_kind=EvidenceKind.SOFTWARE)
        self.stream = Valve(stream)
        self.link = Link(self.stream, Session(role, config, trio.current_time()), owner=self.take, address="memory")
        self.scope = trio.CancelScope()
        self.opened, self.ended, self.done = trio.Event(), trio.Event(), trio.Event()
        self._heard_in, self._heard = trio.open_memory_channel[bytes](math.inf)

    def take(self, link: Link, event: Event) -> None:
        match event:
            case EvidenceWanted(binding=binding):
                link.supply_evidence(evidence_for(binding))
            case Opened():
                self.opened.set()
            case MessageReceived(body=body):
                self._heard_in.send_nowait(body)
            case Closed() | Failed():
                self.ended.set()

    async def run(self) -> None:
        with self.scope:
            await self.link.run()
        self.done.set()

    async def take_messages(self, count: int) -> list[bytes]:
        return [await self._heard.receive() for _ in range(count)]

    def say(self, body: bytes) -> None:
        self.link.send(FrameType.CALL, self.link.session.next_stream(), body)


@asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[End, End]]:
    """Alice dials Bob over streams without any room: who sends waits until the other reads. Both links run."""
    one, other = trio.testing.lockstep_stream_pair()
    alice, bob = End(one, Role.OPENER, ALICE), End(other, Role.OTHER, BOB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alice.run)
        nursery.start_soon(bob.run)
        yield alice, bob
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_ends() -> AsyncIterator[tuple[End, End]]:
    """The same, when both are open."""
    async with two_ends() as (alice, bob):
        await alice.opened.wait()
        await bob.opened.wait()
        yield alice, bob


def parts(name: str) -> list[bytes]:
    """5 MiB, each MiB another."""
    return [sha256(f"{name} {number}".encode()).digest() * (MIB // 32) for number in range(5)]


async def test_both_ends_push_five_mebibytes_that_nobody_takes_yet_and_neither_waits_for_the_other() -> None:
    async with open_ends() as (alice, bob):
        for to_bob, to_alice in zip(parts("alice"), parts("bob"), strict=True):
            alice.say(to_bob)
            bob.say(to_alice)
        with trio.fail_after(20):
            assert await bob.take_messages(5) == parts("alice")
            assert await alice.take_messages(5) == parts("bob")


async def test_a_cancelled_link_still_says_goodbye() -> None:
    async with open_ends() as (alice, bob):
        alice.scope.cancel()
        with trio.fail_after(5):
            await alice.done.wait()
            await bob.done.wait()
        assert bob.link.ended == Closed(Reason.SHUTDOWN, by_peer=True)
        assert alice.link.ended == Closed(Reason.SHUTDOWN, by_peer=False)


async def test_what_was_said_before_the_end_comes_before_the_end() -> None:
    async with open_ends() as (alice, bob):
        for body in parts("alice"):
            alice.say(body)
        alice.link.close(Reason.DUPLICATE)
        with trio.fail_after(5):
            await bob.done.wait()
            assert await bob.take_messages(5) == parts("alice")
        assert bob.link.ended == Closed(Reason.DUPLICATE, by_peer=True)


async def test_a_connection_that_ends_without_a_goodbye_is_lost() -> None:
    async with open_ends() as (alice, bob):
        await trio.aclose_forcefully(alice.stream)
        with trio.fail_after(5):
            await alice.done.wait()
            await bob.done.wait()
        for end in (alice, bob):
            assert isinstance(end.link.ended, Failed)
            assert end.link.ended.reason is Reason.LOST


async def test_a_link_that_has_ended_takes_nothing_more() -> None:
    async with open_ends() as (alice, bob):
        alice.link.close(Reason.SHUTDOWN)
        with pytest.raises(PeerUnreachable):
            alice.say(b"too late")
        await bob.done.wait()


# --- time, which here jumps to the next thing that is due ---------------------------------------------------------------


async def test_a_peer_that_takes_nothing_for_ten_seconds_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    async with open_ends() as (alice, bob):
        bob.stream.shut()
        began = trio.current_time()
        alice.say(bytes(MIB))
        await alice.ended.wait()
        assert isinstance(alice.link.ended, Failed)
        assert alice.link.ended.reason is Reason.SLOW_CONSUMER
        assert 10 <= trio.current_time() - began < 12
        bob.stream.open()
        await bob.ended.wait()
        assert bob.link.ended == Closed(Reason.SLOW_CONSUMER, by_peer=True)  # and no record that does not decrypt


async def test_a_peer_that_is_slow_and_never_stands_still_is_not_cut(autojump_clock: trio.testing.MockClock) -> None:
    async with open_ends() as (alice, bob):
        bob.stream.shut()
        alice.say(bytes(MIB))
        for _ in range(MIB // RECEIVE_SIZE + 1):
            await trio.sleep(9)
            bob.stream.open()
            await trio.testing.wait_all_tasks_blocked()
            bob.stream.shut()
        assert alice.link.is_open
        bob.stream.open()
        assert await bob.take_messages(1) == [bytes(MIB)]


async def test_a_queue_of_ten_mebibytes_is_the_end_of_the_link(autojump_clock: trio.testing.MockClock) -> None:
    async with open_ends() as (alice, bob):
        bob.stream.shut()
        with pytest.raises(PeerUnreachable, match="takes nothing more"):
            for _ in range(11):
                alice.say(bytes(MIB))
        assert alice.link.ended == Closed(Reason.SLOW_CONSUMER, by_peer=False)
        await alice.done.wait()


async def test_a_peer_that_says_nothing_at_first_has_five_seconds(autojump_clock: trio.testing.MockClock) -> None:
    one, _silent = trio.testing.lockstep_stream_pair()
    bob = End(one, Role.OTHER, BOB)
    began = trio.current_time()
    await bob.run()
    assert isinstance(bob.link.ended, Failed)
    assert bob.link.ended.reason is Reason.TIMEOUT
    assert 5 <= trio.current_time() - began < 7


async def test_a_peer_behind_a_cut_cable_is_dead_after_three_pings(autojump_clock: trio.testing.MockClock) -> None:
    async with open_ends() as (alice, bob):
        alice.stream.cut = bob.stream.cut = True
        began = trio.current_time()
        await alice.ended.wait()
        assert isinstance(alice.link.ended, Failed)
        assert alice.link.ended.reason is Reason.DEAD
        assert 45 <= trio.current_time() - began <= 61


# --- TCP ----------------------------------------------------------------------------------------------------------------


async def test_a_goodbye_reaches_a_peer_that_is_still_sending() -> None:
    """A socket that is closed with unread bytes in it resets the connection, and the peer would never read why."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        one = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        alice, bob = End(one, Role.OPENER, ALICE), End(await listener.accept(), Role.OTHER, BOB)
        nursery.start_soon(alice.run)
        nursery.start_soon(bob.run)
        with trio.fail_after(10):
            await alice.opened.wait()
            await bob.opened.wait()
            for body in parts("alice"):
                alice.say(body)
            bob.link.close(Reason.DUPLICATE)
            await alice.done.wait()
        assert alice.link.ended == Closed(Reason.DUPLICATE, by_peer=True)
