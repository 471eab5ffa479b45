"""Anchors that a collector has heard of, until it compares them with what came."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from overlay.core.keys import NodeId
from overlay.core.telemetry.anchor import ANCHORED_MAX, Anchored
from overlay.core.telemetry.chain import Chain, StreamKey
from overlay.core.telemetry.events import Contradicted
from overlay.registry import Reason

WITHHELD_AFTER: Final = 60.0  # our guess: as long as from anchor to anchor
ANCHORS_MAX: Final = 4096  # our guess: a stream of each of so many authors


@dataclass(frozen=True, slots=True)
class _Claim:
    says: Anchored
    due: float


class AnchorsSeen:
    """The newest anchor of each stream. It is compared a while later: its batches may still be under way."""

    def __init__(self) -> None:
        self._claims: dict[StreamKey, _Claim] = {}

    @property
    def deadline(self) -> float:
        """When `compare` is due; math.inf for never."""
        return min((claim.due for claim in self._claims.values()), default=math.inf)

    def add(self, author: NodeId, says: Anchored, now: float) -> None:
        """A newer anchor takes the place of one that waits, and its time: a stream of anchors puts nothing off."""
        key = author, says.stream
        known = self._claims.get(key)
        if known is None and not self._has_room(author):
            return
        self._claims[key] = _Claim(says, now + WITHHELD_AFTER if known is None else known.due)

    def _has_room(self, author: NodeId) -> bool:
        """No author takes the place of others."""
        own = sum(one == author for one, _ in self._claims)
        return own < ANCHORED_MAX and len(self._claims) < ANCHORS_MAX

    def compare(self, chains: Mapping[StreamKey, Chain], now: float) -> list[Contradicted]:
        """Those that are due and do not agree with what came."""
        due = {key: claim for key, claim in self._claims.items() if now >= claim.due}
        self._claims = {key: claim for key, claim in self._claims.items() if key not in due}
        compared = (_compare(key, claim.says, chains.get(key)) for key, claim in due.items())
        return [found for found in compared if found is not None]


def _compare(key: StreamKey, says: Anchored, chain: Chain | None) -> Contradicted | None:
    have = 0 if chain is None else chain.next
    known = None if chain is None else chain.hashes.get(says.size - 1)
    forked = known is not None and known != says.head
    if not forked and have >= says.size:
        return None
    reason = Reason.TELEMETRY_FORKED if forked else Reason.TELEMETRY_WITHHELD
    return Contradicted(author=key[0], name=says.name, stream=key[1], reason=reason, have=have, anchored=says.size)
