"""A node and connections that want to hold places for nothing: who gives way, and whose address is known."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from overlay.core.gate import NO_TAG, make_hello
from overlay.core.limits import HALF_OPEN_PER_ADDRESS
from overlay.events import LinkRefused, PeerUp
from overlay.net.node import Node
from overlay.registry import Mode, Reason
from tests.shell.node_kit import fresh_mesh, make_parts, running
from tests.unit.core.session_kit import GATE


def greeting(key: bytes = GATE) -> bytes:
    ephemeral = secrets.token_bytes(32)
    return make_hello(key, Mode.MEMBER, NO_TAG, ephemeral) + b"\x00\x20" + ephemeral


@asynccontextmanager
async def visitor(node: Node, first: bytes) -> AsyncIterator[trio.SocketStream]:
    async with await trio.open_tcp_stream("127.0.0.1", node.port) as stream:
        await stream.send_all(first)
        yield stream


async def is_heard(stream: trio.SocketStream) -> bool:
    """Whether message 2 comes, and no end."""
    with trio.fail_after(5):
        try:
            return await stream.receive_some() != b""
        except trio.BrokenResourceError:
            return False


async def test_who_shows_the_gate_key_and_then_nothing_gives_way_and_a_member_links_at_once() -> None:
    mesh = fresh_mesh()
    async with running(make_parts(mesh, "alice")) as alice, AsyncExitStack() as stack:
        for _ in range(HALF_OPEN_PER_ADDRESS):
            stream = await stack.enter_async_context(visitor(alice.node, greeting()))
            assert await is_heard(stream)
        assert alice.node.pool.load.half_open == HALF_OPEN_PER_ADDRESS
        async with running(make_parts(mesh, "bob", seeds=[alice.seed])) as bob:
            with trio.fail_after(3):
                await bob.saw(PeerUp)
            refused = await alice.saw(LinkRefused)
            assert isinstance(refused, LinkRefused)
            assert refused.reason is Reason.BUSY
            assert alice.node.pool.load.half_open == HALF_OPEN_PER_ADDRESS - 1


async def test_a_connection_that_ended_leaves_its_place() -> None:
    async with running(make_parts(fresh_mesh(), "alice")) as alice:
        async with visitor(alice.node, greeting()) as stream:
            assert await is_heard(stream)
            assert alice.node.pool.load.half_open == 1
        await alice.saw(LinkRefused)
        assert alice.node.pool.load.half_open == 0


async def test_a_stranger_is_told_nothing_and_our_log_says_why() -> None:
    async with running(make_parts(fresh_mesh(), "alice")) as alice, visitor(alice.node, greeting(b"x" * 32)) as stream:
        assert not await is_heard(stream)
        refused = await alice.saw(LinkRefused)
        assert isinstance(refused, LinkRefused)
        assert refused.reason is Reason.BAD_GATE


async def test_the_address_of_a_member_has_a_quota_of_its_own_while_it_is_linked() -> None:
    mesh = fresh_mesh()
    async with running(make_parts(mesh, "alice")) as alice:
        load = alice.node.pool.load

        def others_use_up_theirs() -> None:
            for number in range(100):
                load.closed(load.enter(f"10.0.0.{number}", trio.current_time(), gated=True).place or 0)

        others_use_up_theirs()
        async with visitor(alice.node, greeting()) as stream:
            assert not await is_heard(stream)
        async with running(make_parts(mesh, "bob", seeds=[alice.seed])):
            await alice.saw(PeerUp)
            others_use_up_theirs()
            async with visitor(alice.node, greeting()) as stream:
                assert await is_heard(stream)
