"""Targets: a link whose peer is authentic and says anything. The input is a list of steps: `what u8 | length u16 | bytes`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from overlay.core.frames import pack_message
from overlay.core.limits import FRAME_BODY_MAX
from overlay.core.mesh.replication_frames import open_heads, open_items, open_want
from overlay.core.messages import sign_call, sign_reply
from overlay.core.outbox import ROOM
from overlay.core.rpc import CallReceived, Calls
from overlay.core.segments import SignedStream, sign_segment
from overlay.core.session_events import Closed, Event, Failed, MessageReceived, NonceReceived
from overlay.core.session_states import ADMISSION, State
from overlay.core.stream_events import StreamData, StreamOffered
from overlay.core.stream_formats import pack_opening
from overlay.core.wire import sha256
from overlay.errors import Refused, UsageError
from overlay.registry import ChainKind, FrameType, Reason, ReplyStatus
from tests.fuzz.kit import admitting_pair, cut, hear_in_pieces, open_pair
from tests.unit.core.authority_kit import make_member
from tests.unit.core.session_kit import ALICE, BOB, LAB, Pair, evidence_for, local, raw_frame

STEPS_MAX: Final = 24
BOB_LATER: Final = make_member(LAB, "bob", not_before=LAB.at)
REPLICATION: Final = {FrameType.HEADS: open_heads, FrameType.WANT: open_want, FrameType.ITEMS: open_items}


def steps(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The steps of an input; a length that is too long takes the rest."""
    for _ in range(STEPS_MAX):
        if len(data) < 3:
            return
        end = 3 + int.from_bytes(data[1:3], "big")
        yield data[0], data[3:end]
        data = data[end:]


def link(data: bytes) -> None:
    """An open link: records, frames, signed calls and segments, streams, rekeys, time; Bob's shell does its part."""
    _Talk(open_pair()).play(data)


def admission(data: bytes) -> None:
    """The same before anything is proven; Bob has his evidence at hand."""
    talk = _Talk(admitting_pair())
    talk.do(lambda pair: pair.bob.session.supply_evidence(evidence_for(pair.bob.wanted), pair.now))
    talk.play(data)


def cuts(data: bytes) -> None:
    """What Alice says on an open link comes to the same whole and in pieces of any size."""
    first, rest = cut(data)
    talk = _Dictation(open_pair())
    talk.play(rest)
    wire = bytes(talk.said)
    size = max(1 + first * first, len(wire) // 200)  # two hundred pieces are enough
    assert hear_in_pieces(wire, range(size, len(wire), size)) == hear_in_pieces(wire, ())


class _Talk:
    """Alice says what the input wants and Bob is the one who is watched."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.session = session = pair.bob.session
        self.running: dict[bytes, CallReceived] = {}  # calls of Alice's, by hash
        self.token = bytes(32)  # of Bob's last call
        self.asked = 0
        self.proven = False  # Alice, in admission
        self.opening = bytes(32)  # hash of the last opening call
        self.alice = local(ALICE)
        self.calls = Calls(
            identity=lambda: local(BOB), mesh_id=LAB.mesh_id, first_h=session.first_h, chance=session._config.handshake.chance,
            seen=session._config.seen_calls, send=self._send,
        )
        self.acts: tuple[Callable[[bytes], None], ...] = (
            self.record, self.frame, self.call, self.open_stream, self.segment, self.data, self.time, self.honest, self.ours,
            self.wire,
        )

    def play(self, data: bytes) -> None:
        for what, said in steps(data):
            if self.session.state is State.CLOSED:
                break
            self.acts[what % len(self.acts)](said)
        self.session.data_to_send()
        self.do(lambda pair: self.session.eof(pair.now))
        assert self.session.state is State.CLOSED and self.session.lease is None
        assert self.session.receive(b"\0\x10" + bytes(16), self.pair.now) == []

    # --- what Alice does

    def record(self, plaintext: bytes) -> None:
        """Any plaintext that is long enough."""
        if plaintext:
            self.hear(self.pair.alice.sealer.seal(plaintext))

    def frame(self, said: bytes) -> None:
        """A frame with a header that fits: type, flags, stream."""
        if len(said) >= 3:
            self.record(raw_frame(said[0], said[3:][:FRAME_BODY_MAX], flags=said[1], stream=said[2]))

    def call(self, said: bytes) -> None:
        """A signed call, or a reply to Bob's last one."""
        stream, body = cut(said)
        first_h = self.session.first_h
        if stream & 0x80:
            raw = sign_reply(
                self.alice, LAB.mesh_id, to=BOB.node_id, call_hash=self.token, index=stream >> 2 & 7, final=not stream & 2,
                status=ReplyStatus(stream & 1), body=body,
            )
            self._message(FrameType.REPLY, 2 * self.asked, raw)
        else:
            raw = sign_call(
                self.alice, LAB.mesh_id, to=BOB.node_id, call_id=sha256(body)[:16], first_h=first_h, method="fuzz", deadline=0,
                body=body,
            )
            self._message(FrameType.CALL, stream, raw)

    def open_stream(self, said: bytes) -> None:
        """A signed opening call."""
        stream, body = cut(said)
        packed = body if stream & 0x80 else pack_opening(body, signed=bool(stream & 0x40))
        raw = sign_call(
            self.alice, LAB.mesh_id, to=BOB.node_id, call_id=sha256(said)[:16], first_h=self.session.first_h, method="fuzz",
            deadline=0, body=packed,
        )
        self.opening = sha256(raw)
        self._message(FrameType.STREAM_OPEN, stream & 0x3F, raw)

    def segment(self, said: bytes) -> None:
        """A signed segment: stream, index, offset, whether it is the final one, hash."""
        stream, rest = cut(said)
        named = SignedStream(mesh_id=LAB.mesh_id, first_h=self.session.first_h, stream=stream, opening=self.opening)
        raw = sign_segment(
            self.alice, BOB.node_id, named, index=int.from_bytes(rest[:1], "big"), offset=int.from_bytes(rest[1:4], "big"),
            digest=rest[5:37].ljust(32, b"\0"), final=bool(rest[4:5].strip(b"\0")),
        )
        self._message(FrameType.STREAM_SEGMENT, stream, raw)

    def data(self, said: bytes) -> None:
        """Records that are all bulk data: stream, how many bytes in units of 256, how often."""
        stream, rest = cut(said)
        size, often = int.from_bytes(rest[:1], "big") * 256, rest[1:2]
        record = raw_frame(FrameType.STREAM_DATA, bytes(size), stream=stream)
        self.hear(b"".join(self.pair.alice.sealer.seal(record) for _ in range(1 + int.from_bytes(often, "big") % 8)))

    def time(self, said: bytes) -> None:
        """Tenths of a second pass."""
        self.pair.now += int.from_bytes(said[:2], "big") / 10
        self.do(lambda pair: self.session.tick(pair.now))

    def honest(self, said: bytes) -> None:
        """Alice does what is due; both exchange what they owe, as far as it goes."""
        del said
        pair = self.pair
        if pair.alice.session.state in ADMISSION and not self.proven:
            self.proven = True
            pair.prove(pair.alice, pair.alice.events)
        pair.tick(pair.alice)
        for _ in range(6):
            self.hear(pair.alice.session.data_to_send())
            answer = self.session.data_to_send()
            if answer:
                pair.prove(pair.alice, pair.alice.take(pair.alice.session.receive(answer, pair.now)))

    def wire(self, said: bytes) -> None:
        """Bytes that nobody sealed."""
        self.hear(said)

    def _message(self, kind: FrameType, stream: int, raw: bytes) -> None:
        for part in pack_message(kind, stream, raw):
            self.record(part)

    # --- what Bob's shell does

    def ours(self, said: bytes) -> None:
        """Bob uses his link: what, and with which stream."""
        what, rest = cut(said)
        stream, body = cut(rest)
        if self.session.state is State.OPEN:
            self.do(partial(self._use, what % 8, stream, body))

    def _use(self, what: int, stream: int, body: bytes, pair: Pair) -> list[Event] | None:
        session, now = self.session, pair.now
        if what == 0:
            session.change_credentials(local(BOB_LATER))
        elif what == 1:
            session.open_round(1 + stream)
        elif what == 2:
            session.probe(now, within=2.0)
        elif what == 3:
            session.woke(now, within=2.0)
        elif what == 4:
            self._call(body)
        elif what == 5:
            session.streams.open("fuzz", body, signed=bool(stream & 1), deadline=0, now=now)
            session.stirred()
        elif what == 6:
            return session.close(Reason.SHUTDOWN)
        else:
            self._write(stream, body)
        return None

    def _call(self, body: bytes) -> None:
        """Bob calls; a call that begins with "c" he cancels at once."""
        self.asked += 1
        self.token = self.calls.call(ALICE.node_id, 2 * self.asked, f"fuzz{self.asked}", body, 0)
        if body[:1] == b"c":
            self.calls.cancel(self.token)

    def _write(self, stream: int, body: bytes) -> None:
        """On a stream that there is: bytes, the end of them, or no more of it."""
        session, now = self.session, self.pair.now
        if session.streams.room(stream) == 0:
            return
        session.data_to_send()
        session.write_stream(stream, memoryview(body), now, memoryview(bytearray(ROOM)))
        if body[:1] == b"e":
            session.finish_stream(stream, now)
        elif body[:1] == b"r":
            session.streams.reset(stream, ReplyStatus.CANCELLED, "enough", now)

    # --- what must hold

    def hear(self, data: bytes) -> None:
        if data and self.session.state is not State.CLOSED:
            self.do(lambda pair: self.session.receive(bytearray(data), pair.now))

    def do(self, act: Callable[[Pair], list[Event] | None]) -> None:
        """One verb: its reason comes last, exactly when the link has ended, and events go up as in the shell."""
        was = self.session.state
        try:
            events = act(self.pair) or []
        except UsageError:
            events = []
        ends = [isinstance(event, Failed | Closed) for event in events]
        assert was is not State.CLOSED or not events
        assert not any(ends[:-1])
        assert was is State.CLOSED or (self.session.state is State.CLOSED) == bool(ends and ends[-1])
        self.pair.bob.events += events
        for event in events:
            self._above(event)

    def _above(self, event: Event) -> None:
        """What the shell makes of an event; what is refused there ends the link."""
        if self.session.state is not State.OPEN:
            return
        try:
            self._use_event(event)
        except Refused as error:
            self.session.fail(error.reason, error.detail)

    def _use_event(self, event: Event) -> None:
        session, now = self.session, self.pair.now
        if isinstance(event, StreamOffered) and len(event.opening.body) % 4 != 3:
            session.streams.accept(event.stream, now)
        elif isinstance(event, StreamOffered):
            session.streams.refuse(event.stream, ReplyStatus.NOT_ALLOWED, "no", now)
        elif isinstance(event, NonceReceived):
            session.send_evidence(event.number, evidence_for(event.binding))
        elif isinstance(event, StreamData):
            session.streams.consumed(event.stream, len(event.data), now)
        elif isinstance(event, MessageReceived) and event.type in REPLICATION:
            REPLICATION[event.type](ChainKind.TOPIC, event.body)
        elif isinstance(event, MessageReceived):
            self._message_came(event)
        session.stirred()

    def _message_came(self, event: MessageReceived) -> None:
        """Handlers: one answers at once, one in parts, one only when it is cancelled."""
        calls, raw, stream = self.calls, event.body, event.stream
        if event.type is FrameType.CALL:
            for received in calls.on_call(raw, stream, event.peer, self.pair.calendar().timestamp()):
                self.running[received.call.hash] = received
                self._go_on(received)
        elif event.type is FrameType.REPLY:
            for reply in calls.on_reply(raw, stream, event.peer):
                calls.taken(reply.token, reply.body)
        elif event.type is FrameType.CANCEL:
            for token in calls.on_cancel(raw, stream):
                calls.reply(self.running.pop(token), ReplyStatus.CANCELLED)
        elif event.type is FrameType.REPLY_CREDIT:
            for token in calls.on_credit(raw, stream):
                self._go_on(self.running[token])

    def _go_on(self, received: CallReceived) -> None:
        kind = received.call.body[:1]
        if kind == b"p" and self.calls.has_credit(received):
            self.calls.part(received, received.call.body)
        elif kind not in (b"p", b"w"):
            self.calls.reply(self.running.pop(received.call.hash), ReplyStatus.OK, b"ok")

    def _send(self, kind: FrameType, stream: int, body: bytes) -> None:
        self.session.send(kind, stream, body, self.pair.now)


class _Dictation(_Talk):
    """Alice alone: what she says is written down, and Bob hears it later."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair)
        self.said = bytearray()
        self.acts = (self.record, self.frame, self.call, self.open_stream, self.segment, self.data)

    def hear(self, data: bytes) -> None:
        self.said += data
