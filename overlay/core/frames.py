"""Frames: `type u8 | flags u8 | stream u32 | length u16 | body`, several to a record, none across records.

Messages that are longer than a frame travel in parts, one after the other, all but the last with MORE.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from overlay.core.limits import FRAME_BODY_MAX, FRAME_HEADER, NOISE_PLAINTEXT_MAX, PARTIAL_MESSAGES_MAX
from overlay.core.wire import malformed
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import FrameFlag, FrameType, Reason

_HEADER: Final = struct.Struct(">BBIH")
_KNOWN: Final = {int(kind): kind for kind in FrameType}
_KNOWN_FLAGS: Final = int(FrameFlag.MORE)
_FLAGS: Final = (FrameFlag.NONE, FrameFlag.MORE)
SKIPPED_FROM: Final = 0x80  # unknown types from here on are for later versions and may be ignored
STREAM_MAX: Final = 2**32 - 1

pack_header_into: Final = _HEADER.pack_into
"""(buffer, offset, type, flags, stream, length of the body): for those who make many frames."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a record is made of. Stream 0 is the link itself."""

    type: FrameType
    flags: FrameFlag = FrameFlag.NONE
    stream: int = 0
    body: bytes = field(default=b"", repr=False)


def pack(frame: Frame) -> bytes:
    """Header and body. Raises LocalProtocolError for a body above 65,511 bytes."""
    if len(frame.body) > FRAME_BODY_MAX:
        raise LocalProtocolError(f"a frame body of {len(frame.body)} bytes")
    return _HEADER.pack(frame.type, frame.flags, frame.stream, len(frame.body)) + frame.body


def header(kind: FrameType, stream: int, length: int) -> bytes:
    """What stands before a body of a frame without flags."""
    return _HEADER.pack(kind, 0, stream, length)


def stream_data(plaintext: memoryview) -> tuple[int, memoryview] | None:
    """(stream, body) of a record that is one frame of bulk data and nothing else; its body is a part of the record.

    A frame without data is none: it is for the stream to refuse, and would not show in a run of others.
    """
    if len(plaintext) <= FRAME_HEADER or plaintext[0] != FrameType.STREAM_DATA:
        return None
    _, flags, stream, length = _HEADER.unpack_from(plaintext)
    if flags or length != len(plaintext) - FRAME_HEADER:
        return None
    return stream, plaintext[FRAME_HEADER:]


def parse_frames(plaintext: bytes | memoryview) -> list[Frame]:
    """The frames of one record. Reserved types are given out, unknown ones from 0x80 on are skipped.

    Raises:
        Refused: MALFORMED for an empty record, a frame cut off or an unknown flag; UNSUPPORTED for an unknown type.
    """
    if not plaintext:
        malformed("empty record")
    frames, start = [], 0
    while start < len(plaintext):
        if len(plaintext) - start < FRAME_HEADER:
            malformed("frame header is cut off")
        kind, flags, stream, length = _HEADER.unpack_from(plaintext, start)
        start += FRAME_HEADER
        if len(plaintext) - start < length:
            malformed("frame body is cut off")
        if flags & ~_KNOWN_FLAGS:
            malformed(f"frame flags {flags:#04x}")
        known = _KNOWN.get(kind)
        if known is not None:
            frames.append(Frame(known, _FLAGS[flags], stream, bytes(plaintext[start : start + length])))
        elif kind < SKIPPED_FROM:
            raise Refused(Reason.UNSUPPORTED, f"frame type {kind:#04x}")
        start += length
    return frames


def pack_message(kind: FrameType, stream: int, body: bytes) -> list[bytes]:
    """A message of any length as packed frames, all but the last with MORE. A record takes each."""
    last = max(len(body) - 1, 0) // FRAME_BODY_MAX * FRAME_BODY_MAX  # where the last part begins
    parts = [
        _HEADER.pack(kind, FrameFlag.MORE, stream, FRAME_BODY_MAX) + body[start : start + FRAME_BODY_MAX]
        for start in range(0, last, FRAME_BODY_MAX)
    ]
    parts.append(_HEADER.pack(kind, 0, stream, len(body) - last) + body[last:])
    return parts


def coalesce(frames: Iterable[bytes]) -> list[bytes]:
    """Packed frames put together, in order, into as few record plaintexts as they fill."""
    records: list[bytes] = []
    waiting: list[bytes] = []
    size = 0
    for frame in frames:
        if waiting and size + len(frame) > NOISE_PLAINTEXT_MAX:
            records.append(b"".join(waiting))
            waiting, size = [], 0
        waiting.append(frame)
        size += len(frame)
    if waiting:
        records.append(b"".join(waiting))
    return records


class Reassembler:
    """Joins the parts of messages, by type and stream; at most 64 are under way, each within the size of its type."""

    def __init__(self, limits: Callable[[FrameType], int]) -> None:
        self._limits = limits
        self._partial: dict[tuple[FrameType, int], bytearray] = {}

    @property
    def under_way(self) -> int:
        """Messages of which some parts have come."""
        return len(self._partial)

    def add(self, frame: Frame) -> Frame | None:
        """The whole message as one frame without MORE, or None while parts are missing.

        Raises:
            Refused: TOO_LARGE for a message too long or too many under way, MALFORMED for an empty part with MORE.
        """
        key = frame.type, frame.stream
        before = self._partial.get(key, b"")
        limit = self._limits(frame.type)
        if len(before) + len(frame.body) > limit:
            raise Refused(Reason.TOO_LARGE, f"{frame.type.name} above {limit} bytes")
        if frame.flags & FrameFlag.MORE:
            self._keep(key, frame)
            return None
        if not before:
            return frame
        del self._partial[key]
        return Frame(frame.type, FrameFlag.NONE, frame.stream, bytes(before) + frame.body)

    def drop(self, kind: FrameType, stream: int) -> None:
        """Forget the parts of a message that nobody wants any more."""
        self._partial.pop((kind, stream), None)

    def _keep(self, key: tuple[FrameType, int], frame: Frame) -> None:
        if not frame.body:
            malformed("an empty part of a message")
        if key not in self._partial and len(self._partial) >= PARTIAL_MESSAGES_MAX:
            raise Refused(Reason.TOO_LARGE, f"more than {PARTIAL_MESSAGES_MAX} messages in parts")
        self._partial.setdefault(key, bytearray()).extend(frame.body)
