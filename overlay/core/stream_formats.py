"""The bodies of stream frames that are neither bytes of the stream nor segments: open, credit, reset."""

import struct
from typing import Final

from overlay.core import limits
from overlay.core.wire import Bytes, Text, UInt, make_map, malformed, open_map
from overlay.errors import Refused, UsageError
from overlay.registry import Reason, ReplyStatus

_CREDIT: Final = struct.Struct(">Q")


def pack_opening(body: bytes, *, signed: bool) -> bytes:
    """The body of the opening call. Raises UsageError if it is too long for a call."""
    if len(body) > limits.OPENING_MAX:
        raise UsageError(f"what opens a stream has at most {limits.OPENING_MAX} bytes", hint="send it on the stream")
    return make_map(int(signed), body)


def unpack_opening(packed: bytes) -> tuple[bool, bytes]:
    """Whether segments sign the stream, and the application's bytes. Raises Refused(MALFORMED or UNSUPPORTED)."""
    signed, body = open_map(packed, UInt(1), Bytes(0, limits.OPENING_MAX), limit=limits.OPENING_MAX + 16)
    return bool(signed), body


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
