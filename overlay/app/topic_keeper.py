"""Topics of a node: publishing, keeping, replicating, and handing to subscribers, each item once and in its author's order."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Final

import trio

from overlay.app.api import Published, TopicItem
from overlay.app.subscriptions import Delivery, Subscription, TopicItems
from overlay.app.transient_sender import TransientSender
from overlay.core.batches import SignedBatch, parse_batch
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.mesh.chains import item_hash, next_hlc
from overlay.core.mesh.reconcile import Head, ItemsVerified, RangeWanted, Reconcile
from overlay.core.mesh.topics import (
    Publication,
    TopicCheck,
    TopicState,
    check_topic,
    sign_publication,
    topic_log_id,
    verify_publication,
)
from overlay.core.mesh.transients import Transients, make_transient, sorted_by_topic, topic_prefix, verify_transients
from overlay.errors import OverlayError, Refused
from overlay.net.link import Link
from overlay.net.node import Node
from overlay.net.request import PeerInfo
from overlay.registry import ChainKind, Reason
from overlay.store.topics import StoredItem, TopicStore

BATCHES_SEEN: Final = 1024  # the last so many are known again, should they come twice: our guess
PREFIXES_KEPT: Final = 1024  # topics whose names need no second look: our guess


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
        self._sender = TransientSender(
            mesh_id=mesh_id, identity=identity, calendar=calendar, send=self._send_batch, links=self._links
        )
        self._reached = 0  # linked peers when the last batch began
        self._prefixes: dict[str, bytes] = {}
        self._seen_batches: dict[bytes, None] = {}  # their heads
        self.engine: Node | None = None  # who pushes; set when it runs
        heads = {log_id: Head(state.node_id, state.size, state.head) for log_id, state in check.states.items()}
        self.machine = Reconcile(ChainKind.TOPIC, identity().node_id, check, heads.items())

    # --- publishing -------------------------------------------------------------------------------------------------

    async def publish(self, topic: str, body: bytes) -> Published:
        """Sign, make durable, push."""
        check_topic(topic)
        self._check_own(topic)
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
        self._hand_out([self._verify(raw)], [raw])
        return Published(topic=topic, seq=state.size, peers=0 if self.engine is None else len(self.engine.peers))

    async def publish_transient(self, topic: str, body: bytes) -> Published:
        """Queue it to be signed and pushed, together with what else is queued then; nothing is stored."""
        self._check_own(topic)
        if await self._sender.put(make_transient(self._prefix(topic), body)):
            self._reached = len(self._links())
        return Published(topic=topic, seq=None, peers=self._reached)

    async def run(self) -> None:
        """Sign and push transient publications until cancelled; what is queued then still leaves."""
        await self._sender.run()

    def on_transient_batch(self, raw: bytes, sender: PeerInfo) -> None:
        """Transient publications from a linked peer, their author; once. Raises Refused.

        Those that come before their author's audit log has shown who may sign are lost, as transient ones may be.
        """
        batch = parse_batch(raw)
        author = self._check.author_of(batch.kid)
        if author is None:
            return
        found = verify_transients(batch, mesh_id=self._mesh_id, author=author)
        if author.node_id != sender.node_id:
            raise Refused(Reason.WRONG_AUTHOR, "transient publications of another node")
        head = found.batch.head.raw
        if head in self._seen_batches:
            return
        self._seen_batches[head] = None
        while len(self._seen_batches) > BATCHES_SEEN:
            self._seen_batches.pop(next(iter(self._seen_batches)))
        self._deliver(found, sender)

    def _send_batch(self, batch: SignedBatch) -> None:
        """To every linked peer, and to our own subscribers."""
        if self.engine is not None:
            self.engine.send_transients(batch.encode())
        if self._subscriptions:
            own = self._identity().verified
            self._deliver(Transients(batch=batch, topics=sorted_by_topic(batch.messages)), self._info(own.node_id, own.name))

    def _deliver(self, found: Transients, author: PeerInfo) -> None:
        """Queue what subscribers asked for; it becomes items when they read it."""
        for subscription in self._subscriptions:
            numbers = found.topics.get(subscription.topic)
            if numbers and self._may_publish(author, subscription.topic):
                items = _items(found, subscription.topic, author)
                subscription.push(Delivery(log_id=None, count=len(numbers), size=found.batch.size, items=items))

    def _links(self) -> tuple[Link, ...]:
        """Those that are open."""
        return () if self.engine is None else tuple(link for link in self.engine.pool.links.values() if link.is_open)

    def _prefix(self, topic: str) -> bytes:
        prefix = self._prefixes.get(topic)
        if prefix is None:
            prefix = topic_prefix(topic)
            if len(self._prefixes) >= PREFIXES_KEPT:
                self._prefixes.clear()
            self._prefixes[topic] = prefix
        return prefix

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

    def _readable(self, kept: list[StoredItem]) -> list[Delivery]:
        """Nothing is shown whose author may not publish here now, or that cannot be verified any more.

        The second is so because nobody remembers its endorsement.
        """
        found = []
        for stored in kept:
            try:
                one = self._verify(stored.raw)
            except Refused:
                continue
            if self._may_publish(self._info(one.author.node_id, one.author.name), one.topic):
                found.append(self._delivery(one, stored.raw))
        return found

    def _hand_out(self, publications: Sequence[Publication], raws: Sequence[bytes]) -> None:
        for one, raw in zip(publications, raws, strict=True):
            for subscription in self._subscriptions:
                if subscription.topic == one.topic:
                    subscription.push(self._delivery(one, raw))

    def _delivery(self, one: Publication, raw: bytes) -> Delivery:
        item = TopicItem(
            topic=one.topic, author=self._info(one.author.node_id, one.author.name), seq=one.seq, at=one.at, body=one.body,
            prove=lambda: raw,
        )
        return Delivery(log_id=one.log_id, count=1, size=len(raw), items=iter((item,)))

    def _info(self, node_id: NodeId, name: str) -> PeerInfo:
        return PeerInfo(node_id, name, (), 0) if self.engine is None else self.engine.info_of(node_id, name)

    def _check_own(self, topic: str) -> None:
        """Raises Refused: nobody would take it."""
        if self.engine is not None:
            own = self._identity().verified
            self.engine.rights.check_publishes(self._info(own.node_id, own.name), topic)

    def _may_publish(self, author: PeerInfo, topic: str) -> bool:
        """By the policy; before the node runs, nothing comes."""
        return self.engine is None or self.engine.rights.may_publish(author, topic)

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
        self._hand_out(found, items.items)

    async def read(self, wanted: RangeWanted) -> list[bytes]:
        """Kept items of a range."""
        return await trio.to_thread.run_sync(self._store.range, wanted.log_id, wanted.start, wanted.count)


def _items(found: Transients, topic: str, author: PeerInfo) -> Iterator[TopicItem]:
    """Transient publications, made one by one as they are read."""
    proof = found.batch.proof
    for index, at, body in found.on(topic):
        yield TopicItem(topic=topic, author=author, seq=None, at=at, body=body, prove=partial(proof, index))
