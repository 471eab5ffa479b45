"""Batches that came before one that is missing: they wait, for a while, and what is missing is asked for."""

import math
from dataclasses import dataclass, field
from typing import Final

from overlay.core.keys import NodeId
from overlay.core.mesh.topics import Author
from overlay.core.telemetry.asks import ASKED_MAX, Ask
from overlay.core.telemetry.batch import VerifiedHead
from overlay.core.telemetry.chain import StreamKey

ASK_EVERY: Final = 2.0  # our guess, many round trips
GAP_AFTER: Final = 10.0  # our guess: then what is missing is recorded as missing
EARLY_MAX: Final = 64  # batches of one stream that wait for one before them: our guess, a minute of one a second
EARLY_BYTES: Final = 16 * 1024 * 1024  # of all streams: our guess


@dataclass(frozen=True, slots=True)
class Held:
    """A batch whose signature, author and records were good when it came."""

    author: Author
    sender: NodeId
    batch: VerifiedHead
    raw: bytes = field(repr=False)


@dataclass(slots=True)
class _Waiting:
    since: float
    ask_at: float
    held: dict[int, Held] = field(default_factory=dict)


class EarlyBatches:
    """Of all streams. What finds no room is asked for again later."""

    def __init__(self) -> None:
        self._streams: dict[StreamKey, _Waiting] = {}
        self._bytes = 0

    def __contains__(self, key: StreamKey) -> bool:
        return key in self._streams

    @property
    def deadline(self) -> float:
        """When something is to be asked for, or given up."""
        return min((min(one.ask_at, one.since + GAP_AFTER) for one in self._streams.values()), default=math.inf)

    def miss(self, key: StreamKey, now: float) -> None:
        """Something is missing in this stream."""
        self._streams.setdefault(key, _Waiting(now, now))

    def hold(self, key: StreamKey, one: Held, now: float) -> None:
        """A batch waits for those before it."""
        self.miss(key, now)
        held, seq, size = self._streams[key].held, one.batch.says.seq, len(one.raw)
        if seq not in held and len(held) < EARLY_MAX and self._bytes + size <= EARLY_BYTES:
            held[seq] = one
            self._bytes += size

    def take(self, key: StreamKey, seq: int) -> Held | None:
        """The one with that number, if it waits here."""
        waiting = self._streams.get(key)
        one = None if waiting is None else waiting.held.pop(seq, None)
        self._bytes -= 0 if one is None else len(one.raw)
        return one

    def moved(self, key: StreamKey, following: int, now: float) -> None:
        """The stream goes on at that number: what is before it need not wait, and whatever waits has all its time again."""
        waiting = self._streams.get(key)
        if waiting is None:
            return
        for seq in [seq for seq in waiting.held if seq < following]:
            self.take(key, seq)
        if waiting.held:
            waiting.since = waiting.ask_at = now
        else:
            del self._streams[key]

    def asks(self, now: float, following: dict[StreamKey, int]) -> list[tuple[NodeId, Ask]]:
        """(author, ask) for whatever is missing and was not asked for lately. `following`: which number is next, by stream."""
        found = []
        for key, waiting in self._streams.items():
            if now < waiting.ask_at:
                continue
            waiting.ask_at = now + ASK_EVERY
            first = following[key]
            count = min(max(min(waiting.held, default=first + 1) - first, 1), ASKED_MAX)
            found.append((key[0], Ask(key[1], first, count)))
        return found

    def overdue(self, now: float) -> dict[StreamKey, int]:
        """Streams whose missing batches have not come in time, and the number at which they can go on."""
        late = {key: one for key, one in self._streams.items() if now >= one.since + GAP_AFTER}
        for key in [key for key, one in late.items() if not one.held]:
            del self._streams[key], late[key]
        return {key: min(one.held) for key, one in late.items()}
