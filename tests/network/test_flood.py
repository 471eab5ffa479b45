"""A flood of bogus connections from twenty addresses, and members who link, rekey and call all the while."""

import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles
from subprocess import PIPE
from typing import Any

import pytest
import trio

from overlay.core.limits import RekeyTimes
from overlay.events import LinkRekeyed, PeerDown, PeerUp
from tests.shell.node_kit import Watched, fresh_mesh, make_parts, running
from tests.unit.core.session_kit import GATE

ROOT = Path(__file__).parents[2]
ADDRESSES = 20
CALL_EVERY = 0.01  # seconds, of each member
GROWTH_AT_MOST = 50 * 1024 * 1024
WARM_UP = 1.0


@dataclass(slots=True)
class Caller:
    """A member that calls the victim all the time."""

    node: Watched
    victim: Watched
    took: list[float] = field(default_factory=list)

    async def run(self) -> None:
        [peer] = [one for one in self.node.node.peers if one.node_id == self.victim.parts.identity.node_id]
        due = trio.current_time()
        while True:
            began = trio.current_time()
            await peer.call("shout", b"hello")
            self.took.append(trio.current_time() - began)
            due = max(due + CALL_EVERY, trio.current_time())
            await trio.sleep_until(due)


@asynccontextmanager
async def calls(*callers: Caller) -> AsyncIterator[list[float]]:
    """How long calls took, filled in at the end of the block."""
    took: list[float] = []
    for caller in callers:
        caller.took = []
    async with trio.open_nursery() as nursery:
        for caller in callers:
            nursery.start_soon(caller.run)
        yield took
        nursery.cancel_scope.cancel()
    for caller in callers:
        took += caller.took


@contextmanager
def one_processor() -> Iterator[None]:
    """This process on one, so that the attacker has another."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_of_them)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def flood(port: int, seconds: float) -> AsyncIterator[dict[str, Any]]:
    """The attacker's own account, filled in at the end of the block, which lasts as long as the attack."""
    command = [sys.executable, "-m", "tests.network.flood", "127.0.0.1", str(port), str(seconds), str(ADDRESSES)]
    account: dict[str, Any] = {}
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process, command, stdin=GATE.hex().encode() + b"\n", stdout=PIPE, cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        )
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(1))})
        yield account
        said = b""
        async for data in process.stdout:
            said += data
        account.update(json.loads(said))


def p50_p99(took: list[float]) -> tuple[float, float]:
    parts = quantiles(took, n=100)
    return parts[49] * 1000, parts[98] * 1000


async def linked_with(watched: Watched, count: int) -> None:
    while len(watched.node.peers) < count:
        await watched.node.wait_peers_change()


async def attack(seconds: float) -> dict[str, Any]:
    """Alice is attacked; Bob calls her from an attacking address and Carol from another; Dave links meanwhile."""
    mesh, times = fresh_mesh(), RekeyTimes.every(2)
    async with (
        running(make_parts(mesh, "alice", rekey=times, listen=("::", 0))) as alice,
        running(make_parts(mesh, "bob", rekey=times, seeds=[f"127.0.0.1:{alice.node.port}"])) as bob,
        running(make_parts(mesh, "carol", rekey=times, seeds=[f"[::1]:{alice.node.port}"])) as carol,
    ):
        with trio.fail_after(10):
            await linked_with(alice, 2)
        callers = Caller(bob, alice), Caller(carol, alice)
        async with calls(*callers):
            await trio.sleep(WARM_UP)
        async with calls(*callers) as quiet:
            await trio.sleep(max(2.0, seconds / 4))
        late = make_parts(mesh, "dave", rekey=times, seeds=[f"127.0.0.1:{alice.node.port}"])
        before, began = resident(), trio.current_time()
        async with flood(alice.node.port, seconds) as account, calls(*callers) as loaded:
            await trio.sleep(seconds / 3)  # it is in full swing
            at = trio.current_time()
            async with running(late) as dave:
                await dave.saw(PeerUp, lambda event: event.name == "alice")
                account["linked_after"] = trio.current_time() - at
                await trio.sleep_until(began + seconds)
        account["growth"] = resident() - before
        async with calls(*callers) as quiet_again:
            await trio.sleep(max(2.0, seconds / 4))
        quiet += quiet_again
        account["rekeys"] = sum(isinstance(event, LinkRekeyed) for event in alice.events)
        account["lost"] = [event for event in alice.events if isinstance(event, PeerDown) and event.name != "dave"]
        account["quiet"], account["loaded"] = p50_p99(quiet), p50_p99(loaded)
        account["turned_away"], account["refused"] = alice.node.pool.load.turned_away, alice.node.refused
    return account


async def check(seconds: float, *, per_second: int, slower_at_most: float) -> None:
    with one_processor():
        account = await attack(seconds)
    print(account)
    assert account["lost"] == []
    assert account["rekeys"] >= seconds / 2
    assert account["linked_after"] < 5
    assert account["per_second"] >= per_second
    assert account["growth"] < GROWTH_AT_MOST
    assert account["loaded"][1] <= slower_at_most * account["quiet"][1]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the attacker needs a processor of its own")
async def test_members_link_rekey_and_call_through_a_flood_of_three_seconds() -> None:
    await check(3, per_second=500, slower_at_most=25)  # the suite may not have the machine for itself


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the attacker needs a processor of its own")
async def test_members_link_rekey_and_call_through_a_flood_of_twenty_seconds() -> None:
    await check(20, per_second=2000, slower_at_most=5)
