"""The streams of one link: opens, credit, segments and ends. Frames and time in, frames and events out.

Sans-IO: it neither seals nor keeps the bytes of a stream. `write` and `finish` give pieces that must be sealed at once and in
order, after everything that `frames_to_send` gave. `receive` and `tick` raise Refused, which ends the link. A stream is held
until both directions have ended and all its bytes were read, or until `reset`: whoever drops a stream unread calls that.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

from overlay.core.chance import Chance
from overlay.core.identity import LocalIdentity
from overlay.core.limits import (
    FRAME_BODY_MAX,
    METHOD_MAX,
    SEGMENT_AFTER,
    SEGMENT_BYTES,
    UNSIGNED_AFTER,
    WINDOW_FIRST,
    WRITE_MAX,
    StreamLimits,
)
from overlay.core.messages import CALL_ID_SIZE, sign_call, verify_call
from overlay.core.rpc import SeenCalls
from overlay.core.segments import Data, SegmentReader, SegmentWriter, SignedStream
from overlay.core.stream_credit import DEFAULT_LIMITS, Budget, Window
from overlay.core.stream_events import (
    StreamAccepted,
    StreamBroken,
    StreamData,
    StreamEnded,
    StreamEvent,
    StreamOffered,
    StreamRoom,
    StreamSigned,
)
from overlay.core.stream_formats import (
    Opening,
    pack_credit,
    pack_opening,
    pack_reset,
    unpack_credit,
    unpack_opening,
    unpack_reset,
)
from overlay.core.stream_states import PEER_ENDED, WRITABLE, State, Step, after_ours, after_peers
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import malformed, sha256
from overlay.errors import LocalProtocolError, Refused, UsageError
from overlay.registry import FrameType, Reason, ReplyStatus, Role

Piece = tuple[FrameType, int, bytes | memoryview]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamContext:
    """What a link gives to its streams. `identity` and `peer` are asked each time: credentials change under live links."""

    identity: Callable[[], LocalIdentity]
    mesh_id: bytes
    first_h: bytes
    peer: Callable[[], VerifiedPeer]
    seen: SeenCalls
    chance: Chance


class _Stream:
    """One stream. It changes in place: a new object for each 64 KiB would be a good part of what they cost."""

    __slots__ = ("credit", "incoming", "number", "outgoing", "sent", "state", "waiting", "window")

    def __init__(self, number: int, state: State, now: float, window: int, signed: SignedStream | None) -> None:
        self.number = number
        self.state = state
        self.waiting = True  # the open is not acknowledged
        self.credit = window  # bytes that we may have sent in all
        self.sent = 0
        self.window = Window(window, now)
        self.outgoing = None if signed is None else SegmentWriter(signed)
        self.incoming = None if signed is None else SegmentReader(signed)

    @property
    def room(self) -> int:
        """Bytes that we may write now."""
        return self.credit - self.sent if self.state in WRITABLE else 0


class Streams:
    """The multiplexer of one link, seen from one end. `next_id` gives ids of ours, which calls take, too."""

    def __init__(
        self, role: Role, context: StreamContext, next_id: Callable[[], int], limits: StreamLimits = DEFAULT_LIMITS
    ) -> None:
        self._parity = 1 if role is Role.OPENER else 0
        self._context = context
        self._next_id = next_id
        self._opens_max = limits.opens
        self._held: dict[int, _Stream] = {}
        self._highest = [0, 0]  # ids of streams ever opened, by parity
        self._waiting = [0, 0]  # opens that are not acknowledged, by parity
        self._budget = Budget(limits)
        self._late = 0  # bytes that the peer may have had under way on streams that we broke off
        self._queue: list[tuple[FrameType, int, bytes]] = []
        self._unsigned_out: dict[int, float] = {}  # since when, the oldest first
        self._unsigned_in: dict[int, float] = {}

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Streams that are held."""
        return len(self._held)

    @property
    def deadline(self) -> float:
        """When `tick` is due; math.inf for never."""
        out = next(iter(self._unsigned_out.values()), math.inf) + SEGMENT_AFTER
        return min(out, next(iter(self._unsigned_in.values()), math.inf) + UNSIGNED_AFTER)

    def room(self, stream: int) -> int:
        """Bytes that may be written now; none on a stream that is over."""
        held = self._held.get(stream)
        return 0 if held is None else held.room

    def takes(self, stream: int, size: int) -> bool:
        """Whether `receive` would not refuse so many bytes of data: then a run of frames may come as one."""
        held = self._held.get(stream)
        return held is not None and held.window.has_room(size) and (held.incoming is None or held.incoming.has_room(size))

    # --- our side ---------------------------------------------------------------------------------------------------

    def open(
        self, method: str, body: bytes, *, signed: bool, deadline: int, now: float, window: int = WINDOW_FIRST
    ) -> int:
        """Open a stream to a handler of the peer; data may follow at once. The stream id.

        `window` is how much each side may send before the other has read: small where many streams are to be open at once.

        Raises:
            UsageError: a name, body or window that there cannot be, or too many streams.
        """
        if not 0 < len(method.encode()) <= METHOD_MAX:
            raise UsageError(f"a stream's name has 1 to {METHOD_MAX} bytes")
        packed = pack_opening(body, signed=signed, window=window)
        if self._waiting[self._parity] >= self._opens_max:
            raise UsageError(f"{self._opens_max} streams wait to be accepted by this peer", hint="wait for some of them")
        if not self._budget.open(window):
            raise UsageError("streams with this peer take all the memory that a link may use", hint="end some of them")
        context = self._context
        raw = sign_call(
            context.identity(), context.mesh_id, to=context.peer().node_id, call_id=context.chance.token(CALL_ID_SIZE),
            first_h=context.first_h, method=method, deadline=deadline, body=packed,
        )
        stream = self._next_id()
        self._hold(_Stream(stream, State.OPENING, now, window, self._signed(stream, sha256(raw)) if signed else None))
        self._queue.append((FrameType.STREAM_OPEN, stream, raw))
        return stream

    def accept(self, stream: int, now: float) -> None:
        """Take a stream that the peer offered; nothing happens if it has broken it off meanwhile."""
        del now
        held = self._find(stream)
        if held is not None:
            held.state = after_ours(held.state, Step.ACCEPT)
            self._acknowledged(held)
            self._queue.append((FrameType.STREAM_CREDIT, stream, pack_credit(held.window.limit)))

    def refuse(self, stream: int, status: ReplyStatus, text: str, now: float) -> None:
        """Do not take a stream that the peer offered."""
        self.reset(stream, status, text, now)

    def write(self, stream: int, data: memoryview, now: float) -> tuple[int, list[Piece]]:
        """How many bytes of `data` (format B) were taken, and what to seal now. Takes none if there is no room.

        Raises:
            LocalProtocolError: `frames_to_send` holds something that must go first, or we have ended the stream.
        """
        held = self._to_write(stream)
        if held is None:
            return 0, []
        held.state = after_ours(held.state, Step.WRITE)
        count = min(len(data), held.room, WRITE_MAX)
        held.sent += count
        if held.outgoing is None:
            return count, _data_pieces(stream, data[:count])
        return count, self._signed_pieces(held, held.outgoing, data[:count], now)

    def finish(self, stream: int, now: float) -> list[Piece]:
        """End our direction: what to seal now. Nothing if the stream is over. Raises LocalProtocolError as `write` does."""
        del now
        held = self._to_write(stream)
        if held is None or held.state is State.CLOSED:
            return []
        state = after_ours(held.state, Step.END)
        end: Piece = (FrameType.STREAM_END, stream, b"")
        pieces = [end] if held.outgoing is None else [self._segment(held, held.outgoing, final=True), end]
        held.state = state
        self._forget_if_done(held)
        return pieces

    def reset(self, stream: int, status: ReplyStatus, text: str, now: float) -> None:
        """Break a stream off, both ways, and forget it; of one that is over, forget what was not read."""
        del now
        held = self._find(stream)
        if held is None:
            return
        if held.state not in PEER_ENDED:
            self._late += held.window.limit - held.window.received
        if held.state is not State.CLOSED:
            self._queue.append((FrameType.STREAM_RESET, stream, pack_reset(status, text)))
        self._forget(held)

    def consumed(self, stream: int, count: int, now: float) -> None:
        """The reader took so many bytes."""
        held = self._find(stream)
        if held is None:
            return
        held.state = after_ours(held.state, Step.READ)
        window = held.window
        if count > window.received - window.consumed:
            raise LocalProtocolError("more bytes read than came")
        window.consumed += count
        if held.state not in PEER_ENDED and window.renew(now, self._budget):
            self._queue.append((FrameType.STREAM_CREDIT, stream, pack_credit(window.limit)))
        self._forget_if_done(held)

    def frames_to_send(self) -> list[tuple[FrameType, int, bytes]]:
        """What we owe the wire, in order. A STREAM_OPEN may be longer than a frame."""
        frames, self._queue = self._queue, []
        return frames

    # --- the peer and time ------------------------------------------------------------------------------------------

    def receive(self, kind: FrameType, stream: int, body: Data, now: float) -> list[StreamEvent]:
        """A frame of the peer; a run of STREAM_DATA may come as one. Raises Refused, which ends the link."""
        held = self._held.get(stream)
        if held is None:
            return self._not_held(kind, stream, body, now)
        match kind:
            case FrameType.STREAM_DATA:
                return self._on_data(held, body, now)
            case FrameType.STREAM_CREDIT:
                return self._on_credit(held, unpack_credit(bytes(body)))
            case FrameType.STREAM_SEGMENT:
                return self._on_segment(held, bytes(body))
            case FrameType.STREAM_END:
                return self._on_end(held, body)
            case FrameType.STREAM_RESET:
                return self._on_reset(held, *unpack_reset(bytes(body)))
            case _:
                raise Refused(Reason.FLOW_CONTROL, f"{kind.name} on a stream that is open")

    def tick(self, now: float) -> list[StreamEvent]:
        """Time in: sign what has waited for a second. Raises Refused(UNSIGNED) if the peer does not."""
        if now >= next(iter(self._unsigned_in.values()), math.inf) + UNSIGNED_AFTER:
            raise Refused(Reason.UNSIGNED, f"bytes without a segment for {UNSIGNED_AFTER:.0f} s")
        due = takewhile(lambda stream: now >= self._unsigned_out[stream] + SEGMENT_AFTER, self._unsigned_out)
        for held in [self._held[stream] for stream in due]:
            assert held.outgoing is not None
            self._queue.append(self._segment(held, held.outgoing))
        return []

    def end_all(self, status: ReplyStatus, text: str) -> list[StreamEvent]:
        """The link has ended: every stream that is not over is broken."""
        broken = [StreamBroken(held.number, status, text) for held in self._held.values() if held.state is not State.CLOSED]
        for held in list(self._held.values()):
            self._forget(held)
        self._queue = []
        return list(broken)

    # --- frames of the peer -----------------------------------------------------------------------------------------

    def _on_data(self, held: _Stream, body: Data, now: float) -> list[StreamEvent]:
        state, size = after_peers(held.state, Step.GOT_DATA), len(body)
        if not size:
            malformed("a frame of data without data")
        held.window.check(size)
        if held.incoming is not None:
            held.incoming.add(body)
            self._unsigned_in.setdefault(held.number, now)
        held.window.received += size
        held.state = state
        return [StreamData(held.number, body)]

    def _on_segment(self, held: _Stream, raw: bytes) -> list[StreamEvent]:
        state = after_peers(held.state, Step.GOT_SEGMENT)
        if held.incoming is None:
            raise Refused(Reason.FLOW_CONTROL, "a segment on a stream that is not signed")
        found = held.incoming.check(raw, own_id=self._context.identity().node_id, peer=self._context.peer())
        self._unsigned_in.pop(held.number, None)
        held.state = state
        return [StreamSigned(held.number, found.offset, found.final, raw)]

    def _on_credit(self, held: _Stream, limit: int) -> list[StreamEvent]:
        state = after_peers(held.state, Step.GOT_CREDIT)
        if limit < held.credit:
            raise Refused(Reason.FLOW_CONTROL, "a credit that falls")
        events: list[StreamEvent] = []
        if held.waiting and held.number & 1 == self._parity:
            self._acknowledged(held)
            events.append(StreamAccepted(held.number))
        if held.credit == held.sent < limit and state in WRITABLE:
            events.append(StreamRoom(held.number))
        held.credit, held.state = limit, state
        return events

    def _on_end(self, held: _Stream, body: Data) -> list[StreamEvent]:
        state = after_peers(held.state, Step.GOT_END)
        if body:
            malformed("an end with a body")
        self._unsigned_in.pop(held.number, None)
        held.state = state
        self._forget_if_done(held)
        return [StreamEnded(held.number, truncated=held.incoming is not None and not held.incoming.final)]

    def _on_reset(self, held: _Stream, status: ReplyStatus, text: str) -> list[StreamEvent]:
        """What had come before may still be read, unless nobody has taken the stream."""
        before = held.state
        held.state = after_peers(before, Step.GOT_RESET)
        if before is State.CLOSED:
            return []
        if held.waiting:
            self._forget(held)
        else:
            self._silence(held)
            self._forget_if_done(held)
        return [StreamBroken(held.number, status, text)]

    def _not_held(self, kind: FrameType, stream: int, body: Data, now: float) -> list[StreamEvent]:
        """Opens; frames of streams that are over were under way and are dropped, as much data as had credit."""
        if kind is FrameType.STREAM_OPEN:
            return self._on_open(stream, bytes(body), now)
        if not 0 < stream <= self._highest[stream & 1]:
            raise Refused(Reason.FLOW_CONTROL, f"{kind.name} on stream {stream}, which nobody opened")
        if kind is FrameType.STREAM_DATA:
            if len(body) > self._late:
                raise Refused(Reason.FLOW_CONTROL, "data on a stream that is over")
            self._late -= len(body)
        return []

    def _on_open(self, stream: int, raw: bytes, now: float) -> list[StreamEvent]:
        context, parity = self._context, stream & 1
        if parity == self._parity or stream <= self._highest[parity]:
            raise Refused(Reason.FLOW_CONTROL, f"stream {stream} cannot be opened")
        if self._waiting[parity] >= self._opens_max:
            raise Refused(Reason.FLOW_CONTROL, f"more than {self._opens_max} opens wait for an answer")
        own, peer = context.identity(), context.peer()
        call = verify_call(raw, own_id=own.node_id, mesh_id=context.mesh_id, first_h=context.first_h, peer=peer)
        opening = unpack_opening(call.body)
        self._highest[parity] = stream
        if not self._budget.open(opening.window):  # before it is remembered: it does not run, and may come again
            return self._turn_away(stream, opening, ReplyStatus.BUSY)
        if not context.seen.first_time(call.caller, peer.start_id, call.call_id):
            self._budget.give_back(opening.window)
            return self._turn_away(stream, opening, ReplyStatus.REPEATED)
        signed = self._signed(stream, call.hash) if opening.signed else None
        self._hold(_Stream(stream, State.OFFERED, now, opening.window, signed))
        return [StreamOffered(stream, call, opening)]

    def _turn_away(self, stream: int, opening: Opening, status: ReplyStatus) -> list[StreamEvent]:
        self._late += opening.window
        self._queue.append((FrameType.STREAM_RESET, stream, pack_reset(status, "")))
        return []

    # --- what is held -----------------------------------------------------------------------------------------------

    def _signed(self, stream: int, opening: bytes) -> SignedStream:
        context = self._context
        return SignedStream(mesh_id=context.mesh_id, first_h=context.first_h, stream=stream, opening=opening)

    def _hold(self, held: _Stream) -> None:
        parity = held.number & 1
        self._held[held.number] = held
        self._highest[parity] = held.number
        self._waiting[parity] += 1

    def _find(self, stream: int) -> _Stream | None:
        """None for a stream that is over; raises LocalProtocolError for one that never was."""
        held = self._held.get(stream)
        if held is None and not 0 < stream <= self._highest[stream & 1]:
            raise LocalProtocolError(f"stream {stream} was never opened")
        return held

    def _to_write(self, stream: int) -> _Stream | None:
        if self._queue:  # an open, a credit or a segment would come after data that it must precede
            raise LocalProtocolError("frames_to_send comes before what is written")
        return self._find(stream)

    def _acknowledged(self, held: _Stream) -> None:
        if held.waiting:
            held.waiting = False
            self._waiting[held.number & 1] -= 1

    def _silence(self, held: _Stream) -> None:
        """Nothing more goes or is due on it."""
        self._unsigned_in.pop(held.number, None)
        self._unsigned_out.pop(held.number, None)

    def _forget_if_done(self, held: _Stream) -> None:
        if held.state is State.CLOSED and held.window.consumed == held.window.received:
            self._forget(held)

    def _forget(self, held: _Stream) -> None:
        del self._held[held.number]
        self._silence(held)
        self._acknowledged(held)
        self._budget.give_back(held.window.size)

    # --- pieces -----------------------------------------------------------------------------------------------------

    def _signed_pieces(self, held: _Stream, outgoing: SegmentWriter, data: memoryview, now: float) -> list[Piece]:
        """Runs as long as they get, each hashed whole, with a segment at each MiB."""
        pieces: list[Piece] = []
        while data:
            run = data[: SEGMENT_BYTES - outgoing.unsigned]
            outgoing.add(run)
            pieces += _data_pieces(held.number, run)
            if outgoing.unsigned == SEGMENT_BYTES:
                pieces.append(self._segment(held, outgoing))
            data = data[len(run) :]
        if outgoing.unsigned:
            self._unsigned_out.setdefault(held.number, now)
        return pieces

    def _segment(self, held: _Stream, outgoing: SegmentWriter, *, final: bool = False) -> tuple[FrameType, int, bytes]:
        """The segment that is due here; nothing is unsigned after it."""
        self._unsigned_out.pop(held.number, None)
        raw = outgoing.sign(self._context.identity(), self._context.peer().node_id, final=final)
        return FrameType.STREAM_SEGMENT, held.number, raw


def _data_pieces(stream: int, data: memoryview) -> list[Piece]:
    """Slices, no copies, as few as frames allow and equally long: a few bytes more in a frame of their own cost much of one."""
    if not data:
        return []
    count = -(-len(data) // FRAME_BODY_MAX)
    size = -(-len(data) // count)
    return [(FrameType.STREAM_DATA, stream, data[start : start + size]) for start in range(0, len(data), size)]
