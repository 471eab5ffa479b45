"""What all requests to the mesh key have in common: their numbers, their bounds, and times in whole seconds."""

from datetime import UTC, datetime
from enum import IntEnum, unique
from typing import Final

from overlay.core.wire import Bytes, UInt

REQUEST_MAX: Final = 1024 * 1024  # the largest revocation list, and below a message between signers
TIME_MAX: Final = 2**34  # seconds: the year 2514, so that no sum of times overflows
TIME: Final = UInt(TIME_MAX)
HASH: Final = Bytes(32)


@unique
class RequestKind(IntEnum):
    """Field 1 of a request."""

    LEAF = 1
    REVOCATION_LIST = 2
    AUTHORITY_OBJECT = 3
    CROSS_CERTIFICATE = 4
    POLICY = 5
    ROSTER = 6
    TEST = 7


def to_seconds(time: datetime) -> int:
    """As it travels; parts of a second are cut off."""
    return int(time.timestamp())


def from_seconds(seconds: int) -> datetime:
    """Back from that."""
    return datetime.fromtimestamp(seconds, UTC)
