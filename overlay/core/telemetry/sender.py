"""One stream of telemetry at the node that measures: from samples to signed batches. Sans-IO.

    record            samples of now; where nobody takes them away the oldest are dropped, counted, and the count is signed
    tick              -> Cut: a batch that is ready to go; Anchor: an entry for the audit log, every minute
    receive           a collector's ask -> the batches that are still kept
    batches_from      what a collector that was away has missed, as far as it is kept
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from overlay.core.batches import leaves_of
from overlay.core.identity import LocalIdentity
from overlay.core.keys import MeshId
from overlay.core.merkle import root_of
from overlay.core.telemetry.anchor import ANCHOR_EVERY, Anchored
from overlay.core.telemetry.asks import Ask
from overlay.core.telemetry.batch import (
    BATCH_MAX,
    HEAD_MAX,
    RECORD_OVERHEAD,
    RECORDS_MAX,
    STREAM_ID_SIZE,
    STREAM_NAME_MAX,
    Head,
    sign_batch,
)
from overlay.core.telemetry.records import Sample, Series, pack_record
from overlay.errors import UsageError
from overlay.registry import GENESIS

QUEUE_MAX: Final = 65_536  # samples: our guess, some 8 MiB
KEPT_BYTES: Final = 4 * 1024 * 1024  # batches kept for who asks: our guess, an hour of 100 series every ten seconds
FLUSH_AFTER: Final = 1.0  # seconds from the first sample of a batch: our guess
SERIES_REMEMBERED: Final = 16_384

_ROOM: Final = BATCH_MAX - HEAD_MAX - 64


@dataclass(frozen=True, slots=True)
class Cut:
    """A batch that is ready to go."""

    seq: int
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the audit log has to be told."""

    streams: tuple[Anchored, ...]


class TelemetrySender:
    """`now` is monotonic seconds, `at` Unix seconds."""

    def __init__(
        self, name: str, stream: bytes, *, own: LocalIdentity, mesh_id: MeshId, now: float, flush_after: float = FLUSH_AFTER
    ) -> None:
        """`stream`: 16 bytes of chance, drawn anew at each start. Raises UsageError for a name that no stream can have."""
        if not 0 < len(name.encode()) <= STREAM_NAME_MAX or not name.isprintable() or len(stream) != STREAM_ID_SIZE:
            raise UsageError(f"a stream's name has 1 to {STREAM_NAME_MAX} bytes of printable text")
        self.name, self.stream = name, stream
        self.size, self.dropped = 0, 0
        self._own, self._mesh_id, self._flush_after = own, mesh_id, flush_after
        self._head, self._anchored_size = GENESIS, 0
        self._queue: deque[tuple[bytes, Sample]] = deque()
        self._packed: dict[Series, bytes] = {}
        self._kept: deque[Cut] = deque()
        self._kept_bytes = 0
        self._flush_at, self._anchor_at = math.inf, now + ANCHOR_EVERY

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        return min(self._flush_at, self._anchor_at)

    def renew_identity(self, own: LocalIdentity) -> None:
        """Sign under another endorsement from now on; the chain goes on."""
        self._own = own

    def record(self, samples: Sequence[Sample], now: float) -> None:
        """Queue samples. Raises UsageError for one that no batch can hold; then none of them is queued."""
        ready = [(self._pack(sample.series), sample) for sample in samples]
        for packed, sample in ready:
            pack_record(packed, sample.kind, sample.value, 0)
        self._queue.extend(ready)
        while len(self._queue) > QUEUE_MAX:
            self._queue.popleft()
            self.dropped += 1
        if self._queue:
            self._flush_at = now if len(self._queue) >= RECORDS_MAX else min(self._flush_at, now + self._flush_after)

    def tick(self, now: float, at: float) -> list[Cut | Anchor]:
        """What is due."""
        done: list[Cut | Anchor] = []
        if now >= self._flush_at:
            while self._queue:
                done.append(self._cut(at))
            self._flush_at = math.inf
        if now >= self._anchor_at:
            self._anchor_at = now + ANCHOR_EVERY
            done += self.anchor()
        return done

    def anchor(self) -> list[Anchor]:
        """An entry for the log, where there is news. Also to be called once at the end of a stream."""
        if self.size == self._anchored_size:
            return []
        self._anchored_size = self.size
        return [Anchor((Anchored(self.name, self.stream, self.size, self._head, self.dropped),))]

    def receive(self, ask: Ask) -> list[Cut]:
        """The batches that a collector asks for, as far as they are kept."""
        if ask.stream != self.stream:
            return []
        return [cut for cut in self._kept if ask.first <= cut.seq < ask.first + ask.count]

    def batches_from(self, first: int) -> list[Cut]:
        """All from that number on, as far as they are kept."""
        return [cut for cut in self._kept if cut.seq >= first]

    def _pack(self, series: Series) -> bytes:
        packed = self._packed.get(series)
        if packed is None:
            packed = Series.of(series.name, dict(series.labels)).pack()
            if len(self._packed) >= SERIES_REMEMBERED:
                self._packed.clear()
            self._packed[series] = packed
        return packed

    def _cut(self, at: float) -> Cut:
        """The next batch, out of the queue."""
        records: list[bytes] = []
        made, room = int(at * 1000), _ROOM
        while self._queue and len(records) < RECORDS_MAX:
            packed, sample = self._queue[0]
            record = pack_record(packed, sample.kind, sample.value, made - int(sample.at * 1000))
            room -= len(record) + RECORD_OVERHEAD
            if room < 0:
                break
            records.append(record)
            self._queue.popleft()
        head = Head(
            author=self._own.node_id, name=self.name, stream=self.stream, seq=self.size, prev=self._head, at=made,
            count=len(records), dropped=self.dropped, root=root_of(leaves_of(records)),
        )
        raw, self._head = sign_batch(head, records, own=self._own, mesh_id=self._mesh_id)
        cut = Cut(self.size, raw)
        self.size += 1
        self._keep(cut)
        return cut

    def _keep(self, cut: Cut) -> None:
        self._kept.append(cut)
        self._kept_bytes += len(cut.raw)
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popleft().raw)
