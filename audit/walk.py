"""One stored log from its first entry to its end: every state in between, and nothing recorded is believed.

What is recorded beside an entry's bytes (number, hash, time, type), of the log (size, root, end) and of its tree is worked out
anew and compared. Runs of ordinary entries go fast (`audit.fast_chain`), in several processes if there are some
(`audit.lookahead`); whatever those leave is judged by `audit.chain`, which says what is wrong. Of entries
that were pruned the hashes are taken as they are: a witnessed checkpoint has to vouch for them.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from audit.chain import ChainState, extend
from audit.entry import LOG_ID_SIZE
from audit.fast_chain import fast_extend
from audit.lookahead import Lookahead
from audit.pruning import skip
from audit.store import AuditStore, EntryRow, LogRow
from audit.stored_tree import BLOCK, LEVEL
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.core.merkle import levels_of, root_of
from overlay.core.mesh.chains import item_hash
from overlay.errors import Refused
from overlay.registry import Reason


class BadRecord(Exception):
    """What the file says of a log is not what its entries say."""


class _Nodes:
    """The full subtrees of a log's tree, from the hashes of its entries."""

    def __init__(self) -> None:
        self._pending: list[bytes] = []
        self._blocks: list[bytes] = []

    def add(self, hashes: list[bytes]) -> None:
        """The next entries."""
        self._pending += hashes
        while len(self._pending) >= BLOCK:
            self._blocks.append(root_of(self._pending[:BLOCK]))
            del self._pending[:BLOCK]

    def check(self, recorded: Iterator[tuple[Any, Any, Any]]) -> None:
        """Raises BadRecord if a node that is kept is another one, or belongs nowhere."""
        levels = levels_of(self._blocks) if self._blocks else []
        for level, place, node in recorded:
            full = len(self._blocks) >> level - LEVEL if isinstance(level, int) and level >= LEVEL else 0
            if not isinstance(place, int) or not 0 <= place < full or levels[level - LEVEL][place] != node:
                raise BadRecord(f"node {place} on level {level} of its tree is {_show(node)}, and that is wrong")


class Walk:
    """Walks through the logs of one store."""

    def __init__(self, store: AuditStore, root: Root, ahead: Lookahead | None = None) -> None:
        self._store = store
        self._root = root
        self._ahead = ahead
        self._below = 0  # where contents of the log may be gone

    def steps(self, row: LogRow) -> Iterator[ChainState]:
        """The log from its beginning on.

        Raises:
            Refused: the entry after the last state does not hold.
            BadRecord: something recorded of the log does not.
            StateDamaged: the file cannot be read there.
        """
        state, nodes = _begin(row), _Nodes()
        self._below = self._store.pruned_below(row.number)
        yield state
        while True:
            after, hashes = self._next(state, row)
            if not hashes:
                break
            state = after
            nodes.add(hashes)
            yield state
        _check_end(state, row)
        nodes.check(self._store.nodes(row.number))

    def _next(self, state: ChainState, row: LogRow) -> tuple[ChainState, list[bytes]]:
        """The state after the next entries, and their hashes; none at the end."""
        count: float = BLOCK
        if self._ahead is not None and isinstance(row.size, int):
            after, hashes = self._ahead.go_on(state, row.number, row.size)
            if hashes:
                return after, hashes
            count = min(count, self._ahead.next_start - state.size)
        rows = self._store.block(row.number, state.size, max(int(count), 1))
        after, hashes = fast_extend(state, rows, self._root)
        if hashes or not rows:
            return after, hashes
        skipped = skip(state, rows, self._below)
        if skipped.hashes:
            tree = state.tree.extend(skipped.hashes)
            return replace(state, tree=tree, last=skipped.hashes[-1], hlc=skipped.hlc), skipped.hashes
        after = _follow(state, EntryRow(*rows[0]), self._root)
        return after, [after.last]


def _begin(row: LogRow) -> ChainState:
    """The state before entry 0."""
    if not isinstance(row.node_id, bytes) or not isinstance(row.log_id, bytes):
        raise BadRecord("node and log ids are bytes")
    if len(row.node_id) != len(NodeId(bytes(32))) or len(row.log_id) != LOG_ID_SIZE:
        raise BadRecord("ids of another length")
    return ChainState(node_id=NodeId(row.node_id), log_id=row.log_id)


def _follow(state: ChainState, row: EntryRow, root: Root) -> ChainState:
    """The state after one stored entry; raises Refused."""
    if row.seq != state.size:
        raise Refused(Reason.CHAIN_BROKEN, f"entry {state.size} is missing, entry {row.seq} follows")
    if not isinstance(row.raw, bytes):
        raise Refused(Reason.MALFORMED, "no bytes where an entry was expected")
    found = item_hash(row.raw)
    try:
        extension = extend(state, [row.raw], root, at=None)
    except Refused as error:
        changed = isinstance(row.hash, bytes) and row.hash != found
        expected = f"; its hash is {found.hex()}, expected {row.hash.hex()}" if changed else ""
        raise Refused(error.reason, f"{error}{expected}") from None
    (entry,) = extension.entries
    recorded = {"hash": (row.hash, entry.hash), "time": (row.hlc, entry.hlc), "type": (row.type, entry.type)}
    for what, (there, right) in recorded.items():
        if there != right:
            raise Refused(Reason.CHAIN_BROKEN, f"the recorded {what} is {_show(there)}, expected {_show(right)}")
    return extension.state


def _check_end(state: ChainState, row: LogRow) -> None:
    """What is recorded of the log fits its entries."""
    if isinstance(row.size, int) and state.size < row.size:
        raise Refused(Reason.CHAIN_BROKEN, f"entry {state.size} is missing: {row.size} entries are recorded")
    key_seq = 0 if state.key is None else state.key.seq
    recorded = {
        "size": (row.size, state.size), "root": (row.root, state.root), "edge": (row.edge, b"".join(state.tree.edge)),
        "last hash": (row.last, state.last), "time": (row.hlc, state.hlc), "number": (row.k, state.k),
        "entry with the key": (row.key_seq, key_seq),
    }  # fmt: skip
    for what, (there, expected) in recorded.items():
        if there != expected:
            raise BadRecord(f"the {what} is {_show(there)}, expected {_show(expected)}")


def _show(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else repr(value)
