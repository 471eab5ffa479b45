"""What a collector has refused: the newest with its bytes, all of it in numbers. Nothing of it is ever in a sum."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from overlay.core.keys import NodeId
from overlay.registry import Reason

KEPT_MAX: Final = 1024  # our guess
KEPT_BYTES: Final = 4 * 1024 * 1024  # our guess: of raw bytes
COUNTED_MAX: Final = 4096  # senders and reasons: our guess


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """One batch that does not count. `author`: only where its signature was good; `sender` is who handed it over."""

    at: datetime
    sender: NodeId
    author: NodeId | None
    reason: Reason
    detail: str
    raw: bytes = field(repr=False)


class Quarantine:
    """Bounded: the oldest gives way, and stays counted."""

    def __init__(self) -> None:
        self._kept: deque[Quarantined] = deque()
        self._bytes = 0
        self._counts: Counter[tuple[NodeId | None, Reason]] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def __iter__(self) -> Iterator[Quarantined]:
        """Those that are kept, oldest first."""
        return iter(tuple(self._kept))

    @property
    def counts(self) -> dict[tuple[NodeId | None, Reason], int]:
        """How many of each sender and reason; None for all senders for whom there was no room."""
        return dict(self._counts)

    def add(self, one: Quarantined) -> None:
        """Keep it. More than anybody may send is only counted: it would push out what matters."""
        key: tuple[NodeId | None, Reason] = (one.sender, one.reason)
        self._counts[key if key in self._counts or len(self._counts) < COUNTED_MAX else (None, one.reason)] += 1
        if one.reason is Reason.TOO_MANY:
            return
        self._kept.append(one)
        self._bytes += len(one.raw)
        while len(self._kept) > KEPT_MAX or (self._bytes > KEPT_BYTES and len(self._kept) > 1):
            self._bytes -= len(self._kept.popleft().raw)
