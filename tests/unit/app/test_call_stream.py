"""Answers in parts through the control socket."""

import math
from pathlib import Path

import pytest
import trio
import trio.testing

from overlay.app.control_socket import CREDIT
from overlay.errors import PeerUnreachable, RemoteError
from tests.unit.app.node_kit import BOB, FakeNode, connected


def fake_node() -> FakeNode:
    node = FakeNode()
    node.set_peers(BOB)
    return node


async def test_parts_come_one_by_one_and_end(tmp_path: Path) -> None:
    node = fake_node()
    async with connected(tmp_path / "a", node) as remote:
        bob = await remote.wait_peer("bob")
        async with bob.call_stream("letters", b"ab\xff") as parts:
            assert [part async for part in parts] == [b"A", b"B", b"\xff"]
        assert await bob.call("shout", b"x") == b"X"


async def test_an_error_after_some_parts_arrives_as_what_it_was(tmp_path: Path) -> None:
    node = fake_node()
    node.failure = RemoteError("ValueError: no", hint="look", kind="ValueError")
    async with connected(tmp_path / "a", node) as remote:
        bob = await remote.wait_peer("bob")
        async with bob.call_stream("broken", b"a") as parts:
            assert await anext(parts) == b"A"
            with pytest.raises(RemoteError) as caught:
                await anext(parts)
    assert (str(caught.value), caught.value.hint, caught.value.kind) == ("ValueError: no", "look", "ValueError")


async def test_leaving_the_block_early_ends_the_call_in_the_node(tmp_path: Path) -> None:
    node = fake_node()
    async with connected(tmp_path / "a", node) as remote:
        bob = await remote.wait_peer("bob")
        async with bob.call_stream("never", b"a") as parts:
            assert await anext(parts) == b"A"
        with trio.fail_after(5):
            await node.cancelled.wait()


async def test_a_reader_that_does_not_read_stops_its_own_call_and_nothing_else(tmp_path: Path) -> None:
    node = fake_node()
    body = b"x" * (3 * CREDIT)
    async with connected(tmp_path / "a", node) as remote:
        bob = await remote.wait_peer("bob")
        async with bob.call_stream("letters", body) as parts:
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert node.letters == CREDIT + 1  # the last one waits in the server
            assert await bob.call("shout", b"x") == b"X"
            assert b"".join([part async for part in parts]) == body.upper()


async def test_waiting_without_end_is_waiting_for_a_day(tmp_path: Path) -> None:
    node = fake_node()
    async with connected(tmp_path / "a", node) as remote:
        bob = await remote.wait_peer("bob")
        await bob.call("shout", b"x", timeout=math.inf)
    assert node.asked == [("shout", 86_400.0)]


async def test_a_peer_that_left_in_between_is_unreachable(tmp_path: Path) -> None:
    node = fake_node()
    async with connected(tmp_path / "a", node) as remote:
        bob = await remote.wait_peer("bob")
        node.set_peers()
        async with bob.call_stream("letters", b"x") as parts:
            with pytest.raises(PeerUnreachable):
                await anext(parts)
