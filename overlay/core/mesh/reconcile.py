"""Anti-entropy: every node tells its heads, asks for the ranges it lacks and pushes what is new (docs/protocol/replication.md).

    HEADS {0:1, 1:kind, 2:[[log_id16, node_id32, size, root32], ...]}
    WANT  {0:1, 1:kind, 2:log_id16, 3:start, 4:count}
    ITEMS {0:1, 1:kind, 2:log_id16, 3:start, 4:[raw, ...]}      at most 256 items and 1 MiB

One machine serves both kinds of chain. It keeps no items: what has been checked is handed over, and counts as ours only
when the shell says that it is durable (`stored`). A range that a peer does not deliver within 5 s is asked of another.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from overlay.core import limits
from overlay.core.guard import asked
from overlay.core.keys import NodeId
from overlay.core.wire import Array, Bytes, Tuple, UInt, make_map, open_map
from overlay.errors import Refused
from overlay.registry import ChainKind, FrameType, Reason

LOG_ID_SIZE: Final = 16
HEADS_MAX: Final = 4096  # heads in one message: our guess
LOGS_MAX: Final = 65_536  # logs that we follow: our guess
WANTS_AT_ONCE: Final = 16  # ranges under way: at most 16 MiB wait for storage
ANSWER_WITHIN: Final = 5.0
HEADS_EVERY: Final = 10.0  # heads are told again so often, in case something was lost
RANGE_BYTES: Final = 512 * 1024  # of items in one answer

_LOG: Final = Bytes(LOG_ID_SIZE)
_HEAD: Final = Tuple((_LOG, Bytes(32), UInt(2**53), Bytes(32)))
_ITEM: Final = Bytes(1, limits.ENTRY_MAX)


@dataclass(frozen=True, slots=True)
class Head:
    """How far a log reaches somewhere: the tree's size and root."""

    node_id: NodeId
    size: int
    root: bytes  # 32


class ChainCheck(Protocol):
    """Judges items of a chain. No state moves before they are stored."""

    def check(self, log_id: bytes, node_id: NodeId, start: int, items: Sequence[bytes]) -> int:
        """How many of them, from the first, may be stored now; the others are good and have to wait for their time.

        Raises:
            Refused: one of them does not hold after what is stored.
        """
        ...


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ItemsVerified:
    """Make these durable, then call `stored`, or `dropped`."""

    log_id: bytes
    node_id: NodeId
    start: int
    items: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RangeWanted:
    """A peer lacks a range of ours: read it, then call `supply`."""

    peer: NodeId
    log_id: bytes
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class PeerHead:
    """A peer holds a log up to this size."""

    peer: NodeId
    log_id: bytes
    size: int


@dataclass(frozen=True, slots=True)
class HeadsDiffer:
    """A peer has another root for the same size of a log: one of two histories."""

    peer: NodeId
    log_id: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Misbehaved:
    """A peer sent what no honest peer sends."""

    peer: NodeId
    reason: Reason
    detail: str


ReconcileEvent = ItemsVerified | RangeWanted | PeerHead | HeadsDiffer | Misbehaved


@dataclass(frozen=True, slots=True)
class _Want:
    peer: NodeId
    start: int
    count: int
    expires: float
    storing: bool = False


class Reconcile:
    """The machine for one kind of chain. `receive` never raises for what a peer did."""

    def __init__(
        self, kind: ChainKind, own_id: NodeId, check: ChainCheck, heads: Iterable[tuple[bytes, Head]] = (),
        wanted: Callable[[bytes, NodeId], bool] = lambda _log_id, _node_id: True,
    ) -> None:
        self.kind = kind
        self._own_id = own_id
        self._check = check
        self._wanted = wanted
        self._heads: dict[bytes, Head] = dict(heads)
        self._peers: dict[NodeId, dict[bytes, Head]] = {}
        self._wants: dict[bytes, _Want] = {}
        self._failed: dict[tuple[bytes, NodeId], float] = {}
        self._out: list[tuple[NodeId, FrameType, bytes]] = []
        self._tell_at = math.inf

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def heads(self) -> dict[bytes, Head]:
        """What is stored here, by log."""
        return dict(self._heads)

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        waiting = (want.expires for want in self._wants.values() if not want.storing)
        return min([self._tell_at, *waiting], default=math.inf)

    def messages_to_send(self) -> list[tuple[NodeId, FrameType, bytes]]:
        """What we owe the peers: (to, frame, body)."""
        out, self._out = self._out, []
        return out

    # --- peers ------------------------------------------------------------------------------------------------------

    def peer_opened(self, peer: NodeId, now: float) -> None:
        """There is a link: tell it our heads."""
        self._peers.setdefault(peer, {})
        self._tell(peer, self._heads)
        self._tell_at = min(self._tell_at, now + HEADS_EVERY)

    def peer_closed(self, peer: NodeId) -> None:
        """There is none any more: what it owed is asked of others."""
        self._peers.pop(peer, None)
        self._wants = {log: want for log, want in self._wants.items() if want.peer != peer or want.storing}
        self._failed = {key: until for key, until in self._failed.items() if key[1] != peer}
        if not self._peers:
            self._tell_at = math.inf

    # --- verbs ------------------------------------------------------------------------------------------------------

    def receive(self, sender: NodeId, frame: FrameType, body: bytes, now: float) -> list[ReconcileEvent]:
        """A message of a peer."""
        if sender not in self._peers:
            return []
        handle = {FrameType.HEADS: self._on_heads, FrameType.WANT: self._on_want, FrameType.ITEMS: self._on_items}.get(frame)
        try:
            if handle is None:
                raise Refused(Reason.UNEXPECTED_FRAME, frame.name)
            return handle(sender, body, now)
        except Refused as error:
            return [Misbehaved(sender, error.reason, error.detail)]

    def tick(self, now: float) -> list[ReconcileEvent]:
        """Time in: late ranges are asked of others, heads are told again."""
        for log_id, want in list(self._wants.items()):
            if not want.storing and now >= want.expires:
                del self._wants[log_id]
                self._failed[log_id, want.peer] = now + ANSWER_WITHIN * 4
        self._failed = {key: until for key, until in self._failed.items() if until > now}
        if now >= self._tell_at:
            self._tell_at = now + HEADS_EVERY if self._peers else math.inf
            for peer in self._peers:
                self._tell(peer, self._heads)
        self._ask(now)
        return []

    # --- what the shell answers -------------------------------------------------------------------------------------

    def stored(self, log_id: bytes, head: Head, now: float) -> None:
        """Items of a log are durable: this is its head now. Every peer hears of it."""
        before = self._heads.get(log_id)
        if before is not None and head.size <= before.size:
            return
        self._heads[log_id] = head
        self._wants.pop(log_id, None)
        for peer in self._peers:
            self._tell(peer, {log_id: head})
        self._ask(now)

    def dropped(self, log_id: bytes, now: float) -> None:
        """Verified items could not be stored: they are asked again later."""
        want = self._wants.pop(log_id, None)
        if want is not None:
            self._failed[log_id, want.peer] = now + ANSWER_WITHIN

    def appended(self, log_id: bytes, head: Head, items: Sequence[bytes]) -> None:
        """We wrote to a log of our own: push the items to every peer, with the new head."""
        self._heads[log_id] = head
        for peer in self._peers:
            for start, chunk in _chunks(head.size - len(items), items):
                self._send_items(peer, log_id, start, chunk)
            self._tell(peer, {log_id: head})

    def supply(self, wanted: RangeWanted, items: Sequence[bytes]) -> None:
        """The answer to `RangeWanted`; cut to what one message may hold."""
        if wanted.peer in self._peers:
            for start, chunk in _chunks(wanted.start, items)[:1]:
                self._send_items(wanted.peer, wanted.log_id, start, chunk)

    # --- messages ---------------------------------------------------------------------------------------------------

    def _on_heads(self, sender: NodeId, body: bytes, now: float) -> list[ReconcileEvent]:
        (rows,) = self._open(body, Array(_HEAD, HEADS_MAX))
        events: list[ReconcileEvent] = []
        known = self._peers[sender]
        for log_id, node_id, size, root in rows:
            before = known.get(log_id)
            if before is not None and size < before.size:
                continue  # an older message, or a peer that lost its store: it is no source for us
            if before is None and len(known) >= LOGS_MAX:
                raise Refused(Reason.QUOTA, "too many logs")
            known[log_id] = Head(NodeId(node_id), size, root)
            events.append(PeerHead(sender, log_id, size))
            own = self._heads.get(log_id)
            if own is not None and own.size == size and own.root != root:
                events.append(HeadsDiffer(sender, log_id, size))
        self._ask(now)
        return events

    def _on_want(self, sender: NodeId, body: bytes, now: float) -> list[ReconcileEvent]:
        del now
        log_id, start, count = self._open(body, _LOG, UInt(2**53), UInt(limits.WANT_ITEMS))
        own = self._heads.get(log_id)
        if own is None or start >= own.size or count == 0:
            return []  # we said so once; it may have changed
        return [RangeWanted(sender, log_id, start, min(count, own.size - start))]

    def _on_items(self, sender: NodeId, body: bytes, now: float) -> list[ReconcileEvent]:
        """Items that we asked for, or that their author pushes; others are dropped unread."""
        log_id, start, items = self._open(body, _LOG, UInt(2**53), Array(_ITEM, limits.WANT_ITEMS))
        head, want = self._peers[sender].get(log_id), self._wants.get(log_id)
        asked_for = want is not None and want.peer == sender and want.start == start and not want.storing
        if not items or (want is not None and want.storing):
            return []
        if head is None:
            if not asked_for and start != 0:
                return []
            head = Head(sender, 0, bytes(32))  # a log that its author has just begun
        own = self._heads.get(log_id)
        node_id = own.node_id if own is not None else head.node_id
        if start != (own.size if own is not None else 0) or node_id == self._own_id or not self._wanted(log_id, node_id):
            return []
        count = asked(lambda: self._check.check(log_id, node_id, start, items))
        if count == 0:
            self._failed[log_id, sender] = now + ANSWER_WITHIN * 4
            self._wants.pop(log_id, None)
            return []
        self._wants[log_id] = _Want(sender, start, count, now + ANSWER_WITHIN, storing=True)
        return [ItemsVerified(log_id, node_id, start, tuple(items[:count]))]

    def _open(self, body: bytes, *kinds: Any) -> list[Any]:
        kind, *values = open_map(body, UInt(255), *kinds, limit=limits.ITEMS_MAX + limits.ENTRY_MAX)
        if kind != self.kind:
            raise Refused(Reason.MALFORMED, "another kind of chain")
        return values

    # --- asking -----------------------------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        """One source per log, at most so many ranges at once."""
        for peer, heads in self._peers.items():
            for log_id, head in heads.items():
                if len(self._wants) >= WANTS_AT_ONCE:
                    return
                own = self._heads.get(log_id)
                size = own.size if own is not None else 0
                if head.size <= size or log_id in self._wants or self._failed.get((log_id, peer), 0.0) > now:
                    continue
                if head.node_id == self._own_id or not self._wanted(log_id, head.node_id):
                    continue
                if own is None and len(self._heads) >= LOGS_MAX:
                    continue
                count = min(limits.WANT_ITEMS, head.size - size)
                self._wants[log_id] = _Want(peer, size, count, now + ANSWER_WITHIN)
                self._out.append((peer, FrameType.WANT, make_map(int(self.kind), log_id, size, count)))

    # --- telling ----------------------------------------------------------------------------------------------------

    def _tell(self, peer: NodeId, heads: dict[bytes, Head]) -> None:
        rows = [[log_id, head.node_id, head.size, head.root] for log_id, head in sorted(heads.items())]
        for start in range(0, len(rows), HEADS_MAX):
            self._out.append((peer, FrameType.HEADS, make_map(int(self.kind), rows[start : start + HEADS_MAX])))

    def _send_items(self, peer: NodeId, log_id: bytes, start: int, items: Sequence[bytes]) -> None:
        self._out.append((peer, FrameType.ITEMS, make_map(int(self.kind), log_id, start, list(items))))


def _chunks(start: int, items: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
    """Runs of items that fit one message each, with the index of their first."""
    chunks: list[tuple[int, list[bytes]]] = []
    size = RANGE_BYTES + 1
    for index, item in enumerate(items, start):
        if size + len(item) > RANGE_BYTES or len(chunks[-1][1]) >= limits.WANT_ITEMS:
            chunks.append((index, []))
            size = 0
        chunks[-1][1].append(item)
        size += len(item)
    return chunks


