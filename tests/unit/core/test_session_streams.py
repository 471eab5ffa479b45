"""Streams on a link: over real records, beside rekeys, new credentials and the end of a lease."""

from collections.abc import Callable
from typing import Any

import pytest

from overlay.core.frames import Frame, pack
from overlay.core.limits import (
    FRAME_BODY_MAX,
    SEGMENT_AFTER,
    SEGMENT_BYTES,
    WINDOW_FIRST,
    WRITE_MAX,
    AttestTimes,
    RekeyTimes,
)
from overlay.core.outbox import ROOM
from overlay.core.session import STREAM
from overlay.core.session_events import CredentialsChanged, Failed, MessageReceived, Opened, Rekeyed
from overlay.core.session_states import State
from overlay.core.stream_events import (
    StreamAccepted,
    StreamBroken,
    StreamData,
    StreamEnded,
    StreamOffered,
    StreamRoom,
    StreamSigned,
)
from overlay.core.stream_formats import Opening, pack_credit
from overlay.errors import LocalProtocolError, UsageError
from overlay.registry import FrameType, Reason, ReplyStatus
from tests.unit.core.authority_kit import Member, make_member
from tests.unit.core.session_kit import LAB, MORE, End, Pair, flip, local, raw_frame, records, refusal

DATA, CALL = FrameType.STREAM_DATA, FrameType.CALL
QUICK = RekeyTimes(pause=0.0)


class Talk(Pair):
    """Both open; what a shell does with streams."""

    @classmethod
    def begin(cls, **options: Any) -> "Talk":
        talk = cls(**options)
        talk.exchange()
        return talk

    def open(self, end: End, *, signed: bool = True, body: bytes = b"") -> int:
        stream = end.session.streams.open("copy", body, signed=signed, deadline=0, now=self.now)
        end.session.stirred()
        return stream

    def accept(self, end: End, stream: int) -> None:
        end.session.streams.accept(stream, self.now)
        end.session.stirred()

    def opened(self, *, signed: bool = True) -> int:
        """A stream of Alice's that Bob has accepted; what was told so far is forgotten."""
        stream = self.open(self.alice, signed=signed)
        self.exchange()
        self.accept(self.bob, stream)
        self.exchange()
        for end in self.ends:
            end.events.clear()
        return stream

    def seal(self, end: End, stream: int, data: bytes) -> bytes:
        """The records of one write, all of it; nothing else may wait."""
        room = memoryview(bytearray(ROOM))
        taken, size = end.session.write_stream(stream, memoryview(data), self.now, room)
        assert taken == len(data)
        return bytes(room[:size])

    def write(self, end: End, stream: int, data: bytes) -> list[Any]:
        """The same, delivered behind what is queued."""
        return self.deliver(end.session.data_to_send() + self.seal(end, stream, data), to=self.other(end))

    def read(self, end: End, stream: int) -> None:
        """The application takes all that has come since."""
        count = sum(len(event.data) for event in told(end, StreamData) if event.stream == stream)
        end.events = [event for event in end.events if not isinstance(event, StreamData)]
        end.session.streams.consumed(stream, count, self.now)
        end.session.stirred()
        self.exchange()

    def finish(self, end: End, stream: int) -> list[Any]:
        end.session.finish_stream(stream, self.now)
        return self.move(end)

    def later(self, seconds: float, end: End) -> list[Any]:
        self.now += seconds
        return self.tick(end)


def told(end: End, kind: type[Any]) -> list[Any]:
    return [event for event in end.events if isinstance(event, kind)]


def heard(end: End, stream: int) -> bytes:
    """All bytes of a stream, in order."""
    return b"".join(event.data for event in told(end, StreamData) if event.stream == stream)


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes of which no two MiB are the same."""
    return b"".join((seed * 1_000_003 + block).to_bytes(32, "big") for block in range((size + 31) // 32))[:size]


# --- one stream, from beginning to end --------------------------------------------------------------------------------


def test_a_stream_opens_carries_bytes_both_ways_and_ends_signed() -> None:
    talk = Talk.begin()
    alice, bob = talk.ends
    stream = talk.open(alice, body=b"for the handler")
    [offered] = talk.move(alice)
    assert isinstance(offered, StreamOffered)
    assert (offered.stream, offered.opening, offered.call.method) == (1, Opening(True, b"for the handler"), "copy")
    talk.accept(bob, stream)
    assert talk.move(bob) == [StreamAccepted(stream)]
    assert talk.write(alice, stream, b"question") == [StreamData(stream, b"question")]
    assert talk.write(bob, stream, b"answer") == [StreamData(stream, b"answer")]
    for end, size in ((alice, 8), (bob, 6)):
        signed, ended = talk.finish(end, stream)
        assert isinstance(signed, StreamSigned) and (signed.offset, signed.final) == (size, True)
        assert ended == StreamEnded(stream, truncated=False)
    for end in talk.ends:
        talk.read(end, stream)
        assert end.session.streams.count == 0


def test_a_mebibyte_and_more_comes_signed_at_each_mebibyte() -> None:
    talk = Talk.begin()
    stream, data = talk.opened(), pattern(3 * SEGMENT_BYTES + 1000)
    sent = 0
    got = b""
    while sent < len(data):
        size = min(talk.alice.session.streams.room(stream), WRITE_MAX, len(data) - sent)
        talk.write(talk.alice, stream, data[sent : sent + size])
        sent += size
        got += heard(talk.bob, stream)
        talk.read(talk.bob, stream)
    talk.finish(talk.alice, stream)
    assert got == data
    assert [(event.offset, event.final) for event in told(talk.bob, StreamSigned)] == [
        (SEGMENT_BYTES, False), (2 * SEGMENT_BYTES, False), (3 * SEGMENT_BYTES, False), (len(data), True)
    ]  # fmt: skip


def test_what_is_not_signed_yet_is_signed_after_a_second_by_the_tick() -> None:
    talk = Talk.begin()
    stream = talk.opened()
    talk.write(talk.alice, stream, b"unsigned")
    assert talk.alice.session.deadline == talk.now + SEGMENT_AFTER
    talk.later(SEGMENT_AFTER, talk.alice)
    [signed] = talk.move(talk.alice)
    assert isinstance(signed, StreamSigned) and signed.offset == 8
    assert talk.alice.session.deadline > talk.now + SEGMENT_AFTER


def test_a_stream_without_segments_costs_none() -> None:
    talk = Talk.begin()
    stream = talk.opened(signed=False)
    talk.write(talk.alice, stream, bytes(100_000))
    talk.later(SEGMENT_AFTER, talk.alice)
    talk.exchange()
    assert talk.finish(talk.alice, stream) == [StreamEnded(stream, truncated=False)]
    assert told(talk.bob, StreamSigned) == []


def test_a_writer_waits_for_credit_and_is_told_when_there_is_some() -> None:
    talk = Talk.begin()
    stream = talk.opened()
    talk.write(talk.alice, stream, bytes(WINDOW_FIRST))
    room = memoryview(bytearray(ROOM))
    assert talk.alice.session.write_stream(stream, memoryview(b"more"), talk.now, room) == (0, 0)
    talk.read(talk.bob, stream)
    assert told(talk.alice, StreamRoom) == [StreamRoom(stream)]
    assert talk.write(talk.alice, stream, b"more") == [StreamData(stream, b"more")]


def test_a_stream_is_refused_and_the_link_goes_on() -> None:
    talk = Talk.begin()
    stream = talk.open(talk.alice)
    talk.exchange()
    talk.bob.session.streams.refuse(stream, ReplyStatus.NO_SUCH_METHOD, "no copies here", talk.now)
    assert talk.bob.session.stirred()
    assert talk.move(talk.bob) == [StreamBroken(stream, ReplyStatus.NO_SUCH_METHOD, "no copies here")]
    assert talk.states == (State.OPEN, State.OPEN)


def test_what_opens_a_stream_fits_into_one_frame_or_is_refused_at_once() -> None:
    """It never travels in parts, which the other end would refuse."""
    talk = Talk.begin()
    body = pattern(60 * 1024)
    talk.open(talk.alice, body=body)
    [offered] = talk.move(talk.alice)
    assert isinstance(offered, StreamOffered) and offered.opening.body == body
    for size in (FRAME_BODY_MAX, 500_000):
        with pytest.raises(UsageError):
            talk.open(talk.alice, body=bytes(size))
    talk.exchange()
    assert talk.states == (State.OPEN, State.OPEN), talk.bob.events


def test_both_sides_open_streams_and_ids_are_those_of_calls_too() -> None:
    talk = Talk.begin()
    assert talk.open(talk.alice) == 1
    assert talk.open(talk.bob) == 2
    talk.say(talk.alice, b"call")
    assert talk.open(talk.alice) == 5
    talk.exchange()
    assert [event.stream for event in told(talk.bob, StreamOffered)] == [1, 5]
    assert [event.stream for event in told(talk.alice, StreamOffered)] == [2]


def test_data_of_two_streams_and_a_call_come_in_the_order_in_which_they_were_sent() -> None:
    talk = Talk.begin()
    one, other = talk.opened(signed=False), talk.opened(signed=False)
    wire = talk.seal(talk.alice, one, b"1") + talk.seal(talk.alice, other, b"2") + talk.seal(talk.alice, one, b"3")
    talk.alice.session.send(CALL, 9, b"4", talk.now)
    wire += talk.alice.session.data_to_send() + talk.seal(talk.alice, one, b"5")
    events: list[Any] = talk.deliver(wire, to=talk.bob)
    assert [event.data if isinstance(event, StreamData) else event.body for event in events] == [b"1", b"2", b"3", b"4", b"5"]
    assert [event.stream for event in events] == [one, other, one, 9, one]


# --- records and runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 7, 1000, 65_537, 100_000, 10**9])
def test_the_same_bytes_come_however_tcp_cut_them(cut: int) -> None:
    """Data of one stream in one piece is one event; in many pieces it is many, with the same bytes."""
    talk = Talk.begin()
    stream, data = talk.opened(), pattern(200_000 if cut < 100 else WINDOW_FIRST)
    wire = talk.seal(talk.alice, stream, data)
    talk.alice.session.finish_stream(stream, talk.now)
    wire += talk.alice.session.data_to_send()
    for start in range(0, len(wire), cut):
        talk.deliver(wire[start : start + cut], to=talk.bob)
    assert heard(talk.bob, stream) == data
    assert [type(event) for event in talk.bob.events if not isinstance(event, StreamData)] == [StreamSigned, StreamEnded]
    if cut == 10**9:
        assert len(told(talk.bob, StreamData)) == 1


def test_events_hold_nothing_of_the_buffer_that_was_received_into() -> None:
    """The link uses it again at once: whatever was not copied would change under its reader."""
    talk = Talk.begin()
    stream, data = talk.opened(), pattern(150_000)
    alone = talk.seal(talk.alice, stream, b"one record")
    wire = talk.seal(talk.alice, stream, data)
    talk.alice.session.send(CALL, 9, b"a call", talk.now)
    talk.alice.session.finish_stream(stream, talk.now)
    wire += talk.alice.session.data_to_send()
    buffer = bytearray(140_000)  # two records and a half
    for data_in in [alone, *(wire[start : start + len(buffer)] for start in range(0, len(wire), len(buffer)))]:
        part = memoryview(buffer)[: len(data_in)]
        part[:] = data_in
        talk.bob.take(talk.bob.session.receive(part, talk.now))
        buffer[:] = bytes(len(buffer))
    assert heard(talk.bob, stream) == b"one record" + data
    assert [event.body for event in told(talk.bob, MessageReceived)] == [b"a call"]
    [signed] = told(talk.bob, StreamSigned)
    assert signed.offset == len(data) + 10 and signed.evidence.count(0) < 32


def test_a_writable_buffer_is_decrypted_where_it_lies_and_bytes_are_left_alone() -> None:
    talk = Talk.begin()
    stream = talk.opened()
    wire = talk.seal(talk.alice, stream, b"plain")
    before = bytes(bytearray(wire))
    talk.deliver(wire, to=talk.bob)
    assert wire == before
    buffer = bytearray(talk.seal(talk.alice, stream, b"plain"))
    talk.bob.take(talk.bob.session.receive(buffer, talk.now))
    assert b"plain" in buffer  # no second copy of all that comes
    assert heard(talk.bob, stream) == b"plainplain"


def bad_records(talk: Talk, stream: int) -> dict[str, Callable[[], bytes]]:
    """What ends the link, in the record behind good ones."""
    session = talk.alice.session

    def flipped() -> bytes:
        return flip(20)(talk.seal(talk.alice, stream, b"changed on the way"))

    def goodbye() -> bytes:
        session.close(Reason.SHUTDOWN)
        return session.data_to_send()

    def sealed(*frames: bytes) -> Callable[[], bytes]:
        return lambda: talk.alice.sealer.seal(b"".join(frames))

    return {
        "changed": flipped, "goodbye": goodbye,
        "empty data": sealed(pack(Frame(DATA, stream=stream))),
        "data beyond the credit": sealed(pack(Frame(DATA, stream=stream, body=bytes(60_000)))),
        "data on another stream": sealed(pack(Frame(DATA, stream=99, body=b"?"))),
        "data in parts": sealed(raw_frame(DATA, b"?", flags=MORE, stream=stream)),
        "no frame": sealed(b"?"),
        "data and another frame": sealed(pack(Frame(DATA, stream=stream, body=b"x")), pack(Frame(FrameType.CHALLENGE))),
        "too short": lambda: b"\x00\x03abc",
    }  # fmt: skip


@pytest.mark.parametrize("bad", list(bad_records(Talk(), 1)))
@pytest.mark.parametrize("together", [True, False])
def test_what_came_before_a_bad_record_is_delivered_before_the_end(bad: str, together: bool) -> None:
    talk = Talk.begin()
    stream, data = talk.opened(signed=False), pattern(WINDOW_FIRST - 1000)
    wire = talk.seal(talk.alice, stream, data) + bad_records(talk, stream)[bad]()
    for record in [wire] if together else records(wire):
        talk.deliver(record, to=talk.bob)
    got = heard(talk.bob, stream)
    assert got == data + (b"x" if bad == "data and another frame" else b"")
    assert all(isinstance(event, StreamData) for event in talk.bob.events[:-1])
    assert not isinstance(talk.bob.events[-1], StreamData)
    assert talk.bob.session.state is State.CLOSED


def test_a_run_that_does_not_fit_is_taken_as_far_as_it_fits() -> None:
    talk = Talk.begin()
    stream, data = talk.opened(signed=False), pattern(5 * FRAME_BODY_MAX)
    frames = [data[start : start + FRAME_BODY_MAX] for start in range(0, len(data), FRAME_BODY_MAX)]
    wire = b"".join(talk.alice.sealer.seal(pack(Frame(DATA, stream=stream, body=body))) for body in frames)
    last = talk.deliver(wire, to=talk.bob)[-1]
    assert isinstance(last, Failed) and last.reason is Reason.FLOW_CONTROL
    assert heard(talk.bob, stream) == data[: 4 * FRAME_BODY_MAX]


# --- frames out of place ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(STREAM))
def test_a_stream_frame_before_the_link_is_open_ends_it(kind: FrameType) -> None:
    """Not even when the peer has admitted us: no stream without a lease."""
    pair = Pair.admitting()
    assert refusal(pair.forge(pair.alice, Frame(kind, stream=1, body=b"x"))) is Reason.UNEXPECTED_FRAME
    pair, rogue = Pair.agreed()
    assert refusal(pair.forge(rogue, Frame(kind, stream=1, body=b"x"))) is Reason.UNEXPECTED_FRAME


@pytest.mark.parametrize("kind", sorted(STREAM))
def test_a_stream_frame_in_parts_is_malformed(kind: FrameType) -> None:
    talk = Talk.begin()
    stream = talk.opened()
    events = talk.forge(talk.alice, raw_frame(kind, b"x", flags=MORE, stream=stream))
    assert refusal(events) is Reason.MALFORMED


@pytest.mark.parametrize("kind", sorted(STREAM))
def test_a_stream_frame_on_the_link_itself_is_refused(kind: FrameType) -> None:
    talk = Talk.begin()
    talk.opened()
    body = pack_credit(1) if kind is FrameType.STREAM_CREDIT else b"x"
    assert isinstance(talk.forge(talk.alice, Frame(kind, stream=0, body=body))[-1], Failed)


@pytest.mark.parametrize("kind", sorted(STREAM))
def test_a_stream_frame_is_no_message_that_an_application_may_send(kind: FrameType) -> None:
    talk = Talk.begin()
    with pytest.raises(LocalProtocolError):
        talk.alice.session.send(kind, 1, b"", talk.now)


def test_there_are_no_streams_before_a_link_is_open_nor_after_its_end() -> None:
    pair = Pair.admitting()
    with pytest.raises(LocalProtocolError):
        _ = pair.alice.session.streams
    assert not Pair.established().alice.session.stirred()
    talk = Talk.begin()
    talk.opened()
    talk.alice.session.close(Reason.SHUTDOWN)
    with pytest.raises(LocalProtocolError):
        _ = talk.alice.session.streams


def test_what_is_queued_goes_before_the_bytes_of_a_stream() -> None:
    """Else a record would be sealed behind one that leaves after it."""
    talk = Talk.begin()
    stream = talk.opened()
    talk.alice.session.send(CALL, 9, b"first", talk.now)
    sealed = talk.alice.sealer.records
    with pytest.raises(LocalProtocolError):
        talk.seal(talk.alice, stream, b"second")
    assert talk.alice.sealer.records == sealed
    assert talk.write(talk.alice, stream, b"second")[-1] == StreamData(stream, b"second")


# --- beside a rekey ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
def test_streams_go_on_while_keys_change(signed: bool) -> None:
    """Both ends write in front of and behind each step of the rekey, so also on both sides of DONE and CONFIRM."""
    talk = Talk.begin(rekey=QUICK)
    stream = talk.opened(signed=signed)
    sent: dict[str, bytes] = {"alice": b"", "bob": b""}
    for epoch in (2, 3):
        talk.alice.session.woke(talk.now, 60.0)
        talk.tick(talk.alice)
        for step in range(8):
            for name, end in (("alice", talk.alice), ("bob", talk.bob)):
                before, after = f"{name} {epoch} {step} before ".encode(), f"{name} {epoch} {step} after ".encode()
                queued = end.session.data_to_send()
                sent[name] += before + after
                talk.deliver(queued + talk.seal(end, stream, before) + talk.seal(end, stream, after), to=talk.other(end))
        for end in talk.ends:
            assert told(end, Rekeyed) == [Rekeyed(number) for number in range(2, epoch + 1)]
            assert end.session.epoch == epoch
    for end in talk.ends:
        talk.finish(end, stream)
    assert heard(talk.bob, stream) == sent["alice"]
    assert heard(talk.alice, stream) == sent["bob"]
    assert [len(told(end, StreamEnded)) for end in talk.ends] == [1, 1]


def test_data_before_confirm_is_refused_under_a_new_key() -> None:
    """The first record under a key confirms it, whatever a record of bulk data could skip."""
    talk = Talk.begin(rekey=QUICK)
    stream = talk.opened()
    talk.alice.session.woke(talk.now, 60.0)
    talk.tick(talk.alice)
    for end in (talk.alice, talk.bob, talk.alice):  # OFFER, INIT, RESP
        talk.move(end)
    done, _confirm, *_ = records(talk.bob.session.data_to_send())
    talk.deliver(done, to=talk.alice)
    talk.bob.sealer.records = 0  # as if it had not said CONFIRM
    events = talk.deliver(talk.bob.sealer.seal(pack(Frame(DATA, stream=stream, body=b"early"))), to=talk.alice)
    assert refusal(events) is Reason.UNEXPECTED_FRAME


def test_a_key_that_has_carried_enough_bytes_of_streams_is_replaced() -> None:
    talk = Talk.begin(rekey=RekeyTimes(pause=0.0, volume=100_000))
    stream = talk.opened()
    for _ in range(2):
        talk.write(talk.alice, stream, bytes(100_000))
    assert talk.alice.session.deadline <= talk.now
    talk.tick(talk.alice)
    talk.exchange()
    assert talk.alice.session.epoch == talk.bob.session.epoch == 2


# --- credentials ------------------------------------------------------------------------------------------------------


def renewed() -> Member:
    """Alice with the same keys under a later endorsement."""
    return make_member(LAB, "alice", not_before=LAB.at)


def test_what_was_signed_under_old_credentials_goes_before_the_new_ones() -> None:
    """An open and a segment that wait, and a call in another lane: all of them verify at the other end."""
    talk = Talk.begin()
    stream = talk.opened()
    talk.write(talk.alice, stream, b"signed under the old endorsement")
    talk.later(SEGMENT_AFTER, talk.alice)
    talk.alice.session.send(CALL, 99, b"signed, too", talk.now)
    second = talk.open(talk.alice)
    talk.alice.session.change_credentials(local(renewed()))
    assert [type(event) for event in talk.move(talk.alice)] == [
        StreamSigned, StreamOffered, MessageReceived, CredentialsChanged
    ]  # fmt: skip
    talk.accept(talk.bob, second)
    talk.exchange()
    for number, data in ((stream, b", then under the new one"), (second, b"and a whole stream")):
        talk.write(talk.alice, number, data)
        talk.finish(talk.alice, number)
    assert talk.states == (State.OPEN, State.OPEN), talk.bob.events
    assert heard(talk.bob, stream) == b"signed under the old endorsement, then under the new one"
    assert [event.final for event in told(talk.bob, StreamSigned)] == [False, True, True]
    assert [event.truncated for event in told(talk.bob, StreamEnded)] == [False, False]


def test_the_other_end_verifies_segments_under_the_credentials_of_their_place() -> None:
    """A segment signed under old credentials is refused behind the new ones."""
    talk = Talk.begin()
    stream = talk.opened()
    talk.write(talk.alice, stream, b"data")
    talk.later(SEGMENT_AFTER, talk.alice)
    [segment] = talk.alice.swallow()
    talk.alice.session.change_credentials(local(renewed()))
    talk.move(talk.alice)
    assert refusal(talk.forge(talk.alice, segment)) is Reason.WRONG_AUTHOR


# --- the end of a lease and of the link -------------------------------------------------------------------------------


def test_nothing_is_written_once_the_lease_has_run_out() -> None:
    """Even before the tick that ends the link."""
    talk = Talk.begin(attest=AttestTimes(lease=20.0))
    stream = talk.opened()
    lease = talk.alice.session.lease
    assert lease is not None
    talk.now = lease.ends - 0.001
    assert talk.seal(talk.alice, stream, b"just in time")
    talk.now = lease.ends
    sealed = talk.alice.sealer.records
    assert talk.alice.session.write_stream(stream, memoryview(b"late"), talk.now, memoryview(bytearray(ROOM))) == (0, 0)
    talk.alice.session.finish_stream(stream, talk.now)
    assert talk.alice.session.queued == 0
    assert talk.alice.sealer.records == sealed
    [failed] = talk.tick(talk.alice)
    assert isinstance(failed, Failed) and failed.reason is Reason.LEASE_EXPIRED


def test_nothing_is_taken_once_the_lease_has_run_out() -> None:
    talk = Talk.begin(attest=AttestTimes(lease=20.0))
    stream = talk.opened()
    wire = talk.seal(talk.alice, stream, b"in time") + talk.seal(talk.alice, stream, b"as well")
    first, second = records(wire)
    lease = talk.bob.session.lease
    assert lease is not None
    talk.now = lease.ends - 0.001
    assert talk.deliver(first, to=talk.bob) == [StreamData(stream, b"in time")]
    talk.now = lease.ends
    assert refusal(talk.deliver(second, to=talk.bob)) is Reason.LEASE_EXPIRED


def test_a_link_that_ends_has_nothing_more_to_do_with_its_streams() -> None:
    talk = Talk.begin()
    stream = talk.opened()
    talk.write(talk.alice, stream, b"x")
    talk.alice.session.fail(Reason.MALFORMED, "for another reason")
    assert talk.alice.session.deadline == float("inf")
    room = memoryview(bytearray(ROOM))
    assert talk.alice.session.write_stream(stream, memoryview(b"y"), talk.now, room) == (0, 0)
    assert talk.alice.session.tick(talk.now + 100) == []


def test_a_session_says_nothing_of_streams_before_somebody_uses_them() -> None:
    """Most links have none: no machine is made for them."""
    pair = Pair.established()
    assert not told(pair.alice, StreamOffered) and told(pair.alice, Opened)
    pair.alice.session.stirred()
    assert pair.alice.session._streams is None
    assert refusal(pair.forge(pair.alice, Frame(DATA, stream=1, body=b"x"))) is Reason.FLOW_CONTROL
