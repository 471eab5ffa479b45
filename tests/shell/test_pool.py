"""Two links to one peer, links that do not live, and what a pool makes of them."""

import trio
import trio.testing

from overlay.core import limits
from overlay.core.limits import LINK_LIVED
from overlay.core.session_events import Closed, Failed
from overlay.net.link import Link
from overlay.registry import Reason
from tests.shell.pool_kit import Owner, two_pools


async def first_link(dialler: Owner, other: Owner) -> tuple[Link, Link]:
    """A link, seen from either end."""
    dialler.nursery.start_soon(other.dialled_by, dialler.pool)
    await trio.testing.wait_all_tasks_blocked()
    assert len(dialler.open) == len(other.open) == 1
    return dialler.open[0], other.open[0]


def reason(link: Link) -> Reason | None:
    return link.ended.reason if isinstance(link.ended, Closed | Failed) else None


# --- which one stays, and when the other one goes -----------------------------------------------------------------------


async def test_when_both_dial_at_once_one_link_stays_and_both_hear_of_the_end_of_the_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with two_pools() as (low, high):
        low.nursery.start_soon(high.dialled_by, low.pool)
        low.nursery.start_soon(low.dialled_by, high.pool)
        await trio.sleep(3)
        assert len(low.pool.all_links) == len(high.pool.all_links) == 1
        assert low.current is not None and high.current is not None
        assert low.current.session.first_h == high.current.session.first_h
        assert low.replaced == [high.node_id]
        assert high.replaced == [low.node_id]
        assert not low.downs and not high.downs


async def test_a_link_gives_way_only_when_the_other_one_has_carried_a_record_each_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with two_pools() as (low, high):
        _, old = await first_link(high, low)
        high.on_open = lambda _link: high.gates[0].shut()  # low is not heard over the new link once that is open
        low.nursery.start_soon(high.dialled_by, low.pool)
        await trio.testing.wait_all_tasks_blocked()
        assert low.current is not old and low.current is low.open[-1]
        assert low.open[0].is_open and high.open[0].is_open
        assert not low.replaced and not high.replaced
        high.gates[0].open()
        await trio.testing.wait_all_tasks_blocked()
        assert reason(low.open[0]) is reason(high.open[0]) is Reason.DUPLICATE
        assert len(low.open) == len(high.open) == 2
        assert low.current is low.open[1] and high.current is high.open[1]


async def test_a_peer_that_dials_again_and_again_holds_a_few_links_and_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with two_pools() as (low, high):
        await first_link(high, low)
        high.pool.links.clear()  # it says that it has none
        for _ in range(20):
            low.nursery.start_soon(low.dialled_by, high.pool)
            await trio.testing.wait_all_tasks_blocked()
        assert sum(1 for link in low.pool.all_links if link.is_open) <= limits.LINKS_PER_PEER + 1
        await trio.sleep(10)
        assert sum(1 for link in low.pool.all_links if link.is_open) == 1


async def test_links_that_replace_each_other_are_few_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with two_pools() as (low, high):
        await first_link(low, high)
        high.on_open = lambda _link: high.gates[-1].shut()  # none of them can show that it works
        for _ in range(20):
            high.nursery.start_soon(high.dialled_by, low.pool)
            await trio.testing.wait_all_tasks_blocked()
        assert sum(1 for link in high.pool.all_links if link.is_open) <= limits.LINKS_PER_PEER + 1


async def test_where_the_other_one_is_dead_the_link_stays(autojump_clock: trio.testing.MockClock) -> None:
    async with two_pools() as (low, high):
        await first_link(high, low)
        high.on_open = lambda _link: high.gates[0].shut()
        low.nursery.start_soon(high.dialled_by, low.pool)
        await trio.sleep(10)
        assert reason(low.open[1]) is Reason.DEAD
        assert low.current is low.open[0] and low.current.is_open
        assert high.current is high.open[0] and high.current.is_open
        assert not low.downs and not high.downs


async def test_the_last_link_that_ends_takes_the_peer_away(autojump_clock: trio.testing.MockClock) -> None:
    async with two_pools() as (low, high):
        link, _ = await first_link(low, high)
        link.close(Reason.SHUTDOWN)
        await trio.testing.wait_all_tasks_blocked()
        assert low.downs and high.downs
        assert not low.replaced and not high.replaced


# --- dialling again -----------------------------------------------------------------------------------------------------


async def test_links_that_end_at_once_are_not_dialled_in_a_storm(autojump_clock: trio.testing.MockClock) -> None:
    async with two_pools() as (low, high):
        high.on_open = lambda link: link.close(Reason.UNSUPPORTED)
        low.find(high)
        await trio.sleep(600)
        assert 5 <= len(high.dials) <= 60


async def test_two_that_end_each_others_links_do_not_wake_each_other(autojump_clock: trio.testing.MockClock) -> None:
    async with two_pools() as (low, high):
        low.on_open = high.on_open = lambda link: link.close(Reason.UNSUPPORTED)
        low.find(high)
        high.find(low)
        await trio.sleep(600)
        assert 5 <= len(high.dials) + len(low.dials) <= 120


async def test_a_link_that_lived_is_dialled_again_soon(autojump_clock: trio.testing.MockClock) -> None:
    async with two_pools() as (low, high):
        low.find(high)
        for _ in range(10):
            await trio.sleep(2 * LINK_LIVED)
            assert high.current is not None
            high.current.close(Reason.SHUTDOWN)
            await trio.sleep(1)
            assert high.current is not None


async def test_who_did_not_dial_dials_when_the_link_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    async with two_pools() as (low, high):
        link, _ = await first_link(high, low)
        low.find(high)
        await trio.sleep(2 * LINK_LIVED)
        assert not high.dials
        link.close(Reason.SHUTDOWN)
        await trio.sleep(1)
        assert len(high.dials) == 1
        assert low.current is not None
