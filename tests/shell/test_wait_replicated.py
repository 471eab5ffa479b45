"""`wait_replicated`: no news is missed, and who holds another history is not counted."""

from dataclasses import dataclass, field
from typing import Any, cast

import trio
import trio.testing

from audit.log import AuditLog
from audit.witnessing import Witnessing
from overlay.app.api import EntryReceipt
from overlay.app.local_audit import LocalAudit
from overlay.core.keys import NodeId
from overlay.core.mesh.reconcile import ItemsVerified, RangeWanted, Reconcile
from overlay.core.mesh.replication_frames import make_heads
from overlay.net.node import Node
from overlay.net.replicator import Replicator
from overlay.registry import ChainKind, FrameType, Reason
from tests.unit.core.mesh.mesh_kit import LOG, ToyChains, head, item, node

ALICE, BOB, CAROL = node("alice"), node("bob"), node("carol")
ENTRY = EntryReceipt(node_id=ALICE, log_id=LOG, seq=1, hash=bytes(32))
OTHER = b"other" + bytes(27)


@dataclass
class Keeper:
    """Alice's two entries."""

    machine: Reconcile
    kind: ChainKind = ChainKind.AUDIT

    async def store(self, items: ItemsVerified) -> None:
        raise AssertionError(items)

    async def read(self, wanted: RangeWanted) -> list[bytes]:
        raise AssertionError(wanted)


@dataclass(frozen=True)
class Linked:
    node_id: NodeId


@dataclass
class Alice:
    """Her audit log as users see it, over a machine whose peers a test plays. Nothing runs: all is told at once."""

    machine: Reconcile = field(default_factory=lambda: Reconcile(ChainKind.AUDIT, ALICE, ToyChains()))
    peers: list[Linked] = field(default_factory=list)
    forks: list[NodeId] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.replicator = Replicator(Keeper(self.machine), send=lambda *_: None, rejected=self.reject)
        self.replicators = {ChainKind.AUDIT: self.replicator}
        self.machine.appended(LOG, head(2, ALICE), [item(0), item(1)])
        self.audit = LocalAudit(cast("AuditLog", self), cast("Node", self), cast("Witnessing", self))

    def listen(self, _listener: Any) -> None:
        """As `AuditLog.listen`."""

    def reject(self, peer: NodeId, reason: Reason, _detail: str) -> None:
        assert reason is Reason.FORKED
        self.forks.append(peer)

    def link(self, *peers: NodeId) -> None:
        for peer in peers:
            self.peers.append(Linked(peer))
            self.replicator.peer_opened(peer)

    def unlink(self, peer: NodeId) -> None:
        self.peers.remove(Linked(peer))
        self.replicator.peer_closed(peer)

    def says(self, peer: NodeId, size: int, root: bytes | None = None) -> None:
        (body,) = make_heads(ChainKind.AUDIT, {LOG: head(size, ALICE, root=root)})
        self.replicator.received(peer, FrameType.HEADS, body)

    async def wait(self, found: list[int]) -> None:
        found.append(await self.audit.wait_replicated(ENTRY))


class Hurried(Reconcile):
    """Has news in the very moment in which somebody has looked in vain."""

    nursery: trio.Nursery
    alice: Alice

    def agreed(self, peer: NodeId, log_id: bytes) -> int:
        found = super().agreed(peer, log_id)
        if found == 0:
            self.nursery.start_soon(self._news, peer)
        return found

    async def _news(self, peer: NodeId) -> None:
        self.alice.says(peer, 2)


async def test_news_in_the_moment_of_looking_are_not_missed(autojump_clock: trio.testing.MockClock) -> None:
    for _ in range(30):  # trio takes tasks that are ready in any order
        async with trio.open_nursery() as nursery:
            machine = Hurried(ChainKind.AUDIT, ALICE, ToyChains())
            machine.nursery, machine.alice = nursery, Alice(machine)
            machine.alice.link(BOB)
            with trio.fail_after(5):
                assert await machine.alice.audit.wait_replicated(ENTRY) == 1


async def outcome(alice: Alice, *steps: Any) -> list[list[int]]:
    """What a wait that began before them has given after each of these steps."""
    found: list[int] = []
    seen = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alice.wait, found)
        for step in steps:
            step()
            await trio.testing.wait_all_tasks_blocked()
            seen.append(list(found))
        nursery.cancel_scope.cancel()
    return seen


async def test_every_linked_peer_is_waited_for() -> None:
    alice = Alice()
    alice.link(BOB, CAROL)
    assert await outcome(alice, lambda: alice.says(BOB, 2), lambda: alice.says(CAROL, 2)) == [[], [2]]


async def test_alone_it_waits_for_a_peer() -> None:
    alice = Alice()
    assert await outcome(alice, lambda: alice.link(BOB), lambda: alice.says(BOB, 2)) == [[], [1]]


async def test_a_peer_that_goes_is_waited_for_no_more() -> None:
    alice = Alice()
    alice.link(BOB, CAROL)
    assert await outcome(alice, lambda: alice.says(BOB, 2), lambda: alice.unlink(CAROL)) == [[], [1]]


async def test_a_peer_with_another_history_of_the_same_size_is_not_counted() -> None:
    alice = Alice()
    alice.link(BOB)
    assert await outcome(alice, lambda: alice.says(BOB, 2, OTHER)) == [[]]
    assert await outcome(alice, lambda: alice.link(CAROL), lambda: alice.says(CAROL, 2)) == [[], [1]]


async def test_a_peer_that_shows_another_history_is_waited_for_no_more() -> None:
    alice = Alice()
    alice.link(BOB, CAROL)
    assert await outcome(alice, lambda: alice.says(CAROL, 2), lambda: alice.says(BOB, 2, OTHER)) == [[], [1]]
    assert alice.forks == [BOB]


async def test_a_peer_with_a_longer_history_is_not_counted_before_it_has_shown_that_it_is_ours() -> None:
    alice = Alice()
    alice.link(BOB)
    assert await outcome(alice, lambda: alice.says(BOB, 9)) == [[]]
