"""Two ends of the streams of a link on a fake wire, so that tests read as conversations."""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from overlay.core.identity import LocalIdentity
from overlay.core.limits import WINDOW_FIRST
from overlay.core.messages import sign_call
from overlay.core.rpc import SeenCalls
from overlay.core.segments import SignedStream, sign_segment
from overlay.core.stream_credit import DEFAULT_LIMITS, StreamLimits
from overlay.core.stream_events import StreamData, StreamEvent, StreamOffered
from overlay.core.streams import Piece, StreamContext, Streams
from overlay.core.trust import VerifiedPeer
from overlay.errors import Refused
from overlay.registry import FrameType, Reason, ReplyStatus, Role
from tests.unit.core.authority_kit import Member
from tests.unit.core.session_kit import ALICE, BOB, LAB, SeededChance, local

H1 = b"h" * 32
Frame = tuple[FrameType, int, bytes]

OPEN, DATA, CREDIT = FrameType.STREAM_OPEN, FrameType.STREAM_DATA, FrameType.STREAM_CREDIT
SEGMENT, END, RESET = FrameType.STREAM_SEGMENT, FrameType.STREAM_END, FrameType.STREAM_RESET


@dataclass
class End:
    """One side: its streams, what it owes the wire, and everything that it was told."""

    role: Role
    member: Member
    streams: Streams = field(init=False)
    wire: deque[Frame] = field(default_factory=deque)
    events: list[StreamEvent] = field(default_factory=list)
    heard: dict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    unread: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    identity: LocalIdentity = field(init=False)
    peer: VerifiedPeer = field(init=False)

    def begin(self, other: "End", limits: StreamLimits) -> None:
        self.identity, self.peer = local(self.member), other.member.peer
        context = StreamContext(
            identity=lambda: self.identity, mesh_id=LAB.mesh_id, first_h=H1, peer=lambda: self.peer, seen=SeenCalls(),
            chance=SeededChance(self.role),
        )
        ids = count(1 if self.role is Role.OPENER else 2, 2)
        self.streams = Streams(self.role, context, lambda: next(ids), limits)

    def flush(self) -> None:
        """What the machine owes goes onto the wire."""
        self.wire += self.streams.frames_to_send()

    def put(self, pieces: Sequence[Piece]) -> None:
        self.wire += [(kind, stream, bytes(body)) for kind, stream, body in pieces]

    def take(self, events: list[StreamEvent]) -> list[StreamEvent]:
        self.events += events
        for event in events:
            if isinstance(event, StreamData):
                self.heard[event.stream] += event.data
                self.unread[event.stream] += len(event.data)
        return events

    def told(self, kind: type[Any]) -> list[Any]:
        """All events of a kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


class Pair:
    """Alice opened the connection."""

    def __init__(self, limits: StreamLimits = DEFAULT_LIMITS) -> None:
        self.now = 1000.0
        self.opening = b""  # H(opening call) of the last stream that was accepted
        self.alice, self.bob = End(Role.OPENER, ALICE), End(Role.OTHER, BOB)
        self.alice.begin(self.bob, limits)
        self.bob.begin(self.alice, limits)

    def other(self, end: End) -> End:
        return self.bob if end is self.alice else self.alice

    # --- what the shell does

    def open(self, end: End, *, signed: bool = True, body: bytes = b"", window: int = WINDOW_FIRST) -> int:
        stream = end.streams.open("copy", body, signed=signed, deadline=0, now=self.now, window=window)
        end.flush()
        return stream

    def opened(self, *, signed: bool = True, window: int = WINDOW_FIRST) -> int:
        """A stream that Alice opened and Bob has accepted."""
        stream = self.open(self.alice, signed=signed, window=window)
        self.exchange()
        self.bob.streams.accept(stream, self.now)
        self.exchange()
        self.opening = self.bob.told(StreamOffered)[-1].call.hash
        self.alice.events.clear()
        self.bob.events.clear()
        return stream

    def write(self, end: End, stream: int, data: bytes) -> int:
        """Write while there is room: how much was taken."""
        end.flush()
        view, taken = memoryview(data), 0
        while taken < len(data):
            size, pieces = end.streams.write(stream, view[taken:], self.now)
            if not size:
                break
            end.put(pieces)
            taken += size
        return taken

    def finish(self, end: End, stream: int) -> None:
        end.flush()
        end.put(end.streams.finish(stream, self.now))

    def reset(self, end: End, stream: int, text: str = "") -> None:
        end.streams.reset(stream, ReplyStatus.CANCELLED, text, self.now)
        end.flush()

    def read(self, end: End, stream: int, size: int | None = None) -> None:
        """The application takes what waits."""
        size = end.unread[stream] if size is None else size
        end.unread[stream] -= size
        end.streams.consumed(stream, size, self.now)
        end.flush()

    # --- the wire

    def move(self, end: End, *, merge: bool = True) -> list[StreamEvent]:
        """What one end owes goes to the other, runs of data put together. The other end's events."""
        end.flush()
        events: list[StreamEvent] = []
        frames = merged(end.wire) if merge else list(end.wire)
        end.wire.clear()
        for frame in frames:
            events += self.deliver(frame, to=self.other(end))
        return events

    def deliver(self, frame: Frame, *, to: End) -> list[StreamEvent]:
        return to.take(to.streams.receive(*frame, self.now))

    def exchange(self) -> None:
        """Move frames both ways until nobody owes any."""
        while self.move(self.alice) or self.move(self.bob) or self.alice.wire or self.bob.wire:
            pass

    def pump(self, sender: End, stream: int, data: bytes) -> None:
        """All of it goes over, read at once."""
        taken, receiver = 0, self.other(sender)
        while taken < len(data):
            taken += self.write(sender, stream, data[taken:])
            self.exchange()
            self.read(receiver, stream)
            self.exchange()

    # --- what no end of ours says

    def call(self, stream_body: bytes, *, member: Member = ALICE, **changes: Any) -> bytes:
        """The bytes of an opening call."""
        fields: dict[str, Any] = {
            "to": self.bob.member.node_id, "call_id": b"i" * 16, "first_h": H1, "method": "copy", "deadline": 0
        }  # fmt: skip
        return sign_call(local(member), LAB.mesh_id, **(fields | changes), body=stream_body)

    def segment(self, stream: int, *, member: Member = ALICE, to: Member = BOB, **changes: Any) -> bytes:
        """A segment by Alice for Bob, with anything changed."""
        names: dict[str, Any] = {"mesh_id": LAB.mesh_id, "first_h": H1, "stream": stream, "opening": self.opening}
        fields: dict[str, Any] = {"index": 0, "offset": 0, "digest": bytes(32), "final": False}
        named = SignedStream(**{key: changes.pop(key, value) for key, value in names.items()})
        return sign_segment(local(member), to.node_id, named, **(fields | changes))


def merged(frames: Sequence[Frame] | deque[Frame]) -> list[Frame]:
    """Runs of data of one stream as one frame each, as the session gives them."""
    found: list[Frame] = []
    for kind, stream, body in frames:
        if found and kind is DATA and found[-1][:2] == (kind, stream):
            found[-1] = kind, stream, found[-1][2] + body
        else:
            found.append((kind, stream, body))
    return found


def refused(deliver: Callable[[], object]) -> Reason:
    """Why this ends the link."""
    with pytest.raises(Refused) as caught:
        deliver()
    return caught.value.reason

