"""Where fork proofs lie: a table of the audit store, one row for each node that has told two stories.

    forks  node_id, at, raw        at: Unix seconds when the proof was found and held; later it is judged for that time

A row is written in a transaction of the store, on whose connection these functions work.
"""

import sqlite3
from datetime import UTC, datetime
from typing import Final

from audit.kept_forks import KeptFork
from overlay.core.keys import NodeId

SCHEMA: Final = "CREATE TABLE forks (node_id BLOB PRIMARY KEY, at INTEGER NOT NULL, raw BLOB NOT NULL) WITHOUT ROWID;"


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
