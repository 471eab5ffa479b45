"""Logs that come from anywhere: cut into entries, and put into a store of their own as they are, to be verified there."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from audit.bodies import LogOpen
from audit.chain import KEYED
from audit.checkpoint import read_checkpoint
from audit.entry import Entry, parse_entry
from audit.fork_store import write_fork
from audit.kept_forks import KeptFork
from audit.notes import Note
from audit.store import AuditStore
from audit.stored_tree import StoredTree
from overlay.core.limits import ENTRY_MAX
from overlay.core.merkle import Tree
from overlay.core.mesh.chains import item_hash
from overlay.core.wire import malformed
from overlay.errors import Refused
from overlay.registry import EntryType

_ARRAY_OF_FOUR: Final = b"\xd2\x84"  # COSE_Sign1, tagged
_WIDTHS: Final = {24: 1, 25: 2, 26: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLog:
    """Entries as somebody has given them."""

    log_id: bytes
    raws: tuple[bytes, ...] = field(repr=False)
    notes: tuple[Note, ...] = field(default=(), repr=False)  # checkpoints of it


def split(data: bytes) -> tuple[bytes, ...]:
    """A sequence of COSE_Sign1 messages in our form (RFC 8742). Raises Refused(MALFORMED) where one is not."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + len(_ARRAY_OF_FOUR)
        if data[at:end] != _ARRAY_OF_FOUR:
            malformed(f"message {len(found)} of the sequence is no COSE_Sign1")
        end = _after_bytes(data, end)
        end = _after_bytes(data, end + 1)  # an empty map stands before it
        end = _after_bytes(data, end)
        if end - at > ENTRY_MAX or end > len(data):
            malformed(f"message {len(found)} of the sequence is cut off or too long")
        found.append(data[at:end])
        at = end
    return tuple(found)


def _after_bytes(data: bytes, at: int) -> int:
    """Where a byte string ends (RFC 8949, section 3)."""
    head = data[at] if at < len(data) else 0
    if head >> 5 != 2:
        malformed("no byte string where one was expected")
    short = head & 0x1F
    if short < 24:
        return at + 1 + short
    width = _WIDTHS.get(short)
    if width is None:
        malformed("a length of no usual form")
    return at + 1 + width + int.from_bytes(data[at + 1 : at + 1 + width], "big")


def fill(path: Path, logs: Iterable[RawLog], forks: Sequence[KeptFork] = ()) -> None:
    """Make a store with these logs, not judged in any way."""
    AuditStore.open(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")  # nobody needs it tomorrow
        connection.execute("BEGIN")
        for log in logs:
            _insert(connection, log)
        for fork in forks:
            write_fork(connection, fork)
        connection.execute("COMMIT")
    finally:
        connection.close()


def _insert(connection: sqlite3.Connection, log: RawLog) -> None:
    entries = [_read(raw) for raw in log.raws]
    hashes = [item_hash(raw) for raw in log.raws]
    tree, readable = Tree().extend(hashes), [one for one in entries if one is not None]
    first = next(iter(readable), None)
    keyed = [seq for seq, one in enumerate(entries) if one is not None and one.type in KEYED]
    cursor = connection.execute(
        "INSERT INTO logs (log_id, node_id, k, size, root, edge, last, hlc, key_seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            log.log_id, bytes(32) if first is None else bytes(first.node_id), _incarnation(first), tree.size, tree.root,
            b"".join(tree.edge), hashes[-1] if hashes else bytes(32), readable[-1].hlc if readable else 0,
            keyed[-1] if keyed else 0,
        ),
    )  # fmt: skip
    number = cursor.lastrowid
    connection.executemany(
        "INSERT INTO entries (log, seq, hlc, type, hash, raw) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (number, seq, one.hlc if one else 0, one.type if one else 0, hashes[seq], log.raws[seq])
            for seq, one in enumerate(entries)
        ],
    )
    StoredTree(connection, number or 0).add(0, len(hashes))
    for note in log.notes:
        _insert_note(connection, log, hashes, note)


def _insert_note(connection: sqlite3.Connection, log: RawLog, hashes: Sequence[bytes], note: Note) -> None:
    """A checkpoint that agrees with the entries; who verifies a bundle has compared them before."""
    says = read_checkpoint(note.text)
    tree = Tree().extend(hashes[: says.size])
    connection.execute(
        "INSERT OR REPLACE INTO checkpoints (log_id, size, root, node_id, edge, note) VALUES (?, ?, ?, ?, ?, ?)",
        (log.log_id, says.size, says.root, bytes(says.node_id), b"".join(tree.edge), note.raw),
    )


def _read(raw: bytes) -> Entry | None:
    try:
        return parse_entry(raw).says
    except Refused:
        return None  # the verifier says what is wrong with it


def _incarnation(first: Entry | None) -> int:
    if first is None or first.type != EntryType.LOG_OPEN:
        return 0
    try:
        return LogOpen.read(first.body).k
    except Refused:
        return 0
