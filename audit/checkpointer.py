"""When the author of a log makes a checkpoint, and which witness it asks when: sans-IO.

A checkpoint is due after 64 entries, after 5 s while there is news, and at once when somebody waits for witnesses. Each
witness that is linked is asked to cosign the newest one, from where it stood last; what it answers says where it stands. Who
is silent, or does not cosign, is asked again after a pause that doubles.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from audit.checkpoint import Checkpoint
from overlay.core.keys import NodeId

ENTRIES: Final = 64  # design
EVERY: Final = 5.0  # design: seconds while there is news
HURRY: Final = 0.05  # seconds between two of them however many wait: our guess, some commits
ANSWER_WITHIN: Final = 5.0  # seconds, as for entries
PAUSE_MAX: Final = 60.0  # seconds: our guess


@dataclass(frozen=True, slots=True)
class CheckpointDue:
    """Sign a checkpoint of what is durable now, make it durable, then call `made`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a witness the newest checkpoint, with a proof from the size at which it stands."""

    peer: NodeId
    checkpoint: Checkpoint
    old_size: int


CheckpointerEvent = CheckpointDue | Ask


@dataclass(slots=True)
class _Witness:
    """What is known of one witness that is linked."""

    size: int = 0  # what it has cosigned of our log, as far as we know
    retry_at: float = -math.inf
    pause: float = ANSWER_WITHIN


class Checkpointer:
    """The machine for our open log."""

    def __init__(self) -> None:
        self._log_id = b""
        self._size = 0  # entries that are durable
        self._made: Checkpoint | None = None
        self._made_at = -math.inf
        self._making = False
        self._hurried = False
        self._witnesses: frozenset[NodeId] = frozenset()
        self._linked: dict[NodeId, _Witness] = {}

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def newest(self) -> Checkpoint | None:
        """The last one that was made of the open log."""
        return self._made

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        waiting = (one.retry_at for node, one in self._linked.items() if self._owes(node, one))
        return min((self._due_at(), *waiting))

    def _due_at(self) -> float:
        made = 0 if self._made is None else self._made.size
        if self._making or self._size <= made or not self._witnesses:
            return math.inf
        return self._made_at + (HURRY if self._hurried or self._size - made >= ENTRIES else EVERY)

    def _owes(self, node: NodeId, one: _Witness) -> bool:
        return self._made is not None and node in self._witnesses and one.size < self._made.size

    # --- what happens -----------------------------------------------------------------------------------------------

    def begin(self, log_id: bytes, size: int, newest: Checkpoint | None) -> None:
        """This is our open log now, of which that checkpoint was made last."""
        self._log_id, self._size, self._made = log_id, size, newest
        self._making = self._hurried = False
        for one in self._linked.values():
            one.size, one.retry_at, one.pause = 0, -math.inf, ANSWER_WITHIN

    def grew(self, size: int) -> None:
        """So many entries are durable."""
        self._size = size

    def use(self, witnesses: Iterable[NodeId]) -> None:
        """Who witnesses our log from here on."""
        self._witnesses = frozenset(witnesses)

    def hurry(self) -> None:
        """Somebody waits until what is durable now is witnessed."""
        self._hurried = True

    def peer_opened(self, peer: NodeId) -> None:
        """There is a link to it, or another one than before: it may be asked at once."""
        self._linked[peer] = _Witness()

    def peer_closed(self, peer: NodeId) -> None:
        """There is none any more."""
        self._linked.pop(peer, None)

    def made(self, checkpoint: Checkpoint, now: float) -> None:
        """It is signed and durable."""
        self._making = False
        if checkpoint.log_id == self._log_id:
            self._made, self._made_at, self._hurried = checkpoint, now, False
            for one in self._linked.values():
                one.retry_at = min(one.retry_at, now) if one.pause == ANSWER_WITHIN else one.retry_at

    def failed(self, now: float) -> None:
        """It could not be made: later again."""
        self._making, self._made_at, self._hurried = False, now, False

    def answered(self, peer: NodeId, log_id: bytes, size: int, now: float) -> None:
        """That much of our log it has cosigned: what it owes is asked for from there, at once if it has moved."""
        one = self._linked.get(peer)
        if one is None or log_id != self._log_id:
            return
        if size != one.size:
            one.size, one.retry_at, one.pause = size, now, ANSWER_WITHIN

    def tick(self, now: float) -> list[CheckpointerEvent]:
        """Time in."""
        events: list[CheckpointerEvent] = []
        if now >= self._due_at():
            self._making = True
            events.append(CheckpointDue())
        for node, one in self._linked.items():
            if self._made is not None and self._owes(node, one) and now >= one.retry_at:
                one.retry_at, one.pause = now + one.pause, min(one.pause * 2, PAUSE_MAX)
                events.append(Ask(node, self._made, one.size))
        return events
