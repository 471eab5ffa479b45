"""Our own log and its witnesses, on trio: asked to cosign what we write, once `audit.start` has seen to it that we may.

It decides nothing: `audit.checkpointer` does, and `audit.witnessed` judges what comes back.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import trio

from audit import bodies
from audit.chain import KEYED
from audit.checkpoint import Checkpoint, parse_checkpoint, witness_name
from audit.checkpointer import Ask, CheckpointDue, Checkpointer
from audit.entry import Entry
from audit.kept import DropCheckpoints, KeptCheckpoint, Record, with_lines
from audit.log import AuditLog
from audit.notes import Note
from audit.quorum import WitnessSet, choose, day_of
from audit.start import OwnParts, Start, is_ours
from audit.store import AuditStore
from audit.witness_book import Known, WitnessBook
from audit.witness_frames import Request, Told
from audit.witnessed import Judge
from overlay.core.keys import NodeId
from overlay.core.merkle import consistency_from
from overlay.core.trust import VerifiedPeer
from overlay.errors import OverlayError
from overlay.registry import EntryType, FrameType

SET_EVERY: Final = 5.0  # seconds between looks at who could be a witness: as often as checkpoints
PENDING_MAX: Final = 4  # checkpoints of ours that are not witnessed yet and still kept: our guess

class OwnCheckpoints:
    """Of the open log. `witnessed` is called when more of it is."""

    def __init__(
        self, log: AuditLog, judge: Judge, book: WitnessBook, parts: OwnParts, witnessed: Callable[[Known], None]
    ) -> None:
        self._log = log
        self._linked: set[NodeId] = set()
        self._judge = judge
        self._book = book
        self._parts = parts
        self.start = Start(log, judge, parts, self._linked)
        self._witnessed = witnessed
        self._machine = Checkpointer()
        self._pending: list[KeptCheckpoint] = []  # made of the open log and not witnessed, the newest last
        self._begun = b""  # the log that the machine knows
        self._look_at = -math.inf
        self._wake = trio.Event()
        log.listen(self._heard)

    # --- what happens -----------------------------------------------------------------------------------------------

    def peer_opened(self, peer: NodeId) -> None:
        """There is a link to it, or another one than before."""
        self._linked.add(peer)
        self._machine.peer_opened(peer)
        self.start.peer_opened(peer)
        self._wake.set()

    def peer_closed(self, peer: NodeId) -> None:
        """There is none any more."""
        self._linked.discard(peer)
        self._machine.peer_closed(peer)
        self.start.wake()
        self._wake.set()

    def hurry(self) -> None:
        """Somebody waits until what is durable now is witnessed."""
        self._machine.hurry()
        self._look_at = -math.inf
        self._wake.set()

    @property
    def is_alone(self) -> bool:
        """Whether nobody is there, or known, who could witness our log."""
        named = self._log.sets.newest(self._log.state.log_id).nodes
        return not (self._log.waits or self._linked or named or self._chosen().nodes)

    def _heard(self, entries: tuple[Entry, ...]) -> None:
        """Entries are durable, ours or others'."""
        for entry in entries:
            if entry.type in KEYED and entry.node_id in self._linked:
                self._machine.peer_opened(entry.node_id)  # it cosigns under keys that its log has shown
                if not self._log.sets.newest(self._log.state.log_id).nodes:
                    self._look_at = -math.inf  # the first one is not waited for; who comes later is named with others
        self._machine.grew(self._log.state.size)
        self.start.wake()
        self._wake.set()

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        await self.start.run()
        while True:
            self._wake = trio.Event()
            await self._look_at_witnesses()
            for event in self._machine.tick(trio.current_time()):
                match event:
                    case CheckpointDue():
                        await self._make()
                    case Ask():
                        await self._ask(event)
            with trio.move_on_at(min(self._machine.deadline, self._look_at)):
                await self._wake.wait()

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _chosen(self) -> WitnessSet:
        parts = self._parts
        return choose(parts.root.mesh_id, self._log.node_id, parts.candidates(), day_of(parts.at()))

    async def _look_at_witnesses(self) -> None:
        """Log who witnesses our log, if that has changed; and see to it that the machine knows our log."""
        if trio.current_time() >= self._look_at:
            self._look_at = trio.current_time() + SET_EVERY
            chosen = self._chosen()
            if chosen != self._log.sets.newest(self._log.state.log_id):
                try:
                    await self._log.append(EntryType.WITNESSES, bodies.witnesses(chosen.nodes))
                except OverlayError:
                    return
        state = self._log.state
        if state.log_id != self._begun:
            self._begun, self._pending = state.log_id, []
            self._machine.begin(state.log_id, state.size, None)
        self._machine.use(self._log.sets.newest(state.log_id).nodes)

    async def _make(self) -> None:
        """Sign a checkpoint of what is durable; it is durable, too, before anybody sees it."""
        state = self._log.state
        one = Checkpoint(
            mesh_id=self._parts.root.mesh_id, node_id=state.node_id, log_id=state.log_id, size=state.size, root=state.root
        )
        kept = KeptCheckpoint(checkpoint=one, tree=state.tree, note=one.sign(self._log.signer.message))
        older = self._pending[: 1 - PENDING_MAX]
        try:
            await self._log.keep(kept, DropCheckpoints(tuple(old.key for old in older)))
        except OverlayError:
            self._machine.failed(trio.current_time())
            return
        self._pending = [*self._pending[len(older) :], kept]
        self._machine.made(one, trio.current_time())

    async def _ask(self, ask: Ask) -> None:
        """Send it to a witness, with the proof from where that stands."""
        note, one = self._note_of(ask.checkpoint), ask.checkpoint
        if note is None or ask.old_size > one.size:
            return
        try:
            proof = await self._log.read_store(partial(_proof, log_id=one.log_id, old=ask.old_size, new=one.size))
        except OverlayError:
            return  # asked again later
        self._parts.send(ask.peer, FrameType.CHECKPOINT, Request(note.raw, ask.old_size, proof).pack())

    def _note_of(self, one: Checkpoint) -> Note | None:
        kept = self._kept(one)
        return None if kept is None else Note(kept.note.text, kept.note.signatures[:1])

    def _kept(self, one: Checkpoint) -> KeptCheckpoint | None:
        known = self._book.get(one.log_id)
        found = (*self._pending, *([] if known is None else [known.kept]))
        return next((kept for kept in found if kept.checkpoint == one), None)

    # --- answers ----------------------------------------------------------------------------------------------------

    async def on_cosigned(self, peer: VerifiedPeer, told: Told) -> None:
        """What a witness answers to a checkpoint: the line that we want, or where it stands. Raises Refused."""
        now, log_id = trio.current_time(), self._log.state.log_id
        if not told.notes:
            self._machine.answered(peer.node_id, log_id, 0, now)
            return
        found = parse_checkpoint(told.notes[0])
        kept = self._kept(found.says) if is_ours(self._log, self._parts.root, found) else None
        if kept is not None:
            name = witness_name(found.says.mesh_id, peer.node_id)
            lines = tuple(line for line in found.note.signatures if line.name == name)
            await self._merge(peer.node_id, kept, Note(found.note.text, lines))
        if is_ours(self._log, self._parts.root, found):
            self._machine.answered(peer.node_id, found.says.log_id, found.says.size, trio.current_time())
        self._wake.set()

    async def _merge(self, peer: NodeId, kept: KeptCheckpoint, lines: Note) -> None:
        """The line of a witness under our checkpoint, if it holds."""
        one = replace(kept, note=with_lines(kept.note, [lines]))
        witnesses = self._log.sets.at(one.checkpoint.log_id, one.checkpoint.size)
        judged = await self._log.read_store(lambda _: self._judge.judge(one.checkpoint, one.note, witnesses))
        if peer not in judged.lines:
            return  # not its line, or under a key that its log has yet to show
        found = Known(replace(kept, note=judged.note(kept.note)), judged)
        self._pending = [found.kept if old.key == one.key else old for old in self._pending]
        if not self._book.is_news(found):
            return
        older = tuple(old for old in self._pending if old.checkpoint.size < found.size)
        records: list[Record] = self._book.records(found, self._ends())
        await self._log.keep(*records, DropCheckpoints(tuple(old.key for old in older)))
        self._pending = [old for old in self._pending if old.checkpoint.size > found.size]
        self._witnessed(found)

    def _ends(self) -> list[float]:
        return [key.not_after.timestamp() for key in self._log.replica.keys_of(self._log.node_id)]


def _proof(store: AuditStore, *, log_id: bytes, old: int, new: int) -> tuple[bytes, ...]:
    """That the log of the new size follows the one of the old size."""
    if old in (0, new):
        return ()
    return consistency_from(store.tree_at(log_id, old), store.hashes(log_id, old, new))


