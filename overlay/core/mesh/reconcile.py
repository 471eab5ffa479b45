"""Anti-entropy: every node tells its heads, asks for what it lacks and pushes what is new (docs/protocol/replication.md).

One machine serves both kinds of chain. Rules:

- it keeps no items: what has been checked is handed over, and counts as ours when the shell says that it is durable
- one range of a log is under way at a time, from one peer; what does not come within 5 s is asked of another, and so is the
  rest of an answer that is shorter than it could be
- a peer that sends what no honest peer sends is forgotten (`Misbehaved`); silence, an old head or a gap is no fault
- another history of a log is the author's fault and not that of the peer who shows it (`HeadsDiffer`)
- no peer can have more than its share of what is under way, so none can starve the others
- a peer holds what we hold as far as it has shown a root of ours (`PeerAgrees`); a size alone says nothing
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from overlay.core.guard import asked
from overlay.core.keys import NodeId
from overlay.core.limits import (
    ENTRY_MAX,
    HEADS_EVERY,
    LOGS_MAX,
    LOGS_PER_AUTHOR,
    LOGS_PER_PEER,
    RANGE_BYTES,
    REPLICATION_ANSWER_WITHIN,
    REPLICATION_HELD_FIRST,
    REPLICATION_PAUSE_MAX,
    ROOTS_MAX,
    WANT_ITEMS,
    WANTS_AT_ONCE,
    WANTS_PER_PEER,
)
from overlay.core.mesh.probes import ItemShown, Probes
from overlay.core.mesh.replication_frames import (
    Head,
    Items,
    Want,
    chunks,
    make_heads,
    make_items,
    make_want,
    open_heads,
    open_items,
    open_want,
)
from overlay.errors import Refused
from overlay.registry import ChainKind, FrameType, Reason

__all__ = [
    "ChainCheck", "Head", "HeadsDiffer", "ItemShown", "ItemsVerified", "Misbehaved", "PeerAgrees", "RangeWanted", "Reconcile",
    "ReconcileEvent",
]  # fmt: skip


class ChainCheck(Protocol):
    """Judges items of a chain. No state moves before they are stored."""

    def check(self, log_id: bytes, node_id: NodeId, start: int, items: Sequence[bytes]) -> int:
        """How many of them, from the first, may be stored now; the others are good and have to wait for their time.

        Raises:
            Refused: one of them does not hold after what is stored; FORKED if it would after another history.
        """
        ...

    def number_of(self, item: bytes) -> int:
        """The number of a stored item in its chain."""
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
class PeerAgrees:
    """A peer holds the same log as we up to this size, by its root; it has not shown so before."""

    peer: NodeId
    log_id: bytes
    size: int


@dataclass(frozen=True, slots=True)
class HeadsDiffer:
    """A peer has another history of a log than we: both hold so many items, and the last of them differs, if the peer
    tells the truth. Said once for each peer and log."""

    peer: NodeId
    log_id: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Misbehaved:
    """A peer sent what no honest peer sends. The machine has forgotten it."""

    peer: NodeId
    reason: Reason
    detail: str


ReconcileEvent = ItemsVerified | RangeWanted | PeerAgrees | HeadsDiffer | ItemShown | Misbehaved


# --- state ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A range from `start` on that was asked for (`peer` owes it until `expires`), or has come and is being stored."""

    peer: NodeId
    start: int
    expires: float
    storing: bool = False
    held: bool = False  # more of it has come, and has to wait
    count: int = 0  # how many were asked for
    short: bool = False  # less has come than was asked for, and would have fitted


@dataclass(frozen=True, slots=True)
class _Pause:
    """A peer is not asked for a log for a while."""

    until: float
    length: float


@dataclass(slots=True)
class _Peer:
    """What a peer has told us, and what we have yet to tell it."""

    heads: dict[bytes, Head] = field(default_factory=dict)
    news: dict[bytes, Head] = field(default_factory=dict)
    pauses: dict[bytes, _Pause] = field(default_factory=dict)
    differs: set[bytes] = field(default_factory=set)
    agrees: dict[bytes, int] = field(default_factory=dict)  # the largest size for which it showed our root
    gaps: set[bytes] = field(default_factory=set)  # logs of which it no longer has what we lack
    ahead: dict[bytes, None] = field(default_factory=dict)  # logs of which it has more than we, in the order in which we heard


class Reconcile:
    """The machine for one kind of chain. `receive` never raises for what a peer did."""

    def __init__(
        self, kind: ChainKind, own_id: NodeId, check: ChainCheck, heads: Iterable[tuple[bytes, Head]] = (),
        wanted: Callable[[bytes, NodeId], bool] = lambda _log_id, _node_id: True,
    ) -> None:  # fmt: skip
        self.kind = kind
        self._own_id = own_id
        self._check = check
        self._wanted = wanted
        self._heads: dict[bytes, Head] = dict(heads)
        self._held_of = Counter(head.node_id for head in self._heads.values())  # logs of each author
        self._peers: dict[NodeId, _Peer] = {}
        self._behind: dict[bytes, set[NodeId]] = {}  # logs of which some peers have more than we
        self._under_way: dict[bytes, _UnderWay] = {}
        self._out: list[tuple[NodeId, FrameType, bytes]] = []
        self._late: list[ReconcileEvent] = []  # found while the shell told us something
        self._probes = Probes()
        self._roots: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()  # ours, by log and size
        for log_id, head in self._heads.items():
            self._remember(log_id, head)
        self._tell_at = math.inf
        self._retry_at = math.inf

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def heads(self) -> dict[bytes, Head]:
        """What is stored here, by log."""
        return dict(self._heads)

    def agreed(self, peer: NodeId, log_id: bytes) -> int:
        """Up to which size a peer has shown to hold what we hold of a log; 0 without a link to it."""
        known = self._peers.get(peer)
        return 0 if known is None else known.agrees.get(log_id, 0)

    def differs(self, peer: NodeId, log_id: bytes) -> bool:
        """Whether a peer has shown another history of a log than ours, since there is a link to it."""
        known = self._peers.get(peer)
        return known is not None and log_id in known.differs

    def is_behind(self, log_id: bytes) -> bool:
        """Whether some peer has told that it holds more of a log than we."""
        return log_id in self._behind

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        if self._late:
            return -math.inf
        waiting = (one.expires for one in self._under_way.values() if not one.storing)
        return min((self._tell_at, self._retry_at, self._probes.deadline, *waiting))

    def messages_to_send(self) -> list[tuple[NodeId, FrameType, bytes]]:
        """What we owe the peers: (to, frame, body)."""
        out, self._out = self._out, []
        for peer_id, peer in self._peers.items():
            if not peer.news:
                continue
            news, peer.news = peer.news, {}
            out += [(peer_id, FrameType.HEADS, body) for body in make_heads(self.kind, news)]
        return out

    # --- peers ------------------------------------------------------------------------------------------------------

    def peer_opened(self, peer: NodeId, now: float) -> None:
        """There is a link, or another one than before: tell it our heads, and ask again for what the old link owed."""
        known = self._peers.setdefault(peer, _Peer())
        known.news.update(self._heads)
        known.pauses.clear()
        for log_id, index in self._probes.again(peer, now):
            self._out.append((peer, FrameType.WANT, make_want(self.kind, Want(log_id, index, 1))))
        self._forget_owed(peer)
        self._tell_at = min(self._tell_at, now + HEADS_EVERY)

    def peer_closed(self, peer: NodeId) -> None:
        """There is none any more: what it owed is asked of others with the next `tick`, which is due at once."""
        if self._peers.pop(peer, None) is None:
            return
        self._late += self._probes.closed(peer)
        for log_id, having in list(self._behind.items()):
            having.discard(peer)
            if not having:
                del self._behind[log_id]
        self._forget_owed(peer)
        if not self._peers:
            self._tell_at = self._retry_at = math.inf

    def _forget_owed(self, peer: NodeId) -> None:
        for log_id, one in list(self._under_way.items()):
            if one.peer == peer and not one.storing:
                del self._under_way[log_id]
                self._retry_at = -math.inf

    # --- verbs ------------------------------------------------------------------------------------------------------

    def receive(self, sender: NodeId, frame: FrameType, body: bytes, now: float) -> list[ReconcileEvent]:
        """A message of a peer."""
        peer = self._peers.get(sender)
        if peer is None:
            return []
        try:
            return self._handle(sender, peer, frame, body, now)
        except Refused as error:
            self.peer_closed(sender)
            self._ask(now)
            return [Misbehaved(sender, error.reason, error.detail)]

    def tick(self, now: float) -> list[ReconcileEvent]:
        """Time in: late ranges are asked of others, heads are told again."""
        for log_id, one in list(self._under_way.items()):
            if not one.storing and now >= one.expires:
                self._give_up(log_id, one.peer, now, REPLICATION_ANSWER_WITHIN)
        if now >= self._tell_at:
            self._tell_at = now + HEADS_EVERY
            for peer in self._peers.values():  # what it has told of itself in the same words, it knows
                peer.news.update({log_id: head for log_id, head in self._heads.items() if peer.heads.get(log_id) != head})
        self._ask(now)
        self._late += self._probes.late(now)
        return self._take_late()

    # --- what the shell answers -------------------------------------------------------------------------------------

    def stored(self, log_id: bytes, head: Head, now: float) -> None:
        """Items of a log are durable: this is its head now. Every peer hears of it."""
        one = self._under_way.pop(log_id, None)
        if one is not None and one.peer in self._peers:
            if one.held:
                self._pause(log_id, one.peer, now, REPLICATION_HELD_FIRST)
            elif one.short:
                self._pause(log_id, one.peer, now, REPLICATION_ANSWER_WITHIN)
            else:
                self._peers[one.peer].pauses.pop(log_id, None)
        self._grow(log_id, head)
        self._ask(now)

    def dropped(self, log_id: bytes, now: float) -> None:
        """Verified items could not be stored: they are asked for again later."""
        one = self._under_way.get(log_id)
        if one is not None and one.storing:
            self._give_up(log_id, one.peer, now, REPLICATION_ANSWER_WITHIN)
            self._ask(now)

    def appended(self, log_id: bytes, head: Head, items: Sequence[bytes]) -> None:
        """We wrote to a log of our own: push the items to every peer, with the new head."""
        bodies = [make_items(self.kind, chunk) for chunk in chunks(log_id, head.size - len(items), items)]
        for peer_id in self._peers:
            self._out += [(peer_id, FrameType.ITEMS, body) for body in bodies]
        self._grow(log_id, head)

    def supply(self, wanted: RangeWanted, items: Sequence[bytes]) -> None:
        """The answer to `RangeWanted`; cut to what one message may hold. Nothing at all is an answer, too.

        The first item may have a higher number than the one wanted, where a topic's chain no longer has its start.
        """
        if wanted.peer not in self._peers:
            return
        try:
            start = self._check.number_of(items[0]) if items else wanted.start
        except Refused:  # someone edited our store
            start, items = wanted.start, ()
        answer = replace(chunks(wanted.log_id, start, items)[0], wanted=wanted.start)
        self._out.append((wanted.peer, FrameType.ITEMS, make_items(self.kind, answer)))

    def probe(self, peer: NodeId, log_id: bytes, index: int, now: float) -> None:
        """Ask a peer what it has at this number of a log of which it has another history; `ItemShown` comes for sure."""
        self._probes.ask(peer, log_id, index, now)
        if peer not in self._peers:
            self._late += self._probes.closed(peer)
            return
        self._out.append((peer, FrameType.WANT, make_want(self.kind, Want(log_id, index, 1))))

    # --- messages ---------------------------------------------------------------------------------------------------

    def _handle(self, sender: NodeId, peer: _Peer, frame: FrameType, body: bytes, now: float) -> list[ReconcileEvent]:
        match frame:
            case FrameType.HEADS:
                return self._on_heads(sender, peer, open_heads(self.kind, body), now)
            case FrameType.WANT:
                return self._on_want(sender, open_want(self.kind, body))
            case FrameType.ITEMS:
                return self._on_items(sender, peer, open_items(self.kind, body), now)
        raise Refused(Reason.UNEXPECTED_FRAME, frame.name)

    def _on_heads(self, sender: NodeId, peer: _Peer, heads: dict[bytes, Head], now: float) -> list[ReconcileEvent]:
        if len(peer.heads.keys() | heads.keys()) > LOGS_PER_PEER:
            raise Refused(Reason.QUOTA, "too many logs")
        news = False
        for log_id, head in heads.items():
            before = peer.heads.get(log_id)
            if before is not None and (head == before or head.size < before.size):
                continue  # nothing new; or an older message, or a peer that lost its store: it is no source for us
            peer.heads[log_id], news = head, True
            self._compare(sender, peer, log_id)
        if news:
            self._ask(now)
        return self._take_late()

    def _on_want(self, sender: NodeId, want: Want) -> list[ReconcileEvent]:
        own = self._heads.get(want.log_id)
        if own is None or want.start >= own.size:
            nothing = Items(want.log_id, want.start, (), want.start)
            self._out.append((sender, FrameType.ITEMS, make_items(self.kind, nothing)))
            return []
        return [RangeWanted(sender, want.log_id, want.start, min(want.count, own.size - want.start))]

    def _on_items(self, sender: NodeId, peer: _Peer, came: Items, now: float) -> list[ReconcileEvent]:
        """Items that follow what we hold, asked for or pushed; of others nothing is looked at."""
        shown = self._probes.answer(sender, came)
        if shown is not None:
            return [shown]
        log_id, one = came.log_id, self._under_way.get(came.log_id)
        own = self._heads.get(log_id)
        # an answer that was asked for over an earlier link may come late, and is no fault
        owes = one is not None and one.peer == sender and not one.storing and came.wanted == one.start
        if not self._fits(sender, peer, came, now):
            if owes:
                self._give_up(log_id, sender, now, REPLICATION_ANSWER_WITHIN)
                self._ask(now)
            return []
        known = own or peer.heads.get(log_id)
        node_id = sender if known is None else known.node_id  # a log that its author has just begun
        try:
            count = asked(lambda: self._check.check(log_id, node_id, came.start, came.items))
        except Refused as error:
            if error.reason is not Reason.FORKED:
                raise
            self._differ(sender, peer, log_id, came.start)
            if owes:
                self._give_up(log_id, sender, now, REPLICATION_PAUSE_MAX)
            self._ask(now)
            return self._take_late()
        held = count < len(came.items)
        if count == 0:
            self._give_up(log_id, sender, now, REPLICATION_HELD_FIRST)
            self._ask(now)
            return []
        short = owes and one is not None and self._is_short(came, one.count)
        self._under_way[log_id] = _UnderWay(sender, came.start, math.inf, storing=True, held=held, short=short)
        return [ItemsVerified(log_id, node_id, came.start, came.items[:count])]

    def _is_short(self, came: Items, wanted: int) -> bool:
        """Whether an answer holds less than it could: whoever sends a log item by item is asked after all others."""
        small = sum(map(len, came.items)) <= RANGE_BYTES - ENTRY_MAX  # one more would have fitted
        return self.kind is ChainKind.AUDIT and len(came.items) < wanted and small

    def _fits(self, sender: NodeId, peer: _Peer, came: Items, now: float) -> bool:
        """Whether these items are worth a look now."""
        log_id = came.log_id
        one, own = self._under_way.get(log_id), self._heads.get(log_id)
        if not came.items or log_id in peer.differs or (one is not None and one.storing):
            return False
        if one is None and len(self._under_way) >= WANTS_AT_ONCE:
            return False
        known = own or peer.heads.get(log_id)
        if not self._wanted(log_id, sender if known is None else known.node_id):
            return False
        if own is None and not self._has_room(sender if known is None else known.node_id):
            return False
        size = 0 if own is None else own.size
        return came.start == size or (came.start > size and self._gap_is_final(sender, peer, came, now))

    def _has_room(self, author: NodeId) -> bool:
        """Whether we take another log of this author."""
        return len(self._heads) < LOGS_MAX and self._held_of[author] < LOGS_PER_AUTHOR

    def _gap_is_final(self, sender: NodeId, peer: _Peer, came: Items, now: float) -> bool:
        """Whether what lies between our end and the offered start is gone everywhere: only topics lose their start.

        A peer could hide items by saying that it dropped them, so all others who have more than we are asked first.
        """
        log_id, one = came.log_id, self._under_way.get(came.log_id)
        if self.kind is not ChainKind.TOPIC or one is None or one.peer != sender or came.wanted is None:
            return False
        peer.gaps.add(log_id)
        return sender == peer.heads[log_id].node_id or not any(
            log_id not in self._peers[other].gaps and self._may_ask(other, log_id, now)
            for other in self._behind.get(log_id, ())
        )

    # --- heads ------------------------------------------------------------------------------------------------------

    def _grow(self, log_id: bytes, head: Head) -> None:
        """Our own head moves, never back."""
        before = self._heads.get(log_id)
        if before is not None and head.size <= before.size:
            return
        if before is None:
            self._held_of[head.node_id] += 1
        self._heads[log_id] = head
        self._remember(log_id, head)
        for peer_id in self._behind.pop(log_id, ()):
            self._peers[peer_id].ahead.pop(log_id, None)
        for peer_id, peer in self._peers.items():
            peer.news[log_id] = head
            peer.gaps.discard(log_id)
            self._compare(peer_id, peer, log_id)

    def _compare(self, peer_id: NodeId, peer: _Peer, log_id: bytes) -> None:
        """A peer's head of a log against ours."""
        theirs, ours = peer.heads.get(log_id), self._heads.get(log_id)
        if theirs is None:
            return
        if ours is None and not self._has_room(theirs.node_id):
            return  # we shall not hold it, and ask nobody for it
        if ours is None or theirs.size > ours.size:
            self._behind.setdefault(log_id, set()).add(peer_id)
            peer.ahead[log_id] = None
            return
        root = ours.root if theirs.size == ours.size else self._roots.get((log_id, theirs.size))
        if root is not None and root != theirs.root:
            self._differ(peer_id, peer, log_id, theirs.size)
        elif root is not None and theirs.size > peer.agrees.get(log_id, 0):
            peer.agrees[log_id] = theirs.size
            self._late.append(PeerAgrees(peer_id, log_id, theirs.size))

    def _remember(self, log_id: bytes, head: Head) -> None:
        """Our root at this size, for peers who will be there when we are further on."""
        self._roots[log_id, head.size] = head.root
        while len(self._roots) > ROOTS_MAX:
            self._roots.popitem(last=False)

    def _differ(self, peer_id: NodeId, peer: _Peer, log_id: bytes, size: int) -> None:
        """Another history; told once, and the peer is no source of this log any more."""
        if log_id not in peer.differs:
            peer.differs.add(log_id)
            self._late.append(HeadsDiffer(peer_id, log_id, size))

    def _take_late(self) -> list[ReconcileEvent]:
        late, self._late = self._late, []
        return late

    # --- asking -----------------------------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        """Ask for what we lack: each log of one peer, its author if it has a choice, else whoever owes us least."""
        self._retry_at = math.inf
        owed = Counter(one.peer for one in self._under_way.values())
        for peer_id, peer in self._peers.items():
            for log_id in peer.ahead:
                if len(self._under_way) >= WANTS_AT_ONCE:
                    return
                if owed[peer_id] >= WANTS_PER_PEER:
                    break  # whoever names many logs and answers for none is not looked through again and again
                if log_id not in self._under_way:
                    source = self._source(log_id, owed, now)
                    if source is not None:
                        owed[source] += 1
                        self._send_want(source, log_id, now)

    def _source(self, log_id: bytes, owed: Counter[NodeId], now: float) -> NodeId | None:
        """Whom to ask for a log; None if nobody may be asked now."""
        best: tuple[bool, bool, int, NodeId] | None = None
        for peer_id in self._behind[log_id]:
            peer = self._peers[peer_id]
            node_id = peer.heads[log_id].node_id
            if not self._may_ask(peer_id, log_id, now):
                pause = peer.pauses.get(log_id)
                self._retry_at = min(self._retry_at, math.inf if pause is None else pause.until)
            elif owed[peer_id] < WANTS_PER_PEER and self._wanted(log_id, node_id):
                found = (log_id in peer.gaps, peer_id != node_id, owed[peer_id], peer_id)
                best = found if best is None else min(best, found)
        return None if best is None else best[-1]

    def _may_ask(self, peer_id: NodeId, log_id: bytes, now: float) -> bool:
        peer = self._peers[peer_id]
        pause = peer.pauses.get(log_id)
        return log_id not in peer.differs and (pause is None or now >= pause.until)

    def _send_want(self, peer_id: NodeId, log_id: bytes, now: float) -> None:
        own = self._heads.get(log_id)
        size = 0 if own is None else own.size
        count = min(WANT_ITEMS, self._peers[peer_id].heads[log_id].size - size)
        self._under_way[log_id] = _UnderWay(peer_id, size, now + REPLICATION_ANSWER_WITHIN, count=count)
        self._out.append((peer_id, FrameType.WANT, make_want(self.kind, Want(log_id, size, count))))

    def _give_up(self, log_id: bytes, peer_id: NodeId, now: float, first: float) -> None:
        """What is under way from this peer will not be stored; others are asked, and it again after a pause."""
        one = self._under_way.get(log_id)
        if one is not None and one.peer == peer_id:
            del self._under_way[log_id]
        self._pause(log_id, peer_id, now, first)

    def _pause(self, log_id: bytes, peer_id: NodeId, now: float, first: float) -> None:
        """The first pause is the shortest, each further one twice as long."""
        peer = self._peers.get(peer_id)
        if peer is not None and log_id in peer.heads:  # what it never named is not remembered
            before = peer.pauses.get(log_id)
            length = first if before is None else min(before.length * 2, REPLICATION_PAUSE_MAX)
            peer.pauses[log_id] = _Pause(now + length, length)
