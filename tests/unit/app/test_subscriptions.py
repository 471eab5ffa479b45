"""What waits for a subscriber: bounded in bytes, read in order by one or two, and never lost to a cancelled wait."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
import trio
import trio.testing

from overlay.app.api import TopicItem
from overlay.app.subscriptions import AT_ONCE, ITEM_COST, WAITING_MAX, Delivery, Subscription, TopicItems
from overlay.core.keys import NodeId
from overlay.errors import UsageError
from overlay.net.request import PeerInfo

AUTHOR = PeerInfo(NodeId(bytes(32)), "alice", (), 1)
AT = datetime(2026, 1, 1, tzinfo=UTC)
LOG = b"L" * 16


def item(number: int, seq: int | None = None) -> TopicItem:
    return TopicItem(topic="news", author=AUTHOR, seq=seq, at=AT, body=b"%d" % number)


def delivery(numbers: Sequence[int], *, size: int = 0) -> Delivery:
    return Delivery(log_id=None, count=len(numbers), size=size, items=iter([item(number) for number in numbers]))


def chained(seq: int) -> Delivery:
    return Delivery(log_id=LOG, count=1, size=0, items=iter([item(seq, seq)]))


@pytest.fixture
def subscription() -> Subscription:
    return Subscription("news")


async def read(items: TopicItems, count: int) -> list[int]:
    with trio.fail_after(5):
        return [int((await anext(items)).body) for _ in range(count)]


async def test_what_is_pushed_comes_out_in_order(subscription: Subscription) -> None:
    items = TopicItems([], subscription)
    subscription.push(delivery([0, 1, 2]))
    subscription.push(delivery([3]))
    subscription.push(delivery([4, 5]))
    assert await read(items, 6) == list(range(6))
    assert items.dropped == 0


async def test_what_is_kept_comes_first_and_nothing_twice(subscription: Subscription) -> None:
    items = TopicItems([chained(0), chained(1)], subscription)
    subscription.push(chained(1))
    subscription.push(chained(2))
    assert await read(items, 3) == [0, 1, 2]


async def test_a_reader_that_waits_hears_what_comes(subscription: Subscription, autojump_clock: trio.abc.Clock) -> None:
    items, found = TopicItems([], subscription), []

    async def listen() -> None:
        found.extend(await read(items, 2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        subscription.push(delivery([0]))
        await trio.testing.wait_all_tasks_blocked()
        assert not found
        subscription.push(delivery([1]))
    assert found == [0, 1]


async def test_two_readers_of_one_subscription_share_it_and_lose_nothing(subscription: Subscription) -> None:
    items, found = TopicItems([], subscription), []

    async def listen() -> None:
        found.extend(await read(items, 3))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        subscription.push(delivery([0, 1, 2]))
        subscription.push(delivery([3, 4, 5]))
    assert sorted(found) == list(range(6))


async def test_a_cancelled_wait_loses_nothing(subscription: Subscription) -> None:
    items = TopicItems([], subscription)
    for expected in range(3):
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(items)
        assert scope.cancelled_caught
        if expected == 0:
            subscription.push(delivery([0, 1, 2]))
        assert await read(items, 1) == [expected]


async def test_what_does_not_fit_is_dropped_and_counted(subscription: Subscription) -> None:
    half = WAITING_MAX // 2 - 2 * ITEM_COST
    for numbers in ([0, 1], [2, 3], [4, 5, 6], [7]):
        subscription.push(delivery(numbers, size=half))
    items = TopicItems([], subscription)
    assert (subscription.waiting, items.dropped) == (4, 4)
    assert await read(items, 3) == [0, 1, 2]  # both deliveries are taken: there is room again
    subscription.push(delivery([8], size=half))
    assert await read(items, 2) == [3, 8]


async def test_many_small_items_fill_it_too(subscription: Subscription) -> None:
    for _ in range(WAITING_MAX // ITEM_COST + 1):
        subscription.push(delivery([0]))
    assert (subscription.waiting, subscription.dropped) == (WAITING_MAX // ITEM_COST, 1)


async def test_one_delivery_always_fits(subscription: Subscription) -> None:
    subscription.push(delivery([0], size=WAITING_MAX))
    assert await read(TopicItems([], subscription), 1) == [0]


async def test_a_reader_of_much_that_waited_does_not_stop_for_every_item(subscription: Subscription) -> None:
    items, turns = TopicItems([], subscription), 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        for _ in range(100):
            subscription.push(delivery(range(AT_ONCE)))
        await read(items, 100 * AT_ONCE)
        assert turns <= 2
        nursery.cancel_scope.cancel()


async def test_a_reader_that_always_finds_something_still_gives_others_their_turn(subscription: Subscription) -> None:
    items, turned = TopicItems([], subscription), trio.Event()

    async def turn() -> None:
        turned.set()

    subscription.push(delivery([0]))
    await read(items, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        for number in range(2 * (AT_ONCE + 1)):  # two turns, because trio runs who is ready in any order
            subscription.push(delivery([number]))
            await read(items, 1)
        assert turned.is_set()


async def test_an_item_without_the_node_proves_nothing() -> None:
    with pytest.raises(UsageError):
        item(0).proof()
