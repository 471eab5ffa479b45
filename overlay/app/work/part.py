"""What a node has to do with work: files for others, always; a worker, where the settings say so."""

from contextlib import ExitStack
from datetime import datetime
from typing import Final

import trio

from audit.log import AuditLog
from overlay.app.local import LocalNode
from overlay.app.work.commands import WorkCommands
from overlay.app.work.contract import BYTES
from overlay.app.work.delivery import Delivery
from overlay.app.work.launcher import Launchers
from overlay.app.work.worker import Worker
from overlay.events import NodeEvent
from overlay.net.node import StreamHandler
from overlay.net.request import Handler
from overlay.store.state import WORK_STORE, StateFolder
from overlay.store.work import WorkStore

ARTIFACTS: Final = "artifacts"
ROOM: Final = "room"  # always empty, seen from here: each launcher mounts its own there


class WorkPart:
    """Of one node."""

    def __init__(self, delivery: Delivery, worker: Worker | None, store: WorkStore | None) -> None:
        self._delivery = delivery
        self._worker = worker
        self._store = store

    @classmethod
    def of(cls, folder: StateFolder, stack: ExitStack, at: datetime, *, work: bool, dual_control: bool) -> "WorkPart":
        """Raises StateDamaged."""
        delivery = Delivery(folder.file(ARTIFACTS))
        if not work:
            return cls(delivery, None, None)
        store = WorkStore.open(folder.file(WORK_STORE), at)
        stack.callback(store.close)
        place = folder.file(ROOM)
        place.mkdir(mode=0o700, exist_ok=True)
        return cls(delivery, Worker(store, delivery, Launchers(place), dual_control=dual_control), store)

    @property
    def services(self) -> dict[str, Handler]:
        """For NodeParts."""
        return {} if self._worker is None else self._worker.services

    @property
    def streams(self) -> dict[str, StreamHandler]:
        """For NodeParts."""
        return {BYTES: self._delivery.serve}

    def observe(self, event: NodeEvent) -> None:
        """What happens to the node."""
        if self._worker is not None:
            self._worker.observe(event)

    async def run(self, node: LocalNode, log: AuditLog) -> None:
        """Until cancelled."""
        node.work = WorkCommands(node, self._delivery, self._worker, self._store)
        if self._worker is None:
            await trio.sleep_forever()
            return
        await self._worker.run(node, log)
