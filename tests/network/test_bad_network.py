"""Two nodes and a bad network between them: what is late works, and what is broken is noticed and made anew."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from overlay.core.limits import RekeyTimes
from overlay.errors import OverlayError, PeerUnreachable
from overlay.events import LinkRefused, LinkRekeyed, PeerDown, PeerUp
from overlay.net.link import Link
from overlay.net.peer import Peer
from overlay.registry import FrameType, Reason
from tests.network.bad_network import BadNetwork, Way, bad_network
from tests.shell.node_kit import Watched, fresh_mesh, make_parts, running

PATIENCE = 14  # seconds: each of these tests is to end sooner
MIB = 1024 * 1024


@dataclass(slots=True)
class Pair:
    """Bob dials Alice through the bad network."""

    alice: Watched
    bob: Watched
    network: BadNetwork

    def peer(self, of: Watched) -> Peer:
        [peer] = of.node.peers
        return peer

    def link(self, of: Watched) -> Link:
        [link] = of.node.pool.links.values()
        return link

    async def up(self, times: int = 1) -> None:
        """Linked, so often."""
        await self.alice.saw(PeerUp, times=times)
        await self.bob.saw(PeerUp, times=times)

    async def down(self, watched: Watched) -> Reason:
        event = await watched.saw(PeerDown)
        assert isinstance(event, PeerDown)
        return event.reason

    async def works(self) -> None:
        """Calls go through, both ways."""
        assert await self.peer(self.alice).call("shout", b"to bob") == b"TO BOB"
        assert await self.peer(self.bob).call("shout", b"to alice") == b"TO ALICE"


@asynccontextmanager
async def pair(*once: tuple[Way, Way], rekey: float = 60.0, **way: float) -> AsyncIterator[Pair]:
    """`once` for the first connections, `way` for all others, in both directions."""
    mesh, times = fresh_mesh(), RekeyTimes.every(rekey)
    with trio.fail_after(PATIENCE):
        async with running(make_parts(mesh, "alice", rekey=times)) as alice, bad_network(alice.node.port) as network:
            network.once, network.up, network.down = list(once), way, way
            async with running(make_parts(mesh, "bob", rekey=times, seeds=[network.seed])) as bob:
                yield Pair(alice, bob, network)


async def test_with_a_fifth_of_a_second_each_way_links_come_up_rekey_and_carry_calls() -> None:
    async with pair(rekey=1.0, delay=0.2, jitter=0.02) as two:
        await two.up()
        for epoch in (2, 3):
            await two.works()
            await two.alice.saw(LinkRekeyed, lambda event, epoch=epoch: event.epoch == epoch)
            await two.bob.saw(LinkRekeyed, lambda event, epoch=epoch: event.epoch == epoch)
        assert not any(isinstance(event, PeerDown) for event in two.alice.events + two.bob.events)


async def test_over_a_narrow_line_a_large_body_arrives() -> None:
    async with pair(bandwidth=256 * 1024.0) as two:
        await two.up()
        assert await two.peer(two.bob).call("shout", b"x" * (MIB // 4)) == b"X" * (MIB // 4)


async def test_a_half_open_link_is_dead_when_asked_for_a_sign_of_life_and_another_takes_its_place() -> None:
    async with pair() as two:
        await two.up()
        two.network.last.swallow()
        for watched in (two.alice, two.bob):
            two.link(watched).probe(0.5)
        assert await two.down(two.alice) is Reason.DEAD
        assert await two.down(two.bob) is Reason.DEAD
        await two.up(times=2)
        await two.works()


async def test_a_half_open_link_does_not_outlive_its_keys() -> None:
    async with pair(rekey=1.0) as two:
        await two.up()
        two.network.last.swallow()
        assert await two.down(two.alice) in {Reason.REKEY_FAILED, Reason.REKEY_OVERDUE}
        assert await two.down(two.bob) in {Reason.REKEY_FAILED, Reason.REKEY_OVERDUE}


async def test_a_reset_in_the_middle_of_a_record_is_a_loss_and_the_link_comes_again() -> None:
    async with pair() as two:
        await two.up()
        way = two.network.last.up
        way.reset_at = way.passed + 100
        with pytest.raises(OverlayError):
            await two.peer(two.bob).call("shout", b"x" * 10_000)
        assert await two.down(two.alice) is Reason.LOST
        assert await two.down(two.bob) is Reason.LOST
        await two.up(times=2)
        await two.works()


@pytest.mark.parametrize("length", [0, 10, 19, 40, 53, 1000])
async def test_a_handshake_that_is_cut_anywhere_begins_anew(length: int) -> None:
    async with pair((Way(reset_at=length), Way())) as two:
        await two.up()
        await two.works()
        assert len(two.network.connections) >= 2


@pytest.mark.parametrize("length", [1, 500, 2000])
async def test_an_answer_that_is_cut_anywhere_is_asked_for_again(length: int) -> None:
    async with pair((Way(), Way(reset_at=length))) as two:
        await two.up()
        await two.works()


async def test_a_reader_that_is_stuck_is_let_go_before_its_queue_grows_further() -> None:
    async with pair() as two:
        await two.up()
        two.network.last.down.hold()  # from Alice to Bob
        with pytest.raises(PeerUnreachable):
            for _ in range(64):
                two.link(two.alice).send(FrameType.HEADS, 0, b"x" * MIB)  # nobody ever reads it
        assert await two.down(two.alice) is Reason.SLOW_CONSUMER
        two.network.last.reset()
        await two.up(times=2)
        await two.works()


async def test_a_flipped_byte_ends_the_link_as_a_bad_record_and_it_comes_again() -> None:
    async with pair() as two:
        await two.up()
        two.network.last.up.flip = True
        with pytest.raises(OverlayError):
            await two.peer(two.bob).call("shout", b"hello")
        assert await two.down(two.alice) is Reason.BAD_RECORD
        await two.up(times=2)
        await two.works()


async def test_a_byte_flipped_in_the_handshake_is_refused_and_the_link_comes_all_the_same() -> None:
    async with pair((Way(flip=True), Way())) as two:
        refused = await two.alice.saw(LinkRefused)
        assert isinstance(refused, LinkRefused)
        assert refused.reason is Reason.BAD_GATE
        await two.up()
        await two.works()
