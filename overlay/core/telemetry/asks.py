"""What a collector asks of the author of a stream: batches that are missing (docs/protocol/telemetry.md).

    ask {0:1, 1:stream16, 2:first, 3:count}
"""

from dataclasses import dataclass
from typing import Final

from overlay.core.telemetry.batch import SEQ_MAX, STREAM_ID_SIZE
from overlay.core.wire import Bytes, UInt, make_map, open_map

ASKED_MAX: Final = 256  # batches at once: our guess
ASK_BYTES: Final = 64

_FORM: Final = (Bytes(STREAM_ID_SIZE), UInt(SEQ_MAX), UInt(ASKED_MAX))


@dataclass(frozen=True, slots=True)
class Ask:
    """These batches of a stream, please."""

    stream: bytes  # 16
    first: int
    count: int

    def pack(self) -> bytes:
        """Its bytes."""
        return make_map(self.stream, self.first, self.count)

    @classmethod
    def unpack(cls, data: bytes) -> "Ask":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        stream, first, count = open_map(data, *_FORM, limit=ASK_BYTES)
        return cls(stream, first, count)
