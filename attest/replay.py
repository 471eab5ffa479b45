"""From the events of logs to PCR values, and from those to the digest that a TPM has quoted.

Reading PCRs, quoting them and reading a log are three moments: a log may be ahead of the quote by some events, never behind it.
So a log is replayed until it meets the quote; events after that prove nothing, and are not looked at.

Source: TCG, TPM 2.0 Library, part 1, section 17 (PCR operations); PC Client Platform Firmware Profile, section 3.3 (values
after a reset); TCG D-RTM Architecture (PCRs 17 to 22).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from attest.event_log import PCR_MAX, BootEvent, BootLog
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason

SIZE: Final = 32
ZEROS: Final = bytes(SIZE)
ONES: Final = b"\xff" * SIZE
DYNAMIC: Final = range(17, 23)  # until a dynamic launch resets them to zeros, they are ones
HCRTM: Final = 4  # the locality in which an H-CRTM has measured before the firmware ran

Values = Mapping[int, bytes]
NONE: Final[Values] = {}


def initial(locality: int) -> dict[int, bytes]:
    """All 24 PCRs after a reset, in the SHA-256 bank."""
    values = {pcr: ONES if pcr in DYNAMIC else ZEROS for pcr in range(PCR_MAX)}
    values[0] = bytes(SIZE - 1) + bytes([locality])
    return values


def extend(value: bytes, digest: bytes) -> bytes:
    """TPM2_PCR_Extend of one bank."""
    return sha256(value + digest)


def digest_of(values: Values, bitmap: int) -> bytes:
    """What a quote over these PCRs says: SHA-256 over their values, lowest first (part 2, section 10.12.1)."""
    return sha256(b"".join(values[pcr] for pcr in range(PCR_MAX) if bitmap >> pcr & 1))


@dataclass(frozen=True, slots=True)
class Replayed:
    """A log that has met a quote: so many of its events count, and these are the quoted PCRs after them."""

    values: Values = field(repr=False)
    events: tuple[BootEvent, ...] = field(repr=False)  # those that count, of quoted PCRs only: no other one is proven
    surplus: int  # events of the log after those


def replay(log: BootLog) -> dict[int, bytes]:
    """The PCRs after the whole log."""
    values = initial(log.locality)
    for event in log.events:
        _apply(values, event)
    return values


def meet(log: BootLog, bitmap: int, quoted: bytes, others: Values = NONE) -> Replayed:
    """Replay a log until its PCRs are those that were quoted.

    Args:
        bitmap: the PCRs that were quoted, bit 0 is PCR 0.
        quoted: `pcrDigest` of the quote, 32 bytes.
        others: values of PCRs that this log does not account for, such as those of IMA.

    Raises:
        Refused: PCR_MISMATCH; no beginning of the log gives what was quoted.
    """
    values = {**initial(log.locality), **others}
    counted = [event for event in log.events if event.is_extended and bitmap >> event.pcr & 1 and event.pcr not in others]
    found = 0 if digest_of(values, bitmap) == quoted else None
    met = dict(values)
    for number, event in enumerate(counted, 1):
        _apply(values, event)
        if digest_of(values, bitmap) == quoted:
            found, met = number, dict(values)
    if found is None:
        raise Refused(Reason.PCR_MISMATCH, "the boot log does not lead to the PCRs that were quoted")
    return Replayed(met, tuple(counted[:found]), len(counted) - found)


def last_states(log: BootLog, bitmap: int, count: int) -> list[Replayed]:
    """The PCRs after the whole log, then after all events of these PCRs but the last, and so on; at most `count` of them."""
    values = initial(log.locality)
    counted = tuple(event for event in log.events if event.is_extended and bitmap >> event.pcr & 1)
    first = max(0, len(counted) + 1 - count)
    found: list[Replayed] = []
    for number in range(len(counted) + 1):
        if number:
            _apply(values, counted[number - 1])
        if number >= first:
            found.append(Replayed(dict(values), counted[:number], len(counted) - number))
    return found[::-1]


def separators_missing(events: Iterable[BootEvent], pcrs: Sequence[int] = range(8)) -> tuple[int, ...]:
    """PCRs of the firmware into which no separator was extended: what boots next may still pretend to be firmware."""
    good = {sha256(bytes(4)), sha256(b"\xff" * 4)}
    seen = {event.pcr for event in events if event.digest in good}
    return tuple(pcr for pcr in pcrs if pcr not in seen)


def _apply(values: dict[int, bytes], event: BootEvent) -> None:
    """One event, where it changes a PCR. A dynamic PCR that is extended was reset before: the log begins there."""
    if not event.is_extended:
        return
    before = values[event.pcr]
    values[event.pcr] = extend(ZEROS if event.pcr in DYNAMIC and before == ONES else before, event.digest)
