"""What the streams of a link tell their driver. Frozen values."""

from dataclasses import dataclass, field

from overlay.core.messages import Call
from overlay.core.stream_formats import Opening
from overlay.registry import ReplyStatus


@dataclass(frozen=True, slots=True)
class StreamOffered:
    """The peer opens a stream: answer with `accept` or `refuse`. `call.method` names the handler, `opening.body` is for it."""

    stream: int
    call: Call
    opening: Opening = field(repr=False)


@dataclass(frozen=True, slots=True)
class StreamAccepted:
    """The peer has taken a stream that we opened."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamData:
    """Bytes of the peer, in order: what was given to `receive`, not copied. On a signed stream, not yet signed."""

    stream: int
    data: bytes | bytearray | memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class StreamSigned:
    """The peer has signed all its bytes up to `offset`; `evidence` is the segment, to keep or to show."""

    stream: int
    offset: int
    final: bool
    evidence: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StreamRoom:
    """There was no room to write, and now there is."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The peer writes no more. `truncated`: it is a signed stream, and its end was not signed."""

    stream: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class StreamBroken:
    """The peer has broken the stream off, or the link has ended; `text` is the peer's."""

    stream: int
    status: ReplyStatus
    text: str


StreamEvent = StreamOffered | StreamAccepted | StreamData | StreamSigned | StreamRoom | StreamEnded | StreamBroken
