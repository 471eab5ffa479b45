"""One stream as a collector has seen it: which batch is next, and which ones came too early."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from overlay.core.keys import NodeId
from overlay.core.telemetry.batch import VerifiedHead
from overlay.registry import GENESIS

REMEMBERED: Final = 256  # hashes of the latest batches: our guess, four minutes of one a second

StreamKey = tuple[NodeId, bytes]  # author, id of the stream


class Place(Enum):
    """Where a batch stands to its stream."""

    NEXT = auto()
    EARLY = auto()  # one before it is missing
    REPEATED = auto()
    FORKED = auto()  # another one stands there
    BROKEN = auto()  # next by its number, and does not follow from the one before


@dataclass(slots=True)
class Chain:
    """The end of a stream. `after_gap`: the one before the next never came, so nobody can say what its hash was."""

    name: str
    next: int = 0
    head: bytes = GENESIS
    after_gap: bool = False
    dropped: int = 0
    missing: int = 0
    heard: float = 0.0
    hashes: dict[int, bytes] = field(default_factory=dict, repr=False)

    def place(self, batch: VerifiedHead) -> Place:
        """Where this one stands; changes nothing."""
        says = batch.says
        if says.seq < self.next:
            known = self.hashes.get(says.seq, batch.hash)
            return Place.REPEATED if known == batch.hash else Place.FORKED
        if says.seq > self.next:
            return Place.EARLY
        return Place.NEXT if self.after_gap or says.prev == self.head else Place.BROKEN

    def advance(self, batch: VerifiedHead, now: float) -> None:
        """That one was next."""
        seq = batch.says.seq
        self.next, self.head, self.after_gap, self.heard = seq + 1, batch.hash, False, now
        self.dropped = max(self.dropped, batch.says.dropped)
        self.hashes[seq] = batch.hash
        self.hashes.pop(seq - REMEMBERED, None)

    def skip_to(self, seq: int) -> int:
        """Give up on all before; how many that were."""
        count = seq - self.next
        self.next, self.after_gap, self.missing = seq, True, self.missing + count
        return count
