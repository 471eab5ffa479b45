"""Between the machine and the mesh: a store that cannot be read, and a link that takes the place of another one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from overlay.core.keys import NodeId
from overlay.core.mesh.reconcile import HEADS_EVERY, ItemsVerified, RangeWanted, Reconcile
from overlay.core.mesh.replication_frames import Items, Want, make_want, open_items
from overlay.errors import StateDamaged
from overlay.events import PeerUp
from overlay.net.replicator import Replicator
from overlay.registry import ChainKind, FrameType
from overlay.testing import mesh
from tests.shell.node_kit import fresh_mesh, make_parts, running
from tests.unit.core.mesh.mesh_kit import LOG, ToyChains, head, item, node

ALICE, BOB = node("alice"), node("bob")


class Keeper:
    """A `ChainKeeper` over the toy chain. `fault` is raised instead of reading, if set."""

    kind = ChainKind.AUDIT

    def __init__(self) -> None:
        self.chains = ToyChains()
        self.machine = Reconcile(self.kind, ALICE, self.chains)
        self.fault: StateDamaged | None = None
        self.stored = trio.Event()

    def write(self, author: NodeId, count: int) -> None:
        start = self.chains.size(LOG)
        items = [item(number) for number in range(start, start + count)]
        self.chains.keep(LOG, start, items)
        self.machine.appended(LOG, head(start + count, author), items)

    async def store(self, items: ItemsVerified) -> None:
        self.chains.keep(items.log_id, items.start, items.items)
        self.machine.stored(items.log_id, head(self.chains.size(LOG), items.node_id), trio.current_time())
        self.stored.set()

    async def read(self, wanted: RangeWanted) -> list[bytes]:
        if self.fault is not None:
            raise self.fault
        return self.chains.read(wanted.log_id, wanted.start, wanted.count)


@asynccontextmanager
async def asked() -> AsyncIterator[tuple[Keeper, Replicator, list[Items]]]:
    """Alice's replicator with two items, linked to bob; and what she answers him."""
    keeper, answers = Keeper(), []

    def send(_peer: NodeId, frame: FrameType, body: bytes) -> None:
        if frame is FrameType.ITEMS:
            answers.append(open_items(ChainKind.AUDIT, body))

    replicator = Replicator(keeper, send=send, rejected=lambda *_: None)
    keeper.write(ALICE, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(replicator.run)
        replicator.peer_opened(BOB)
        yield keeper, replicator, answers
        nursery.cancel_scope.cancel()


async def test_a_store_that_cannot_be_read_is_answered_with_nothing_and_ends_no_node() -> None:
    async with asked() as (keeper, replicator, answers):
        keeper.fault = StateDamaged("a page of it is damaged")
        replicator.received(BOB, FrameType.WANT, make_want(ChainKind.AUDIT, Want(LOG, 0, 2)))
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [Items(LOG, 0, (), 0)]
        assert replicator.warning == "a page of it is damaged"


async def test_the_next_range_that_can_be_read_ends_the_warning() -> None:
    async with asked() as (keeper, replicator, answers):
        for keeper.fault in (StateDamaged("damaged"), None):
            replicator.received(BOB, FrameType.WANT, make_want(ChainKind.AUDIT, Want(LOG, 0, 2)))
            await trio.testing.wait_all_tasks_blocked()
        assert answers[-1].items == (item(0), item(1))
        assert replicator.warning == ""


async def test_a_store_that_cannot_be_read_for_a_peer_is_in_the_status() -> None:
    async with mesh("alice") as (alice,):
        alice.engine.replicators[ChainKind.AUDIT].warning = "a page of it is damaged"
        assert any("a page of it is damaged" in warning for warning in alice.statistics().warnings)


async def test_what_was_lost_with_a_link_that_was_replaced_is_told_over_the_other_one() -> None:
    ours, theirs, members = Keeper(), Keeper(), fresh_mesh()
    async with running(make_parts(members, "alice", keepers=(ours,))) as alice:  # noqa: SIM117
        async with running(make_parts(members, "bob", seeds=[alice.seed], keepers=(theirs,))) as bob:
            await alice.saw(PeerUp)
            await bob.saw(PeerUp)
            ours.write(alice.node.identity.node_id, 3)
            assert ours.machine.messages_to_send()  # under way on a link, and never seen again
            alice.node.link_replaced(bob.node.identity.node_id)
            with trio.fail_after(HEADS_EVERY / 2):
                await theirs.stored.wait()
            assert theirs.chains.size(LOG) == 3
