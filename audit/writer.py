"""A log of one's own with no node, network or trio: any thread may append, and those who wait share one commit.

The first thread that finds nobody writing writes for all who queued; the others wait until theirs is on the disk.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from audit.author import LogSigner, former_of
from audit.batch import UNCONFIRMED
from audit.bodies import application
from audit.chain import ChainState
from audit.commits import BATCH_MAX, Commits, Job, Work, fail
from audit.entry import Entry
from audit.opening import Opened, open_store
from audit.query import Query
from audit.store import DamagedLog
from overlay.core.certificates import Root
from overlay.errors import OverlayError
from overlay.registry import EntryType

SUBSCRIBER_WAITING: Final = 65_536  # entries a subscriber may lag behind: our guess


def wall_clock() -> datetime:
    """The time of day, aware."""
    return datetime.now(UTC)


class LogWriter:
    """The open log of one node, and everyone's logs in the same file. A context manager; safe to share between threads.

    After an I/O error nothing is written any more; when the disk is full every append fails until there is room. `warning`
    says so.
    """

    def __init__(self, opened: Opened, at: Callable[[], datetime], release: Callable[[], None] = lambda: None) -> None:
        self.damaged: tuple[DamagedLog, ...] = opened.damaged  # logs that are kept as they are, and not continued
        self._replica = opened.replica
        self._store = opened.store
        self._commits = Commits(opened.store, opened.own, at)
        self._release = release
        self._jobs: list[Job] = []
        self._writing = False
        self._closed = False
        self._changed = threading.Condition()
        self._reading = threading.Lock()
        self._subscribers: set[queue.Queue[Entry | None]] = set()

    @classmethod
    def open(
        cls, path: Path, *, root: Root, signer: LogSigner, at: Callable[[], datetime] = wall_clock,
        release: Callable[[], None] = lambda: None,
    ) -> Self:
        """Open or make the store, and go on with our log in it, or begin one. One writer at a time has a file open.

        A log that has witnesses is left for its next incarnation: they cannot be asked whether this is its newest copy.

        Raises:
            StateDamaged: the file is not a store, or cannot be read or written.
            HostLacks: the disk is full.
            Refused: our credentials do not hold.
        """
        opened = open_store(path, root, signer, at, ask=True)
        log = cls(opened, at, release)
        if opened.waits:  # nobody is there to say whether this is the newest copy
            log._do(lambda batch: batch.begin_next(signer, former_of(batch.own.state, UNCONFIRMED), batch.own.state.k + 1))
        return log

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def state(self) -> ChainState:
        """Where our log stands. Its id changes when a new incarnation begins."""
        return self._commits.own.state

    @property
    def warning(self) -> str:
        """Why nothing can be written; empty when all is well."""
        return self._commits.warning

    def query(self, query: Query | None = None) -> list[Entry]:
        """Stored entries, oldest first by their authors' time."""
        with self._reading:
            return self._store.select(query or Query())

    @contextmanager
    def subscribe(self, query: Query | None = None) -> Iterator[Iterator[Entry]]:
        """Entries as they become durable, from the beginning of the block on; `next` waits for one. It ends with the log.

        Who lags too far behind gets no more: `query` has them.
        """
        waiting: queue.Queue[Entry | None] = queue.Queue(SUBSCRIBER_WAITING)
        with self._changed:
            self._check_open()
            self._subscribers.add(waiting)
        wanted = query or Query()
        try:
            yield (entry for entry in iter(waiting.get, None) if wanted.matches(entry))
        finally:
            with self._changed:
                self._subscribers.discard(waiting)

    # --- writing ----------------------------------------------------------------------------------------------------

    def append(self, kind: str, value: Any = None) -> Entry:
        """Append an entry of a type of one's own, with anything JSON can hold; durable on return.

        Raises:
            Refused: our endorsement does not hold now (NOT_IN_FORCE).
            UsageError: this cannot be an entry.
            StateDamaged, HostLacks: the disk did not take it.
        """
        return self.append_entry(EntryType.APPLICATION, application(kind, value))

    def append_entry(
        self, entry_type: int, body: Mapping[int, Any], *, references: tuple[bytes, ...] = ()
    ) -> Entry:
        """`append` for an entry of any type."""
        (entry,) = self._do(lambda batch: batch.write(entry_type, body, references))
        return entry

    def change_signer(self, signer: LogSigner) -> None:
        """Go on under other keys: the entry that says so is durable on return. Raises as `append`."""
        self._do(lambda batch: batch.change_signer(signer))

    def _do(self, work: Work) -> tuple[Entry, ...]:
        done = threading.Event()
        job = Job(work, done.set)
        with self._changed:
            self._check_open()
            self._jobs.append(job)
        while not done.is_set():
            if jobs := self._take_turn(done):
                self._write(jobs)
        return job.result()

    def _take_turn(self, done: threading.Event) -> list[Job]:
        """The jobs that this thread is to write now; none if another one has done ours meanwhile."""
        with self._changed:
            while self._writing and not done.is_set():
                self._changed.wait()
            if done.is_set():
                return []
            self._writing = True
            jobs, self._jobs = self._jobs[:BATCH_MAX], self._jobs[BATCH_MAX:]
            return jobs

    def _write(self, jobs: list[Job]) -> None:
        """One commit. Whatever happens, the next thread gets its turn."""
        try:
            batch, appends = self._commits.write(jobs)
            self._commits.settle(batch)
            for append in appends:
                self._replica.stored(append.state, append.entries)
                self._tell(append.entries)
            for job in jobs:
                job.tell()
        except OverlayError as error:
            self._commits.failed(jobs, error)
        except BaseException:  # Ctrl-C in this thread, or our own bug: the others must not wait for ever
            self._commits.failed(jobs, OverlayError("whoever wrote for all was interrupted"))
            raise
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _tell(self, entries: tuple[Entry, ...]) -> None:
        with self._changed:
            subscribers = tuple(self._subscribers)
        for waiting in subscribers:
            for entry in entries:
                if waiting.qsize() < SUBSCRIBER_WAITING - 1:
                    waiting.put_nowait(entry)

    # --- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let the running commit end, refuse what waits, close the file."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            while self._writing:
                self._changed.wait()
            fail(self._jobs, OverlayError(CLOSED))
            self._jobs = []
            self._changed.notify_all()
            for waiting in self._subscribers:
                waiting.put_nowait(None)
        with self._reading:
            self._store.close()
        self._release()

    def _check_open(self) -> None:
        if self._closed:
            raise OverlayError(CLOSED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


CLOSED: Final = "the audit log is closed"
