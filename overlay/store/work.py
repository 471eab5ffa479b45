"""The runs of a worker, in an SQLite file: a row is durable before its run starts, and has the result when it is over.

So a placement that is sent again finds its row, also after a restart. What ran before the file was made is not known: the
time at which it was made is kept in it, and placements from before then are refused.
"""

import os
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

from overlay.core.work.records import RunRecord
from overlay.errors import OverlayError, StateDamaged
from overlay.store.files import sync_folder

RESULTS_KEPT: Final = timedelta(days=7)  # our guess: that people ask for a result
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS began (since INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    placement BLOB PRIMARY KEY, workload BLOB NOT NULL, run INTEGER NOT NULL, until INTEGER NOT NULL,
    assignment BLOB NOT NULL, result BLOB, UNIQUE (workload, run)) WITHOUT ROWID;
"""
SELECT: Final = "SELECT workload, run, placement, until, assignment, result FROM runs"


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run that began here. Without a result it runs, or was running when this worker went down."""

    record: RunRecord
    assignment: bytes = field(repr=False)
    result: bytes | None = field(repr=False)  # a carried result


class WorkStore:
    """One file; used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        [(since,)] = self._fetch("SELECT since FROM began", ())
        self.since: Final = datetime.fromtimestamp(since, UTC)  # what was placed before is not known here

    @classmethod
    def open(cls, path: Path, at: datetime) -> Self:
        """Open or make the file, for us alone. Raises StateDamaged."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StateDamaged(f"cannot open {path}: {error.strerror}", hint="look at the folder and its permissions") from None
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(SCHEMA)
            connection.execute(
                "INSERT INTO began SELECT ? WHERE NOT EXISTS (SELECT * FROM began)", (int(at.timestamp()),)
            )
        except sqlite3.DatabaseError as error:
            raise _damaged(path, error) from None
        path.chmod(0o600)
        sync_folder(path.parent)
        return cls(connection, path)

    def records(self) -> list[RunRecord]:
        """Of all runs that are kept. Raises StateDamaged."""
        return [self._record(row) for row in self._fetch("SELECT workload, run, placement, until FROM runs", ())]

    def find(self, placement: bytes) -> StoredRun | None:
        """The run with that placement. Raises StateDamaged."""
        rows = self._fetch(f"{SELECT} WHERE placement = ?", (placement,))
        return self._read(rows[0]) if rows else None

    def unfinished(self) -> list[StoredRun]:
        """Those without a result: right after a start, what ran when this worker went down. Raises StateDamaged."""
        return [self._read(row) for row in self._fetch(f"{SELECT} WHERE result IS NULL", ())]

    def runs(self) -> list[StoredRun]:
        """All that are kept, the one that counts longest last. Raises StateDamaged."""
        return [self._read(row) for row in self._fetch(f"{SELECT} ORDER BY until, placement", ())]

    def add(self, record: RunRecord, assignment: bytes) -> None:
        """Durable when this returns. Raises OverlayError if the run is there already, or the disk takes nothing: no start."""
        values = (record.placement, record.workload, record.run, record.until, assignment)
        self._write("INSERT INTO runs VALUES (?, ?, ?, ?, ?, NULL)", values)

    def finish(self, placement: bytes, result: bytes) -> None:
        """The run with that placement is over. Durable when this returns. Raises OverlayError."""
        self._write("UPDATE runs SET result = ? WHERE placement = ?", (result, placement))

    def forget(self, at: datetime) -> None:
        """Drop what cannot run again and nobody has asked for in a week. Raises OverlayError."""
        self._write("DELETE FROM runs WHERE until < ?", (int((at - RESULTS_KEPT).timestamp()),))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _write(self, command: str, values: tuple[object, ...]) -> None:
        try:
            self._connection.execute(command, values)
        except sqlite3.Error as error:
            raise OverlayError(f"{self._path.name} takes nothing more: {error}", hint="look at the disk") from None

    def _fetch(self, query: str, values: tuple[object, ...]) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _damaged(self._path, sqlite3.DatabaseError(str(error))) from None

    def _read(self, row: Any) -> StoredRun:
        *record, assignment, result = row
        if not isinstance(assignment, bytes) or not isinstance(result, bytes | None):
            raise _damaged(self._path, sqlite3.DatabaseError("a row of other types"))
        return StoredRun(self._record(record), assignment, result)

    def _record(self, row: Any) -> RunRecord:
        workload, run, placement, until = row
        if not all(isinstance(one, bytes) for one in (workload, placement)):
            raise _damaged(self._path, sqlite3.DatabaseError("a row of other types"))
        return RunRecord(workload=workload, run=run, placement=placement, until=until)


def _damaged(path: Path, error: sqlite3.Error) -> StateDamaged:
    hint = "move the file away; what was placed until now is refused then, because nobody knows what of it ran"
    return StateDamaged(f"{path.name} cannot be read: {error}", hint=hint)
