"""Where logs live on this machine: one SQLite file, every commit on the disk before anybody hears of it.

    logs     number, log_id, node_id, k, size, root, edge, last, hlc, key_seq        one row per log: its ChainState
    entries  log (number), seq, hlc, type, hash, raw                                 all that counts stands in `raw`
    nodes                                                                            see audit/stored_tree.py
    pruned                                                                           see audit/pruning.py
    checkpoints, cosigned                                                            see audit/witness_store.py
    forks                                                                            see audit/fork_store.py

The other columns of an entry are there to find it; `verify` compares them. The state of a log is written in the
transaction that writes its entries. WAL and `synchronous=FULL`: about one fdatasync per commit.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

from audit.chain import Append, ChainState, verify_key
from audit.entry import Entry, UnverifiedEntry, parse_entry
from audit.fork_store import SCHEMA as FORK_SCHEMA
from audit.fork_store import read_forks
from audit.kept import KeptCheckpoint, Record
from audit.kept_forks import KeptFork
from audit.pruning import SCHEMA as PRUNING_SCHEMA
from audit.pruning import prune, pruned_below
from audit.query import Query
from audit.stored_tree import SCHEMA as TREE_SCHEMA
from audit.stored_tree import StoredTree
from audit.witness import Cosigned
from audit.witness_store import SCHEMA as WITNESS_SCHEMA
from audit.witness_store import read_checkpoints, read_cosigned, tree_below, write_record
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.core.merkle import HASH_SIZE, Tree
from overlay.core.mesh.chains import hlc_of
from overlay.core.wire import malformed
from overlay.errors import HostLacks, OverlayError, Refused, StateDamaged, UsageError
from overlay.registry import EntryType

FORMAT: Final = 2
BEFORE_WITNESSES: Final = 1  # the format without the tables of checkpoints; a node that opens such a file adds them
APPLICATION_ID: Final = 0x6F766C61  # "ovla", so that `file` and others can tell whose it is
FILE_MODE: Final = 0o600
BUSY_AFTER: Final = 5.0  # seconds; nobody else writes, but someone may copy the file

_SCHEMA: Final = f"""
BEGIN;
CREATE TABLE logs (
    number INTEGER PRIMARY KEY, log_id BLOB NOT NULL UNIQUE, node_id BLOB NOT NULL, k INTEGER NOT NULL,
    size INTEGER NOT NULL, root BLOB NOT NULL, edge BLOB NOT NULL, last BLOB NOT NULL, hlc INTEGER NOT NULL,
    key_seq INTEGER NOT NULL);
CREATE TABLE entries (
    log INTEGER NOT NULL REFERENCES logs (number), seq INTEGER NOT NULL, hlc INTEGER NOT NULL, type INTEGER NOT NULL,
    hash BLOB NOT NULL, raw BLOB NOT NULL, PRIMARY KEY (log, seq)) WITHOUT ROWID;
CREATE INDEX entries_by_time ON entries (hlc);
CREATE INDEX entries_with_keys ON entries (hlc) WHERE type IN ({EntryType.LOG_OPEN:d}, {EntryType.ENDORSEMENT:d});
{TREE_SCHEMA}
{PRUNING_SCHEMA}
{WITNESS_SCHEMA}
{FORK_SCHEMA}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
COMMIT;
"""
_NEW_TABLES: Final = f"{TREE_SCHEMA} {PRUNING_SCHEMA} {WITNESS_SCHEMA} {FORK_SCHEMA}"
_MIGRATION: Final = f"BEGIN; {_NEW_TABLES} PRAGMA user_version = {FORMAT}; COMMIT;"
_LOG_COLUMNS: Final = "number, log_id, node_id, k, size, root, edge, last, hlc, key_seq"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """What the file says of a log; nothing of it has been checked."""

    number: int
    log_id: bytes
    node_id: bytes
    k: int
    size: int
    root: bytes
    edge: bytes
    last: bytes
    hlc: int
    key_seq: int


@dataclass(frozen=True, slots=True)
class EntryRow:
    """What the file says of an entry; nothing of it has been checked."""

    seq: int
    hlc: int
    type: int
    hash: bytes
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedLog:
    """A log whose end does not hold: it is neither continued nor given to others, and left as it is."""

    row: LogRow
    detail: str

    @property
    def k(self) -> int:
        """Its incarnation as the file says, 0 if that is nonsense."""
        return self.row.k if isinstance(self.row.k, int) and 0 <= self.row.k < 2**32 - 1 else 0


class AuditStore:
    """One file. Writes come from one thread at a time, reads from one thread at a time; the two may be different ones.

    Methods raise StateDamaged when the file or the disk fails, HostLacks when the disk is full.
    """

    def __init__(self, path: Path, writer: sqlite3.Connection | None, reader: sqlite3.Connection) -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._failed = ""

    # --- life -------------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or make the file for its one writer. A file that is not ours is left as it is (StateDamaged)."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE))
        except OSError as error:
            raise StateDamaged(f"cannot open {path}: {error.strerror}", hint="look at the folder and its permissions") from None
        with _errors(path):
            writer = _connect(path, "rw")
            try:
                _check_format(path, writer, may_be_new=True)
                writer.execute("PRAGMA journal_mode = WAL")
                writer.execute("PRAGMA synchronous = FULL")
                if _is_new(writer):
                    writer.executescript(_SCHEMA)
                elif _version(writer) == BEFORE_WITNESSES:
                    writer.executescript(_MIGRATION)
                return cls(path, writer, _connect(path, "ro"))
            except BaseException:
                writer.close()
                raise

    @classmethod
    def open_readonly(cls, path: Path) -> Self:
        """Open the file to look at it only, also while a node writes to it."""
        if not path.is_file():
            raise StateDamaged(f"there is no audit store at {path}", hint="the node makes it when it first runs")
        with _errors(path):
            reader = _connect(path, "ro")
            try:
                _check_format(path, reader, may_be_new=False)
            except BaseException:
                reader.close()
                raise
            return cls(path, None, reader)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        if self._writer is not None:
            self._writer.close()

    # --- writing ----------------------------------------------------------------------------------------------------

    def append_many(self, appends: Sequence[Append], records: Sequence[Record] = ()) -> None:
        """Make entries of any logs durable, and what is known of checkpoints: all or none.

        After an I/O error nothing is written any more.
        """
        if self._writer is None or self._failed:
            why = self._failed or "it was opened for reading"
            raise StateDamaged(f"{self._path} takes no more entries: {why}", hint=_LOOK)
        try:
            with _errors(self._path), _transaction(self._writer) as connection:
                for append in appends:
                    self._append(connection, append)
                for record in records:
                    write_record(connection, record)
        except StateDamaged as error:
            self._failed = str(error)
            raise

    def _append(self, connection: sqlite3.Connection, append: Append) -> None:
        state, entries = append.state, append.entries
        before = state.size - len(entries)
        if before == 0:
            connection.execute(
                "INSERT INTO logs (log_id, node_id, k, size, root, edge, last, hlc, key_seq)"
                " VALUES (?, ?, 0, 0, x'', x'', x'', 0, 0)",
                (state.log_id, bytes(state.node_id)),
            )
        key_seq = 0 if state.key is None else state.key.seq
        changed = connection.execute(
            "UPDATE logs SET k = ?, size = ?, root = ?, edge = ?, last = ?, hlc = ?, key_seq = ?"
            " WHERE log_id = ? AND size = ? RETURNING number",
            (
                state.k, state.size, state.root, b"".join(state.tree.edge), state.last, state.hlc, key_seq,
                state.log_id, before,
            ),
        ).fetchall()
        if len(changed) != 1:
            raise StateDamaged(f"{self._path}: log {state.log_id.hex()} is not at size {before}", hint=_LOOK)
        ((number,),) = changed
        connection.executemany(
            "INSERT INTO entries (log, seq, hlc, type, hash, raw) VALUES (?, ?, ?, ?, ?, ?)",
            [(number, entry.seq, entry.hlc, entry.type, entry.hash, entry.raw) for entry in entries],
        )
        StoredTree(connection, number).add(before, state.size)

    def prune(self, log_id: bytes, below: int) -> int:
        """Erase the contents of entries below a number, but for those that carry keys or name witnesses; how many it were."""
        with self._writing() as writer, _transaction(writer) as connection:
            rows = connection.execute("SELECT number FROM logs WHERE log_id = ? AND size > ?", (log_id, below)).fetchall()
            return prune(connection, rows[0][0], below) if rows else 0

    def shrink(self) -> None:
        """Give back to the disk what was erased; needs as much free space as the file has."""
        with self._writing() as writer:
            writer.execute("VACUUM")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if self._writer is None or self._failed:
            raise StateDamaged(f"{self._path} takes nothing: {self._failed or 'it was opened for reading'}", hint=_LOOK)
        with _errors(self._path):
            yield self._writer

    # --- reading ----------------------------------------------------------------------------------------------------

    def load(self, root: Root) -> tuple[dict[bytes, ChainState], tuple[DamagedLog, ...]]:
        """The states of all logs, by log id. Of each the last entry and the key in force are verified, no more."""
        states: dict[bytes, ChainState] = {}
        damaged: list[DamagedLog] = []
        for row in self.logs():
            try:
                states[row.log_id] = self._state(row, root)
            except (Refused, ValueError, TypeError) as error:
                damaged.append(DamagedLog(row=row, detail=str(error)))
        return states, tuple(damaged)

    def _state(self, row: LogRow, root: Root) -> ChainState:
        edge = (row.edge[at : at + HASH_SIZE] for at in range(0, len(row.edge), HASH_SIZE))
        tree = Tree(row.size, tuple(edge))
        (end,) = self._fetch("SELECT max(seq) FROM entries WHERE log = ?", (row.number,))[0]
        if end != row.size - 1:
            malformed(f"{row.size} entries are recorded, and the last one is number {end}")
        key_entry = self._unverified(row, row.key_seq)
        key = verify_key(key_entry.says, root)
        key_entry.verify(key.peer.message_public, root.mesh_id)
        last = self._unverified(row, row.size - 1).verify(key.peer.message_public, root.mesh_id)
        state = ChainState(
            node_id=NodeId(row.node_id), log_id=row.log_id, k=row.k, tree=tree, last=row.last, hlc=row.hlc, key=key
        )
        found = (last.node_id, last.log_id, last.kid, last.hash, last.hlc, state.root)
        if found != (state.node_id, state.log_id, key.kid, state.last, state.hlc, row.root):
            malformed("the last entry does not fit what is recorded of the log")
        return state

    def _unverified(self, row: LogRow, seq: int) -> UnverifiedEntry:
        rows = self._fetch("SELECT raw FROM entries WHERE log = ? AND seq = ?", (row.number, seq))
        if not rows:
            malformed(f"entry {seq} is missing")
        found = parse_entry(rows[0][0])
        if found.says.seq != seq:
            malformed(f"entry {found.says.seq} stands in the place of entry {seq}")
        return found

    def logs(self) -> list[LogRow]:
        """Every log, by node and incarnation."""
        rows = self._fetch(f"SELECT {_LOG_COLUMNS} FROM logs ORDER BY node_id, k, number")  # noqa: S608 - a constant
        names = _LOG_COLUMNS.split(", ")
        return [LogRow(**dict(zip(names, row, strict=True))) for row in rows]

    def block(self, number: int, start: int, count: int) -> list[tuple[Any, ...]]:
        """The next entries of a log in the order of `seq`, with the fields of `EntryRow`; for 0, the first of all."""
        where = "log = ? AND seq >= ?" if start else "log = ? AND ? = 0"
        query = f"SELECT seq, hlc, type, hash, raw FROM entries WHERE {where} ORDER BY seq LIMIT ?"  # noqa: S608 - constants
        return self._fetch(query, (number, start, count))

    def recorded(self, number: int, seq: int) -> tuple[Any, Any]:
        """What is recorded of the hash and the time of an entry; None twice if it is not there."""
        rows = self._fetch("SELECT hash, hlc FROM entries WHERE log = ? AND seq = ?", (number, seq))
        return rows[0] if rows else (None, None)

    def pruned_below(self, number: int) -> int:
        """Up to where contents of a log may be gone; 0: nowhere."""
        with _errors(self._path):
            return pruned_below(self._reader, number) if self._keeps_checkpoints() else 0

    def nodes(self, number: int) -> Iterator[tuple[Any, Any, Any]]:
        """Level, place and hash of every node that is kept of a log's tree, level by level."""
        with _errors(self._path):
            if not self._keeps_checkpoints():
                return
            query = "SELECT level, place, hash FROM nodes WHERE log = ? ORDER BY level, place"
            yield from self._reader.execute(query, (number,))

    def without_log(self) -> int:
        """How many entries belong to no log: none, unless someone deleted a row of `logs`."""
        return int(self._fetch("SELECT count(*) FROM entries WHERE log NOT IN (SELECT number FROM logs)")[0][0])

    def read(self, log_id: bytes, start: int, count: int, *, limit: int) -> list[bytes]:
        """Raw entries from `start` on, up to a gap or a pruned one: at most `count`, and `limit` bytes but always one."""
        found: list[bytes] = []
        size = 0
        with _errors(self._path):
            rows = self._reader.execute(
                "SELECT seq, raw FROM entries WHERE log = (SELECT number FROM logs WHERE log_id = ?) AND seq >= ?"
                " ORDER BY seq LIMIT ?",
                (log_id, start, count),
            )
            for seq, raw in rows:
                size += len(raw)
                if seq != start + len(found) or raw == b"" or (found and size > limit):
                    break
                found.append(raw)
            rows.close()
        return found

    def newest(self, *, node_id: NodeId | None = None, last: int | None = None) -> list[Entry]:
        """Entries as they were verified when they came, oldest first by their authors' time; the last so many."""
        return self.select(Query(node_id=node_id, last=last))

    def select(self, query: Query) -> list[Entry]:
        """Entries as they were verified when they came, oldest first by their authors' time."""
        where, values = query.where()
        limit = -1 if query.last is None or query.needs_bodies else query.last
        order = "ORDER BY hlc DESC, log DESC, seq DESC LIMIT ?"
        with _errors(self._path):
            rows = self._reader.execute(f"SELECT raw FROM entries WHERE {where} {order}", (*values, limit))  # noqa: S608
            readable = (entry for entry in _readable(raw for (raw,) in rows) if not query.needs_bodies or query.matches(entry))
            found = list(islice(readable, query.last))
            rows.close()
        return found[::-1]

    def first_since(self, log_id: bytes, at: datetime) -> int:
        """The number of the first entry of a log that is not before that time; its size if there is none."""
        query = "SELECT min(seq) FROM entries WHERE log = (SELECT number FROM logs WHERE log_id = ?) AND hlc >= ?"
        ((found,),) = self._fetch(query, (log_id, hlc_of(at)))
        if found is not None:
            return int(found)
        return int(self._fetch("SELECT size FROM logs WHERE log_id = ?", (log_id,))[0][0])

    def entry_at(self, log_ids: Sequence[bytes], seq: int) -> Entry | None:
        """Entry `seq` of the first of these logs that has one."""
        for log_id in log_ids:
            for entry in _readable(self.read(log_id, seq, 1, limit=1)):
                return entry
        return None

    def entry_with(self, digits: str) -> Entry | None:
        """The entry whose hash begins with these hexadecimal digits; reads all hashes. Raises UsageError for several."""
        rows = self._fetch("SELECT raw FROM entries WHERE lower(hex(hash)) LIKE ? || '%' LIMIT 2", (digits,))
        if len(rows) > 1:
            raise UsageError(f"several entries have a hash that begins with {digits}", hint="write more digits")
        return next(_readable(raw for (raw,) in rows), None)

    def with_keys(self, since_hlc: int) -> list[Entry]:
        """The entries since then that carry endorsements, oldest first."""
        rows = self._fetch(
            f"SELECT raw FROM entries WHERE type IN ({EntryType.LOG_OPEN:d}, {EntryType.ENDORSEMENT:d})"  # noqa: S608
            " AND hlc >= ? ORDER BY hlc",
            (since_hlc,),
        )
        return list(_readable(raw for (raw,) in rows))

    def with_keys_of(self, node_id: NodeId) -> list[Entry]:
        """The entries of a node that carry endorsements, the newest first."""
        rows = self._fetch(
            f"SELECT raw FROM entries WHERE type IN ({EntryType.LOG_OPEN:d}, {EntryType.ENDORSEMENT:d})"  # noqa: S608
            " AND log IN (SELECT number FROM logs WHERE node_id = ?) ORDER BY hlc DESC",
            (bytes(node_id),),
        )
        return list(_readable(raw for (raw,) in rows))

    def with_witnesses(self) -> list[Entry]:
        """The entries of all logs that name witnesses, in the order of `seq`."""
        query = f"SELECT raw FROM entries WHERE type = {EntryType.WITNESSES:d} ORDER BY log, seq"  # noqa: S608
        return list(_readable(raw for (raw,) in self._fetch(query)))

    def hashes(self, log_id: bytes, start: int, end: int) -> list[bytes]:
        """The hashes of entries from `start` to before `end`, as recorded. Raises StateDamaged if one is missing."""
        rows = self._fetch(
            "SELECT hash FROM entries WHERE log = (SELECT number FROM logs WHERE log_id = ?) AND seq >= ? AND seq < ?"
            " ORDER BY seq", (log_id, start, end),
        )
        if len(rows) != max(end - start, 0) or any(not isinstance(one, bytes) or len(one) != HASH_SIZE for (one,) in rows):
            raise StateDamaged(f"{self._path} lacks entries of log {log_id.hex()}", hint=_LOOK)
        return [one for (one,) in rows]

    @contextmanager
    def tree(self, log_id: bytes) -> Iterator[StoredTree]:
        """The tree of a log, for proofs. What it finds raises StateDamaged within the block."""
        rows = self._fetch("SELECT number FROM logs WHERE log_id = ?", (log_id,))
        if not rows:
            raise StateDamaged(f"{self._path} holds no log {log_id.hex()}")
        with _errors(self._path):
            yield StoredTree(self._reader, rows[0][0])

    def tree_at(self, log_id: bytes, size: int) -> Tree:
        """The tree of the first entries of a log, from the nearest checkpoint on. Raises StateDamaged."""
        with _errors(self._path):
            tree = tree_below(self._reader, log_id, size) if self._keeps_checkpoints() else Tree()
        return tree.extend(self.hashes(log_id, tree.size, size))

    def checkpoints(self, log_id: bytes, *, from_size: int = 0, newest: int = -1) -> list[KeptCheckpoint]:
        """What is kept of a log, the largest first; at most so many."""
        with _errors(self._path):
            if not self._keeps_checkpoints():
                return []
            return read_checkpoints(self._reader, log_id, from_size=from_size, newest=newest)

    def cosigned(self) -> list[Cosigned]:
        """What we have cosigned last, of each log. Raises StateDamaged if a row has been changed."""
        with _errors(self._path):
            return read_cosigned(self._reader) if self._keeps_checkpoints() else []

    def forks(self) -> list[KeptFork]:
        """Proofs against nodes that have told two stories, as they were kept; verify them."""
        with _errors(self._path):
            return read_forks(self._reader) if self._keeps_checkpoints() else []

    def _keeps_checkpoints(self) -> bool:
        return _version(self._reader) != BEFORE_WITNESSES

    def integrity(self) -> str:
        """What SQLite itself finds wrong with its file; empty when nothing."""
        ((found,),) = self._fetch("PRAGMA integrity_check(1)")
        return "" if found == "ok" else str(found)

    def copy_to(self, path: Path) -> None:
        """A copy of the whole file as it is at one moment, also while a node writes to it; `path` is made or replaced."""
        with _errors(self._path):
            copy = sqlite3.connect(path)
            try:
                self._reader.backup(copy)  # in one step, so nobody's commit comes between
            finally:
                copy.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside see one moment."""
        with _errors(self._path):
            self._reader.execute("BEGIN")
        try:
            yield
        finally:
            self._reader.rollback()

    def _fetch(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        with _errors(self._path):
            return self._reader.execute(query, values).fetchall()


_LOOK: Final = "nothing acknowledged is lost; look at the disk, then start the node again"
_DAMAGED: Final = (
    "it was left as it is; end the node, move the file away with its -wal and -shm, and keep it: the node begins a new log, and"
    " others have copies of the old one"
)  # never an old copy in its place: that is another history (docs/guide/operations.md, backup)


def _readable(raws: Iterable[bytes]) -> Iterator[Entry]:
    """Entries that were verified when they came; one that someone edited into nonsense is left to `verify`."""
    for raw in raws:
        try:
            yield parse_entry(raw).says
        except (Refused, TypeError):
            continue


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_AFTER)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _is_new(connection: sqlite3.Connection) -> bool:
    """Whether the file holds nothing at all."""
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    return bool(tables == 0 and _version(connection) == 0)


def _version(connection: sqlite3.Connection) -> int:
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    return int(version)


def _check_format(path: Path, connection: sqlite3.Connection, *, may_be_new: bool) -> None:
    if may_be_new and _is_new(connection):
        return
    ((application,),) = connection.execute("PRAGMA application_id").fetchall()
    if application != APPLICATION_ID or _version(connection) not in (BEFORE_WITNESSES, FORMAT):
        hint = "another version of the software may have made it; it was left as it is"
        raise StateDamaged(f"{path} is not an audit store of format {FORMAT}", hint=hint)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Committed and durable at the end of the block, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """SQLite's errors in our words (https://sqlite.org/rescode.html)."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(path, error) from None
    except UnicodeDecodeError as error:  # a text column, or SQLite's own message about a damaged schema
        raise StateDamaged(f"{path} is damaged: {error}", hint=_DAMAGED) from None


def _translate(path: Path, error: sqlite3.Error) -> OverlayError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return HostLacks(f"no space is left for {path}", hint="nothing acknowledged is lost; make room on the disk")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OverlayError(f"{path} is locked by another process", hint="end whatever else has the file open")
    if code == sqlite3.SQLITE_IOERR:
        return StateDamaged(f"{path}: {error}", hint=_LOOK)
    return StateDamaged(f"{path} is damaged: {error}", hint=_DAMAGED)
