"""A node over the control socket is as good as the node itself."""

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from overlay.app.client import connect_local
from overlay.app.control import serve_control
from overlay.app.control_socket import CREDIT
from overlay.errors import (
    HostLacks,
    NotAllowed,
    OverlayError,
    PeerUnreachable,
    Refused,
    RemoteError,
    StateDamaged,
    UsageError,
)
from overlay.registry import Reason
from overlay.store.state import StateFolder
from tests.unit.app.node_kit import ALICE, BOB, CAROL, FakeNode, connected, served


async def test_who_it_is_is_known_at_once(tmp_path: Path) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    async with connected(tmp_path / "a", node) as remote:
        assert (remote.name, remote.node_id, remote.mesh_name, remote.mesh_id) == ("alice", ALICE, "test", node.mesh_id)
        assert [peer.info for peer in remote.peers] == [BOB]


async def test_peers_that_come_and_go_are_seen(tmp_path: Path) -> None:
    node = FakeNode()
    async with connected(tmp_path / "a", node) as remote:
        assert remote.peers == ()
        node.set_peers(BOB)
        assert (await remote.wait_peer("bob")).roles == ("worker",)
        node.set_peers(BOB, CAROL)
        assert [peer.name for peer in await remote.wait_members(3)] == ["bob", "carol"]
        assert (await remote.wait_peer(str(CAROL.node_id))).level == 1


async def test_a_call_goes_to_the_peer_and_back(tmp_path: Path) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    async with connected(tmp_path / "a", node) as remote:
        bob = await remote.wait_peer("bob")
        assert await bob.call("shout", b"hello \xff", timeout=7) == b"HELLO \xff"
        assert node.asked == [("shout", 7.0)]


async def test_a_body_of_one_mebibyte_fits(tmp_path: Path) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    async with connected(tmp_path / "a", node) as remote:
        body = b"x" * 1024 * 1024
        assert await (await remote.wait_peer("bob")).call("shout", body) == body.upper()


async def test_a_body_over_one_mebibyte_is_refused_and_the_connection_goes_on(tmp_path: Path) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    async with connected(tmp_path / "a", node) as remote:
        bob = await remote.wait_peer("bob")
        with pytest.raises(Refused) as refused:
            await bob.call("shout", b"x" * (1024 * 1024 + 1))
        assert refused.value.reason is Reason.TOO_LARGE
        assert await bob.call("shout", b"x") == b"X"


@pytest.mark.parametrize(
    "error",
    [
        PeerUnreachable("gone", hint="look"),
        RemoteError("it broke"),
        NotAllowed("no"),
        UsageError("what?"),
        Refused(Reason.EVIDENCE_STALE, "too old", hint="again"),
        OverlayError("something"),
    ],
)
async def test_an_error_arrives_as_what_it_was(tmp_path: Path, error: OverlayError) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    node.failure = error
    async with connected(tmp_path / "a", node) as remote:
        bob = await remote.wait_peer("bob")
        with pytest.raises(type(error)) as raised:
            await bob.call("shout", b"")
    assert type(raised.value) is type(error)
    assert (str(raised.value), raised.value.hint) == (str(error), error.hint)
    assert getattr(raised.value, "reason", None) is getattr(error, "reason", None)


async def test_a_peer_that_left_in_between_is_unreachable(tmp_path: Path) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    async with connected(tmp_path / "a", node) as remote:
        bob = await remote.wait_peer("bob")
        node.set_peers()
        with pytest.raises(PeerUnreachable):
            await bob.call("shout", b"")


async def test_calls_run_side_by_side(tmp_path: Path) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    async with connected(tmp_path / "a", node) as remote, trio.open_nursery() as nursery:
        bob = await remote.wait_peer("bob")
        nursery.start_soon(bob.call, "never", b"")
        assert await bob.call("shout", b"a") == b"A"
        nursery.cancel_scope.cancel()


async def test_a_cancelled_call_is_cancelled_in_the_node(tmp_path: Path) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    async with connected(tmp_path / "a", node) as remote:
        bob = await remote.wait_peer("bob")
        with trio.move_on_after(0.05):
            await bob.call("never", b"")
        with trio.fail_after(5):
            await node.cancelled.wait()
        assert await bob.call("shout", b"a") == b"A"


async def test_what_is_published_comes_to_the_subscriber(tmp_path: Path) -> None:
    node = FakeNode()
    async with connected(tmp_path / "a", node) as remote, remote.subscribe("news") as news:
        published = await remote.publish("news", b"stop press")
        assert (published.topic, published.seq, published.peers) == ("news", 0, 0)
        item = await anext(news)
        assert (item.author.name, item.author.level, item.body) == ("alice", 1, b"stop press")
        assert (await remote.publish("news", b"", transient=True)).seq is None


async def test_leaving_a_subscription_ends_it_in_the_node(tmp_path: Path) -> None:
    node = FakeNode()
    async with connected(tmp_path / "a", node) as remote:
        async with remote.subscribe("news"):
            pass
        with trio.fail_after(5):
            await node.cancelled.wait()


async def test_a_slow_subscriber_stops_its_subscription_and_nothing_else(tmp_path: Path) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    async with connected(tmp_path / "a", node) as remote, remote.subscribe("news") as news:
        for _ in range(300):
            await node.publish("news", b"x")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert node.pushed == CREDIT  # one credit went to "ready", and the last item waits in the server
        assert await (await remote.wait_peer("bob")).call("shout", b"a") == b"A"
        for _ in range(300):
            await anext(news)
        assert node.pushed == 300


async def test_entries_are_appended_read_followed_and_waited_for(tmp_path: Path) -> None:
    node = FakeNode()
    async with connected(tmp_path / "a", node) as remote, remote.audit.follow() as entries:
        receipt = await remote.audit.append("door.opened", {"door": "7b", "ok": [1, 2.5, None, "ä"]})
        assert (receipt.node_id, receipt.seq) == (ALICE, 0)
        assert await remote.audit.wait_replicated(receipt) == 3
        await remote.audit.append("door.closed")
        assert [entry.body["type"] for entry in await remote.audit.read()] == ["door.opened", "door.closed"]
        assert [entry.seq for entry in await remote.audit.read(node="alice", last=1)] == [1]
        assert await remote.audit.read(node="bob") == []
        first = await anext(entries)
        assert first == node.audit.entries[0]


async def test_a_long_log_can_be_read(tmp_path: Path) -> None:
    node = FakeNode()
    for number in range(500):
        await node.audit.append("x", number)
    async with connected(tmp_path / "a", node) as remote:
        assert [entry.body["value"] for entry in await remote.audit.read()] == list(range(500))


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes"])
async def test_a_value_that_json_cannot_hold_is_not_appended(tmp_path: Path, value: object) -> None:
    node = FakeNode()
    async with connected(tmp_path / "a", node) as remote:
        with pytest.raises(UsageError):
            await remote.audit.append("x", value)
    assert node.audit.entries == []


async def test_the_status_is_the_same_on_both_sides(tmp_path: Path) -> None:
    node = FakeNode()
    async with connected(tmp_path / "a", node) as remote:
        assert await remote.status() == await node.status()


async def test_a_node_can_be_asked_to_stop(tmp_path: Path) -> None:
    node = FakeNode()
    async with connected(tmp_path / "a", node) as remote:
        await remote.stop()
        assert node.stopped.is_set()


async def test_whoever_waits_gets_an_error_when_the_node_ends(tmp_path: Path) -> None:
    node = FakeNode()
    node.set_peers(BOB)
    async with served(tmp_path / "a", node) as server, connect_local(tmp_path / "a") as remote:
        bob = await remote.wait_peer("bob")
        errors: list[OverlayError] = []

        async def collect(wait: object, *arguments: object) -> None:
            with pytest.raises(OverlayError) as raised:
                await wait(*arguments)  # type: ignore[operator]
            errors.append(raised.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, bob.call, "never", b"")
            nursery.start_soon(collect, remote.wait_peer, "nobody")
            await trio.testing.wait_all_tasks_blocked(0.05)
            server.cancel()
        assert len(errors) == 2
        with pytest.raises(OverlayError, match="closed the connection"):
            await remote.status()


async def test_where_no_node_runs_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    StateFolder.create(tmp_path / "a").close()
    with pytest.raises(HostLacks, match="no node runs") as raised:
        async with connect_local(tmp_path / "a"):
            pass
    assert "overlay run" in raised.value.hint
    assert raised.value.exit_code == 3


async def test_a_node_that_is_just_starting_is_waited_for(tmp_path: Path) -> None:
    node = FakeNode()
    with StateFolder.create(tmp_path / "a"):
        async with trio.open_nursery() as nursery:

            async def start_later() -> None:
                await trio.testing.wait_all_tasks_blocked(0.02)
                await serve_control(node, tmp_path / "a", stop=node.stopped.set)

            nursery.start_soon(start_later)
            async with connect_local(tmp_path / "a") as remote:
                assert remote.name == "alice"
            nursery.cancel_scope.cancel()


async def test_a_process_that_holds_the_folder_and_does_not_listen_is_named(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with StateFolder.create(tmp_path / "a"), pytest.raises(HostLacks, match=f"process {os.getpid()} holds"):
        async with connect_local(tmp_path / "a"):
            pass


async def test_a_folder_without_a_node_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no node"):
        async with connect_local(tmp_path / "nothing"):
            pass


async def test_a_folder_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    StateFolder.create(tmp_path / "a").close()
    (tmp_path / "a").chmod(0o755)
    with pytest.raises(StateDamaged):
        async with connect_local(tmp_path / "a"):
            pass
