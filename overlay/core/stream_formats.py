"""The bodies of stream frames that are neither bytes of the stream nor segments: open, credit, reset."""

import struct
from dataclasses import dataclass
from typing import Final

from overlay.core import limits
from overlay.core.wire import Bytes, Maybe, Text, UInt, make_map, malformed, open_map
from overlay.errors import Refused, UsageError
from overlay.registry import Reason, ReplyStatus

_CREDIT: Final = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Opening:
    """What the opener says of a stream."""

    signed: bool  # whether segments sign it
    body: bytes  # the application's
    window: int = limits.WINDOW_FIRST  # the first window of either direction, bytes


def pack_opening(body: bytes, *, signed: bool, window: int = limits.WINDOW_FIRST) -> bytes:
    """The body of the opening call. Raises UsageError if it is too long for a call, or there is no such window."""
    if not limits.WINDOW_LEAST <= window <= limits.WINDOW_FIRST:
        raise UsageError(f"a first window has {limits.WINDOW_LEAST} to {limits.WINDOW_FIRST} bytes")
    if len(body) > limits.OPENING_MAX:
        raise UsageError(f"what opens a stream has at most {limits.OPENING_MAX} bytes", hint="send it on the stream")
    return make_map(int(signed), body, None if window == limits.WINDOW_FIRST else window)


def unpack_opening(packed: bytes) -> Opening:
    """Raises Refused(MALFORMED or UNSUPPORTED); a first window has its own bytes only if it is smaller than usual."""
    signed, body, window = open_map(
        packed, UInt(1), Bytes(0, limits.OPENING_MAX), Maybe(UInt(limits.WINDOW_FIRST - 1)), limit=limits.OPENING_MAX + 24
    )
    if window is not None and window < limits.WINDOW_LEAST:
        malformed(f"a first window of {window} bytes")
    return Opening(bool(signed), body, limits.WINDOW_FIRST if window is None else window)


def pack_credit(limit: int) -> bytes:
    """How many bytes the peer may have sent on the stream in all. 8 bytes."""
    return _CREDIT.pack(limit)


def unpack_credit(body: bytes) -> int:
    """Raises Refused(MALFORMED)."""
    if len(body) != _CREDIT.size:
        malformed(f"a credit of {len(body)} bytes")
    limit: int = _CREDIT.unpack(body)[0]
    return limit


def pack_reset(status: ReplyStatus, text: str) -> bytes:
    """Why a stream is broken off; the text is cut at 256 bytes."""
    return make_map(int(status), text.encode(errors="replace")[: limits.RESET_TEXT_MAX].decode(errors="ignore"))


def unpack_reset(body: bytes) -> tuple[ReplyStatus, str]:
    """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
    status, text = open_map(body, UInt(255), Text(limits.RESET_TEXT_MAX), limit=limits.RESET_MAX)
    try:
        return ReplyStatus(status), text
    except ValueError:
        raise Refused(Reason.MALFORMED, f"status {status} of a reset") from None
