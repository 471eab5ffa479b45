"""What a member does wrong above its link ends the link."""

from overlay.core.keys import NodeId
from overlay.core.mesh.reconcile import ItemsVerified, RangeWanted, Reconcile
from overlay.core.mesh.replication_frames import Items, make_items
from overlay.events import ChainRejected, PeerDown
from overlay.registry import ChainKind, FrameType, Reason
from tests.shell.node_kit import Watched, fresh_mesh, linked
from tests.unit.core.mesh.mesh_kit import LOG, ToyChains, item


class ToyKeeper:
    """A `ChainKeeper` over the toy chain, that is never given anything good."""

    kind = ChainKind.AUDIT

    def __init__(self) -> None:
        self.machine = Reconcile(self.kind, NodeId(bytes(32)), ToyChains())

    async def store(self, items: ItemsVerified) -> None:
        raise AssertionError(items)

    async def read(self, wanted: RangeWanted) -> list[bytes]:
        raise AssertionError(wanted)


def say(speaker: Watched, to: Watched, frame: FrameType, body: bytes) -> None:
    """Send what no node of ours would."""
    speaker.node.pool.links[to.node.identity.node_id].send(frame, 1, body)


async def test_a_message_that_does_not_verify_ends_the_link() -> None:
    async with linked(fresh_mesh(), "alice", "bob") as [alice, bob]:
        say(alice, bob, FrameType.CALL, b"not signed")
        await bob.saw(PeerDown, lambda event: event.reason is Reason.MALFORMED and not event.by_peer)


async def test_an_item_that_does_not_hold_ends_the_link_and_is_written_down() -> None:
    async with linked(fresh_mesh(), "alice", "bob", keepers=(ToyKeeper(),)) as [alice, bob]:
        say(alice, bob, FrameType.ITEMS, make_items(ChainKind.AUDIT, Items(LOG, 0, (item(0, "bad"),))))
        await bob.saw(ChainRejected, lambda event: event.reason is Reason.BAD_SIGNATURE)
        await bob.saw(PeerDown, lambda event: event.reason is Reason.BAD_SIGNATURE and not event.by_peer)


async def test_a_kind_of_chain_that_nobody_keeps_ends_the_link() -> None:
    async with linked(fresh_mesh(), "alice", "bob") as [alice, bob]:
        say(alice, bob, FrameType.ITEMS, make_items(ChainKind.AUDIT, Items(LOG, 0, ())))
        await bob.saw(PeerDown, lambda event: event.reason is Reason.UNSUPPORTED and not event.by_peer)
