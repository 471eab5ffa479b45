"""Topics of a node: publishing, keeping, replicating, and handing to subscribers, each item once and in its author's order."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Self

import trio

from overlay.app.api import Published, TopicItem
from overlay.core.identity import LocalIdentity
from overlay.core.limits import ENTRY_MAX
from overlay.core.mesh.chains import item_hash, next_hlc
from overlay.core.mesh.reconcile import Head, ItemsVerified, RangeWanted, Reconcile
from overlay.core.mesh.topics import (
    Publication,
    TopicCheck,
    TopicState,
    check_topic,
    check_transient,
    sign_publication,
    topic_log_id,
    verify_publication,
)
from overlay.core.wire import parse_sign1
from overlay.errors import OverlayError, Refused
from overlay.net.node import Node
from overlay.net.peer import PeerInfo
from overlay.registry import GENESIS, ChainKind, Reason
from overlay.store.topics import StoredItem, TopicStore

WAITING = 1024  # items a subscriber may lag behind before it loses the oldest: our guess


class Subscription:
    """One subscriber's queue: bounded, so that a slow reader costs only itself."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.dropped = 0
        self._in, self.out = trio.open_memory_channel[tuple[bytes, TopicItem]](WAITING)

    def push(self, log_id: bytes, item: TopicItem) -> None:
        """Queue an item of a chain; with a full queue it is dropped and counted."""
        try:
            self._in.send_nowait((log_id, item))
        except trio.WouldBlock:
            self.dropped += 1


class TopicItems:
    """An asynchronous iterator over what was kept, then over what comes; it goes on after a cancelled `anext`."""

    def __init__(self, kept: list[tuple[bytes, TopicItem]], subscription: Subscription) -> None:
        self._kept = deque(kept)
        self._subscription = subscription
        self._seen: dict[bytes, int] = {}

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> TopicItem:
        """The next item; waits for one."""
        if self._kept:
            await trio.lowlevel.checkpoint()
            log_id, item = self._kept.popleft()
            self._seen[log_id] = max(self._seen.get(log_id, -1), item.seq or 0)
            return item
        while True:
            log_id, item = await self._subscription.out.receive()
            if item.seq is None or item.seq > self._seen.get(log_id, -1):
                return item


class TopicKeeper:
    """A `ChainKeeper` for topics."""

    kind = ChainKind.TOPIC

    def __init__(
        self, store: TopicStore, *, mesh_id: bytes, identity: Callable[[], LocalIdentity],
        audit_log_id: Callable[[], bytes], check: TopicCheck, calendar: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._mesh_id = mesh_id
        self._identity = identity
        self._audit_log_id = audit_log_id
        self._check = check
        self._calendar = calendar
        self._subscriptions: set[Subscription] = set()
        self._writing = trio.Lock()
        self._transient_hlc = 0
        self._seen_transient: dict[bytes, None] = {}
        self.engine: Node | None = None  # who pushes; set when it runs
        heads = {log_id: Head(state.node_id, state.size, state.head) for log_id, state in check.states.items()}
        self.machine = Reconcile(ChainKind.TOPIC, identity().node_id, check, heads.items())

    # --- publishing -------------------------------------------------------------------------------------------------

    async def publish(self, topic: str, body: bytes) -> Published:
        """Sign, make durable, push."""
        check_topic(topic)
        own = self._identity()
        log_id = topic_log_id(self._mesh_id, own.node_id, self._audit_log_id(), topic)
        async with self._writing:
            state = self._check.states.get(log_id) or TopicState.begin(own.node_id, topic)
            hlc = next_hlc(state.hlc, self._calendar())
            raw = sign_publication(
                own, self._mesh_id, topic=topic, log_id=log_id, seq=state.size, prev=state.head, hlc=hlc, body=body
            )
            after = TopicState(own.node_id, topic, state.size + 1, item_hash(raw), hlc)
            await trio.to_thread.run_sync(self._store.append, log_id, after, state.size, [raw])
            self._check.commit(log_id, after)
        self.machine.appended(log_id, Head(own.node_id, after.size, after.head), [raw])
        if self.engine is not None:
            self.engine.replicators[self.kind].flush()
        self._hand_out([self._verify(raw)])
        return Published(topic=topic, seq=state.size, peers=0 if self.engine is None else len(self.engine.peers))

    async def publish_transient(self, topic: str, body: bytes) -> Published:
        """Sign and push; nothing is stored."""
        await trio.lowlevel.checkpoint()
        check_topic(topic)
        own = self._identity()
        log_id = topic_log_id(self._mesh_id, own.node_id, self._audit_log_id(), topic, transient=True)
        self._transient_hlc = next_hlc(self._transient_hlc, self._calendar())
        raw = sign_publication(
            own, self._mesh_id, topic=topic, log_id=log_id, seq=self._transient_hlc, prev=GENESIS,
            hlc=self._transient_hlc, body=body,
        )
        self._hand_out([self._verify(raw)], transient=True)
        return Published(topic=topic, seq=None, peers=0 if self.engine is None else self.engine.send_transient(raw))

    def on_transient(self, raw: bytes, sender: PeerInfo) -> None:
        """A transient publication from a linked peer, its author; once. Raises Refused.

        One that comes before its author's audit log has shown who may sign is lost, as transient ones may be.
        """
        if self._check.author_of(parse_sign1(raw, limit=ENTRY_MAX).kid or b"") is None:
            return
        one = self._verify(raw)
        if one.author.node_id != sender.node_id:
            raise Refused(Reason.WRONG_AUTHOR, "a transient publication of another node")
        check_transient(one, self._mesh_id)
        if one.hash in self._seen_transient:
            return
        self._seen_transient[one.hash] = None
        while len(self._seen_transient) > WAITING:
            self._seen_transient.pop(next(iter(self._seen_transient)))
        self._hand_out([one], transient=True)

    def _verify(self, raw: bytes) -> Publication:
        return verify_publication(raw, mesh_id=self._mesh_id, author_of=self._check.author_of)

    # --- subscribing ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[TopicItem]]:
        """What is kept of a topic, then what comes."""
        check_topic(topic)
        subscription = Subscription(topic)
        self._subscriptions.add(subscription)
        kept = await trio.to_thread.run_sync(self._store.of_topic, topic)
        try:
            yield TopicItems(self._readable(kept), subscription)
        finally:
            self._subscriptions.discard(subscription)

    def _readable(self, kept: list[StoredItem]) -> list[tuple[bytes, TopicItem]]:
        """Nothing is shown that cannot be verified any more, because nobody remembers its endorsement."""
        found = []
        for stored in kept:
            try:
                found.append((stored.log_id, self._item(self._verify(stored.raw), transient=False)))
            except Refused:
                continue
        return found

    def _hand_out(self, publications: list[Publication], *, transient: bool = False) -> None:
        for one in publications:
            for subscription in self._subscriptions:
                if subscription.topic == one.topic:
                    subscription.push(one.log_id, self._item(one, transient=transient))

    def _item(self, one: Publication, *, transient: bool) -> TopicItem:
        node_id, name = one.author.node_id, one.author.name
        author = PeerInfo(node_id, name, (), 0) if self.engine is None else self.engine.info_of(node_id, name)
        return TopicItem(
            topic=one.topic, author=author, seq=None if transient else one.seq,
            at=one.at, body=one.body,
        )

    # --- ChainKeeper ------------------------------------------------------------------------------------------------

    async def store(self, items: ItemsVerified) -> None:
        """Make verified items durable and hand them out."""
        now = trio.current_time()
        async with self._writing:  # a chain of our own may come from a peer, after our folder was restored
            try:
                state, found = self._check.extend(items.log_id, items.node_id, items.start, items.items)
                await trio.to_thread.run_sync(self._store.append, items.log_id, state, items.start, items.items)
            except OverlayError:
                self.machine.dropped(items.log_id, now)
                return
            self._check.commit(items.log_id, state)
        self.machine.stored(items.log_id, Head(state.node_id, state.size, state.head), now)
        self._hand_out(found)

    async def read(self, wanted: RangeWanted) -> list[bytes]:
        """Kept items of a range."""
        return await trio.to_thread.run_sync(self._store.range, wanted.log_id, wanted.start, wanted.count)
