"""Publications that are kept: an SQLite file with the chains of every author, the newest 10,000 items of each or 24 hours.

A chain whose start was dropped keeps its end as its state, so that what follows can still be checked against it.
"""

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from overlay.core.keys import NodeId
from overlay.core.mesh.topics import TopicState
from overlay.errors import OverlayError, StateDamaged

KEEP_ITEMS: Final = 10_000
KEEP_MS: Final = 24 * 3600 * 1000
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS chains (
    log_id BLOB PRIMARY KEY, node_id BLOB NOT NULL, topic TEXT NOT NULL, size INTEGER NOT NULL, head BLOB NOT NULL,
    hlc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
    log_id BLOB NOT NULL, seq INTEGER NOT NULL, ms INTEGER NOT NULL, raw BLOB NOT NULL, PRIMARY KEY (log_id, seq))
    WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One kept publication."""

    log_id: bytes
    seq: int
    raw: bytes


class TopicStore:
    """One file; used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or make the file, for us alone, with what SQLite puts beside it. Raises StateDamaged."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StateDamaged(f"cannot open {path}: {error.strerror}", hint="look at the folder and its permissions") from None
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise _damaged(path, error) from None
        path.chmod(0o600)
        return cls(connection, path)

    def states(self) -> dict[bytes, TopicState]:
        """The end of every chain. Raises StateDamaged."""
        rows = self._fetch("SELECT log_id, node_id, topic, size, head, hlc FROM chains", ())
        try:
            return {row[0]: TopicState(NodeId(row[1]), row[2], row[3], row[4], row[5]) for row in rows}
        except (ValueError, TypeError) as error:
            raise _damaged(self._path, sqlite3.DatabaseError(str(error))) from None

    def append(self, log_id: bytes, state: TopicState, start: int, items: Sequence[bytes]) -> None:
        """Make items durable with the state after them; drop what is too old. Raises OverlayError when the disk fails."""
        ms = state.hlc >> 16
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT INTO items VALUES (?, ?, ?, ?)", [(log_id, seq, ms, raw) for seq, raw in enumerate(items, start)]
            )
            self._connection.execute(
                "INSERT OR REPLACE INTO chains VALUES (?, ?, ?, ?, ?, ?)",
                (log_id, bytes(state.node_id), state.topic, state.size, state.head, state.hlc),
            )
            self._connection.execute(
                "DELETE FROM items WHERE log_id = ? AND seq < ? AND (seq < ? OR ms < ?)",
                (log_id, state.size - 1, state.size - KEEP_ITEMS, ms - KEEP_MS),
            )
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise OverlayError(f"{self._path.name} takes nothing more: {error}", hint="look at the disk") from None

    def range(self, log_id: bytes, start: int, count: int) -> list[bytes]:
        """Kept items from `start` on, without gaps; from a later one, where those before were dropped. Raises StateDamaged."""
        rows = self._fetch(
            "SELECT seq, raw FROM items WHERE log_id = ? AND seq >= ? ORDER BY seq LIMIT ?", (log_id, start, count)
        )
        return [raw for index, (seq, raw) in enumerate(rows) if seq == rows[0][0] + index]

    def of_topic(self, topic: str) -> list[StoredItem]:
        """All that is kept of a topic, oldest first. Raises StateDamaged."""
        rows = self._fetch(
            "SELECT items.log_id, seq, raw FROM items JOIN chains USING (log_id) WHERE topic = ?"
            " ORDER BY ms, items.log_id, seq",
            (topic,),
        )
        return [StoredItem(*row) for row in rows]

    def _fetch(self, query: str, values: tuple[object, ...]) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _damaged(self._path, sqlite3.DatabaseError(str(error))) from None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _damaged(path: Path, error: sqlite3.Error) -> StateDamaged:
    return StateDamaged(f"{path.name} cannot be read: {error}", hint="move the file away; publications are sent again")
