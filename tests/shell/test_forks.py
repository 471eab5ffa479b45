"""A node that tells two stories, among real nodes: named, proven and put out on every one of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from audit.forks import parse_fork
from audit.query import Query
from audit.store import AuditStore
from overlay.app.compose import open_node
from overlay.app.lab.actor import forked_log
from overlay.events import ForkExposed, QuarantineBegan
from overlay.registry import EntryType
from overlay.store.state import AUDIT_STORE
from tests.shell.folder_kit import ALONE, Started, enrolled, started


@asynccontextmanager
async def forking(folder: Path, *seeds: Started) -> AsyncIterator[Started]:
    """The node of a folder, with two faces."""
    config = replace(ALONE, seeds=tuple(f"127.0.0.1:{one.node.port}" for one in seeds))
    found = Started()
    async with open_node(
        folder, config=config, observers=[found.take], alter=lambda assembly: forked_log(assembly, "")
    ) as node:
        found.node = node
        with trio.fail_after(15):
            for one in seeds:
                await node.wait_peer(one.node.name)
        yield found


def exposure(name: str) -> ForkExposed:
    return ForkExposed(name=name, node="", kind="entries", detail="", proof="")


async def test_a_fork_is_proven_and_its_author_put_out_on_every_node_within_seconds(tmp_path: Path) -> None:
    alices, bobs, carols, eves = enrolled(tmp_path, "alice", "bob", "carol", "eve")
    async with (
        started(alices) as alice, started(bobs, alice.node) as bob, started(carols, alice.node, bob.node) as carol,
        forking(eves, alice, bob, carol) as eve,
    ):
        await eve.node.audit.append("door.opened", {"door": "7b"})
        for one in (alice, bob, carol):
            await one.saw(exposure("eve"))
            assert not any(peer.name == "eve" for peer in one.node.peers)
            (line,) = [text for text in one.node.statistics().warnings if "two stories" in text]
            assert line.startswith("eve has told two stories, proven: it has signed two entries number ")
        await eve.saw(QuarantineBegan(until=""))
    root = alice.node.engine.parts.trust().root
    for folder, owner in ((alices, alice), (bobs, bob), (carols, carol)):
        store = AuditStore.open_readonly(folder / AUDIT_STORE)
        (kept,) = store.forks()
        told = {entry.node_id for entry in store.select(Query()) if entry.type == EntryType.FORK}
        store.close()
        assert owner.node.node_id in told  # in its own log
        assert kept.verify(root).name == "eve"
        assert parse_fork(kept.raw).accused == kept.node_id


async def test_a_node_that_was_away_hears_of_the_fork_and_still_knows_it_after_a_restart(tmp_path: Path) -> None:
    alices, bobs, carols, eves = enrolled(tmp_path, "alice", "bob", "carol", "eve")
    async with started(alices) as alice, started(bobs, alice.node) as bob:
        async with forking(eves, alice, bob) as eve:
            await eve.node.audit.append("door.opened", {"door": "7b"})
            await bob.saw(exposure("eve"))
        async with started(carols, alice.node) as carol:
            await carol.saw(exposure("eve"))
    async with started(carols) as carol:
        trust, at = carol.node.engine.parts.trust(), carol.node.engine.parts.calendar()
        assert trust.quarantine_end(eve.node.engine.identity.node_id, at) is not None
        assert any("eve has told two stories" in text for text in carol.node.statistics().warnings)
