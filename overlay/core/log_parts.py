"""The logs that explain a quote, over a link: the verifier asks for one part after the other, and nobody sends more than that.

    EVIDENCE_PART {0:1, 1:log, 2:offset}                        asked by the verifier
    EVIDENCE_PART {0:1, 1:log, 2:offset, 3:length, 4:bytes}     answered by the attester

A part is as long as the log has bytes from its offset on, at most `LOG_PART`. So a list of many megabytes waits for no one and
lets everything else pass: one part is under way at a time.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Protocol

from overlay.core.limits import LOG_LENGTH_MAX, LOG_PART
from overlay.core.wire import Bytes, Maybe, UInt, make_map, malformed, open_map
from overlay.errors import Refused
from overlay.registry import EvidenceLog, Reason

ENVELOPE: Final = 64  # bytes around the bytes of a log; they take at most 34
ASKED_BESIDE: Final = 4 * LOG_PART  # for parts that are asked for though a log has nothing more


@dataclass(frozen=True, slots=True)
class LogWanted:
    """A part of a log that the verifier lacks."""

    log: EvidenceLog
    offset: int


@dataclass(frozen=True, slots=True)
class LogPart:
    """Bytes of a log from `offset` on. `length` is that of the whole log at this moment; 0 where there is none."""

    log: EvidenceLog
    offset: int
    length: int
    data: bytes = field(repr=False)

    @property
    def is_last(self) -> bool:
        """Whether the log has nothing after it, for now."""
        return self.offset + len(self.data) >= self.length


class LogSource(Protocol):
    """Our own logs, in memory: asked from the core."""

    def read(self, log: EvidenceLog, offset: int, size: int) -> tuple[int, bytes]:
        """The length of a log now, and at most `size` of its bytes from `offset` on."""
        ...


class NoLogs:
    """The source of a machine without logs."""

    def read(self, log: EvidenceLog, offset: int, size: int) -> tuple[int, bytes]:
        """Nothing."""
        del log, offset, size
        return 0, b""


def pack_wanted(wanted: LogWanted) -> bytes:
    """What the verifier sends."""
    return make_map(int(wanted.log), wanted.offset)


def pack_part(part: LogPart) -> bytes:
    """What the attester sends."""
    return make_map(int(part.log), part.offset, part.length, part.data)


def unpack(body: bytes) -> LogWanted | LogPart:
    """Either of them.

    Raises:
        Refused: MALFORMED, also for a part that is shorter or longer than it has to be; TOO_LARGE; UNSUPPORTED.
    """
    number, offset, length, data = open_map(
        body, UInt(max(EvidenceLog)), UInt(LOG_LENGTH_MAX), Maybe(UInt(LOG_LENGTH_MAX)), Maybe(Bytes(0, LOG_PART)),
        limit=LOG_PART + ENVELOPE,
    )
    if number not in EvidenceLog._value2member_map_:
        malformed("log 0 is none")
    if length is None and data is None:
        return LogWanted(EvidenceLog(number), offset)
    if length is None or data is None:
        malformed("half of a part of a log")
    if len(data) != min(LOG_PART, max(0, length - offset)):
        malformed(f"{len(data)} bytes from {offset} on of a log that has {length}")
    return LogPart(EvidenceLog(number), offset, length, data)


class LinkLogs:
    """Of one link: what of our logs the peer may ask for, and which parts of the peer's it owes us."""

    def __init__(self, source: LogSource) -> None:
        self._source = source
        self._left = 0  # bytes that the peer may still ask for
        self._owed: deque[tuple[LogWanted, object]] = deque()

    def shown(self) -> None:
        """We have shown evidence: whoever judges it may ask for both logs, twice at most, if it has to begin anew."""
        lengths = [self._source.read(log, 0, 0)[0] for log in EvidenceLog]
        self._left = 2 * sum(lengths) + ASKED_BESIDE

    def answer(self, wanted: LogWanted) -> bytes:
        """A part of ours. Raises Refused(UNEXPECTED_FRAME) for more than evidence of ours gives cause for."""
        length, data = self._source.read(wanted.log, wanted.offset, LOG_PART)
        cost = max(len(data), LOG_PART // 8)
        if cost > self._left:
            raise Refused(Reason.UNEXPECTED_FRAME, "asks for more of our logs than we have")
        self._left -= cost
        return pack_part(LogPart(wanted.log, wanted.offset, length, data))

    def ask(self, wanted: LogWanted, asker: object) -> bytes:
        """Ask for a part; `asker` gets it."""
        self._owed.append((wanted, asker))
        return pack_wanted(wanted)

    def take(self, part: LogPart) -> object:
        """Who asked for it. Raises Refused(UNEXPECTED_FRAME) for a part that nobody asked for."""
        if not self._owed or (part.log, part.offset) != (self._owed[0][0].log, self._owed[0][0].offset):
            raise Refused(Reason.UNEXPECTED_FRAME, f"a part of a log that nobody asked for: {part.log.name} {part.offset}")
        return self._owed.popleft()[1]
