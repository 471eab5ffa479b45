"""The audit log between whole nodes: durable here, then on every node; a restart goes on; an edit shows."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from audit.checkpoint import parse_checkpoint
from audit.verifier import Report, verify_store
from overlay.app.api import EntryFilter
from overlay.app.client import connect_local
from overlay.app.local import LocalNode
from overlay.errors import CheckFailed
from overlay.events import ChainRejected
from overlay.registry import Reason
from overlay.store.state import AUDIT_STORE
from overlay.testing import mesh
from tests.shell.folder_kit import Started, enrolled, started


def verified(node: LocalNode) -> Report:
    return verify_store(node.folder / AUDIT_STORE, node.engine.parts.trust().root)


async def values(node: LocalNode, author: str) -> list[object]:
    return [view.body["value"] for view in await node.audit.read(node=author) if view.type == "application"]


async def test_an_audit_entry_is_on_every_node_when_wait_replicated_returns() -> None:
    async with mesh("alice", "bob", "carol") as (alice, bob, carol):
        entry = await alice.audit.append("door.opened", {"door": "7b"})
        with trio.fail_after(10):
            assert await alice.audit.wait_replicated(entry) == 2
        for node in (bob, carol):
            assert await values(node, "alice") == [{"door": "7b"}]
            verified(node).demand()


async def test_entries_of_all_at_once_are_the_same_on_all() -> None:
    async with mesh("alice", "bob", "carol") as nodes:

        async def write(node: LocalNode) -> None:
            for number in range(20):
                entry = await node.audit.append("count", number)
            await node.audit.wait_replicated(entry)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(write, node)
        for node in nodes:
            for author in nodes:
                assert await values(node, author.name) == list(range(20))


async def test_a_node_that_was_away_gets_what_it_missed(tmp_path: Path) -> None:
    folders = enrolled(tmp_path, "alice", "bob")
    async with started(folders[0]) as alice:
        async with started(folders[1], alice.node) as bob:
            await alice.node.audit.wait_replicated(await alice.node.audit.append("count", 1))
        last = [await alice.node.audit.append("count", number) for number in range(2, 500)][-1]
        async with started(folders[1], alice.node) as bob:
            with trio.fail_after(10):
                assert await alice.node.audit.wait_replicated(last) == 1
            assert await values(bob.node, "alice") == list(range(1, 500))


async def test_a_restart_goes_on_with_the_same_log(tmp_path: Path) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    async with started(folder) as alice:
        first = await alice.node.audit.append("count", 1)
    async with started(folder) as alice:
        second = await alice.node.audit.append("count", 2)
        assert second.log_id == first.log_id
        assert second.seq > first.seq
        assert await values(alice.node, "alice") == [1, 2]
        (log,) = verified(alice.node).logs
        assert log.holds


async def test_a_log_whose_end_was_edited_is_left_and_the_next_one_says_so(tmp_path: Path) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    async with started(folder) as alice:
        first = await alice.node.audit.append("count", 1)
    edit_end(folder)
    async with started(folder) as alice:
        second = await alice.node.audit.append("count", 2)
        assert second.log_id != first.log_id
        assert any("damaged" in warning for warning in alice.node.statistics().warnings)


async def test_a_folder_that_was_restored_gets_what_it_lacks_and_begins_the_next_log(tmp_path: Path) -> None:
    alices, bobs = enrolled(tmp_path, "alice", "bob")
    async with started(bobs) as bob:
        async with started(alices, bob.node) as alice:
            await alice.node.audit.wait_witnessed(await alice.node.audit.append("count", "old"))
        shutil.copytree(alices, tmp_path / "backup", ignore=shutil.ignore_patterns("control.sock"))
        async with started(alices, bob.node) as alice:
            lost = await alice.node.audit.append("count", "lost")
            await alice.node.audit.wait_witnessed(lost)
        async with started(tmp_path / "backup", bob.node) as restored:
            new = await restored.node.audit.append("count", "new")
            await restored.node.audit.wait_witnessed(new)
            assert new.log_id != lost.log_id
            assert await values(restored.node, "alice") == ["old", "lost", "new"]
            verified(restored.node).demand()
        assert await values(bob.node, "alice") == ["old", "lost", "new"]
        assert not any(isinstance(event, ChainRejected) and event.reason is Reason.FORKED for event in bob.events)
        verified(bob.node).demand()
        (opening,) = [one.body for one in await bob.node.audit.read(node="alice") if one.type == "log_open" and one.body["k"]]
        assert opening["reason"] == "newer copy elsewhere"
        assert opening["old_log"] == lost.log_id.hex()
        assert opening["old_size"] > lost.seq
        assert parse_checkpoint(bytes.fromhex(opening["old_checkpoint"])).says.size > lost.seq


async def test_a_cloned_folder_that_runs_beside_the_first_writes_a_log_of_its_own(tmp_path: Path) -> None:
    alices, bobs = enrolled(tmp_path, "alice", "bob")
    async with started(bobs) as bob:
        async with started(alices, bob.node) as alice:
            await alice.node.audit.wait_witnessed(await alice.node.audit.append("count", "before"))
        clone = tmp_path / "clone"
        shutil.copytree(alices, clone, ignore=shutil.ignore_patterns("control.sock"))
        async with started(alices, bob.node) as alice:
            first = await alice.node.audit.append("count", "first")
            await alice.node.audit.wait_witnessed(first)
            async with started(clone, bob.node) as second:
                other = await second.node.audit.append("count", "second")
                await second.node.audit.wait_witnessed(other)
                assert other.log_id != first.log_id
        assert sorted(map(str, await values(bob.node, "alice"))) == ["before", "first", "second"]
        assert not any(isinstance(event, ChainRejected) and event.reason is Reason.FORKED for event in bob.events)
        verified(bob.node).demand()


async def test_a_start_that_cannot_ask_its_witnesses_begins_a_log_that_claims_nothing(tmp_path: Path) -> None:
    alices, bobs = enrolled(tmp_path, "alice", "bob")
    async with started(bobs) as bob, started(alices, bob.node) as alice:
        first = await alice.node.audit.append("count", 1)
        await alice.node.audit.wait_witnessed(first)
    async with started(alices) as alice:
        second = await alice.node.audit.append("count", 2)
        assert second.log_id != first.log_id
        opening = [one.body for one in await alice.node.audit.read(node="alice") if one.type == "log_open"][-1]
        assert opening["reason"] == "unconfirmed"
        assert opening["k"] > 1_700_000_000  # the time of the start: an old copy could have opened k + 1 before
        verified(alice.node).demand()


async def test_a_mesh_that_starts_all_at_once_goes_on_with_its_logs(tmp_path: Path) -> None:
    folders = enrolled(tmp_path, "alice", "bob", "carol")
    logs = []
    for round_number in range(2):
        async with AsyncExitStack() as stack:
            nodes: list[Started] = []
            for folder in folders:
                nodes.append(await stack.enter_async_context(started(folder, *(one.node for one in nodes))))
            for one in nodes:
                entry = await one.node.audit.append("count", round_number)
                await one.node.audit.wait_witnessed(entry)
                logs.append(entry.log_id)
    assert logs[:3] == logs[3:]


# --- what is edited on the disk shows -----------------------------------------------------------------------------------


def edit(folder: Path) -> None:
    """One byte of the stored entry that says "7b"."""
    with sqlite3.connect(folder / AUDIT_STORE) as connection:
        query = "SELECT log, seq, raw FROM entries WHERE instr(raw, CAST(? AS BLOB)) > 0"
        ((log, seq, raw),) = connection.execute(query, (b'"7b"',)).fetchall()
        changed = raw.replace(b'"7b"', b'"7c"')
        connection.execute("UPDATE entries SET raw = ? WHERE log = ? AND seq = ?", (changed, log, seq))
    connection.close()


def edit_end(folder: Path) -> None:
    """The last byte of the last entry."""
    with sqlite3.connect(folder / AUDIT_STORE) as connection:
        ((seq, raw),) = connection.execute("SELECT seq, raw FROM entries ORDER BY seq DESC LIMIT 1").fetchall()
        connection.execute("UPDATE entries SET raw = ? WHERE seq = ?", (raw[:-1] + bytes([raw[-1] ^ 1]), seq))
    connection.close()


def remove(folder: Path) -> None:
    """That entry as a whole."""
    with sqlite3.connect(folder / AUDIT_STORE) as connection:
        connection.execute("DELETE FROM entries WHERE instr(raw, CAST(? AS BLOB)) > 0", (b'"7b"',))
    connection.close()


@pytest.mark.parametrize("harm", [edit, remove])
@pytest.mark.parametrize("later", [0, 3])
async def test_an_edited_copy_does_not_verify_and_names_the_entry(harm: Callable[[Path], None], later: int) -> None:
    async with mesh("alice", "bob") as (alice, bob):
        entry = await alice.audit.append("door.opened", "7b")
        for number in range(later):
            await alice.audit.wait_replicated(await alice.audit.append("count", number))
        await alice.audit.wait_replicated(entry)
        verified(bob).demand()
        harm(bob.folder)
        with pytest.raises(CheckFailed, match=f"entry {entry.seq} does not hold"):
            verified(bob).demand()
        verified(alice).demand()


async def test_entries_are_filtered_here_and_over_the_control_socket() -> None:
    async with mesh("alice") as (alice,), connect_local(alice.folder) as remote:
        only = EntryFilter(types=("door.opened",), text="7B")
        async with remote.audit.follow(only=only) as far, alice.audit.follow(only=only) as near:
            for kind, door in (("door.opened", "8c"), ("other", "7b"), ("door.opened", "7b")):
                await alice.audit.append(kind, {"door": door})
            with trio.fail_after(10):
                for entries in (far, near):
                    assert (await anext(entries)).body == {"type": "door.opened", "value": {"door": "7b"}}
        for node in (alice, remote):
            found = await node.audit.read(only=EntryFilter(types=("door.opened",)))
            assert [view.body["value"]["door"] for view in found] == ["8c", "7b"]
            at = found[-1].at
            assert [view.seq for view in await node.audit.read(only=EntryFilter(since=at, types=("door.opened",)))][-1:] == [
                found[-1].seq
            ]
            assert await node.audit.read(only=EntryFilter(until=at - timedelta(days=1))) == []
            assert len(await node.audit.read(only=EntryFilter(types=("log_open",)), last=5)) == 1
