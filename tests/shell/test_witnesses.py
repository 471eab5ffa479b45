"""Witnesses on real nodes: who cosigns, and who is not waited for."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from overlay.app.api import EntryReceipt
from overlay.app.client import connect_local
from overlay.app.compose import open_node
from overlay.app.local import LocalNode
from overlay.errors import NoWitnesses
from overlay.events import PeerWarning
from overlay.testing import mesh
from tests.shell.folder_kit import ALONE, enrolled, started


async def witnessed(node: LocalNode, said: str) -> EntryReceipt:
    """An entry of this node that so many have cosigned: each round of asking names those who were heard of since."""
    while True:
        entry = await node.audit.append("count", 1)
        if await node.audit.wait_witnessed(entry) == said:
            return entry


async def test_two_nodes_witness_each_other() -> None:
    async with mesh("alice", "bob") as (alice, bob):
        entry = await alice.audit.append("door.opened", {"door": "7b"})
        with trio.fail_after(10):
            assert await alice.audit.wait_witnessed(entry) == "1 of 1, tolerates 0 liars"
            assert await bob.audit.wait_witnessed(entry) == "1 of 1, tolerates 0 liars"


async def test_of_three_nodes_two_witness_the_third_and_all_know() -> None:
    async with mesh("alice", "bob", "carol") as (alice, bob, carol):
        with trio.fail_after(10):
            entry = await witnessed(alice, "2 of 2, tolerates 0 liars")
            for node in (bob, carol):
                assert await node.audit.wait_witnessed(entry) == "2 of 2, tolerates 0 liars"


async def test_where_somebody_has_the_role_only_those_witness() -> None:
    async with mesh("alice", "bob", "carol", "dave", roles={"carol": ("witness",)}) as (alice, *_):
        with trio.fail_after(10):
            while True:
                await witnessed(alice, "1 of 1, tolerates 0 liars")
                sets = [one.body["nodes"] for one in await alice.audit.read(node="alice") if one.type == "witnesses"]
                if sets[-1] == [str(peer.node_id) for peer in alice.peers if peer.name == "carol"]:
                    return


async def test_alone_nobody_is_waited_for() -> None:
    async with mesh("alice") as (alice,):
        entry = await alice.audit.append("door.opened", {"door": "7b"})
        with pytest.raises(NoWitnesses, match="no other member"):
            await alice.audit.wait_witnessed(entry)
        async with connect_local(alice.folder) as remote:
            with pytest.raises(NoWitnesses, match="no other member"):
                await remote.audit.wait_witnessed(entry)


async def test_a_program_that_shares_a_node_waits_for_its_witnesses() -> None:
    async with mesh("alice", "bob") as (alice, _), connect_local(alice.folder) as remote:
        entry = await remote.audit.append("door.opened", {"door": "7b"})
        with trio.fail_after(10):
            assert await remote.audit.wait_witnessed(entry) == "1 of 1, tolerates 0 liars"


async def test_a_node_that_begins_one_log_after_the_other_is_named_in_every_status(tmp_path: Path) -> None:
    alices, bobs = enrolled(tmp_path, "alice", "bob")
    async with started(bobs) as bob, started(alices, bob.node) as alice:
        await witnessed(alice.node, "1 of 1, tolerates 0 liars")
    hasty = replace(ALONE, witness_wait=0.05)
    for _ in range(3):
        async with open_node(alices, config=hasty) as lone:
            entry = await lone.audit.append("count", 1)
            with trio.fail_after(10):
                while not any(one.type == "witnesses" and one.log_id == entry.log_id for one in await lone.audit.read()):
                    await trio.testing.wait_all_tasks_blocked(0.01)
    async with started(bobs) as bob, started(alices, bob.node) as alice:
        many = "alice has begun 4 logs within a day: it cannot confirm that its copy is the newest one"
        await bob.saw(PeerWarning(name="alice", node="", detail=many))
        for node in (alice.node, bob.node):
            assert many in node.statistics().warnings


async def test_each_start_has_a_witness_key_of_its_own(tmp_path: Path) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    keys = set()
    for _ in range(2):
        async with started(folder) as alice:
            endorsement = alice.node.engine.identity.verified.endorsement
            assert endorsement.witness_public not in {None, endorsement.message_public}
            keys.add(endorsement.witness_public)
    assert len(keys) == 2


async def test_who_comes_later_hears_what_is_witnessed(tmp_path: Path) -> None:
    alices, bobs, carols = enrolled(tmp_path, "alice", "bob", "carol")
    async with started(bobs) as bob, started(alices, bob.node) as alice:
        entry = await alice.node.audit.append("count", 1)
        said = await alice.node.audit.wait_witnessed(entry)
        async with started(carols, bob.node) as carol:
            with trio.fail_after(10):
                assert await carol.node.audit.wait_witnessed(entry) == said
