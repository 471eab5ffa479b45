"""News of checkpoints that are witnessed, on trio: judged against the log as it is held here, kept, and known from then on."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import trio

from audit.chain import KEYED
from audit.checkpoint import UnverifiedCheckpoint, parse_checkpoint
from audit.entry import Entry
from audit.kept import KeptCheckpoint
from audit.log import AuditLog
from audit.notes import Note
from audit.store import AuditStore
from audit.witness import Cosigned
from audit.witness_book import Known, WitnessBook
from audit.witness_frames import Say, Told
from audit.witnessed import Judge
from overlay.core.trust import VerifiedPeer
from overlay.errors import Refused
from overlay.registry import Reason

LATER_MAX: Final = 1024  # logs of which news wait for entries: our guess

Queued = tuple[VerifiedPeer, Told]


class News:
    """Takes notes from peers. `again` queues one to be judged once more; it may raise trio.WouldBlock."""

    def __init__(
        self, log: AuditLog, judge: Judge, book: WitnessBook, *, remember: Callable[[Cosigned], None],
        forked: Callable[[bytes, bytes], None], changed: Callable[[], None], again: Callable[[Queued], None],
    ) -> None:
        self._log = log
        self._judge = judge
        self._book = book
        self._told_of = remember
        self._forked = forked
        self._changed = changed
        self._again = again
        self._keys_heard = 0  # how often keys were shown since the start
        self._later: dict[bytes, Queued] = {}  # what waits for entries, or for keys, by log

    def heard(self, entries: Sequence[Entry]) -> None:
        """Entries have become durable: what waited for them is judged again."""
        if any(entry.type in KEYED for entry in entries):
            self._keys_heard += 1
            for log_id in tuple(self._later):
                self._judge_later(log_id)
        elif entries and entries[0].log_id in self._later:
            self._judge_later(entries[0].log_id)

    async def take(self, peer: VerifiedPeer, found: UnverifiedCheckpoint) -> None:
        """Judge it, and know more; what cannot be judged yet waits. Raises Refused: BAD_SIGNATURE, FORKED."""
        one = found.says
        state = self._log.replica.states.get(one.log_id)
        if one.size < self._book.size(one.log_id) or (state is not None and state.node_id != one.node_id):
            return
        if state is None or one.size > state.size:
            self._wait_for_more(peer, found)
            return
        keys = self._keys_heard
        try:
            known = self._book.merged(await self._log.read_store(partial(self._known, found)))
        except Refused as error:
            mine = self._book.get(one.log_id)
            if error.reason is Reason.FORKED and mine is not None and mine.size == one.size:
                self._forked(mine.kept.note.raw, found.note.raw)
            raise
        if known.judged.at is None:
            self._wait_for_more(peer, found)  # perhaps until a witness's own log has shown its key
            if keys != self._keys_heard:
                self._judge_later(one.log_id)  # which may have come while we judged
            return
        self._remember(known)
        if self._book.is_news(known):
            ends = [key.not_after.timestamp() for key in self._log.replica.keys_of(one.node_id)]
            await self._log.keep(*self._book.records(known, ends))
            self._book.learn(known)
            self._changed()

    def _remember(self, known: Known) -> None:
        """Our own line under what is told: if we have forgotten that, because a backup was put back, we know it again."""
        line = known.judged.lines.get(self._log.node_id)
        if line is not None:
            note = Note(known.kept.note.text, (known.kept.note.signatures[0], line)).raw
            self._told_of(Cosigned(checkpoint=known.kept.checkpoint, at=line.timestamp, note=note))

    def _known(self, found: UnverifiedCheckpoint, store: AuditStore) -> Known:
        """In the thread that reads. Raises Refused: BAD_SIGNATURE; FORKED if it is signed, and not of the log as it is here."""
        one = found.says
        author = self._judge.check_author(found)
        tree = store.tree_at(one.log_id, one.size)
        if tree.root != one.root:
            raise Refused(Reason.FORKED, f"a checkpoint of another history of log {one.log_id.hex()}")
        judged = self._judge.judge(one, found.note, self._log.sets.at(one.log_id, one.size))
        return Known(KeptCheckpoint(checkpoint=one, tree=tree, note=judged.note(Note(one.text, (author,)))), judged)

    def _wait_for_more(self, peer: VerifiedPeer, found: UnverifiedCheckpoint) -> None:
        """It is judged again when more entries have come: the newest of each log."""
        log_id = found.says.log_id
        if log_id in self._later or len(self._later) < LATER_MAX:
            self._later[log_id] = peer, Told(Say.NEWS, (found.note.raw,))

    def _judge_later(self, log_id: bytes) -> None:
        peer, told = self._later[log_id]
        state = self._log.replica.states.get(log_id)
        if state is None or parse_checkpoint(told.notes[0]).says.size > state.size:
            return
        del self._later[log_id]
        try:
            self._again((peer, told))
        except trio.WouldBlock:
            return  # it is told again
