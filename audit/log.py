"""Our own audit log on trio, and the store of all logs: nothing is shown to anyone before it is durable.

Group commit without a timer: what queued while the last commit ran is the next one. A commit runs in a thread, works on
values, and only when it is on the disk do the log, the replica and the machine move.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import trio

from audit.author import LogSigner, OwnLog, former_of
from audit.batch import DAMAGED, RESTORED, Batch
from audit.bodies import Former, application
from audit.chain import Append, ChainState
from audit.entry import Entry
from audit.replica import KEYS_KEPT, AuditReplica
from audit.store import AuditStore, DamagedLog
from overlay.core.certificates import Root, verify_leaf
from overlay.core.keys import NodeId
from overlay.core.limits import ITEMS_MAX, WANT_ITEMS
from overlay.core.merkle import Tree
from overlay.core.mesh.chains import hlc_of
from overlay.core.mesh.reconcile import Head, ItemsVerified, RangeWanted, Reconcile
from overlay.errors import OverlayError, Refused
from overlay.registry import GENESIS, ChainKind, EntryType, Reason

BATCH_MAX: Final = 1024  # jobs in one commit: our guess
READ_BYTES: Final = ITEMS_MAX // 2  # of one answer to a peer

Listener = Callable[[tuple[Entry, ...]], None]
Work = Callable[[Batch], tuple[Entry, ...]]


@dataclass(slots=True, eq=False)
class _Job:
    """What one caller waits for."""

    work: Work
    done: trio.Event = field(default_factory=trio.Event)
    entries: tuple[Entry, ...] = ()
    error: OverlayError | None = None


class AuditLog:
    """The open log of this node, and a keeper of everyone's logs for replication.

    `run` writes; without it nothing becomes durable. After an I/O error nothing is written any more; when the disk is
    full every append fails until there is room. `warning` says so.
    """

    def __init__(
        self, store: AuditStore, replica: AuditReplica, own: OwnLog, at: Callable[[], datetime],
        damaged: Sequence[DamagedLog] = (),
    ) -> None:  # fmt: skip
        self.replica = replica
        self.damaged = tuple(damaged)  # logs that are kept as they are, and neither continued nor given to others
        self.warning = ""
        self._store = store
        self._own = own
        self._at = at
        self._jobs: list[_Job] = []
        self._wake = trio.Event()
        self._closed = False
        self._reading = trio.CapacityLimiter(1)
        self._listeners: list[Listener] = []
        lost = frozenset(log.row.log_id for log in self.damaged)
        heads = {log_id: Head(state.node_id, state.size, state.root) for log_id, state in replica.states.items()}
        self.machine = Reconcile(
            self.kind, own.state.node_id, replica, heads.items(), wanted=lambda log_id, _node_id: log_id not in lost
        )

    @classmethod
    async def open(
        cls, path: Path, *, root: Root, signer: LogSigner, at: Callable[[], datetime], lowest_k: int = 0
    ) -> Self:
        """Open the store, and go on with our log or begin its next incarnation; the opening is durable on return.

        `lowest_k`: no earlier incarnation goes on; for a node that was restored, whose logs went on without it.

        Raises:
            StateDamaged: the file is not a store, or cannot be read or written.
            HostLacks: the disk is full.
            Refused: our credentials do not hold.
        """
        return await trio.to_thread.run_sync(partial(cls._open, path, root, signer, at, lowest_k))

    @classmethod
    def _open(cls, path: Path, root: Root, signer: LogSigner, at: Callable[[], datetime], lowest_k: int) -> Self:
        store = AuditStore.open(path)
        try:
            states, damaged = store.load(root)
            replica = AuditReplica(root, at, states)
            replica.remember(store.with_keys(hlc_of(at() - KEYS_KEPT)))
            batch = _opening(root, signer, at(), states, damaged, lowest_k)
            appends = batch.finish()
            store.append_many(appends)
            for append in appends:
                replica.stored(append.state, append.entries)
            return cls(store, replica, batch.own, at, damaged)
        except BaseException:
            store.close()
            raise

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
        return self._own.state.node_id

    @property
    def state(self) -> ChainState:
        """Where our open log stands. Its id changes when a new incarnation begins."""
        return self._own.state

    def listen(self, listener: Listener) -> None:
        """Tell this one of all entries that become durable, ours and others', in trio's thread; it must not block."""
        self._listeners.append(listener)

    async def newest(self, *, node_id: NodeId | None = None, last: int | None = None) -> list[Entry]:
        """Stored entries, oldest first by their authors' time: of one node or all, the last so many."""
        read = partial(self._store.newest, node_id=node_id, last=last)
        return await trio.to_thread.run_sync(read, limiter=self._reading)

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

    async def store(self, items: ItemsVerified) -> None:
        """Make others' entries durable and tell the machine. A disk that does not take them is in `warning`."""
        extension = self.replica.checked(items.log_id, items.start, len(items.items))
        try:
            if extension is None:
                raise Refused(Reason.CHAIN_BROKEN, "the log has moved on since these entries were checked")
            await self._do(lambda batch: batch.add(extension))
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
                while not self._jobs:
                    self._wake = trio.Event()
                    await self._wake.wait()
                jobs, self._jobs = self._jobs[:BATCH_MAX], self._jobs[BATCH_MAX:]
                await self._run_batch(jobs)
        finally:
            self._closed = True
            jobs, self._jobs = self._jobs, []
            _fail(jobs, OverlayError("the audit log is closed"))

    async def _do(self, work: Work) -> tuple[Entry, ...]:
        if self._closed:
            raise OverlayError("the audit log is closed")
        job = _Job(work)
        self._jobs.append(job)
        self._wake.set()
        await job.done.wait()
        if job.error is not None:
            raise job.error
        return job.entries

    async def _run_batch(self, jobs: Sequence[_Job]) -> None:
        """A commit that has begun is finished and told, whoever is cancelled."""
        with trio.CancelScope(shield=True):
            batch = Batch(self._own, self._at())
            try:
                appends = await trio.to_thread.run_sync(self._commit, batch, jobs)
            except OverlayError as error:
                self.warning = str(error)
                _fail(jobs, error)
                return
        self.warning = ""
        self._own = batch.own
        for append in appends:
            self._settle(append)
        for job in jobs:
            job.done.set()

    def _commit(self, batch: Batch, jobs: Sequence[_Job]) -> list[Append]:
        """In a thread. What a job does wrong is its own; what the disk does wrong is everybody's, and raised."""
        for job in jobs:
            try:
                job.entries = job.work(batch)
            except OverlayError as error:
                job.error = error
        appends = batch.finish()
        if appends:
            self._store.append_many(appends)
        return appends

    def _settle(self, append: Append) -> None:
        """These entries are on the disk: everyone may know."""
        state, entries = append.state, append.entries
        self.replica.stored(state, entries)
        head = Head(state.node_id, state.size, state.root)
        if append.ours:
            self.machine.appended(state.log_id, head, [entry.raw for entry in entries])
        else:
            self.machine.stored(state.log_id, head, trio.current_time())
        for listener in self._listeners:
            listener(entries)


def _fail(jobs: Sequence[_Job], error: OverlayError) -> None:
    for job in jobs:
        job.error = job.error or error
        job.done.set()


# --- opening ----------------------------------------------------------------------------------------------------------

NO_FORMER: Final = Former(log_id=bytes(16), size=0, root=Tree().root, last=GENESIS, reason=RESTORED)  # it wrote none yet


def _opening(
    root: Root, signer: LogSigner, at: datetime, states: Mapping[bytes, ChainState], damaged: Sequence[DamagedLog],
    lowest_k: int,
) -> Batch:
    """Our newest log as it goes on from here; the next one, if it cannot go on; the first, if there is none."""
    node_id = verify_leaf(signer.credentials.leaf, signer.credentials.chain, root, at).node_id
    own = [state for state in states.values() if state.node_id == node_id]
    newest = max(own, key=lambda one: (one.k, one.hlc), default=None)
    lost = max((log for log in damaged if log.row.node_id == node_id), key=lambda one: one.k, default=None)
    if lost is not None and (newest is None or lost.k >= newest.k):
        return Batch.begin(root, signer, at, max(lost.k + 1, lowest_k), _former_of_lost(lost))
    if lowest_k and (newest is None or newest.k < lowest_k):
        return Batch.begin(root, signer, at, lowest_k, NO_FORMER if newest is None else former_of(newest, RESTORED))
    if newest is None:
        return Batch.begin(root, signer, at, 0, None)
    batch = Batch(OwnLog(root=root, state=newest, signer=signer), at)
    batch.change_signer(signer)
    return batch


def _former_of_lost(log: DamagedLog) -> Former:
    """What the file still says of the end of a log, for its successor; nobody can check it here."""
    row = log.row
    return Former(
        log_id=_sized(row.log_id, 16), size=row.size if isinstance(row.size, int) and row.size >= 0 else 0,
        root=_sized(row.root, 32), last=_sized(row.last, 32), reason=DAMAGED,
    )  # fmt: skip


def _sized(value: object, size: int) -> bytes:
    return value if isinstance(value, bytes) and len(value) == size else bytes(size)
