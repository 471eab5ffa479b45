"""What a sender says of its streams in its audit log, every minute: how far they go. Whoever withholds batches is found out.

    body of an entry of type TELEMETRY   {0:1, 1:[[name, stream16, size, head32, dropped], ...]}

`size`: batches signed so far; `head`: hash of the last one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from overlay.core.telemetry.batch import SEQ_MAX, STREAM_ID_SIZE, STREAM_NAME_MAX
from overlay.core.wire import Array, Bytes, Text, Tuple, UInt, make_map, open_map

ANCHOR_EVERY: Final = 60.0  # protocol, seconds
ANCHORED_MAX: Final = 64  # streams in one entry: our guess
ANCHOR_BYTES: Final = 16 * 1024

_ONE: Final = Tuple((Text(STREAM_NAME_MAX), Bytes(STREAM_ID_SIZE), UInt(SEQ_MAX), Bytes(32), UInt()))


@dataclass(frozen=True, slots=True)
class Anchored:
    """One stream, as its sender has told its log."""

    name: str
    stream: bytes  # 16
    size: int
    head: bytes  # 32
    dropped: int


def pack_anchor(streams: Sequence[Anchored]) -> bytes:
    """The body of the entry. Raises ValueError for too many."""
    if len(streams) > ANCHORED_MAX:
        raise ValueError(f"at most {ANCHORED_MAX} streams in one entry")
    return make_map([[one.name, one.stream, one.size, one.head, one.dropped] for one in streams])


def unpack_anchor(body: bytes) -> tuple[Anchored, ...]:
    """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
    (streams,) = open_map(body, Array(_ONE, ANCHORED_MAX), limit=ANCHOR_BYTES)
    return tuple(Anchored(*one) for one in streams)
