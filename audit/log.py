"""Our own audit log on trio, and the store of all logs: nothing is shown to anyone before it is durable.

A group commit (`audit.commits`) runs in a thread, and only when it is on the disk do the log, the replica and the machine
move.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import trio

from audit.author import LogSigner, former_of
from audit.batch import Batch
from audit.bodies import application
from audit.chain import Append, ChainState
from audit.commits import BATCH_MAX, Commits, Job, Work, fail
from audit.entry import Entry
from audit.kept import Record
from audit.opening import Opened, open_store
from audit.query import Query
from audit.quotas import Quotas
from audit.store import AuditStore
from audit.witness_sets import sets_of
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.core.limits import ITEMS_MAX, WANT_ITEMS
from overlay.core.mesh.reconcile import Head, ItemsVerified, RangeWanted, Reconcile
from overlay.errors import OverlayError, Refused
from overlay.registry import ChainKind, EntryType, Reason

READ_BYTES: Final = ITEMS_MAX // 2  # of one answer to a peer

Answer = TypeVar("Answer")
Listener = Callable[[tuple[Entry, ...]], None]


class AuditLog:
    """The open log of this node, and a keeper of everyone's logs for replication.

    `run` writes; without it nothing becomes durable. After an I/O error nothing is written any more; when the disk is
    full every append fails until there is room. `warning` says so.
    """

    def __init__(self, opened: Opened, at: Callable[[], datetime]) -> None:
        self.replica = opened.replica
        self.damaged = opened.damaged  # logs that are kept as they are, and neither continued nor given to others
        self.sets = sets_of(opened.store.with_witnesses())
        self._store = opened.store
        self._commits = Commits(opened.store, opened.own, at)
        self._commits.waits = opened.waits
        self._jobs: list[Job] = []
        self._wake = trio.Event()
        self._closed = False
        self._reading = trio.CapacityLimiter(1)
        self._listeners: list[Listener] = []
        lost = frozenset(log.row.log_id for log in self.damaged)
        heads = {log_id: Head(state.node_id, state.size, state.root) for log_id, state in self.replica.states.items()}
        self.quotas = Quotas()
        self._at = at

        def wanted(log_id: bytes, node_id: NodeId) -> bool:
            return log_id not in lost and (node_id == self.node_id or self.quotas.allows(node_id, at()))

        self.machine = Reconcile(self.kind, self.node_id, self.replica, heads.items(), wanted=wanted)

    @classmethod
    async def open(
        cls, path: Path, *, root: Root, signer: LogSigner, at: Callable[[], datetime], lowest_k: int = 0,
        ask: bool = False,
    ) -> Self:
        """Open the store, and go on with our log or begin its next incarnation; the opening is durable on return.

        Args:
            lowest_k: no earlier incarnation goes on; for a node that was restored, whose logs went on without it.
            ask: a log that has witnesses does not go on (`waits`) until `go_on` or `begin_next` was called.

        Raises:
            StateDamaged: the file is not a store, or cannot be read or written.
            HostLacks: the disk is full.
            Refused: our credentials do not hold.
        """
        work = partial(open_store, path, root, signer, at, lowest_k, ask=ask)
        return cls(await trio.to_thread.run_sync(work), at)

    def close(self) -> None:
        """Close the store, once `run` has ended."""
        self._store.close()

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def kind(self) -> ChainKind:
        """What it keeps."""
        return ChainKind.AUDIT

    @property
    def node_id(self) -> NodeId:
        """Whose log it is."""
        return self._commits.own.state.node_id

    @property
    def state(self) -> ChainState:
        """Where our open log stands. Its id changes when a new incarnation begins."""
        return self._commits.own.state

    @property
    def warning(self) -> str:
        """Why nothing can be written; empty when all is well."""
        return self._commits.warning

    @property
    def over_quota(self) -> tuple[NodeId, ...]:
        """Authors that write more than their share: nothing more of them is asked for now."""
        return self.quotas.over(self._at())

    @property
    def signer(self) -> LogSigner:
        """The keys under which our log is written."""
        return self._commits.own.signer

    @property
    def waits(self) -> bool:
        """Whether entries of ours wait until it is known that our copy of our log is the newest one."""
        return self._commits.waits

    def listen(self, listener: Listener) -> None:
        """Tell this one of all entries that become durable, ours and others', in trio's thread; it must not block."""
        self._listeners.append(listener)

    async def newest(self, *, node_id: NodeId | None = None, last: int | None = None) -> list[Entry]:
        """Stored entries, oldest first by their authors' time: of one node or all, the last so many."""
        return await self.select(Query(node_id=node_id, last=last))

    async def select(self, query: Query) -> list[Entry]:
        """Stored entries that match, oldest first by their authors' time."""
        return await trio.to_thread.run_sync(self._store.select, query, limiter=self._reading)

    # --- writing ----------------------------------------------------------------------------------------------------

    async def append(self, entry_type: int, body: Mapping[int, Any], *, references: tuple[bytes, ...] = ()) -> Entry:
        """Append an entry; returns when it is durable. Cancelled, it may have been written all the same.

        Raises:
            Refused: our endorsement does not hold now (NOT_IN_FORCE).
            UsageError: this cannot be an entry.
            StateDamaged, HostLacks: the disk did not take it.
        """
        (entry,) = await self._do(lambda batch: batch.write(entry_type, body, references))
        return entry

    async def append_application(self, kind: str, value: Any = None) -> Entry:
        """`append` for a user's entry; `value` is anything JSON can hold."""
        return await self.append(EntryType.APPLICATION, application(kind, value))

    async def change_signer(self, signer: LogSigner) -> None:
        """Go on under other keys: the entry that says so is durable on return. Raises as `append`."""
        await self._do(lambda batch: batch.change_signer(signer))

    async def keep(self, *records: Record) -> None:
        """Make durable what is known of checkpoints, or was cosigned. Raises StateDamaged, HostLacks."""

        def work(batch: Batch) -> tuple[Entry, ...]:
            for record in records:
                batch.keep(record)
            return ()

        await self._do(work, ours=False)

    async def go_on(self) -> None:
        """Ours is the newest copy of our log: write on. Raises as `append`."""
        signer = self._commits.own.signer
        await self._do(lambda batch: batch.change_signer(signer), ours=False)
        self._let_go()

    async def begin_next(self, reason: str, checkpoint: bytes | None = None) -> None:
        """Leave our log for its next incarnation, which names the newest one of ours that is held here.

        Args:
            checkpoint: the newest one of the log that is left, as its witnesses have shown it.

        Raises:
            As `append`.
        """

        def work(batch: Batch) -> tuple[Entry, ...]:
            own = batch.own.state
            newest = max((own, *self.replica.logs_of(own.node_id)), key=lambda state: state.k)
            former = replace(former_of(own if newest.k == own.k else newest, reason), checkpoint=checkpoint)
            return batch.begin_next(batch.own.signer, former, newest.k + 1)

        await self._do(work, ours=False)
        self._let_go()

    def _let_go(self) -> None:
        self._commits.waits = False
        self._wake.set()

    async def read_store(self, read: Callable[[AuditStore], Answer]) -> Answer:
        """Read in the thread that reads, one at a time."""
        return await trio.to_thread.run_sync(read, self._store, limiter=self._reading)

    async def store(self, items: ItemsVerified) -> None:
        """Make others' entries durable and tell the machine. A disk that does not take them is in `warning`."""
        extension = self.replica.checked(items.log_id, items.start, len(items.items))
        try:
            if extension is None:
                raise Refused(Reason.CHAIN_BROKEN, "the log has moved on since these entries were checked")
            await self._do(lambda batch: batch.add(extension), ours=False)
        except OverlayError:
            self.replica.dropped(items.log_id)
            self.machine.dropped(items.log_id, trio.current_time())

    async def read(self, wanted: RangeWanted) -> list[bytes]:
        """Stored entries of a range, as many as one answer holds."""
        count = min(wanted.count, WANT_ITEMS)
        read = partial(self._store.read, wanted.log_id, wanted.start, count, limit=READ_BYTES)
        return await trio.to_thread.run_sync(read, limiter=self._reading)

    async def run(self) -> None:
        """Write what is asked for, until cancelled; what waits then, and what comes later, is refused."""
        try:
            while True:
                while not (jobs := self._take_jobs()):
                    self._wake = trio.Event()
                    await self._wake.wait()
                await self._run_batch(jobs)
        finally:
            self._closed = True
            jobs, self._jobs = self._jobs, []
            fail(jobs, OverlayError("the audit log is closed"))

    def _take_jobs(self) -> list[Job]:
        """The next ones, in order; ours wait while it is not known where our log stands."""
        if not self.waits:
            jobs, self._jobs = self._jobs[:BATCH_MAX], self._jobs[BATCH_MAX:]
            return jobs
        jobs, self._jobs = [job for job in self._jobs if not job.ours], [job for job in self._jobs if job.ours]
        return jobs

    async def _do(self, work: Work, *, ours: bool = True) -> tuple[Entry, ...]:
        if self._closed:
            raise OverlayError("the audit log is closed")
        done = trio.Event()
        job = Job(work, done.set, ours)
        self._jobs.append(job)
        self._wake.set()
        await done.wait()
        return job.result()

    async def _run_batch(self, jobs: Sequence[Job]) -> None:
        """A commit that has begun is finished and told, whoever is cancelled."""
        with trio.CancelScope(shield=True):
            try:
                batch, appends = await trio.to_thread.run_sync(self._commits.write, jobs)
            except OverlayError as error:
                self._commits.failed(jobs, error)
                return
        self._commits.settle(batch)
        for append in appends:
            self._settle(append)
        for job in jobs:
            job.tell()

    def _settle(self, append: Append) -> None:
        """These entries are on the disk: everyone may know."""
        state, entries = append.state, append.entries
        self.replica.stored(state, entries)
        self.sets.learn(entries)
        head = Head(state.node_id, state.size, state.root)
        if append.ours:
            self.machine.appended(state.log_id, head, [entry.raw for entry in entries])
        else:
            self.quotas.took(state.node_id, state.hlc, len(entries), sum(len(entry.raw) for entry in entries))
            self.machine.stored(state.log_id, head, trio.current_time())
        for listener in self._listeners:
            listener(entries)
