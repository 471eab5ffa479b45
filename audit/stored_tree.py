"""The tree of a stored log: proofs without reading the log, because roots of full subtrees lie beside the entries.

    nodes   log (number), level, place, hash        level 8 and above; the leaves from place << level on, 1 << level of them

Everything below level 8 is worked out from the hashes of one block of 256 entries. Nothing here is believed by a verifier:
whoever gets a proof checks it, and `overlay audit verify` works all nodes out anew. For entries that were pruned the nodes
stay, so proofs of all that follow them stay valid.
"""

import sqlite3
from collections.abc import Iterator
from typing import Final

from overlay.core.merkle import EMPTY_ROOT, HASH_SIZE, inner_hash, root_of
from overlay.errors import StateDamaged

LEVEL: Final = 8  # our guess: a proof reads at most two blocks of 256 hashes
BLOCK: Final = 1 << LEVEL
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS nodes (
    log INTEGER NOT NULL, level INTEGER NOT NULL, place INTEGER NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (log, level, place)) WITHOUT ROWID;
"""

_VERIFY: Final = "see `overlay audit verify`"


class StoredTree:
    """The tree of one log, by the number of the log in its file. Methods raise StateDamaged where entries are missing."""

    def __init__(self, connection: sqlite3.Connection, number: int) -> None:
        self._connection = connection
        self._number = number
        self._blocks: dict[int, list[bytes]] = {}

    def root(self, size: int) -> bytes:
        """The root of the first so many entries."""
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """What shows that entry `index` is in the tree of that size (RFC 9162, section 2.1.3.1). Raises ValueError."""
        if not 0 <= index < size:
            raise ValueError("there is no such leaf")
        return tuple(self._path(index, 0, size))

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """What shows that one tree became the other (RFC 9162, section 2.1.4.1). Raises ValueError."""
        if not 0 < first <= second:
            raise ValueError("there is no such earlier tree")
        return tuple(self._subproof(first, 0, second, whole=True))

    def add(self, before: int, after: int) -> None:
        """Write the nodes that became full between two sizes; in the transaction that writes the entries."""
        for place in range(before >> LEVEL, after >> LEVEL):
            self._write(LEVEL, place, root_of(self._block(place)))
            self._blocks.clear()

    def stored(self, level: int, place: int) -> bytes | None:
        """What is stored of a node; None if nothing is."""
        query = "SELECT hash FROM nodes WHERE log = ? AND level = ? AND place = ?"
        rows = self._connection.execute(query, (self._number, level, place)).fetchall()
        return rows[0][0] if rows and isinstance(rows[0][0], bytes) and len(rows[0][0]) == HASH_SIZE else None

    # --- nodes ------------------------------------------------------------------------------------------------------

    def _write(self, level: int, place: int, node: bytes) -> None:
        """A node, and those above it that are full now."""
        while True:
            self._connection.execute(
                "INSERT OR REPLACE INTO nodes (log, level, place, hash) VALUES (?, ?, ?, ?)",
                (self._number, level, place, node),
            )
            if not place & 1:
                return
            node = inner_hash(self._node(level, place - 1), node)
            level, place = level + 1, place >> 1

    def _node(self, level: int, place: int) -> bytes:
        """The root of a full subtree."""
        if level < LEVEL:
            start = place << level
            return root_of(self._block(start >> LEVEL)[start % BLOCK : start % BLOCK + (1 << level)])
        found = self.stored(level, place)
        if found is not None:
            return found
        if level == LEVEL:  # a file of a version that kept no nodes
            return root_of(self._block(place))
        return inner_hash(self._node(level - 1, 2 * place), self._node(level - 1, 2 * place + 1))

    def _block(self, place: int) -> list[bytes]:
        """The hashes of entries of one block, as many as there are."""
        found = self._blocks.get(place)
        if found is None:
            start = place << LEVEL
            query = "SELECT seq, hash FROM entries WHERE log = ? AND seq >= ? AND seq < ? ORDER BY seq"
            rows = self._connection.execute(query, (self._number, start, start + BLOCK)).fetchall()
            if any(seq != at or not isinstance(one, bytes) for at, (seq, one) in enumerate(rows, start)):
                raise StateDamaged(f"entries from {start} on are missing or have been changed", hint=_VERIFY)
            found = self._blocks[place] = [one for _, one in rows]
        return found

    def _range(self, low: int, high: int) -> bytes:
        """The root of the leaves from low to before high; low is a multiple of the largest power of two in it."""
        size = high - low
        if size & (size - 1) == 0:
            return self._full(low, size)
        middle = low + (1 << size.bit_length() - 1)
        return inner_hash(self._full(low, middle - low), self._range(middle, high))

    def _full(self, low: int, size: int) -> bytes:
        level = size.bit_length() - 1
        if level < LEVEL and len(self._block(low >> LEVEL)) < low % BLOCK + size:
            raise StateDamaged(f"entries from {low} on are missing", hint=_VERIFY)
        return self._node(level, low >> level)

    # --- proofs -----------------------------------------------------------------------------------------------------

    def _path(self, index: int, low: int, high: int) -> Iterator[bytes]:
        if high - low == 1:
            return
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        if index < middle:
            yield from self._path(index, low, middle)
            yield self._range(middle, high)
        else:
            yield from self._path(index, middle, high)
            yield self._range(low, middle)

    def _subproof(self, first: int, low: int, high: int, *, whole: bool) -> Iterator[bytes]:
        """SUBPROOF of section 2.1.4.1; `whole`: the verifier knows the root of these leaves."""
        if first == high:
            if not whole:
                yield self._range(low, high)
            return
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        if first <= middle:
            yield from self._subproof(first, low, middle, whole=whole)
            yield self._range(middle, high)
        else:
            yield from self._subproof(first, middle, high, whole=False)
            yield self._range(low, middle)
