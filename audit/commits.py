"""Group commit without a timer, whoever carries it: what queued while the last commit ran is the next one.

The shells differ in how callers wait, trio (`audit.log`) or threads (`audit.writer`); what is written, what fails and when
the log moves is here. Nothing is shown to anyone before it is durable.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from audit.author import OwnLog
from audit.batch import Batch
from audit.chain import Append
from audit.entry import Entry
from audit.store import AuditStore
from overlay.errors import OverlayError

BATCH_MAX: Final = 1024  # jobs in one commit: our guess

Work = Callable[[Batch], tuple[Entry, ...]]


@dataclass(slots=True, eq=False)
class Job:
    """What one caller waits for; `tell` is called when it is done, well or not."""

    work: Work
    tell: Callable[[], None]
    ours: bool = True  # an entry of our own: it waits until it is known where our log stands
    entries: tuple[Entry, ...] = ()
    error: OverlayError | None = None

    def result(self) -> tuple[Entry, ...]:
        """What was written. Raises what went wrong."""
        if self.error is not None:
            raise self.error
        return self.entries


class Commits:
    """Where our own log stands on the disk. One commit runs at a time; `warning` says why the last one failed."""

    def __init__(self, store: AuditStore, own: OwnLog, at: Callable[[], datetime]) -> None:
        self.own = own
        self.waits = False  # whether it is not known yet that ours is the newest copy of our log
        self.warning = ""
        self._store = store
        self._at = at

    def write(self, jobs: Sequence[Job]) -> tuple[Batch, list[Append]]:
        """Make durable what these ask for; blocks on the disk, and nothing has moved yet when it returns.

        What a job does wrong is its own; what the disk does wrong is everybody's, and raised.

        Raises:
            StateDamaged, HostLacks, OverlayError: see `AuditStore.append_many`.
        """
        batch = Batch(self.own, self._at(), waits=self.waits)
        for job in jobs:
            try:
                job.entries = job.work(batch)
            except OverlayError as error:
                job.error = error
        appends = batch.finish()
        if appends or batch.records:
            self._store.append_many(appends, batch.records)
        return batch, appends

    def settle(self, batch: Batch) -> None:
        """What `write` returned is on the disk: our log stands there now."""
        self.own, self.warning = batch.own, ""

    def failed(self, jobs: Sequence[Job], error: OverlayError) -> None:
        """The disk did not take it."""
        self.warning = str(error)
        fail(jobs, error)


def fail(jobs: Sequence[Job], error: OverlayError) -> None:
    """Tell all of them the same."""
    for job in jobs:
        job.error = job.error or error
        job.tell()
