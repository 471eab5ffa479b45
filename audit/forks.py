"""Fork proofs: one object that shows, to anyone who knows the mesh's root, that a node has told two stories.

    {0:1, 1:kind, 2:side, 3:side}        at most 192 KiB; two sides that are alike in form stand in the order of their bytes

Rules:
- both sides are signed by one node, under keys that are in force when the proof is judged
- what they say contradicts: see `_contradict`; different means different bytes
- no honest node ever signs both: it signs once, makes that durable, and shows it after that
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NoReturn

from audit.bodies import LogOpen
from audit.entry import Entry
from audit.fork_sides import Side, SignedEntry, SignedHead, SignedLeaf
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.core.wire import Anything, UInt, encode, make_map, malformed, open_map, sha256
from overlay.errors import Refused
from overlay.registry import EntryType, ForkKind, Reason

FORK_PROOF_MAX: Final = 192 * 1024  # bytes: two entries of full size with their certificates take 140 KiB

Signed = SignedEntry | SignedHead | SignedLeaf


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkProof:
    """A proof that has passed every check."""

    kind: ForkKind
    node_id: NodeId
    name: str  # of the node, by its certificate
    detail: str  # for people: what it has done
    until: datetime  # when the later of the two certificates ends
    raw: bytes = field(repr=False)

    @property
    def hash(self) -> bytes:
        """Names this proof. 32 bytes."""
        return sha256(self.raw)


@dataclass(frozen=True, slots=True)
class UnverifiedFork:
    """Of the right form; what it says must not be believed."""

    kind: ForkKind
    first: Side
    second: Side
    raw: bytes = field(repr=False)

    @property
    def accused(self) -> NodeId:
        """Whom it accuses, as its first side says. Whether it is so shows `verify`."""
        entry, head = self.first.entry, self.first.head
        if entry is not None:
            return entry.says.node_id
        if head is None:
            malformed("an empty side")
        return head.says.node_id

    def verify(self, root: Root, at: datetime) -> ForkProof:
        """Check all of it.

        Args:
            at: for which the keys of both sides have to be in force: now, or when the proof was found.

        Raises:
            Refused: see `Side.verify`; BAD_FORK_PROOF if the two do not contradict each other.
        """
        one, other = self.first.verify(root, at), self.second.verify(root, at)
        if one.peer.node_id != other.peer.node_id:
            _no_fork("the two sides are of two nodes")
        detail = _contradict(self.kind, one, other)
        until = max(one.peer.certificate.not_after, other.peer.certificate.not_after)
        return ForkProof(
            kind=self.kind, node_id=one.peer.node_id, name=one.peer.name, detail=detail, until=until, raw=self.raw
        )


def make_fork(kind: ForkKind, one: Side, other: Side) -> bytes:
    """The bytes of a proof; sides of unlike forms come in the order of the kind's name."""
    return make_map(int(kind), *(side.fields() for side in _in_order(kind, one, other)))


def parse_fork(raw: bytes) -> UnverifiedFork:
    """Read the bytes of a proof. Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
    number, first, second = open_map(raw, UInt(255), Anything(), Anything(), limit=FORK_PROOF_MAX)
    if number not in _CONTRADICTIONS:
        raise Refused(Reason.UNSUPPORTED, f"a fork proof of kind {number}")
    kind, one, other = ForkKind(number), Side.read(first), Side.read(second)
    if _in_order(kind, one, other) != (one, other):
        malformed("the sides of a fork proof stand in the order of their bytes")
    return UnverifiedFork(kind, one, other, raw)


def _in_order(kind: ForkKind, one: Side, other: Side) -> tuple[Side, Side]:
    if kind is ForkKind.ENTRY_AND_LEAF or encode(one.fields()) <= encode(other.fields()):
        return one, other
    return other, one


# --- what contradicts what --------------------------------------------------------------------------------------------


def _contradict(kind: ForkKind, one: Signed, other: Signed) -> str:
    """What the node has done, in words. Raises Refused(BAD_FORK_PROOF) if it has done nothing wrong."""
    return _CONTRADICTIONS[kind](one, other)


def _two_entries(one: Signed, other: Signed) -> str:
    a, b = _entry(one), _entry(other)
    if (a.log_id, a.seq) != (b.log_id, b.seq):
        _no_fork("the two entries have different places")
    if a.hash == b.hash:
        _no_fork("twice the same entry")
    return f"two entries number {a.seq} in log {a.log_id.hex()}"


def _two_openings(one: Signed, other: Signed) -> str:
    a, b = _entry(one), _entry(other)
    if not a.type == b.type == EntryType.LOG_OPEN:
        _no_fork("an entry that opens no log")
    if a.log_id == b.log_id:
        _no_fork("two openings of one log are two entries")
    k = LogOpen.read(a.body).k
    if k != LogOpen.read(b.body).k:
        _no_fork("two logs with different numbers")
    return f"two logs with number {k}: {a.log_id.hex()} and {b.log_id.hex()}"


def _two_heads(one: Signed, other: Signed) -> str:
    if not isinstance(one, SignedHead) or not isinstance(other, SignedHead):
        _no_fork("a side that is no head")
    a, b = one.head, other.head
    if (a.log_id, a.size) != (b.log_id, b.size):
        _no_fork("the two heads are of different logs or sizes")
    if a.root == b.root:
        _no_fork("twice the same root")
    return f"two roots of log {a.log_id.hex()} at size {a.size}"


def _two_leaves(one: Signed, other: Signed) -> str:
    a, b = _leaf(one), _leaf(other)
    if (a.head.log_id, a.index) != (b.head.log_id, b.index):
        _no_fork("the two leaves have different places")
    if a.leaf == b.leaf:
        _no_fork("twice the same leaf")
    return f"two entries number {a.index} under heads of log {a.head.log_id.hex()}, of sizes {a.head.size} and {b.head.size}"


def _entry_and_leaf(one: Signed, other: Signed) -> str:
    a, b = _entry(one), _leaf(other)
    if (a.log_id, a.seq) != (b.head.log_id, b.index):
        _no_fork("entry and leaf have different places")
    if a.hash == b.leaf:
        _no_fork("the leaf is the entry's")
    return f"an entry number {a.seq} in log {a.log_id.hex()}, and another one under its head of size {b.head.size}"


def _entry(side: Signed) -> Entry:
    if not isinstance(side, SignedEntry):
        _no_fork("a side that is no entry")
    return side.entry


def _leaf(side: Signed) -> SignedLeaf:
    if not isinstance(side, SignedLeaf):
        _no_fork("a side that is no leaf under a head")
    return side


_CONTRADICTIONS: Final[Mapping[ForkKind, Callable[[Signed, Signed], str]]] = {
    ForkKind.ENTRIES: _two_entries,
    ForkKind.OPENINGS: _two_openings,
    ForkKind.HEADS: _two_heads,
    ForkKind.LEAVES: _two_leaves,
    ForkKind.ENTRY_AND_LEAF: _entry_and_leaf,
}


def _no_fork(detail: str) -> NoReturn:
    raise Refused(Reason.BAD_FORK_PROOF, detail)
