"""The audit log of a node that runs in this process, as users see it: `AuditApi` over the log and the replicator."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import trio

from audit.bodies import describe
from audit.entry import Entry
from audit.log import AuditLog
from audit.query import Query
from audit.witnessing import Witnessing
from overlay.app.api import EntryFilter, EntryReceipt, EntryView
from overlay.core.keys import NodeId
from overlay.errors import UsageError
from overlay.net.node import Node
from overlay.net.statistics import ChainStatistics
from overlay.registry import ChainKind

FOLLOW_WAITING: Final = 4096  # entries a follower may lag behind: our guess


class LocalAudit:
    """Keeps `AuditApi`; see there for what each method promises."""

    def __init__(self, log: AuditLog, engine: Node, witnessing: Witnessing) -> None:
        self._log = log
        self._witnessing = witnessing
        self._engine = engine
        self._followers: set[Callable[[tuple[Entry, ...]], None]] = set()
        log.listen(self._tell)

    async def append(self, kind: str, value: Any = None) -> EntryReceipt:
        """See `AuditApi`."""
        entry = await self._log.append_application(kind, value)
        return EntryReceipt(node_id=entry.node_id, log_id=entry.log_id, seq=entry.seq, hash=entry.hash)

    async def wait_replicated(self, entry: EntryReceipt) -> int:
        """See `AuditApi`."""
        replicator = self._engine.replicators[ChainKind.AUDIT]
        while True:
            linked = [peer.node_id for peer in self._engine.peers if peer.node_id != entry.node_id]
            copies = replicator.copies(entry.log_id, entry.seq, linked)
            if copies is not None:
                return copies
            await replicator.wait_change()  # it hears of peers that come and go, too

    async def wait_witnessed(self, entry: EntryReceipt) -> str:
        """See `AuditApi`. Raises NoWitnesses."""
        return (await self._witnessing.wait_witnessed(entry.log_id, entry.seq)).sentence

    async def read(
        self, *, node: str | None = None, last: int | None = None, only: EntryFilter | None = None
    ) -> list[EntryView]:
        """See `AuditApi`. Raises UsageError for a node of which there is no entry."""
        found = await self._log.select(query_of(only, None if node is None else self._node_id(node), last))
        unproven = await self._witnessing.unproven(found)
        return [replace(self._view(entry), unproven=entry.hash in unproven) for entry in found]

    @asynccontextmanager
    async def follow(self, *, only: EntryFilter | None = None) -> AsyncIterator[AsyncIterator[EntryView]]:
        """See `AuditApi`."""
        query = query_of(only)
        into, out = trio.open_memory_channel[EntryView](FOLLOW_WAITING)

        def take(entries: tuple[Entry, ...]) -> None:
            for entry in filter(query.matches, entries):
                try:
                    into.send_nowait(self._view(entry))
                except trio.WouldBlock:
                    return  # a follower that sleeps misses entries; `read` has them

        self._followers.add(take)
        async with out:
            try:
                yield out.__aiter__()
            finally:
                self._followers.discard(take)  # first: an entry that becomes durable now finds no closed channel

    def statistics(self) -> tuple[ChainStatistics, ...]:
        """Every log that this node holds, by node and log."""
        states = sorted(self._log.replica.states.values(), key=lambda state: (state.node_id, state.k, state.log_id))
        return tuple(
            ChainStatistics(node=str(state.node_id), log=state.log_id.hex(), size=state.size, root=state.root.hex())
            for state in states
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What someone should know."""
        damaged = [f"a stored log of {_short(log.row.node_id)} is damaged: {log.detail}" for log in self._log.damaged]
        names = [self._names().get(node, node.short) for node in self._log.over_quota]
        over = [f"{name} writes more than its share: its newest entries are not fetched now" for name in names]
        return (*damaged, *over, *([f"the audit log cannot be written: {self._log.warning}"] if self._log.warning else []))

    def _tell(self, entries: tuple[Entry, ...]) -> None:
        for follower in tuple(self._followers):
            follower(entries)

    def _names(self) -> dict[NodeId, str]:
        return {author.node_id: author.name for author in self._log.replica.endorsements().values()}

    def _node_id(self, name: str) -> NodeId:
        for node_id, known in self._names().items():
            if name in (known, str(node_id)):
                return node_id
        raise UsageError(f"there is no entry of {name!r}", hint="name a node as `overlay status` shows it")

    def _view(self, entry: Entry) -> EntryView:
        name = self._names().get(entry.node_id, entry.node_id.short)
        return EntryView(
            node_id=entry.node_id, node_name=name, log_id=entry.log_id, seq=entry.seq, hash=entry.hash, at=entry.at,
            type=entry.type_name, body=describe(entry.type, entry.body),
        )


def query_of(only: EntryFilter | None, node_id: NodeId | None = None, last: int | None = None) -> Query:
    """What a filter asks of the store."""
    only = only or EntryFilter()
    return Query(
        node_id=node_id, last=last, types=frozenset(only.types), since=only.since, until=only.until, text=only.text
    )


def _short(node_id: bytes) -> str:
    """A node, as far as a damaged store still names one."""
    try:
        return NodeId(node_id).short
    except (ValueError, TypeError):
        return "a node whose id cannot be read"
