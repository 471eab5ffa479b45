"""Checkpoints and cosignatures between this node and its peers, on trio: our part as a witness, and what all know.

It decides nothing: `audit.witness` and `audit.witness_book` do, and `audit.witnessed` judges, in the thread that reads the
store. `audit.own_checkpoints` sees to our own log.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

import trio

from audit.chain import KEYED
from audit.checkpoint import parse_checkpoint
from audit.entry import Entry
from audit.judged import Witnessed
from audit.log import AuditLog
from audit.openings import A_DAY, Openings, words
from audit.own_checkpoints import OwnCheckpoints
from audit.start import RETRY, OwnParts
from audit.store import AuditStore
from audit.witness import Cosigned, MakeDurable, Misbehaved, NotAnExtension, TwoRoots, Witness, WitnessEvent, WitnessKey
from audit.witness_book import Known, WitnessBook
from audit.witness_frames import Say, Told, make_news
from audit.witness_news import News
from audit.witnessed import Judge
from overlay.core.keys import NodeId
from overlay.core.limits import HEADS_EVERY
from overlay.core.mesh.chains import hlc_of
from overlay.core.trust import VerifiedPeer
from overlay.errors import NoWitnesses, OverlayError, Refused, StateDamaged
from overlay.registry import EntryType, FrameType, Reason

WAITING_MAX: Final = 256  # messages that wait to be judged; what comes then is told again later: our guess
AGAIN: Final = 6  # times HEADS_EVERY: then all is told again: our guess
PER_LOG: Final = 8  # checkpoints looked at of each log at the start: our guess; the largest witnessed one is among them


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
        self._openings = Openings(loaded.openings)
        self._peers: set[NodeId] = set()
        self._to_judge_in, self._to_judge = trio.open_memory_channel[tuple[VerifiedPeer, Told]](WAITING_MAX)
        self._to_store_in, self._to_store = trio.open_memory_channel[Cosigned](math.inf)  # bounded by the machine
        self._changed = trio.Event()
        self._news = News(
            log, loaded.judge, self._book, remember=self._remember, forked=parts.forked, changed=self._notify,
            again=self._to_judge_in.send_nowait,
        )
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
        many = [words(self._name(node), count) for node, count in self._openings.many(self._parts.own.at()).items()]
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
            if entry.type == EntryType.LOG_OPEN and (count := self._openings.begun(entry, self._parts.own.at())):
                self._parts.alarm(entry.node_id, words(self._name(entry.node_id), count))
        self._news.heard(entries)
        if any(entry.type == EntryType.WITNESSES for entry in entries):
            self._judge.forget_sets()
            self._notify()

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
                await self._own.start.on_known(peer, told)
            case Say.COSIGNED:
                await self._own.on_cosigned(peer, told)
            case Say.NEWS:
                for note in told.notes:
                    await self._news.take(peer, parse_checkpoint(note))
                self._send(peer.node_id, self._book.heard(peer.node_id, told.sizes))

    def _remember(self, cosigned: Cosigned) -> None:
        self._take(self._witness.remember(cosigned))

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
