"""A link of mode 2 or 3: handshake, then a few control frames, and no lease. Bytes and time in, bytes and events out.

A guest is somebody who may not be on an open link yet, or no more: who joins has no certificate, who renews has one that
may have ended. Nothing of the application ever passes here. Rules:

- mode 2 carries JOIN and what answers it; mode 3 carries renewal, orders, what the authority says, and what moves trust
- all frames of the peer together have at most 256 KiB, what moves trust apart: 1 MiB, and so have the logs that a signer asks
  a joiner for: 18 MiB; the link lives for 60 s
- what a peer does never raises: it is the last event
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from overlay.core import limits
from overlay.core.admission import pack_goodbye, unpack_goodbye
from overlay.core.frames import Frame, Reassembler, parse_frames
from overlay.core.handshake import Agreement, Entrance, Opener, Responder, Side
from overlay.core.outbox import Outbox
from overlay.core.records import Opener as RecordOpener
from overlay.core.records import RecordReader
from overlay.core.records import Sealer as RecordSealer
from overlay.core.session_events import Closed, Failed
from overlay.core.trust import VerifiedPeer
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import FrameType, Mode, Reason, Role

FRAMES: Final[Mapping[Mode, frozenset[FrameType]]] = MappingProxyType(
    {
        Mode.JOIN: frozenset(
            {
                FrameType.JOIN, FrameType.JOIN_CHALLENGE, FrameType.JOIN_ANSWER, FrameType.JOIN_RESULT, FrameType.EVIDENCE_PART,
                FrameType.TRUST_UPDATE,
            }
        ),
        Mode.RENEW: frozenset(
            {
                FrameType.RENEWAL, FrameType.JOIN_RESULT, FrameType.AUTHORITY_OBJECT, FrameType.AUTHORITY_ROUND,
                FrameType.ORDER, FrameType.TRUST_UPDATE,
            }
        ),
    }
)

_TRUST: Final = FrameType.TRUST_UPDATE
_LOGS: Final = FrameType.EVIDENCE_PART


@dataclass(frozen=True, slots=True)
class GuestReady:
    """Both ends hold keys."""

    mode: Mode
    peer: VerifiedPeer | None  # None: a joiner
    first_h: bytes = field(repr=False)  # h(1), which names this link


@dataclass(frozen=True, slots=True)
class GuestFrame:
    """A frame of the peer, whole."""

    type: FrameType
    body: bytes = field(repr=False)


GuestEvent = GuestReady | GuestFrame | Closed | Failed


class GuestSession:
    """The machine of one such link, seen from one end."""

    def __init__(self, role: Role, entrance: Entrance, sides: Callable[[Mode], Side | None], now: float, mode: Mode) -> None:
        """`mode` is what an opener asks for; a responder takes what `sides` has a side for."""
        self.role = role
        self.mode = mode
        self.first_h = b""
        self.peer: VerifiedPeer | None = None
        self.closed = False
        self._began = now
        self._ready = False
        most = limits.GUEST_ANSWER_MAX if role is Role.OPENER else limits.GUEST_BYTES_MAX
        logs = most if role is Role.OPENER else limits.JOIN_LOGS_MAX  # who joins sends them, who signs asks
        self._left = {_TRUST: limits.TRUST_UPDATE_MAX, _LOGS: logs, None: most}  # bytes the peer may say; None: all else
        self._outbox = Outbox()
        self._reader = RecordReader(maximum=limits.HANDSHAKE_MESSAGE_MAX)
        self._reassembler = Reassembler(lambda kind: limits.TRUST_UPDATE_MAX if kind is _TRUST else most)
        self._hello: bytes | None = None
        self._answered = False  # message 2 is out
        self._opener: Opener | None = None
        self._responder: Responder | None = None
        self._events: list[GuestEvent] = []
        if role is Role.OPENER:
            side = sides(mode)
            if side is None:
                raise LocalProtocolError(f"no side for mode {mode.name.lower()}")
            self._opener = Opener(entrance, side, mode)
            self._outbox.raw(self._opener.first_bytes)
        else:
            self._responder = Responder(entrance, lambda asked: sides(asked) if asked in FRAMES else None)

    @property
    def deadline(self) -> float:
        """When `tick` is due; math.inf for never."""
        if self.closed:
            return math.inf
        return self._began + (limits.GUEST_LIFE if self._ready else limits.HANDSHAKE_TIMEOUT)

    def receive(self, data: bytes | bytearray | memoryview, now: float) -> list[GuestEvent]:
        """Bytes from the peer. A writable buffer is overwritten."""
        del now
        return self._run(lambda: self._take(data))

    def eof(self, now: float) -> list[GuestEvent]:
        """The connection ended."""
        del now
        return self._run(lambda: _refuse(Reason.LOST, "the connection ended without GOODBYE"))

    def tick(self, now: float) -> list[GuestEvent]:
        """Time in."""
        if now < self.deadline:
            return []
        return self._run(lambda: _refuse(Reason.TIMEOUT, "a guest has had its time" if self._ready else "handshake"))

    def data_to_send(self) -> bytes:
        """What we owe the wire: call it until it gives nothing."""
        return self._outbox.take()

    def send(self, kind: FrameType, body: bytes) -> None:
        """Queue a frame, in parts if it is long; nothing happens once the link has ended."""
        if kind not in FRAMES[self.mode] or not self._ready:
            raise LocalProtocolError(f"{kind.name} to a guest of mode {self.mode.name.lower()}")
        if not self.closed:
            self._outbox.put(kind, 0, body)

    def close(self, reason: Reason) -> list[GuestEvent]:
        """Say GOODBYE and end the link."""
        return self._run(lambda: self._leave(reason))

    def fail(self, reason: Reason, detail: str) -> list[GuestEvent]:
        """End the link for what the peer asked for."""
        return self._run(lambda: _refuse(reason, detail))

    # --- one guard around every verb --------------------------------------------------------------------------------

    def _run(self, step: Callable[[], None]) -> list[GuestEvent]:
        if self.closed:
            return []
        self._events = []
        try:
            step()
        except Refused as error:
            if self._ready and error.reason is not Reason.LOST:
                self._outbox.put_last(FrameType.GOODBYE, pack_goodbye(error.reason))
            self.closed = True
            self._events.append(Failed(error.reason, error.detail))
        return self._events

    def _leave(self, reason: Reason) -> None:
        if self._ready:
            self._outbox.put_last(FrameType.GOODBYE, pack_goodbye(reason))
        self.closed = True
        self._events.append(Closed(reason, by_peer=False))

    # --- bytes ------------------------------------------------------------------------------------------------------

    def _take(self, data: bytes | bytearray | memoryview) -> None:
        self._reader.feed(data)
        if self._responder is not None and self._hello is None:
            self._hello = self._reader.take(limits.HELLO_SIZE)
            if self._hello is None:
                return
        while not self.closed:
            record = self._reader.next_record()
            if record is None:
                return
            if self._ready:
                self._frames(self._record_opener.open_in_place(record))
            else:
                self._handshake(bytes(record))

    def _handshake(self, message: bytes) -> None:
        if self._opener is not None:
            answer, agreement = self._opener.message_2(message)
            self._outbox.raw(answer)
            self._agree(agreement)
            return
        assert self._responder is not None and self._hello is not None
        if self._answered:
            self._agree(self._responder.message_3(message))
            return
        self._outbox.raw(self._responder.message_1(self._hello, message))
        self._answered, self.mode = True, self._responder.mode

    def _agree(self, agreement: Agreement) -> None:
        keys = agreement.keys
        self._outbox.begin(RecordSealer(keys.sending(self.role)))
        self._record_opener = RecordOpener(keys.receiving(self.role))
        self._reader.maximum = limits.RECORD_MAX
        self.first_h, self.peer, self._ready = keys.h, agreement.shown, True
        self._events.append(GuestReady(self.mode, agreement.shown, keys.h))

    def _frames(self, plaintext: memoryview) -> None:
        for frame in parse_frames(plaintext):
            if frame.type is FrameType.GOODBYE:
                self._goodbye(unpack_goodbye(frame.body))
                return
            if frame.type not in FRAMES[self.mode] or frame.stream:
                raise Refused(Reason.UNEXPECTED_FRAME, f"{frame.type.name} on a link of mode {self.mode.name.lower()}")
            self._count(frame)
            whole = self._reassembler.add(frame)
            if whole is not None:
                self._events.append(GuestFrame(whole.type, whole.body))

    def _count(self, frame: Frame) -> None:
        kind = frame.type if frame.type in self._left else None
        self._left[kind] -= limits.FRAME_HEADER + len(frame.body)
        if self._left[kind] < 0:
            raise Refused(Reason.TOO_LARGE, "a guest has said too much")

    def _goodbye(self, reason: Reason) -> None:
        self.closed = True
        self._events.append(Closed(reason, by_peer=True))


def _refuse(reason: Reason, detail: str) -> None:
    raise Refused(reason, detail)
