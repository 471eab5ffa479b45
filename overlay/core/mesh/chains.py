"""What every chain of signed items has in common: the hash that links them and the author's hybrid clock.

hlc = Unix milliseconds << 16 | counter. It rises strictly along a chain, whatever the wall clock does.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from overlay.core.limits import CLOCK_TOLERANCE
from overlay.core.wire import sha256

SEQ_MAX: Final = 2**53  # of items in a chain: our guess; it fits what SQLite and JSON readers can count
SEQ_LAST: Final = SEQ_MAX - 1  # so that the size of a chain with it can still be told
HLC_SHIFT: Final = 16
HLC_MAX: Final = 2**63 - 1  # the year 6429; fits SQLite's integers

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_AHEAD: Final = timedelta(seconds=CLOCK_TOLERANCE)


def item_hash(raw: bytes) -> bytes:
    """H(0x00 || all bytes of the item), for prev, tree and references: the leaf hash of RFC 9162, section 2.1.1."""
    return sha256(b"\0", raw)


def hlc_of(at: datetime) -> int:
    """The first value of that millisecond."""
    return (at - _EPOCH) // _MILLISECOND << HLC_SHIFT


def hlc_time(hlc: int) -> datetime:
    """The author's time, to the millisecond."""
    return _EPOCH + (hlc >> HLC_SHIFT) * _MILLISECOND


def next_hlc(previous: int, at: datetime) -> int:
    """The next value: above the previous one, and not before `at`."""
    return max(previous + 1, hlc_of(at))


def is_ahead(hlc: int, at: datetime) -> bool:
    """Whether an item has to wait until our clock comes near the author's: it is more than five minutes ahead."""
    return hlc > latest(at)


def latest(at: datetime) -> int:
    """The last value that is not ahead at that time."""
    return hlc_of(at + _AHEAD) + (1 << HLC_SHIFT) - 1
