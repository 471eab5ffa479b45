"""A record of a long talk that is changed, dropped, doubled or moved ends the link where it is noticed, and nowhere else.

The talk holds what an open link can carry: calls, a call in parts, a signed stream, a round, new credentials, a rekey.
"""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.outbox import ROOM
from overlay.core.session_events import (
    Closed,
    CredentialsChanged,
    Event,
    Failed,
    LeaseRenewed,
    MessageReceived,
    Rekeyed,
)
from overlay.core.session_states import State
from overlay.core.stream_events import StreamEnded, StreamOffered, StreamSigned
from overlay.registry import FrameType, Reason
from tests.fuzz.kit import fresh_pair, open_pair
from tests.unit.core.authority_kit import make_member
from tests.unit.core.session_kit import LAB, Pair, local, records

LATER = make_member(LAB, "alice", not_before=LAB.at)
REKEY_AFTER = 60.0


@cache
def talk() -> tuple[bytes, ...]:
    """All records of Alice's."""
    pair = open_pair()
    pair.answer_evidence = True
    said: list[bytes] = []

    def say() -> None:
        for _ in range(8):
            data = pair.alice.session.data_to_send()
            said.extend(records(data))
            pair.deliver(data, to=pair.bob)
            pair.move(pair.bob)

    def call(body: bytes) -> None:
        pair.alice.session.send(FrameType.CALL, pair.alice.session.next_stream(), body, pair.now)
        say()

    session = pair.alice.session
    call(b"hello")
    call(b"x" * 70_000)
    stream = session.streams.open("copy", b"", signed=True, deadline=0, now=pair.now)
    session.stirred()
    say()
    for size in (100, 150_000):
        room = memoryview(bytearray(ROOM))
        _, filled = session.write_stream(stream, memoryview(bytes(size)), pair.now, room)
        said.extend(records(bytes(room[:filled])))
        pair.deliver(bytes(room[:filled]), to=pair.bob)
    session.finish_stream(stream, pair.now)
    say()
    session.open_round(1)
    say()
    session.change_credentials(local(LATER))
    call(b"under new credentials")
    pair.now += REKEY_AFTER
    pair.tick(pair.alice)
    say()
    assert session.epoch == 2
    call(b"under new keys")
    pair.alice.take(session.close(Reason.SHUTDOWN))
    say()
    return tuple(said)


def hear(wire: tuple[bytes, ...] | list[bytes]) -> tuple[list[Event], Pair]:
    """What Bob makes of these records, one after the other."""
    pair = open_pair()
    pair.now += REKEY_AFTER
    return [event for record in wire for event in pair.bob.session.receive(bytearray(record), pair.now)], pair


def noticed(wire: list[bytes], good: int) -> None:
    """All that the first `good` records say is delivered, and then the link fails."""
    before, _ = hear(talk()[:good])
    events, pair = hear(wire)
    assert events[:-1] == before
    last = events[-1]
    assert isinstance(last, Failed) and not last.by_peer
    assert last.reason is Reason.BAD_RECORD
    assert pair.bob.session.state is State.CLOSED
    assert pair.bob.session.lease is None
    assert pair.bob.session.data_to_send()  # the GOODBYE that says why


PLACES = range(len(talk()))


def test_the_talk_holds_what_it_should() -> None:
    events, pair = hear(talk())
    kinds = {type(event) for event in events}
    assert {MessageReceived, StreamOffered, StreamSigned, StreamEnded, LeaseRenewed, CredentialsChanged, Rekeyed} <= kinds
    assert isinstance(events[-1], Closed)
    assert pair.bob.session.epoch == 2


@pytest.mark.parametrize("place", PLACES[:-1])
def test_a_record_that_is_dropped_is_noticed_at_the_next(place: int) -> None:
    wire = list(talk())
    del wire[place]
    noticed(wire, place)


def test_the_last_record_dropped_shows_when_the_connection_ends() -> None:
    events, pair = hear(talk()[:-1])
    assert not any(isinstance(event, Failed | Closed) for event in events)
    [last] = pair.bob.session.eof(pair.now)
    assert isinstance(last, Failed) and last.reason is Reason.LOST


@pytest.mark.parametrize("place", PLACES[:-1])
def test_a_record_that_comes_twice_is_noticed(place: int) -> None:
    wire = list(talk())
    noticed([*wire[: place + 1], *wire[place:]], place + 1)


@settings(max_examples=60)
@given(st.data())
def test_records_that_change_places_are_noticed_at_the_first(data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(talk()) - 2))
    second = data.draw(st.integers(first + 1, len(talk()) - 1))
    wire = list(talk())
    wire[first], wire[second] = wire[second], wire[first]
    noticed(wire, first)


@settings(max_examples=60)
@given(st.data())
def test_a_record_of_earlier_played_again_is_noticed(data: st.DataObject) -> None:
    place = data.draw(st.integers(1, len(talk()) - 1))
    again = data.draw(st.integers(0, place - 1))
    wire = list(talk())
    noticed([*wire[:place], wire[again], *wire[place:]], place)


@settings(max_examples=120)
@given(st.data())
def test_one_changed_bit_is_noticed_at_its_record(data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(PLACES))
    wrong = bytearray(talk()[place])
    index = data.draw(st.integers(2, min(len(wrong) - 1, 40)) | st.integers(2, len(wrong) - 1))
    wrong[index] ^= 1 << data.draw(st.integers(0, 7))
    noticed([*talk()[:place], bytes(wrong), *talk()[place + 1 :]], place)


@settings(max_examples=60)
@given(st.data())
def test_a_changed_length_is_noticed_as_soon_as_so_many_bytes_have_come(data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(PLACES))
    length = data.draw(st.integers(0, 65_535).filter(lambda length: length != len(talk()[place]) - 2))
    wire = b"".join((*talk()[:place], length.to_bytes(2, "big") + talk()[place][2:], *talk()[place + 1 :]))
    start = sum(map(len, talk()[:place]))
    before, _ = hear(talk()[:place])
    events, pair = hear([wire])
    if length > len(wire) - start - 2:
        assert pair.bob.session.state is State.OPEN  # it waits for the rest
        return
    last = events[-1]
    assert isinstance(last, Failed) and last.reason is (Reason.BAD_RECORD if length else Reason.MALFORMED)
    assert len(events) <= len(before) + 1


# --- before there are keys --------------------------------------------------------------------------------------------


@cache
def handshake() -> tuple[bytes, bytes, bytes]:
    """Hello and message 1; message 2; message 3 and Alice's CHALLENGE."""
    pair = fresh_pair()
    first = pair.alice.session.data_to_send()
    pair.deliver(first, to=pair.bob)
    second = pair.bob.session.data_to_send()
    pair.deliver(second, to=pair.alice)
    return first, second, pair.alice.session.data_to_send()


REASONS = {
    "start": {Reason.UNSUPPORTED, Reason.BAD_GATE}, "mac": {Reason.BAD_GATE}, "e": {Reason.BAD_GATE},
    "message 2": {Reason.BAD_HANDSHAKE}, "message 3": {Reason.BAD_HANDSHAKE}, "challenge": {Reason.BAD_RECORD},
}  # fmt: skip


def region(step: int, index: int) -> str:
    """What a byte of a step belongs to; "length" for the lengths of records."""
    if step == 0:
        return "start" if index < 3 else "mac" if index < 19 else "length" if index < 21 else "e"
    data = handshake()[step]
    end = 2 + int.from_bytes(data[:2], "big")
    if index < 2 or end <= index < end + 2:
        return "length"
    return ("message 2" if step == 1 else "message 3") if index < end else "challenge"


@settings(max_examples=150)
@given(st.data())
def test_one_changed_bit_of_a_handshake_ends_it_with_the_reason_of_its_place(data: st.DataObject) -> None:
    step = data.draw(st.integers(0, 2))
    index = data.draw(st.integers(0, len(handshake()[step]) - 1).filter(lambda index: region(step, index) != "length"))
    wrong = bytearray(handshake()[step])
    wrong[index] ^= 1 << data.draw(st.integers(0, 7))
    pair = fresh_pair()
    end = pair.alice if step == 1 else pair.bob
    if step:
        pair.move(pair.alice)
    if step == 2:
        pair.move(pair.bob)
    events = end.session.receive(bytes(wrong), pair.now)
    last = events[-1]
    assert isinstance(last, Failed), events
    assert last.reason in REASONS[region(step, index)]
    assert end.session.state is State.CLOSED
    assert (end.session.peer is not None) == (region(step, index) == "challenge")


def test_the_handshake_is_good_as_it_is() -> None:
    pair = fresh_pair()
    for step, end in enumerate((pair.bob, pair.alice, pair.bob)):
        end.session.receive(handshake()[step], pair.now)
    assert pair.states == (State.AWAIT_CHALLENGE, State.ADMITTING)
