"""Listens to all audit logs for runs that two workers have started, and raises the alarm.

What is found in entries that were stored before this start was told then, and is not told again.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from audit.entry import Entry
from audit.log import AuditLog
from audit.query import Query
from audit.work_bodies import read_start
from overlay.core.trust import TrustSet
from overlay.core.work.starts import STARTS_MAX, PlacedTwice, StartWatch
from overlay.events import NodeEvent, RunPlacedTwice


class Engine(Protocol):
    """What is needed of the node."""

    def emit(self, event: NodeEvent) -> None:
        """Tell observers."""
        ...


class StartAlarms:
    """Of one node."""

    def __init__(self, trust: Callable[[], TrustSet]) -> None:
        self.engine: Engine | None = None
        self._trust = trust
        self._watch = StartWatch()

    async def load(self, log: AuditLog) -> None:
        """Learn what is stored, and from now on what comes."""
        log.listen(self._take)
        self._take(await log.select(Query(types=frozenset({"work"}), last=STARTS_MAX)))

    def _take(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            carried = read_start(entry)
            found = None if carried is None else self._watch.heard(entry.node_id, carried, self._trust())
            if found is not None and self.engine is not None:
                self.engine.emit(alarm_of(found))


def alarm_of(found: PlacedTwice) -> RunPlacedTwice:
    """What is told of it."""
    return RunPlacedTwice(
        names=tuple(peer.name for peer in found.schedulers), schedulers=tuple(str(peer.node_id) for peer in found.schedulers),
        workload=found.workload.hex(), run=found.run, workers=tuple(str(worker) for worker in found.workers),
    )  # fmt: skip
