"""What a sender says of its streams in its audit log, every minute: how far they go. Whoever withholds batches is found out.

    body of an entry of type TELEMETRY   {0:1, 1:[[name, stream16, size, head32, dropped], ...]}

`size`: batches signed so far; `head`: hash of the last one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from overlay.core.telemetry.batch import SEQ_MAX, STREAM_ID_SIZE, STREAM_NAME_MAX
from overlay.core.wire import Array, Bytes, Text, Tuple, UInt, read_map

ANCHOR_EVERY: Final = 60.0  # protocol, seconds
ANCHORED_MAX: Final = 64  # streams in one entry: our guess

ANCHORS: Final = Array(
    Tuple((Text(STREAM_NAME_MAX), Bytes(STREAM_ID_SIZE), UInt(SEQ_MAX), Bytes(32), UInt())), ANCHORED_MAX
)


@dataclass(frozen=True, slots=True)
class Anchored:
    """One stream, as its sender has told its log."""

    name: str
    stream: bytes  # 16
    size: int
    head: bytes  # 32
    dropped: int


def anchor_body(streams: Sequence[Anchored]) -> Mapping[int, Any]:
    """The body of the entry."""
    return {0: 1, 1: [[one.name, one.stream, one.size, one.head, one.dropped] for one in streams]}


def read_anchor(body: Mapping[int, Any]) -> tuple[Anchored, ...]:
    """Raises Refused: MALFORMED, UNSUPPORTED."""
    (streams,) = read_map(dict(body), ANCHORS)
    return tuple(Anchored(*one) for one in streams)
