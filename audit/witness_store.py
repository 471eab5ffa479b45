"""Where checkpoints lie: two tables of the audit store (docs/protocol/audit.md).

    checkpoints  log_id, size, root, node_id, edge, note        of any log: the note with all lines that are known
    cosigned     node_id, log_id, at, note                      what we have cosigned last of each log: never anything older

They are written in the transactions that write entries, on whose connection these functions work.
"""

import sqlite3
from typing import Final

from audit.checkpoint import Checkpoint, read_checkpoint
from audit.fork_store import write_fork
from audit.kept import DropCheckpoints, KeptCheckpoint, Record
from audit.kept_forks import KeptFork
from audit.notes import parse_note
from audit.witness import Cosigned
from overlay.core.merkle import HASH_SIZE, Tree
from overlay.errors import Refused, StateDamaged
from overlay.registry import EntryType

SCHEMA: Final = f"""
CREATE TABLE checkpoints (
    log_id BLOB NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL, node_id BLOB NOT NULL, edge BLOB NOT NULL,
    note BLOB NOT NULL, PRIMARY KEY (log_id, size, root)) WITHOUT ROWID;
CREATE TABLE cosigned (
    node_id BLOB NOT NULL, log_id BLOB NOT NULL, at INTEGER NOT NULL, note BLOB NOT NULL,
    PRIMARY KEY (node_id, log_id)) WITHOUT ROWID;
CREATE INDEX entries_with_witnesses ON entries (log, seq) WHERE type = {EntryType.WITNESSES:d};
"""


def write_record(connection: sqlite3.Connection, record: Record) -> None:
    """Within a transaction."""
    match record:
        case KeptCheckpoint(checkpoint=one, tree=tree, note=note):
            connection.execute(
                "INSERT OR REPLACE INTO checkpoints (log_id, size, root, node_id, edge, note) VALUES (?, ?, ?, ?, ?, ?)",
                (*record.key, bytes(one.node_id), b"".join(tree.edge), note.raw),
            )
        case Cosigned(checkpoint=one, at=at, note=raw):
            _write_cosigned(connection, one, at, raw)
        case DropCheckpoints(keys=keys):
            connection.executemany("DELETE FROM checkpoints WHERE log_id = ? AND size = ? AND root = ?", keys)
        case KeptFork():
            write_fork(connection, record)


def _write_cosigned(connection: sqlite3.Connection, one: Checkpoint, at: int, raw: bytes) -> None:
    """Replaces what we had cosigned of this log; a size that does not grow is our own bug, and nothing is written."""
    name = bytes(one.node_id), one.log_id
    rows = connection.execute("SELECT note FROM cosigned WHERE node_id = ? AND log_id = ?", name).fetchall()
    if rows and read_checkpoint(parse_note(rows[0][0]).text).size >= one.size:
        raise StateDamaged(f"a witness signs no smaller size than before: log {one.log_id.hex()}, size {one.size}")
    connection.execute(
        "INSERT OR REPLACE INTO cosigned (node_id, log_id, at, note) VALUES (?, ?, ?, ?)", (*name, at, raw)
    )


def read_cosigned(connection: sqlite3.Connection) -> list[Cosigned]:
    """All that we have cosigned. Raises StateDamaged for a row that says something else: we could sign two roots then."""
    found = []
    for node_id, log_id, at, note in connection.execute("SELECT node_id, log_id, at, note FROM cosigned").fetchall():
        try:
            one = Cosigned.read(note, at)
        except (Refused, TypeError) as error:
            raise StateDamaged(f"what this node has cosigned cannot be read: {error}", hint=_COSIGNED_HINT) from None
        if one.name != (node_id, log_id) or not isinstance(at, int):
            raise StateDamaged("what this node has cosigned stands in the wrong row", hint=_COSIGNED_HINT)
        found.append(one)
    return found


def read_checkpoints(
    connection: sqlite3.Connection, log_id: bytes, *, from_size: int = 0, newest: int = -1
) -> list[KeptCheckpoint]:
    """The checkpoints of a log from a size on, the largest first; rows that somebody edited into nonsense are left out."""
    rows = connection.execute(
        "SELECT edge, note FROM checkpoints WHERE log_id = ? AND size >= ? ORDER BY size DESC LIMIT ?",
        (log_id, from_size, newest),
    )
    return [found for row in rows.fetchall() if (found := _kept(log_id, *row)) is not None]


def tree_below(connection: sqlite3.Connection, log_id: bytes, size: int) -> Tree:
    """The tree of the largest checkpoint of at most that size, to go on from; the empty one if there is none."""
    rows = connection.execute(
        "SELECT edge, note FROM checkpoints WHERE log_id = ? AND size <= ? ORDER BY size DESC LIMIT 1", (log_id, size)
    ).fetchall()
    found = _kept(log_id, *rows[0]) if rows else None
    return Tree() if found is None else found.tree


def _kept(log_id: bytes, edge: bytes, raw: bytes) -> KeptCheckpoint | None:
    try:
        note = parse_note(raw)
        one = read_checkpoint(note.text)
        tree = Tree(one.size, tuple(edge[at : at + HASH_SIZE] for at in range(0, len(edge), HASH_SIZE)))
    except (Refused, ValueError, TypeError):
        return None
    fits = one.log_id == log_id and tree.root == one.root
    return KeptCheckpoint(checkpoint=one, tree=tree, note=note) if fits else None


_COSIGNED_HINT: Final = (
    "somebody has changed the store: end the node, move the file away with its -wal and -shm, and keep it; the node begins a"
    " new log then"
)
