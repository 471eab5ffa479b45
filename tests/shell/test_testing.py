"""`overlay.testing.mesh`, and what every node of a state folder says when it cannot start."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from overlay.app.compose import open_node
from overlay.errors import PeerUnreachable, RemoteError, StateInUse, UsageError
from overlay.net.request import Request
from overlay.registry import Reason
from overlay.store.state import StateFolder
from overlay.testing import mesh
from tests.shell.folder_kit import ALONE, enrolled


async def shout(request: Request) -> bytes:
    return f"{request.peer.name}: {request.body.decode()}".upper().encode()


async def test_three_nodes_know_each_other_and_call_each_other() -> None:
    async with mesh("alice", "bob", "carol", services={"alice": {"shout": shout}}) as (alice, bob, carol):
        assert [peer.name for peer in alice.peers] == ["bob", "carol"]
        for node in (bob, carol):
            peer = await node.wait_peer("alice")
            assert await peer.call("shout", b"hello") == f"{node.name}: hello".upper().encode()
        with pytest.raises(RemoteError, match="no service 'shout'"):
            await (await alice.wait_peer("bob")).call("shout", b"hello")


async def test_a_hundred_calls_at_once_are_each_answered_with_their_own() -> None:
    answers: dict[int, bytes] = {}
    async with mesh("alice", "bob", services={"alice": {"shout": shout}}) as (_, bob):
        alice = await bob.wait_peer("alice")

        async def call(number: int) -> None:
            answers[number] = await alice.call("shout", b"x%d" % number)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(call, number)
    assert answers == {number: b"BOB: X%d" % number for number in range(100)}


async def test_a_peer_that_is_gone_cannot_be_called() -> None:
    async with mesh("alice", "bob") as (alice, bob):
        peer = await bob.wait_peer("alice")
        alice.engine.pool.close(Reason.SHUTDOWN)
        with trio.fail_after(10):
            while bob.peers:
                await bob.wait_peers_change()
        with pytest.raises(PeerUnreachable):
            await peer.call("anything")


async def test_two_meshes_of_the_same_names_have_nothing_in_common() -> None:
    async with mesh("alice") as (one,), mesh("alice") as (other,):
        assert one.mesh_id != other.mesh_id
        assert one.node_id != other.node_id


async def test_nothing_is_left_after_the_block() -> None:
    async with mesh("alice", "bob") as nodes:
        folders, ports = [node.folder for node in nodes], [node.port for node in nodes]
    assert not any(folder.exists() for folder in folders)
    for port in ports:
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", port)


async def test_what_the_body_raises_comes_out_bare() -> None:
    mine = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with mesh("alice", "bob"):
            raise mine
    assert caught.value is mine


async def test_a_cancelled_block_ends_as_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with mesh("alice", "bob"):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_nodes_get_the_roles_that_they_are_given() -> None:
    async with mesh("alice", "bob", "carol", roles={"bob": ("signer", "worker")}) as nodes:
        found = {one.name: one.statistics().roles for one in nodes}
    assert found["bob"] == ("signer", "worker")
    assert found["carol"] == ()


@pytest.mark.parametrize("name", ["alice", "dave"])
async def test_roles_for_the_founder_or_for_nobody_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="roles to all but the first"):
        async with mesh("alice", "bob", roles={name: ("signer",)}):
            raise AssertionError


@pytest.mark.parametrize(
    ("names", "services"), [((), {}), (("alice", "alice"), {}), (("alice",), {"bob": {"shout": shout}})]
)
async def test_wrong_arguments_are_refused(names: tuple[str, ...], services: Mapping[str, Mapping[str, object]]) -> None:
    with pytest.raises(ValueError, match="one name"):
        async with mesh(*names, services=services):  # type: ignore[arg-type]
            raise AssertionError


@pytest.mark.parametrize("name", ["Alice!", "", "a" * 64])
async def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a name"):
        async with mesh(name):
            raise AssertionError


# --- one node ------------------------------------------------------------------------------------------------------------


async def test_a_second_node_in_one_folder_is_told_who_has_it(tmp_path: Path) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    async with open_node(folder, config=ALONE) as alice:
        with pytest.raises(StateInUse, match="in use by process") as caught:
            async with open_node(folder, config=ALONE):
                raise AssertionError
        assert caught.value.pid == os.getpid()
        assert (await alice.audit.append("still here")).seq > 0



async def test_a_folder_is_free_again_after_the_block(tmp_path: Path) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    for _ in range(3):
        async with open_node(folder, config=ALONE) as alice:
            assert alice.name == "alice"


async def test_a_node_that_belongs_to_no_mesh_says_what_to_do(tmp_path: Path) -> None:
    StateFolder.create(tmp_path / "nobody").close()
    with pytest.raises(UsageError) as caught:
        async with open_node(tmp_path / "nobody", config=ALONE):
            raise AssertionError
    assert "overlay init" in caught.value.hint
