"""A toy chain and nodes that hold it, for tests of reconciliation: real machines, real frames, no keys.

An item is `log/number/text`. A text of "bad" does not hold, "later" has to wait, and "fork..." follows another history.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from overlay.core.keys import NodeId
from overlay.core.mesh.reconcile import Head, ItemsVerified, Reconcile, ReconcileEvent
from overlay.core.mesh.replication_frames import Items, Want, make_heads, make_items, make_want
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import ChainKind, FrameType, Reason

LOG = b"L" * 16


def node(name: str) -> NodeId:
    return NodeId(sha256(name.encode()))


def item(number: int, text: str = "", log: bytes = LOG) -> bytes:
    return b"%s/%d/%s" % (log, number, text.encode())


def head(size: int, author: NodeId, *, log: bytes = LOG, root: bytes | None = None) -> Head:
    return Head(author, size, root or sha256(log, str(size).encode()))


class ToyChains:
    """The `ChainCheck` of toy chains, and where they are kept."""

    def __init__(self, kind: ChainKind = ChainKind.AUDIT) -> None:
        self.kind = kind
        self.kept: dict[bytes, dict[int, bytes]] = {}
        self.checks = 0

    def size(self, log_id: bytes) -> int:
        return max(self.kept.get(log_id, {}), default=-1) + 1

    def check(self, log_id: bytes, node_id: NodeId, start: int, items: Sequence[bytes]) -> int:
        self.checks += 1
        size = self.size(log_id)
        assert start == size or (start > size and self.kind is ChainKind.TOPIC)
        for index, one in enumerate(items):
            log, number, text = one.split(b"/", 2)
            if log != log_id or int(number) != start + index or text == b"bad":
                raise Refused(Reason.BAD_SIGNATURE, "a bad item")
            if text.startswith(b"fork"):
                raise Refused(Reason.FORKED, "another history")
            if text == b"later":
                return index
        return len(items)

    def number_of(self, one: bytes) -> int:
        return int(one.split(b"/", 2)[1])

    def keep(self, log_id: bytes, start: int, items: Sequence[bytes]) -> None:
        self.kept.setdefault(log_id, {}).update(enumerate(items, start))

    def read(self, log_id: bytes, start: int, count: int) -> list[bytes]:
        kept = self.kept.get(log_id, {})
        first = min((number for number in kept if number >= start), default=start)
        return [kept[number] for number in range(first, first + count) if number in kept]


@dataclass
class Ours:
    """One machine under test; a test plays all its peers."""

    kind: ChainKind = ChainKind.AUDIT
    name: NodeId = field(default_factory=lambda: node("ours"))
    now: float = 0.0

    def __post_init__(self) -> None:
        self.chains = ToyChains(self.kind)
        self.machine = Reconcile(self.kind, self.name, self.chains)

    def open(self, *peers: NodeId) -> None:
        for peer in peers:
            self.machine.peer_opened(peer, self.now)

    def heads(
        self, sender: NodeId, size: int, author: NodeId, *, log: bytes = LOG, root: bytes | None = None
    ) -> list[ReconcileEvent]:
        (body,) = make_heads(self.kind, {log: head(size, author, log=log, root=root)})
        return self.machine.receive(sender, FrameType.HEADS, body, self.now)

    def want(self, sender: NodeId, start: int, count: int, log: bytes = LOG) -> list[ReconcileEvent]:
        return self.machine.receive(sender, FrameType.WANT, make_want(self.kind, Want(log, start, count)), self.now)

    def items(
        self, sender: NodeId, start: int, *items: bytes, log: bytes = LOG, wanted: int | None = None
    ) -> list[ReconcileEvent]:
        """Pushed, or with `wanted` an answer."""
        body = make_items(self.kind, Items(log, start, items, wanted))
        return self.machine.receive(sender, FrameType.ITEMS, body, self.now)

    def store(self, events: list[ReconcileEvent]) -> list[ReconcileEvent]:
        """Do what the shell does with verified items; the other events."""
        others: list[ReconcileEvent] = []
        for event in events:
            if isinstance(event, ItemsVerified):
                self.chains.keep(event.log_id, event.start, event.items)
                size = self.chains.size(event.log_id)
                self.machine.stored(event.log_id, head(size, event.node_id, log=event.log_id), self.now)
            else:
                others.append(event)
        return others

    def write(self, author: NodeId, count: int, log: bytes = LOG) -> None:
        """Append to a log as its author."""
        start = self.chains.size(log)
        items = [item(number, log=log) for number in range(start, start + count)]
        self.chains.keep(log, start, items)
        self.machine.appended(log, head(start + count, author, log=log), items)

    def wait(self, seconds: float) -> list[ReconcileEvent]:
        self.now += seconds
        return self.machine.tick(self.now)

    def sent(self, frame: FrameType) -> list[tuple[NodeId, bytes]]:
        """What goes out, of one type; all of it is gone afterwards."""
        return [(peer, body) for peer, kind, body in self.machine.messages_to_send() if kind is frame]
