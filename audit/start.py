"""The start of our own log, on trio: its witnesses are asked whether our copy is the newest one, before anything is written.

It decides nothing: `audit.confirmation` does.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import trio

from audit.batch import NEWER_COPY, UNCONFIRMED
from audit.checkpoint import UnverifiedCheckpoint, parse_checkpoint
from audit.confirmation import Confirmation, Outcome, Shown
from audit.log import AuditLog
from audit.store import AuditStore
from audit.witness_frames import Request, Told
from audit.witnessed import Judge
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.core.limits import CONFIRM_WITHIN
from overlay.core.trust import VerifiedPeer
from overlay.errors import OverlayError
from overlay.registry import FrameType, Reason

RETRY: Final = 1.0  # seconds, after a commit that failed

Send = Callable[[NodeId, FrameType, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnParts:
    """What it needs of the node around it. Callables are asked anew each time."""

    root: Root
    at: Callable[[], datetime]
    candidates: Callable[[], Mapping[NodeId, Sequence[str]]]  # who could witness our log now, with its roles
    send: Send
    reject: Callable[[NodeId, Reason, str], None]
    within: float = CONFIRM_WITHIN


def is_ours(log: AuditLog, root: Root, one: UnverifiedCheckpoint) -> bool:
    """Whether it says that it is of a log of ours."""
    return one.says.node_id == log.node_id and one.says.mesh_id == root.mesh_id


class Start:
    """Of the open log; `linked` is who is linked, at any time."""

    def __init__(self, log: AuditLog, judge: Judge, parts: OwnParts, linked: Collection[NodeId]) -> None:
        self._log = log
        self._judge = judge
        self._parts = parts
        self._linked = linked
        self._confirmation: Confirmation | None = None
        self._wake = trio.Event()

    def wake(self) -> None:
        """Something may have changed."""
        self._wake.set()

    def peer_opened(self, peer: NodeId) -> None:
        """There is a link to it: it is asked while we do not know."""
        if self._log.waits:
            self._question(peer)
        self._wake.set()

    async def run(self) -> None:
        """Return when our log has gone on, or another one has begun."""
        if not self._log.waits:
            return
        log, log_id = self._log, self._log.state.log_id
        machine = Confirmation(
            log_id, self._held(), log.sets.newest(log_id), trio.current_time(), self._parts.within
        )
        self._confirmation = machine
        for peer in self._linked:
            self._question(peer)
        while True:
            self._wake = trio.Event()
            machine.holds(self._held())
            outcome = machine.outcome(trio.current_time(), behind=log.machine.is_behind(log_id))
            if outcome is not None and await self._decide(outcome, machine.note):
                self._confirmation = None
                return
            with trio.move_on_at(machine.deadline if outcome is None else trio.current_time() + RETRY):
                await self._wake.wait()

    async def _decide(self, outcome: Outcome, note: bytes | None) -> bool:
        """Whether the disk took it, and our credentials hold."""
        try:
            if outcome is Outcome.GOES_ON:
                await self._log.go_on()
            else:
                await self._log.begin_next(NEWER_COPY if outcome is Outcome.NEWER_ELSEWHERE else UNCONFIRMED, note)
        except OverlayError:
            return False  # the log says why
        return True

    def _held(self) -> dict[bytes, int]:
        return {state.log_id: state.size for state in self._log.replica.logs_of(self._log.node_id)}

    def _question(self, peer: NodeId) -> None:
        self._parts.send(peer, FrameType.CHECKPOINT, Request(None).pack())

    async def on_known(self, peer: VerifiedPeer, told: Told) -> None:
        """What a witness has cosigned of our logs. It says so over its own link: whose line stands below decides nothing."""
        machine = self._confirmation
        if machine is None:
            return
        found = [one for one in map(parse_checkpoint, told.notes) if is_ours(self._log, self._parts.root, one)]
        shown = [await self._log.read_store(partial(self._shown, one)) for one in found]
        machine.answered(peer.node_id, shown)
        self._wake.set()

    def _shown(self, found: UnverifiedCheckpoint, store: AuditStore) -> Shown:
        """In the thread that reads. Another root counts where we signed it with a key that our log has shown."""
        one = found.says
        state = self._log.replica.states.get(one.log_id)
        if state is None or state.size < one.size or store.tree_at(one.log_id, one.size).root == one.root:
            return Shown(one, found.note.raw)
        self._judge.check_author(found)
        return Shown(one, found.note.raw, differs=True)
