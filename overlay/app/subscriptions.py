"""What waits for one subscriber: bounded, so that a slow reader costs only itself, and made into items only when it is read."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self

import trio

from overlay.app.api import TopicItem

WAITING_MAX: Final = 8 * 1024 * 1024  # bytes that may wait for a subscriber, as `Delivery` counts them: our guess
ITEM_COST: Final = 128  # bytes that an item costs beside its own: our guess
AT_ONCE: Final = 64  # items that a reader gets without a turn for others, at least: our guess


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Items that came together: of a chain, or of a batch and then with no log id. `size`: of all that they keep in memory."""

    log_id: bytes | None
    count: int
    size: int
    items: Iterator[TopicItem] = field(repr=False)

    @property
    def cost(self) -> int:
        """What it counts for, in bytes."""
        return self.size + self.count * ITEM_COST


class Subscription:
    """The queue of one subscriber."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.dropped = 0  # items
        self._waiting: deque[Delivery] = deque()
        self._cost = 0
        self._readers = trio.lowlevel.ParkingLot()

    def push(self, delivery: Delivery) -> None:
        """Queue items; those that do not fit are dropped and counted."""
        if self._waiting and self._cost + delivery.cost > WAITING_MAX:
            self.dropped += delivery.count
            return
        self._waiting.append(delivery)
        self._cost += delivery.cost
        self._readers.unpark_all()

    def pop(self) -> Delivery | None:
        """The oldest, if one waits."""
        if not self._waiting:
            return None
        delivery = self._waiting.popleft()
        self._cost -= delivery.cost
        return delivery

    async def wait(self) -> None:
        """Until one waits."""
        while not self._waiting:
            await self._readers.park()

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return sum(delivery.count for delivery in self._waiting)


class TopicItems:
    """An asynchronous iterator over what was kept, then over what comes; it goes on after a cancelled `anext`.

    It gives others a turn once for all that waited at the last one: what came in one turn can be read in one, and whoever
    keeps up loses nothing.
    """

    def __init__(self, kept: Iterable[Delivery], subscription: Subscription) -> None:
        self._kept = deque(kept)
        self._subscription = subscription
        self._seen: dict[bytes, int] = {}
        self._now: Iterator[TopicItem] = iter(())
        self._turn = 0  # items until others have theirs

    @property
    def dropped(self) -> int:
        """Items that were lost because the reader lagged too far behind."""
        return self._subscription.dropped

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> TopicItem:
        """The next item; waits for one."""
        if self._turn:
            self._turn -= 1
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
            self._turn = max(self._subscription.waiting, AT_ONCE)
        while True:
            for item in self._now:
                return item
            delivery = self._kept.popleft() if self._kept else self._subscription.pop()
            if delivery is None:
                await self._subscription.wait()
            else:
                self._now = self._new(delivery)

    def _new(self, delivery: Delivery) -> Iterator[TopicItem]:
        """Its items, without those of a chain that were given already."""
        if delivery.log_id is None:
            return delivery.items
        return self._unseen(delivery.log_id, delivery.items)

    def _unseen(self, log_id: bytes, items: Iterator[TopicItem]) -> Iterator[TopicItem]:
        for item in items:
            seq = item.seq or 0
            if seq > self._seen.get(log_id, -1):
                self._seen[log_id] = seq
                yield item
