"""What a link has yet to say: four lanes of messages, and how they and the bytes of streams become records.

Control goes first; audit, calls and telemetry take turns, message by message, so that none waits for all of another.
Bulk data is not queued here: its owner keeps it, and has it sealed when the wire has room. Telemetry drops its oldest.
"""

from collections import deque
from collections.abc import Iterable
from enum import IntEnum, auto
from typing import Final

from overlay.core.frames import coalesce, header, pack_header_into, pack_message
from overlay.core.limits import FRAME_HEADER, NOISE_PLAINTEXT_MAX, SEAL_AT_ONCE, TELEMETRY_QUEUE_MAX, WRITE_MAX
from overlay.core.records import LENGTH_SIZE, OVERHEAD, Sealer
from overlay.registry import FrameType

Piece = tuple[FrameType, int, bytes | memoryview]  # of a stream: type, stream, body


class Lane(IntEnum):
    """Whose turn it is; lower ones first."""

    CONTROL = auto()
    AUDIT = auto()
    CALLS = auto()
    TELEMETRY = auto()


_TURNS: Final = (Lane.AUDIT, Lane.CALLS, Lane.TELEMETRY)
_LANES: Final = {
    FrameType.HEADS: Lane.AUDIT,
    FrameType.WANT: Lane.AUDIT,
    FrameType.ITEMS: Lane.AUDIT,
    FrameType.CHECKPOINT: Lane.AUDIT,
    FrameType.COSIGNATURE: Lane.AUDIT,
    FrameType.EVIDENCE_PART: Lane.AUDIT,
    FrameType.FORK_PROOF: Lane.AUDIT,
    FrameType.CALL: Lane.CALLS,
    FrameType.REPLY: Lane.CALLS,
    FrameType.REPLY_CREDIT: Lane.CALLS,
    FrameType.CANCEL: Lane.CALLS,
    FrameType.TRANSIENT_BATCH: Lane.TELEMETRY,
}


class Outbox:
    """Of one link. Nothing is sealed before `begin`; what is sealed leaves in the order in which it was."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[list[bytes]]] = {}  # a message is a list of packed frames; no lane is empty
        self.queued = 0  # bytes that wait to be sealed or taken
        self._telemetry = 0
        self._out = bytearray()
        self._sealer: Sealer | None = None

    @property
    def sealer(self) -> Sealer:
        """What records are sealed with now."""
        assert self._sealer is not None
        return self._sealer

    def begin(self, sealer: Sealer) -> None:
        """The first keys are there."""
        self._sealer = sealer

    def change(self, sealer: Sealer) -> None:
        """Other keys from here on: what control has said so far goes under the old ones."""
        self._seal(self._drain(Lane.CONTROL))
        self._sealer = sealer

    def raw(self, data: bytes) -> None:
        """Bytes of the handshake."""
        self._out += data
        self.queued += len(data)

    def put(self, kind: FrameType, stream: int, body: bytes) -> None:
        """Queue a message in the lane of its type."""
        lane = _LANES.get(kind, Lane.CONTROL)
        message = pack_message(kind, stream, body)
        size = _size(message)
        if lane in self._lanes:
            self._lanes[lane].append(message)
        else:
            self._lanes[lane] = deque((message,))
        self.queued += size
        if lane is Lane.TELEMETRY:
            self._telemetry += size
            while self._telemetry > TELEMETRY_QUEUE_MAX and len(self._lanes[lane]) > 1:
                self._pop(lane)

    def put_last(self, kind: FrameType, body: bytes) -> None:
        """Queue a control frame behind everything that waits in any lane."""
        for lane in Lane:
            self._seal(self._drain(lane))
        self.put(kind, 0, body)

    def take(self) -> bytes:
        """Bytes for the wire, about half a MiB at most; nothing only if nothing waits."""
        if self._lanes:
            self._seal(self._turns())
        if not self._out:
            return b""
        data, self._out = self._out, bytearray()
        self.queued -= len(data)
        return bytes(data)

    def seal_pieces(self, pieces: Iterable[Piece]) -> None:
        """Bytes and signatures of a stream, behind what control has said."""
        self._seal(self._drain(Lane.CONTROL))
        self._seal(header(kind, stream, len(body)) + body for kind, stream, body in pieces)

    def seal_into(self, pieces: Iterable[Piece], room: memoryview) -> int:
        """The same, straight into a buffer: how much of it was filled. Only when nothing else waits to be taken."""
        seal = self.sealer.seal_in_place
        start = end = 0  # of the record under way, without its tag
        for kind, stream, body in pieces:
            length = len(body)
            if end > start and end - start - LENGTH_SIZE + FRAME_HEADER + length > NOISE_PLAINTEXT_MAX:
                start = end = seal(room, start, end)
            if end == start:
                end += LENGTH_SIZE
            pack_header_into(room, end, kind, 0, stream, length)
            end += FRAME_HEADER + length
            room[end - length : end] = body
        return seal(room, start, end) if end > start else end

    # --- lanes ------------------------------------------------------------------------------------------------------

    def _turns(self) -> list[bytes]:
        frames = self._drain(Lane.CONTROL)
        size = 0
        while size < SEAL_AT_ONCE:
            turn = [self._pop(lane) for lane in _TURNS if lane in self._lanes]
            if not turn:
                break
            for message in turn:
                frames += message
                size += _size(message)
        return frames

    def _drain(self, lane: Lane) -> list[bytes]:
        frames: list[bytes] = []
        while lane in self._lanes:
            frames += self._pop(lane)
        return frames

    def _pop(self, lane: Lane) -> list[bytes]:
        """The oldest message of a lane that holds one."""
        messages = self._lanes[lane]
        message = messages.popleft()
        if not messages:
            del self._lanes[lane]
        self.queued -= _size(message)
        if lane is Lane.TELEMETRY:
            self._telemetry -= _size(message)
        return message

    def _seal(self, frames: Iterable[bytes]) -> None:
        plaintexts = coalesce(frames)
        if plaintexts:
            sealed = self.sealer.seal_all(plaintexts)
            self._out += sealed
            self.queued += len(sealed)


def _size(message: list[bytes]) -> int:
    return sum(map(len, message))


ROOM: Final = WRITE_MAX + (WRITE_MAX // NOISE_PLAINTEXT_MAX + 3) * (OVERHEAD + FRAME_HEADER) + 4096
"""Bytes of a buffer for `seal_into`: a write of a stream, its segments, and what records and frames add."""
