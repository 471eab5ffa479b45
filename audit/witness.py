"""A witness, sans-IO: it cosigns what the authors of logs show it, and remembers for ever what it has cosigned. Rules:

- a checkpoint is its author's: named by the link, signed by the message key of the credentials shown there
- it follows the last one that we have cosigned of this log, by a proof; a first one follows nothing
- never a smaller size, never two roots of one size, never an earlier time
- what we cosign is durable (`stored`) before anybody sees it
- we cosign while our own endorsement holds, by our clock: so a clock that runs ahead cannot bind us for longer than that

Whoever shows something else is told what we have cosigned last, and learns from that where its own log is behind.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from audit.checkpoint import Checkpoint, UnverifiedCheckpoint, parse_checkpoint, read_checkpoint
from audit.notes import Note, parse_note
from audit.witness_frames import Request, Say, Told
from overlay.core.guard import asked
from overlay.core.keys import MeshId, NodeId, Signer
from overlay.core.limits import CLOCK_TOLERANCE, LOGS_PER_AUTHOR
from overlay.core.merkle import check_consistency
from overlay.core.trust import VerifiedPeer
from overlay.errors import Refused
from overlay.registry import FrameType, Reason

KNOWN_MAX: Final = 8  # newest logs of an author in the answer to its question: our guess
_SLACK: Final = timedelta(seconds=CLOCK_TOLERANCE)

LogName = tuple[NodeId, bytes]  # author and log: nobody takes the id of another's log


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """The key that cosigns and serves nothing else, for as long as its endorsement holds."""

    signer: Signer = field(repr=False)
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """The last checkpoint of a log that we have cosigned."""

    checkpoint: Checkpoint
    at: int  # Unix seconds, as we have signed it
    note: bytes = field(repr=False)  # with the author's line and ours

    @property
    def name(self) -> LogName:
        """Which log."""
        return self.checkpoint.node_id, self.checkpoint.log_id

    @classmethod
    def read(cls, note: bytes, at: int) -> "Cosigned":
        """As it was stored. Raises Refused(MALFORMED)."""
        return cls(checkpoint=read_checkpoint(parse_note(note).text), at=at, note=note)


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MakeDurable:
    """Store this, then call `stored`, or `dropped`."""

    cosigned: Cosigned


@dataclass(frozen=True, slots=True)
class TwoRoots:
    """An author has signed two roots of one size: `ours`, which we have cosigned, and `theirs`."""

    peer: NodeId
    ours: bytes = field(repr=False)
    theirs: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NotAnExtension:
    """An author shows a checkpoint and no proof that it follows what we have cosigned."""

    peer: NodeId
    log_id: bytes
    size: int  # what we have cosigned


@dataclass(frozen=True, slots=True)
class Misbehaved:
    """A peer sent what no honest peer sends."""

    peer: NodeId
    reason: Reason
    detail: str


WitnessEvent = MakeDurable | TwoRoots | NotAnExtension | Misbehaved


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What an author asked while something of its log is being stored."""

    peer: VerifiedPeer
    found: UnverifiedCheckpoint
    request: Request

    @property
    def name(self) -> LogName:
        """Which log."""
        return self.found.says.node_id, self.found.says.log_id


class Witness:
    """The machine. `receive` never raises for what a peer did. `warning` says why it does not sign, if it does not."""

    def __init__(self, mesh_id: MeshId, node_id: NodeId, cosigned: Iterable[Cosigned] = ()) -> None:
        self.warning = ""
        self._mesh_id = mesh_id
        self._node_id = node_id
        self._key: WitnessKey | None = None
        self._last = OrderedDict((one.name, one) for one in sorted(cosigned, key=lambda one: one.at))
        self._newest = max((one.at for one in self._last.values()), default=0)
        self._storing: set[LogName] = set()
        self._waiting: dict[LogName, _Waiting] = {}
        self._out: list[tuple[NodeId, FrameType, bytes]] = []

    def use(self, key: WitnessKey | None) -> None:
        """The key in force; None: we are no witness."""
        self._key = key

    def last(self, node_id: NodeId, log_id: bytes) -> Cosigned | None:
        """What we have cosigned last of a log."""
        return self._last.get((node_id, log_id))

    def messages_to_send(self) -> list[tuple[NodeId, FrameType, bytes]]:
        """What we owe the peers: (to, frame, body)."""
        out, self._out = self._out, []
        return out

    def receive(self, peer: VerifiedPeer, body: bytes, at: datetime) -> list[WitnessEvent]:
        """CHECKPOINT of a peer, at this time of our own clock."""
        try:
            request = Request.unpack(body)
            if request.note is None:
                self._tell(peer.node_id, Say.KNOWN, *self._known_of(peer.node_id))
                return []
            found = parse_checkpoint(request.note)
            asked(lambda: self._check(peer, found))
        except Refused as error:
            return [Misbehaved(peer.node_id, error.reason, error.detail)]
        return self._consider(_Waiting(peer, found, request), at)

    def stored(self, cosigned: Cosigned, at: datetime) -> list[WitnessEvent]:
        """It is durable: its author may know, and what it asked meanwhile is looked at."""
        self._last[cosigned.name] = cosigned
        self._last.move_to_end(cosigned.name)
        self._newest = max(self._newest, cosigned.at)
        self._storing.discard(cosigned.name)
        self._tell(cosigned.checkpoint.node_id, Say.COSIGNED, cosigned.note)
        waiting = self._waiting.pop(cosigned.name, None)
        return [] if waiting is None else self._consider(waiting, at)

    def remember(self, cosigned: Cosigned) -> list[WitnessEvent]:
        """What others show that we have cosigned, and have forgotten: our folder was put back from a backup."""
        known = self._last.get(cosigned.name)
        size = 0 if known is None else known.checkpoint.size
        if cosigned.name in self._storing or cosigned.checkpoint.size <= size:
            return []
        self._storing.add(cosigned.name)
        return [MakeDurable(cosigned)]

    def dropped(self, cosigned: Cosigned) -> None:
        """It could not be stored: its author hears nothing, and asks again."""
        self._storing.discard(cosigned.name)
        self._waiting.pop(cosigned.name, None)

    # --- judging ----------------------------------------------------------------------------------------------------

    def _check(self, peer: VerifiedPeer, found: UnverifiedCheckpoint) -> None:
        """It is a checkpoint of this author."""
        says = found.says
        if says.mesh_id != self._mesh_id or says.node_id != peer.node_id:
            raise Refused(Reason.WRONG_AUTHOR, "a checkpoint of another node's log")
        known = self._known_of(peer.node_id, LOGS_PER_AUTHOR)
        if (says.node_id, says.log_id) not in self._last and len(known) >= LOGS_PER_AUTHOR:
            raise Refused(Reason.QUOTA, "too many logs of one author")
        found.verify(peer.message_public)

    def _consider(self, one: _Waiting, at: datetime) -> list[WitnessEvent]:
        """Cosign it, or say what we have cosigned."""
        peer = one.peer.node_id
        if one.name in self._storing:
            self._waiting[one.name] = one
            return []
        known = self._last.get(one.name)
        events = self._objections(one, known)
        timestamp = self._timestamp(at)
        if events is not None or timestamp is None or self._key is None:
            self._tell(peer, Say.COSIGNED, *(() if known is None else (known.note,)))
            return events or []
        line = one.found.says.cosign(self._node_id, self._key.signer, timestamp)
        author = one.found.note.signature_of(one.found.says.author_key(one.peer.message_public))
        note = Note(one.found.note.text, (author, line)).raw
        self._storing.add(one.name)
        return [MakeDurable(Cosigned(checkpoint=one.found.says, at=timestamp, note=note))]

    def _objections(self, one: _Waiting, known: Cosigned | None) -> list[WitnessEvent] | None:
        """None if it may be cosigned; else why not, which may be nothing to tell."""
        says, request = one.found.says, one.request
        size = 0 if known is None else known.checkpoint.size
        if known is not None and says.size == size and says.root != known.checkpoint.root:
            return [TwoRoots(one.peer.node_id, known.note, one.found.note.raw)]
        if says.size <= size or request.old_size != size:
            return []
        if known is not None:
            try:
                check_consistency(size, known.checkpoint.root, says.size, says.root, request.proof)
            except Refused:
                return [NotAnExtension(one.peer.node_id, says.log_id, size)]
        return None

    def _timestamp(self, at: datetime) -> int | None:
        """When we sign: never before what we have signed; None if we may not now."""
        key = self._key
        if key is None or not key.not_before <= at <= key.not_after:
            self.warning = "checkpoints of others are not cosigned: our endorsement does not hold by our own clock"
            return None
        if self._newest > int((at + _SLACK).timestamp()):
            self.warning = "checkpoints of others are not cosigned: our clock is behind what we have signed already"
            return None
        self.warning = ""
        return max(int(at.timestamp()), self._newest)

    def _known_of(self, node_id: NodeId, count: int = KNOWN_MAX) -> list[bytes]:
        """The notes that we have cosigned last, one for each log of an author, the newest first."""
        notes: list[bytes] = []
        for one in reversed(self._last.values()):
            if one.checkpoint.node_id == node_id and len(notes) < count:
                notes.append(one.note)
        return notes

    def _tell(self, peer: NodeId, say: Say, *notes: bytes) -> None:
        self._out.append((peer, FrameType.COSIGNATURE, Told(say, notes).pack()))
