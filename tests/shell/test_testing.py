"""`overlay.testing.mesh`, and through it the whole of a node: calls, topics, the audit log, the state folder."""

import shutil
import sqlite3
from pathlib import Path

import pytest
import trio

from audit.verify import verify_store
from overlay.app.compose import open_node
from overlay.app.config import Config
from overlay.app.enrol import found_mesh
from overlay.core.policy import Policy
from overlay.errors import CheckFailed, PeerUnreachable, StateInUse, UsageError
from overlay.net.peer import Request
from overlay.registry import Reason
from overlay.store.state import AUDIT_STORE, StateFolder
from overlay.testing import mesh

ALONE = Config(listen=("127.0.0.1", 0), mdns=False, evidence="software")


async def shout(request: Request) -> bytes:
    return f"{request.peer.name}: {request.body.decode()}".upper().encode()


async def test_three_nodes_know_each_other_and_call_each_other() -> None:
    async with mesh("alice", "bob", "carol", services={"alice": {"shout": shout}}) as (alice, bob, carol):
        assert [peer.name for peer in alice.peers] == ["bob", "carol"]
        for node in (bob, carol):
            peer = await node.wait_peer("alice")
            assert await peer.call("shout", b"hello") == f"{node.name}: hello".upper().encode()


async def test_who_subscribes_late_gets_what_was_kept_in_its_order_and_then_what_comes() -> None:
    async with mesh("alice", "bob") as (alice, bob):
        for number in range(3):
            assert (await alice.publish("news", bytes([number]))).seq == number
        async with bob.subscribe("news") as items:
            with trio.fail_after(10):
                found = [await anext(items) for _ in range(3)]
                await alice.publish("news", b"late")
                found.append(await anext(items))
        assert [item.body for item in found] == [b"\0", b"\1", b"\2", b"late"]
        assert {(item.author.name, item.author.level) for item in found} == {("alice", 1)}


async def test_a_transient_publication_reaches_who_listens() -> None:
    async with mesh("alice", "bob") as (alice, bob), bob.subscribe("now") as items:
        await alice.publish("now", b"first, kept: now bob knows alice's log")
        with trio.fail_after(10):
            assert (await anext(items)).seq == 0
            await alice.publish("now", b"tick", transient=True)
            item = await anext(items)
        assert (item.body, item.seq) == (b"tick", None)


async def test_a_cancelled_wait_for_an_item_loses_nothing() -> None:
    async with mesh("alice") as (alice,), alice.subscribe("news") as items:
        with trio.move_on_after(0.05):
            await anext(items)
        await alice.publish("news", b"one")
        with trio.fail_after(5):
            assert (await anext(items)).body == b"one"


async def test_an_audit_entry_is_on_every_node_when_wait_replicated_returns() -> None:
    async with mesh("alice", "bob", "carol") as (alice, bob, carol):
        entry = await alice.audit.append("door.opened", {"door": "7b"})
        with trio.fail_after(10):
            assert await alice.audit.wait_replicated(entry) == 2
        for node in (bob, carol):
            views = await node.audit.read(node="alice")
            assert [view.body["value"] for view in views if view.type == "application"] == [{"door": "7b"}]
            report = verify_store(node.folder / AUDIT_STORE, node.engine.parts.trust().root)
            report.demand()


async def test_an_edited_byte_in_a_stored_entry_is_named() -> None:
    async with mesh("alice", "bob") as (alice, bob):
        entry = await alice.audit.append("door.opened", {"door": "7b"})
        await alice.audit.wait_replicated(entry)
        root = bob.engine.parts.trust().root
        path = bob.folder / AUDIT_STORE
        with sqlite3.connect(path) as connection:
            _edit(connection)
        connection.close()
        report = verify_store(path, root)
        with pytest.raises(CheckFailed, match=f"entry {entry.seq} does not hold"):
            report.demand()


def _edit(connection: sqlite3.Connection) -> None:
    query = "SELECT log, seq, raw FROM entries WHERE instr(raw, CAST(? AS BLOB)) > 0"
    ((log, seq, raw),) = connection.execute(query, (b'"7b"',)).fetchall()
    connection.execute("UPDATE entries SET raw = ? WHERE log = ? AND seq = ?", (raw.replace(b'"7b"', b'"7c"'), log, seq))


async def test_a_restart_goes_on_with_the_same_log(tmp_path: Path) -> None:
    with StateFolder.create(tmp_path / "alice") as folder:
        found_mesh(folder, "alice", "home", Policy.default(), None)
    async with open_node(tmp_path / "alice", config=ALONE) as alice:
        first = await alice.audit.append("one")
    async with open_node(tmp_path / "alice", config=ALONE) as alice:
        second = await alice.audit.append("two")
        assert second.log_id == first.log_id
        assert second.seq > first.seq
        assert [view.body["type"] for view in await alice.audit.read() if view.type == "application"] == ["one", "two"]


async def test_a_second_node_in_one_folder_is_told_who_has_it(tmp_path: Path) -> None:
    with StateFolder.create(tmp_path / "alice") as folder:
        found_mesh(folder, "alice", "home", Policy.default(), None)
    async with open_node(tmp_path / "alice", config=ALONE):
        with pytest.raises(StateInUse, match="in use by process"):
            async with open_node(tmp_path / "alice", config=ALONE):
                raise AssertionError


async def test_a_node_that_belongs_to_no_mesh_says_what_to_do(tmp_path: Path) -> None:
    StateFolder.create(tmp_path / "nobody").close()
    with pytest.raises(UsageError) as caught:
        async with open_node(tmp_path / "nobody", config=ALONE):
            raise AssertionError
    assert "overlay init" in caught.value.hint


async def test_a_peer_that_is_gone_cannot_be_called() -> None:
    async with mesh("alice", "bob") as (alice, bob):
        peer = await bob.wait_peer("alice")
        alice.engine.pool.close(Reason.SHUTDOWN)
        with trio.fail_after(10):
            while bob.peers:
                await bob.wait_peers_change()
        with pytest.raises(PeerUnreachable):
            await peer.call("anything")


async def test_what_the_body_raises_comes_out_bare() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with mesh("alice", "bob"):
            raise KeyError("mine")


@pytest.mark.parametrize("names", [(), ("alice", "alice")])
async def test_names_are_given_once(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one name"):
        async with mesh(*names):
            raise AssertionError


async def test_a_restored_folder_goes_on_without_a_break_in_others_copies(tmp_path: Path) -> None:
    with StateFolder.create(tmp_path / "alice") as folder:
        found_mesh(folder, "alice", "home", Policy.default(), None)
    async with open_node(tmp_path / "alice", config=ALONE) as alice:
        await alice.audit.append("kept")
    shutil.copytree(tmp_path / "alice", tmp_path / "backup", ignore=shutil.ignore_patterns("control.sock"))
    async with open_node(tmp_path / "backup", config=ALONE) as restored:
        entry = await restored.audit.append("after")
        root = restored.engine.parts.trust().root
        verify_store(tmp_path / "backup" / AUDIT_STORE, root).demand()
        assert entry.seq > 0
