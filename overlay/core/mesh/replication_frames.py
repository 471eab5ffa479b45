"""The three messages of replication: values <-> bytes (docs/protocol/replication.md).

    HEADS {0:1, 1:kind, 2:[[log_id16, node_id32, size, root32], ...]}
    WANT  {0:1, 1:kind, 2:log_id16, 3:start, 4:count}
    ITEMS {0:1, 1:kind, 2:log_id16, 3:start, 4:[raw, ...], 5:wanted?}      at most 256 items and 1 MiB

Field 5 is the start of the WANT that is answered; without it the items are pushed because they are new.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from overlay.core import limits
from overlay.core.keys import NodeId
from overlay.core.mesh.chains import SEQ_MAX
from overlay.core.wire import Array, Bytes, Maybe, Tuple, UInt, make_map, malformed, open_map
from overlay.errors import Refused
from overlay.registry import ChainKind, Reason

LOG_ID_SIZE: Final = 16

_LOG: Final = Bytes(LOG_ID_SIZE)
_HEAD: Final = Tuple((_LOG, Bytes(32), UInt(SEQ_MAX), Bytes(32)))
_ITEM: Final = Bytes(1, limits.ENTRY_MAX)


@dataclass(frozen=True, slots=True)
class Head:
    """How far a log reaches somewhere: its size, and what commits to all of it (the tree's root, or the last hash)."""

    node_id: NodeId
    size: int
    root: bytes  # 32


@dataclass(frozen=True, slots=True)
class Want:
    """Someone lacks a range."""

    log_id: bytes
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Items:
    """A range, or a part of one from its start on. `wanted`: it answers the WANT of that start; None: it is pushed."""

    log_id: bytes
    start: int
    items: tuple[bytes, ...] = field(repr=False)
    wanted: int | None = None


def make_heads(kind: ChainKind, heads: Mapping[bytes, Head]) -> Iterator[bytes]:
    """As many messages as it takes."""
    rows = [[log_id, head.node_id, head.size, head.root] for log_id, head in sorted(heads.items())]
    for start in range(0, len(rows), limits.HEADS_MAX):
        yield make_map(int(kind), rows[start : start + limits.HEADS_MAX])


def open_heads(kind: ChainKind, body: bytes) -> dict[bytes, Head]:
    """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
    (rows,) = _open(kind, body, Array(_HEAD, limits.HEADS_MAX))
    found = {log_id: Head(NodeId(node_id), size, root) for log_id, node_id, size, root in rows}
    if len(found) != len(rows):
        malformed("two heads of one log")
    return found


def make_want(kind: ChainKind, want: Want) -> bytes:
    """The body of a WANT."""
    return make_map(int(kind), want.log_id, want.start, want.count)


def open_want(kind: ChainKind, body: bytes) -> Want:
    """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
    log_id, start, count = _open(kind, body, _LOG, UInt(SEQ_MAX), UInt(limits.WANT_ITEMS))
    if count == 0:
        malformed("nothing is wanted")
    return Want(log_id, start, count)


def make_items(kind: ChainKind, items: Items) -> bytes:
    """The body of an ITEMS."""
    return make_map(int(kind), items.log_id, items.start, list(items.items), items.wanted)


def open_items(kind: ChainKind, body: bytes) -> Items:
    """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
    log_id, start, items, wanted = _open(
        kind, body, _LOG, UInt(SEQ_MAX), Array(_ITEM, limits.WANT_ITEMS), Maybe(UInt(SEQ_MAX))
    )
    if start + len(items) > SEQ_MAX:
        malformed("numbers that no chain has")
    return Items(log_id, start, tuple(items), wanted)


def chunks(log_id: bytes, start: int, items: Sequence[bytes]) -> list[Items]:
    """Runs of items that fit one message each; at least one, which may be empty."""
    runs: list[list[bytes]] = [[]]
    size = 0
    for item in items:
        if runs[-1] and (size + len(item) > limits.RANGE_BYTES or len(runs[-1]) >= limits.WANT_ITEMS):
            runs.append([])
            size = 0
        runs[-1].append(item)
        size += len(item)
    found = []
    for run in runs:
        found.append(Items(log_id, start, tuple(run)))
        start += len(run)
    return found


def _open(kind: ChainKind, body: bytes, *kinds: Any) -> list[Any]:
    said, *values = open_map(body, UInt(255), *kinds, limit=limits.REPLICATION_MESSAGE_MAX)
    if said != kind:
        raise Refused(Reason.UNSUPPORTED, "another kind of chain")
    return values
