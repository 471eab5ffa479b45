"""A node is killed (SIGKILL) while many write to it, again and again: nothing acknowledged is lost, and no peer takes it for a
fork."""

import os
import random
import signal
from pathlib import Path

import pytest
import trio

import audit
from audit.kept_forks import known_forks
from audit.member import root_of
from audit.store import AuditStore
from overlay.app.client import connect_local
from overlay.errors import OverlayError
from overlay.store.state import StateFolder
from tests.cli.node_kit import Machine, make_pair

WRITERS = 16


async def load(machine: Machine, acknowledged: list[bytes], number: int) -> None:
    """Write until the node is gone."""

    async def write() -> None:
        try:
            async with connect_local(machine.state) as node:
                while True:
                    acknowledged.append((await node.audit.append("load", number)).hash)
        except OverlayError:
            return

    async with trio.open_nursery() as nursery:
        for _ in range(WRITERS):
            nursery.start_soon(write)


async def killed(machine: Machine, acknowledged: list[bytes], seed: str, chance: random.Random) -> None:
    """A life of the node, from its start to its end in the middle of writing."""
    known = len(acknowledged)
    async with machine.running("--seed", seed) as process, trio.open_nursery() as nursery:
        await process.wait(lambda event: event["event"] == "peer-up")
        nursery.start_soon(load, machine, acknowledged, known)
        with trio.fail_after(30):
            while len(acknowledged) < known + chance.randrange(1, 200):  # noqa: ASYNC110 (appends tell nobody)
                await trio.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)


def hashes(machine: Machine, node: str) -> set[bytes]:
    """Every entry of a node that a machine holds, after all of them were verified."""
    audit.verify(machine.state).demand()
    with StateFolder.open(machine.state, exclusive=False) as folder:
        store = AuditStore.open_readonly(folder.file("audit.sqlite3"))
        root = root_of(folder)
    try:
        assert known_forks(store.forks(), root) == []
        states, damaged = store.load(root)
        assert damaged == ()
        (node_id,) = {state.node_id for state in states.values() if state.key is not None and state.key.peer.name == node}
        return {entry.hash for entry in store.newest(node_id=node_id)}
    finally:
        store.close()


async def kill_again_and_again(folder: Path, times: int) -> None:
    alice, bob = await make_pair(folder)
    chance = random.Random(times)
    acknowledged: list[bytes] = []
    async with alice.running() as first:
        seed = f"127.0.0.1:{first.port}"
        for _ in range(times):
            await killed(bob, acknowledged, seed, chance)
            missing = set(acknowledged) - await trio.to_thread.run_sync(hashes, bob, "bob")
            assert not missing
        async with bob.running("--seed", seed) as process, connect_local(bob.state) as node:
            await process.wait(lambda event: event["event"] == "peer-up")
            with trio.fail_after(60):
                await node.audit.wait_replicated(await node.audit.append("end", times))
    assert len(acknowledged) > times
    assert set(acknowledged) <= await trio.to_thread.run_sync(hashes, bob, "bob")
    assert set(acknowledged) <= await trio.to_thread.run_sync(hashes, alice, "bob")


@pytest.mark.slow
async def test_twenty_kills_under_load_lose_nothing_acknowledged_and_are_no_forks(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, 20)


@pytest.mark.soak
async def test_two_hundred_kills_under_load_lose_nothing_acknowledged_and_are_no_forks(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, 200)
