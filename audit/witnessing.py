"""Checkpoints and cosignatures between this node and its peers, on trio: our part as a witness, and what all know.

It decides nothing: `audit.witness` and `audit.witness_book` do, and `audit.witnessed` judges, in the thread that reads the
store. `audit.own_checkpoints` sees to our own log.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, Self

import trio

from audit.chain import KEYED
from audit.checkpoint import UnverifiedCheckpoint, parse_checkpoint
from audit.entry import Entry
from audit.judged import Witnessed
from audit.kept import KeptCheckpoint
from audit.log import AuditLog
from audit.notes import Note
from audit.own_checkpoints import RETRY, OwnCheckpoints, OwnParts
from audit.store import AuditStore
from audit.witness import Cosigned, MakeDurable, Misbehaved, NotAnExtension, TwoRoots, Witness, WitnessEvent, WitnessKey
from audit.witness_book import Known, WitnessBook
from audit.witness_frames import Say, Told, make_news
from audit.witnessed import Judge
from overlay.core.keys import NodeId
from overlay.core.limits import HEADS_EVERY
from overlay.core.mesh.chains import hlc_of
from overlay.core.trust import VerifiedPeer
from overlay.errors import NoWitnesses, OverlayError, Refused, StateDamaged
from overlay.registry import EntryType, FrameType, Reason

WAITING_MAX: Final = 256  # messages that wait to be judged; what comes then is told again later: our guess
AGAIN: Final = 6  # times HEADS_EVERY: then all is told again: our guess
LATER_MAX: Final = 1024  # logs of which news wait for entries: our guess
PER_LOG: Final = 8  # checkpoints looked at of each log at the start: our guess; the largest witnessed one is among them
OPENINGS_MAX: Final = 3  # design: more in a day are an alarm
A_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessingParts:
    """What it needs of the node around it."""

    own: OwnParts
    key: Callable[[], WitnessKey | None]  # asked anew each time
    forked: Callable[[bytes, bytes], None]  # two notes of one author, of one size and two roots
    alarm: Callable[[NodeId, str], None]  # what somebody should know of a node


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the store holds at the start."""

    judge: Judge
    cosigned: tuple[Cosigned, ...]
    known: tuple[Known, ...]
    openings: tuple[Entry, ...]
    fault: str = ""


class Witnessing:
    """One for a node; `run` carries it."""

    def __init__(self, log: AuditLog, parts: WitnessingParts, loaded: _Loaded) -> None:
        self._log = log
        self._parts = parts
        self._judge = loaded.judge
        self._book = WitnessBook(loaded.known)
        self._fault = loaded.fault
        self._witness = Witness(parts.own.root.mesh_id, log.node_id, loaded.cosigned)
        self._own = OwnCheckpoints(log, loaded.judge, self._book, parts.own, self._publish)
        self._openings = list(loaded.openings)
        self._peers: set[NodeId] = set()
        self._keys_heard = 0  # how often keys were shown since the start
        self._later: dict[bytes, tuple[VerifiedPeer, Told]] = {}  # news of entries that we do not hold yet, by log
        self._to_judge_in, self._to_judge = trio.open_memory_channel[tuple[VerifiedPeer, Told]](WAITING_MAX)
        self._to_store_in, self._to_store = trio.open_memory_channel[Cosigned](math.inf)  # bounded by the machine
        self._changed = trio.Event()
        log.listen(self._heard)

    @classmethod
    async def open(cls, log: AuditLog, parts: WitnessingParts) -> Self:
        """Read what the store holds. Raises StateDamaged."""
        since = hlc_of(parts.own.at() - A_DAY)
        return cls(log, parts, await log.read_store(partial(_load, log=log, parts=parts, since=since)))

    # --- what can be seen -------------------------------------------------------------------------------------------

    def witnessed(self, log_id: bytes) -> Witnessed | None:
        """How far a log is witnessed, and by whom."""
        found = self._book.get(log_id)
        return None if found is None else found.judged

    async def wait_witnessed(self, log_id: bytes, seq: int) -> Witnessed:
        """Return when the witnesses of a log have cosigned a checkpoint that covers this entry.

        Raises:
            NoWitnesses: it is of our own log, and nobody could be its witness; or that log was left before.
        """
        while True:
            found = self._book.get(log_id)
            if found is not None and found.size > seq:
                return found.judged
            self._demand_witnesses(log_id)
            if log_id == self._log.state.log_id:
                self._own.hurry()
            await self._changed.wait()

    async def unproven(self, entries: Sequence[Entry]) -> frozenset[bytes]:
        """The hashes of those whose endorsement has ended, and that were not witnessed in time."""
        at = self._parts.own.at()
        return await self._log.read_store(lambda _: self._judge.unproven(entries, at))

    def _demand_witnesses(self, log_id: bytes) -> None:
        own = [state.log_id for state in self._log.replica.logs_of(self._log.node_id)]
        if log_id in own and log_id != self._log.state.log_id:
            raise NoWitnesses("this log was left for its next incarnation before it was witnessed so far")
        if log_id in own and self._own.is_alone:
            raise NoWitnesses("no other member is known that could witness this log", hint="link this node to another one")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What someone should know."""
        many = [self._many(node, count) for node, count in sorted(self._recent().items()) if count > OPENINGS_MAX]
        return tuple(warning for warning in (self._fault, self._witness.warning, *many) if warning)

    def _name(self, node_id: NodeId) -> str:
        found = self._log.replica.certificate_of(node_id)
        return node_id.short if found is None else found.name

    # --- what happens -----------------------------------------------------------------------------------------------

    def peer_opened(self, peer: NodeId) -> None:
        """There is a link to this peer, or another one than before. Must not block."""
        self._peers.add(peer)
        self._book.peer_opened(peer)
        self._send(peer, self._book.tell(peer))
        self._own.peer_opened(peer)

    def peer_closed(self, peer: NodeId) -> None:
        """There is none any more."""
        self._peers.discard(peer)
        self._book.peer_closed(peer)
        self._own.peer_closed(peer)
        self._notify()

    def received(self, peer: VerifiedPeer, kind: FrameType, body: bytes) -> None:
        """CHECKPOINT or COSIGNATURE, under the credentials with which it came. Must not block. Raises Refused."""
        if kind is FrameType.CHECKPOINT:
            self._witness.use(None if self._log.waits or self._fault else self._parts.key())
            self._take(self._witness.receive(peer, body, self._parts.own.at()))
            return
        try:
            self._to_judge_in.send_nowait((peer, Told.unpack(body)))
        except trio.WouldBlock:
            return  # it is told again

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._own.run)
            nursery.start_soon(self._judge_all)
            nursery.start_soon(self._store_all)
            for count in itertools.count(1):
                await trio.sleep(HEADS_EVERY)
                for peer in self._peers:
                    self._send(peer, self._book.tell(peer, again=count % AGAIN == 0))

    def _heard(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            if entry.type in KEYED:
                self._judge.forget(entry.node_id)
            if entry.type == EntryType.LOG_OPEN:
                self._opened(entry)
        if any(entry.type in KEYED for entry in entries):
            self._keys_heard += 1
            for log_id in tuple(self._later):
                self._judge_later(log_id)
        elif entries and entries[0].log_id in self._later:
            self._judge_later(entries[0].log_id)
        if any(entry.type == EntryType.WITNESSES for entry in entries):
            self._judge.forget_sets()
            self._notify()

    def _opened(self, opening: Entry) -> None:
        """Another log has begun: more than three of one node within a day are an alarm."""
        since = self._parts.own.at() - A_DAY
        self._openings = [*(one for one in self._openings if one.at > since), opening]
        if self._recent()[opening.node_id] > OPENINGS_MAX:
            self._parts.alarm(opening.node_id, self._many(opening.node_id, self._recent()[opening.node_id]))

    def _recent(self) -> Counter[NodeId]:
        """How many logs each node has begun within a day."""
        since = self._parts.own.at() - A_DAY
        return Counter(one.node_id for one in self._openings if one.at > since)

    def _many(self, node_id: NodeId, count: int) -> str:
        name = self._name(node_id)
        return f"{name} has begun {count} logs within a day: it cannot confirm that its copy is the newest one"

    # --- as a witness -----------------------------------------------------------------------------------------------

    def _take(self, events: Iterable[WitnessEvent]) -> None:
        for event in events:
            match event:
                case MakeDurable(cosigned=cosigned):
                    self._to_store_in.send_nowait(cosigned)
                case TwoRoots(peer=peer, ours=ours, theirs=theirs):
                    self._parts.own.reject(peer, Reason.FORKED, "two checkpoints of one size with two roots")
                    self._parts.forked(ours, theirs)
                case NotAnExtension(peer=peer, log_id=log_id, size=size):
                    detail = f"a checkpoint of log {log_id.hex()} that does not follow its first {size} entries"
                    self._parts.own.reject(peer, Reason.FORKED, detail)
                case Misbehaved(peer=peer, reason=reason, detail=detail):
                    self._parts.own.reject(peer, reason, detail)
        for peer, frame, body in self._witness.messages_to_send():
            self._parts.own.send(peer, frame, body)

    async def _store_all(self) -> None:
        """What we have cosigned becomes durable, all that waits in one commit, and leaves only then."""
        async for first in self._to_store:
            waiting = [first]
            while True:
                try:
                    waiting.append(self._to_store.receive_nowait())
                except trio.WouldBlock:
                    break
            try:
                await self._log.keep(*waiting)
            except OverlayError:
                for one in waiting:
                    self._witness.dropped(one)
                await trio.sleep(RETRY)
                continue
            for one in waiting:
                self._take(self._witness.stored(one, self._parts.own.at()))

    # --- what all know ----------------------------------------------------------------------------------------------

    async def _judge_all(self) -> None:
        async for peer, told in self._to_judge:
            try:
                await self._judge_one(peer, told)
            except Refused as error:
                self._parts.own.reject(peer.node_id, error.reason, error.detail)
            except OverlayError:
                continue  # the disk; the log says so, and it is told again

    async def _judge_one(self, peer: VerifiedPeer, told: Told) -> None:
        match told.say:
            case Say.KNOWN:
                await self._own.on_known(peer, told)
            case Say.COSIGNED:
                await self._own.on_cosigned(peer, told)
            case Say.NEWS:
                for note in told.notes:
                    await self._on_note(peer, parse_checkpoint(note))
                self._send(peer.node_id, self._book.heard(peer.node_id, told.sizes))

    async def _on_note(self, peer: VerifiedPeer, found: UnverifiedCheckpoint) -> None:
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
                self._parts.forked(mine.kept.note.raw, found.note.raw)
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
            self._notify()

    def _remember(self, known: Known) -> None:
        """Our own line under what is told: if we have forgotten that, because a backup was put back, we know it again."""
        line = known.judged.lines.get(self._log.node_id)
        if line is not None:
            note = Note(known.kept.note.text, (known.kept.note.signatures[0], line)).raw
            self._take(self._witness.remember(Cosigned(checkpoint=known.kept.checkpoint, at=line.timestamp, note=note)))

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
            self._to_judge_in.send_nowait((peer, told))
        except trio.WouldBlock:
            return

    def _publish(self, found: Known) -> None:
        """More of our own log is witnessed: everybody hears of it at once."""
        self._book.learn(found)
        for peer in self._peers:
            self._send(peer, list(make_news((found.kept.note.raw,), {})))
        self._notify()

    def _send(self, peer: NodeId, messages: Iterable[bytes]) -> None:
        for body in messages:
            self._parts.own.send(peer, FrameType.COSIGNATURE, body)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _load(store: AuditStore, *, log: AuditLog, parts: WitnessingParts, since: int) -> _Loaded:
    """In the thread that reads. A memory of what we have cosigned that was changed is not gone on with."""
    judge, fault, cosigned = Judge(store, parts.own.root), "", []
    try:
        cosigned = store.cosigned()
    except StateDamaged as error:
        fault = f"checkpoints of others are not cosigned: {error}"
    known = []
    for log_id in log.replica.states:
        for kept in store.checkpoints(log_id, newest=PER_LOG):
            known.append(Known(kept, judge.judge(kept.checkpoint, kept.note, log.sets.at(log_id, kept.checkpoint.size))))
    openings = [entry for entry in store.with_keys(since) if entry.type == EntryType.LOG_OPEN]
    return _Loaded(judge, tuple(cosigned), tuple(known), tuple(openings), fault)
