"""Single items that a peer is asked to show, of a log of which it has another history than we. Nothing is stored of them.

One item of a log is under way at a time from a peer; what does not come within 5 s does not come.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from overlay.core.keys import NodeId
from overlay.core.limits import REPLICATION_ANSWER_WITHIN
from overlay.core.mesh.replication_frames import Items


@dataclass(frozen=True, slots=True)
class ItemShown:
    """What a peer has at this number of a log; None if it has shown nothing."""

    peer: NodeId
    log_id: bytes
    index: int
    item: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Probe:
    index: int
    expires: float


class Probes:
    """What peers have been asked to show."""

    def __init__(self) -> None:
        self._asked: dict[tuple[NodeId, bytes], _Probe] = {}

    @property
    def deadline(self) -> float:
        """When the next one is late."""
        return min((one.expires for one in self._asked.values()), default=math.inf)

    def ask(self, peer: NodeId, log_id: bytes, index: int, now: float) -> None:
        """A WANT for this item is on its way."""
        self._asked[peer, log_id] = _Probe(index, now + REPLICATION_ANSWER_WITHIN)

    def answer(self, sender: NodeId, came: Items) -> ItemShown | None:
        """What ITEMS mean that answer one of ours; None for any others."""
        one = self._asked.get((sender, came.log_id))
        if one is None or came.wanted != one.index:
            return None
        del self._asked[sender, came.log_id]
        item = came.items[0] if came.items and came.start == one.index else None
        return ItemShown(sender, came.log_id, one.index, item)

    def late(self, now: float) -> list[ItemShown]:
        """Those that do not come any more."""
        return self._without_answer(lambda _peer, one: now >= one.expires)

    def again(self, peer: NodeId, now: float) -> list[tuple[bytes, int]]:
        """There is another link to this peer: what it is asked anew, by log and number."""
        found = [(log_id, one.index) for (owing, log_id), one in self._asked.items() if owing == peer]
        for log_id, index in found:
            self.ask(peer, log_id, index, now)
        return found

    def closed(self, peer: NodeId) -> list[ItemShown]:
        """There is no link any more: what it owed does not come."""
        return self._without_answer(lambda owing, _one: owing == peer)

    def _without_answer(self, lost: Callable[[NodeId, _Probe], bool]) -> list[ItemShown]:
        found = [(peer, log_id, one.index) for (peer, log_id), one in self._asked.items() if lost(peer, one)]
        for peer, log_id, _ in found:
            del self._asked[peer, log_id]
        return [ItemShown(peer, log_id, index, None) for peer, log_id, index in found]
