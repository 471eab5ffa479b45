"""Where fork proofs lie: a table of the audit store, one row for each node that has told two stories.

    forks  node_id, at, raw        at: Unix seconds when the proof was found and held; later it is judged for that time

A row is written in a transaction of the store, on whose connection these functions work.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from audit.forks import ForkProof, parse_fork
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.errors import Refused

SCHEMA: Final = "CREATE TABLE forks (node_id BLOB PRIMARY KEY, at INTEGER NOT NULL, raw BLOB NOT NULL) WITHOUT ROWID;"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFork:
    """A proof, and when it was found and held."""

    node_id: NodeId
    at: datetime  # to the second
    raw: bytes = field(repr=False)

    def verify(self, root: Root) -> ForkProof:
        """Judge it for the time at which it was found. Raises Refused, see `UnverifiedFork.verify`."""
        return parse_fork(self.raw).verify(root, self.at)


def write_fork(connection: sqlite3.Connection, one: KeptFork) -> None:
    """Keep it, unless there is one of this node already."""
    row = bytes(one.node_id), int(one.at.timestamp()), one.raw
    connection.execute("INSERT OR IGNORE INTO forks (node_id, at, raw) VALUES (?, ?, ?)", row)


def read_forks(connection: sqlite3.Connection) -> list[KeptFork]:
    """All of them, by node; rows that somebody edited into nonsense are left out. Nobody has verified them."""
    found = []
    for node_id, at, raw in connection.execute("SELECT node_id, at, raw FROM forks ORDER BY node_id").fetchall():
        try:
            found.append(KeptFork(node_id=NodeId(node_id), at=datetime.fromtimestamp(at, UTC), raw=raw))
        except (ValueError, TypeError, OverflowError, OSError):
            continue
    return found


def known_forks(kept: Sequence[KeptFork], root: Root) -> list[ForkProof]:
    """Those that hold."""
    proofs = []
    for one in kept:
        try:
            proof = one.verify(root)
        except Refused:
            continue
        if proof.node_id == one.node_id:
            proofs.append(proof)
    return proofs
