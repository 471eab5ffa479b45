"""Streams of one link: opens, credit, segments, ends, and what a peer may not do."""

import math

import pytest
from blake3 import blake3

from overlay.core import limits
from overlay.core.limits import (
    FRAME_BODY_MAX,
    METHOD_MAX,
    RESET_TEXT_MAX,
    SEGMENT_AFTER,
    SEGMENT_BYTES,
    UNSIGNED_AFTER,
    WINDOW_FIRST,
    WINDOW_LEAST,
    WINDOW_MAX,
    StreamLimits,
)
from overlay.core.stream_events import (
    StreamAccepted,
    StreamBroken,
    StreamData,
    StreamEnded,
    StreamOffered,
    StreamRoom,
    StreamSigned,
)
from overlay.core.stream_formats import Opening, pack_credit, pack_opening, pack_reset, unpack_opening
from overlay.core.streams import WRITE_MAX
from overlay.core.wire import make_map
from overlay.errors import LocalProtocolError, UsageError
from overlay.registry import FrameType, Reason, ReplyStatus
from tests.unit.core.authority_kit import make_member
from tests.unit.core.session_kit import LAB, local
from tests.unit.core.stream_kit import CREDIT, DATA, END, OPEN, RESET, SEGMENT, End, Pair, refused

OPENING = pack_opening(b"", signed=False)


def pattern(size: int) -> bytes:
    """Bytes that differ wherever they are moved to."""
    return b"".join(index.to_bytes(4, "big") for index in range(size // 4 + 1))[:size]


def busy(pair: Pair, stream: int = 1) -> tuple[FrameType, int, bytes]:
    return RESET, stream, pack_reset(ReplyStatus.BUSY, "")


# --- opening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
def test_a_stream_is_offered_with_its_handler_and_its_bytes_and_accepted(signed: bool) -> None:
    pair = Pair()
    stream = pair.open(pair.alice, signed=signed, body=b"for the handler")
    [offer] = pair.move(pair.alice)
    assert isinstance(offer, StreamOffered)
    assert (offer.stream, offer.opening) == (stream, Opening(signed, b"for the handler"))
    assert (offer.call.method, offer.call.caller) == ("copy", pair.alice.member.node_id)
    pair.bob.streams.accept(stream, pair.now)
    assert pair.move(pair.bob) == [StreamAccepted(stream)]


def test_data_may_follow_the_open_at_once_and_no_more_than_the_first_window() -> None:
    pair = Pair()
    stream = pair.open(pair.alice, signed=False)
    assert pair.write(pair.alice, stream, bytes(WINDOW_FIRST + 1)) == WINDOW_FIRST
    assert pair.alice.streams.room(stream) == 0
    pair.move(pair.alice)
    assert len(pair.bob.heard[stream]) == WINDOW_FIRST


def test_a_stream_that_is_refused_is_broken_and_forgotten_on_both_sides() -> None:
    pair = Pair()
    stream = pair.open(pair.alice)
    pair.move(pair.alice)
    pair.bob.streams.refuse(stream, ReplyStatus.NO_SUCH_METHOD, "copy", pair.now)
    assert pair.move(pair.bob) == [StreamBroken(stream, ReplyStatus.NO_SUCH_METHOD, "copy")]
    assert pair.alice.streams.count == pair.bob.streams.count == 0


def test_each_side_opens_with_ids_of_its_own_and_both_work() -> None:
    pair = Pair()
    assert (pair.open(pair.alice), pair.open(pair.bob), pair.open(pair.alice)) == (1, 2, 3)
    pair.exchange()
    assert [one.stream for one in pair.bob.told(StreamOffered)] == [1, 3]
    assert [one.stream for one in pair.alice.told(StreamOffered)] == [2]


def test_the_acceptor_says_nothing_before_it_has_accepted() -> None:
    pair = Pair()
    stream = pair.open(pair.alice)
    pair.move(pair.alice)
    with pytest.raises(LocalProtocolError):
        pair.bob.streams.write(stream, memoryview(b"early"), pair.now)
    assert refused(lambda: pair.deliver((DATA, stream, b"early"), to=pair.alice)) is Reason.FLOW_CONTROL


def test_a_stream_is_accepted_once() -> None:
    pair = Pair()
    stream = pair.opened()
    with pytest.raises(LocalProtocolError):
        pair.bob.streams.accept(stream, pair.now)


@pytest.mark.parametrize("method", ["", "m" * (METHOD_MAX + 1)])
def test_a_name_that_no_call_can_have_opens_nothing(method: str) -> None:
    pair = Pair()
    with pytest.raises(UsageError, match="name"):
        pair.alice.streams.open(method, b"", signed=True, deadline=0, now=pair.now)
    assert pair.alice.streams.count == 0


def test_a_body_that_is_too_long_for_a_call_opens_nothing() -> None:
    pair = Pair()
    with pytest.raises(UsageError, match="at most"):
        pair.open(pair.alice, body=bytes(limits.BODY_MAX))
    assert pair.alice.streams.count == 0


@pytest.mark.parametrize("stream", [0, 2, 4])
def test_an_id_of_the_wrong_side_cannot_be_opened(stream: int) -> None:
    pair = Pair()
    raw = pair.call(OPENING)
    assert refused(lambda: pair.deliver((OPEN, stream, raw), to=pair.bob)) is Reason.FLOW_CONTROL


def test_ids_that_peers_open_rise() -> None:
    pair = Pair()
    pair.deliver((OPEN, 5, pair.call(OPENING)), to=pair.bob)
    again = pair.call(OPENING, call_id=b"j" * 16)
    assert refused(lambda: pair.deliver((OPEN, 3, again), to=pair.bob)) is Reason.FLOW_CONTROL


def test_an_id_is_never_used_again() -> None:
    pair = Pair()
    pair.deliver((OPEN, 5, pair.call(OPENING)), to=pair.bob)
    again = pair.call(OPENING, call_id=b"j" * 16)
    assert refused(lambda: pair.deliver((OPEN, 5, again), to=pair.bob)) is Reason.FLOW_CONTROL
    pair.bob.streams.refuse(5, ReplyStatus.CANCELLED, "", pair.now)
    assert refused(lambda: pair.deliver((OPEN, 5, again), to=pair.bob)) is Reason.FLOW_CONTROL


def test_an_open_that_somebody_else_signed_is_refused() -> None:
    pair = Pair()
    raw = pair.call(OPENING, member=make_member(LAB, "carol"))
    assert refused(lambda: pair.deliver((OPEN, 1, raw), to=pair.bob)) is Reason.WRONG_AUTHOR


def test_an_open_made_for_another_link_is_refused() -> None:
    pair = Pair()
    raw = pair.call(OPENING, first_h=b"H" * 32)
    assert refused(lambda: pair.deliver((OPEN, 1, raw), to=pair.bob)) is Reason.WRONG_LINK


@pytest.mark.parametrize(
    "body", [b"", make_map(2, b""), make_map(True, b""), make_map(1), make_map(1, "text"), make_map(1, b"", 1)]
)
def test_an_open_whose_call_has_another_form_is_refused(body: bytes) -> None:
    pair = Pair()
    raw = pair.call(body)
    assert refused(lambda: pair.deliver((OPEN, 1, raw), to=pair.bob)) is Reason.MALFORMED


def test_a_repeated_open_does_not_run_again() -> None:
    pair = Pair()
    raw = pair.call(OPENING)
    pair.deliver((OPEN, 1, raw), to=pair.bob)
    assert pair.deliver((OPEN, 3, raw), to=pair.bob) == []
    assert pair.bob.streams.frames_to_send() == [(RESET, 3, pack_reset(ReplyStatus.REPEATED, ""))]
    assert pair.bob.streams.count == 1


def test_a_repeated_open_takes_no_memory() -> None:
    pair = Pair(StreamLimits(windows=2 * WINDOW_FIRST))
    raw = pair.call(OPENING)
    for stream in (1, 3, 5):
        pair.deliver((OPEN, stream, raw), to=pair.bob)
    pair.bob.streams.frames_to_send()
    assert pair.deliver((OPEN, 7, pair.call(OPENING, call_id=b"j" * 16)), to=pair.bob) == [pair.bob.events[-1]]


# --- how many -------------------------------------------------------------------------------------------------------


def test_we_open_no_more_streams_than_may_wait_for_an_answer() -> None:
    pair = Pair(StreamLimits(opens=2))
    first = pair.open(pair.alice)
    pair.open(pair.alice)
    with pytest.raises(UsageError, match="wait to be accepted"):
        pair.open(pair.alice)
    pair.exchange()
    pair.bob.streams.accept(first, pair.now)
    pair.exchange()
    pair.open(pair.alice)


def test_a_peer_that_opens_more_streams_than_may_wait_is_refused() -> None:
    pair = Pair(StreamLimits(opens=2))
    for index, stream in enumerate((1, 3)):
        pair.deliver((OPEN, stream, pair.call(OPENING, call_id=bytes([index]) * 16)), to=pair.bob)
    raw = pair.call(OPENING)
    assert refused(lambda: pair.deliver((OPEN, 5, raw), to=pair.bob)) is Reason.FLOW_CONTROL


@pytest.mark.parametrize("answer", ["accept", "refuse", "broken off"])
def test_an_answered_open_waits_no_more_on_either_side(answer: str) -> None:
    pair = Pair(StreamLimits(opens=1))
    for _ in range(3):
        stream = pair.open(pair.alice)
        pair.exchange()
        if answer == "accept":
            pair.bob.streams.accept(stream, pair.now)
        elif answer == "refuse":
            pair.bob.streams.refuse(stream, ReplyStatus.FAILED, "", pair.now)
        else:
            pair.reset(pair.alice, stream)
        pair.exchange()
    assert len(pair.bob.told(StreamOffered)) == 3


def test_an_open_beyond_the_memory_of_a_link_is_busy_and_may_come_again() -> None:
    pair = Pair(StreamLimits(windows=WINDOW_FIRST))
    pair.deliver((OPEN, 1, pair.call(OPENING)), to=pair.bob)
    raw = pair.call(OPENING, call_id=b"j" * 16)
    assert pair.deliver((OPEN, 3, raw), to=pair.bob) == []
    assert pair.bob.streams.frames_to_send() == [busy(pair, 3)]
    pair.bob.streams.reset(1, ReplyStatus.CANCELLED, "", pair.now)
    assert len(pair.deliver((OPEN, 5, raw), to=pair.bob)) == 1


def test_we_open_nothing_beyond_the_memory_of_a_link() -> None:
    pair = Pair(StreamLimits(windows=WINDOW_FIRST))
    stream = pair.open(pair.alice)
    with pytest.raises(UsageError, match="memory"):
        pair.open(pair.alice)
    pair.reset(pair.alice, stream)
    pair.open(pair.alice)


# --- small windows --------------------------------------------------------------------------------------------------


def test_both_directions_begin_with_the_window_that_the_opener_named() -> None:
    pair = Pair()
    stream = pair.opened(signed=False, window=WINDOW_LEAST)
    assert pair.write(pair.alice, stream, bytes(WINDOW_FIRST)) == WINDOW_LEAST
    assert pair.write(pair.bob, stream, bytes(WINDOW_FIRST)) == WINDOW_LEAST
    pair.exchange()
    pair.read(pair.bob, stream, WINDOW_LEAST // 2)
    pair.exchange()
    assert pair.alice.streams.room(stream) == WINDOW_LEAST // 2


def test_more_than_a_small_window_ends_the_link() -> None:
    pair = Pair()
    stream = pair.opened(signed=False, window=WINDOW_LEAST)
    assert refused(lambda: pair.deliver((DATA, stream, bytes(WINDOW_LEAST + 1)), to=pair.bob)) is Reason.FLOW_CONTROL


def test_a_link_has_room_for_as_many_small_windows_as_its_memory_holds() -> None:
    pair = Pair(StreamLimits(windows=4 * WINDOW_LEAST))
    for _ in range(4):
        pair.opened(signed=False, window=WINDOW_LEAST)
    assert pair.bob.streams.count == 4
    with pytest.raises(UsageError, match="memory"):
        pair.open(pair.alice, window=WINDOW_LEAST)
    raw = pair.call(pack_opening(b"", signed=False, window=WINDOW_LEAST), call_id=b"j" * 16)
    assert pair.deliver((OPEN, 9, raw), to=pair.bob) == []
    assert pair.bob.streams.frames_to_send() == [busy(pair, 9)]


def test_a_small_window_that_is_read_fast_grows_to_the_largest() -> None:
    pair = Pair()
    stream = pair.opened(signed=False, window=WINDOW_LEAST)
    for _ in range(64):
        pair.pump(pair.alice, stream, bytes(WINDOW_FIRST))
    assert pair.alice.streams.room(stream) >= WINDOW_MAX // 2


@pytest.mark.parametrize("window", [0, WINDOW_LEAST - 1, WINDOW_FIRST + 1])
def test_there_is_no_smaller_and_no_larger_first_window(window: int) -> None:
    pair = Pair()
    with pytest.raises(UsageError, match="first window"):
        pair.open(pair.alice, window=window)
    assert pair.alice.streams.count == 0


@pytest.mark.parametrize("window", [0, WINDOW_LEAST - 1, WINDOW_FIRST, WINDOW_FIRST + 1])
def test_an_offer_of_another_window_is_malformed(window: int) -> None:
    assert refused(lambda: unpack_opening(make_map(0, b"", window))) is Reason.MALFORMED


# --- credit ---------------------------------------------------------------------------------------------------------


def test_a_write_takes_what_there_is_room_for_and_says_when_there_is_more() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    assert pair.write(pair.alice, stream, bytes(WINDOW_FIRST + 1)) == WINDOW_FIRST
    assert pair.alice.streams.write(stream, memoryview(b"more"), pair.now) == (0, [])
    pair.exchange()
    pair.read(pair.bob, stream, WINDOW_FIRST // 2)
    assert pair.move(pair.bob) == [StreamRoom(stream)]
    assert pair.alice.streams.room(stream) == WINDOW_FIRST // 2


def test_less_than_half_a_window_brings_no_credit() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    pair.write(pair.alice, stream, bytes(WINDOW_FIRST))
    pair.exchange()
    pair.read(pair.bob, stream, WINDOW_FIRST // 2 - 1)
    assert not pair.bob.wire
    pair.read(pair.bob, stream, 1)
    assert list(pair.bob.wire) == [(CREDIT, stream, pack_credit(WINDOW_FIRST * 3 // 2))]


def test_more_credit_is_no_event_while_there_is_room() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    assert pair.deliver((CREDIT, stream, pack_credit(WINDOW_FIRST * 2)), to=pair.alice) == []
    assert pair.alice.streams.room(stream) == WINDOW_FIRST * 2


def test_a_peer_that_sends_more_than_its_credit_is_refused() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    pair.deliver((DATA, stream, bytes(WINDOW_FIRST)), to=pair.bob)
    assert refused(lambda: pair.deliver((DATA, stream, b"!"), to=pair.bob)) is Reason.FLOW_CONTROL


def test_a_credit_that_falls_is_refused() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.deliver((CREDIT, stream, pack_credit(WINDOW_FIRST)), to=pair.alice)
    less = pack_credit(WINDOW_FIRST - 1)
    assert refused(lambda: pair.deliver((CREDIT, stream, less), to=pair.alice)) is Reason.FLOW_CONTROL


@pytest.mark.parametrize("body", [b"", bytes(7), bytes(9)])
def test_a_credit_of_another_size_is_refused(body: bytes) -> None:
    pair = Pair()
    stream = pair.opened()
    assert refused(lambda: pair.deliver((CREDIT, stream, body), to=pair.alice)) is Reason.MALFORMED


def test_a_window_doubles_while_it_is_read_fast_up_to_its_maximum() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    pair.pump(pair.alice, stream, bytes(3 * WINDOW_MAX))
    assert pair.alice.streams.room(stream) > WINDOW_MAX // 2
    pair.pump(pair.alice, stream, bytes(3 * WINDOW_MAX))
    pair.write(pair.alice, stream, bytes(2 * WINDOW_MAX))
    pair.exchange()
    assert pair.bob.unread[stream] <= WINDOW_MAX


def test_a_window_does_not_grow_while_it_is_read_slowly() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    for _ in range(20):
        pair.now += 1.0
        pair.pump(pair.alice, stream, bytes(WINDOW_FIRST))
    assert pair.alice.streams.room(stream) <= WINDOW_FIRST


def test_growth_stops_at_its_share_of_the_memory_of_a_link() -> None:
    pair = Pair(StreamLimits(windows=8 * WINDOW_FIRST, grown=3 * WINDOW_FIRST))
    one, two = pair.opened(signed=False), pair.opened(signed=False)
    for stream in (one, two):
        pair.pump(pair.alice, stream, bytes(16 * WINDOW_FIRST))
        pair.write(pair.alice, stream, bytes(16 * WINDOW_FIRST))
        pair.exchange()
    assert sum(pair.bob.unread.values()) <= 3 * WINDOW_FIRST
    assert len([pair.opened() for _ in range(5)]) == 5


def test_memory_of_a_grown_window_comes_back_when_its_stream_is_over() -> None:
    pair = Pair(StreamLimits(windows=3 * WINDOW_FIRST, grown=3 * WINDOW_FIRST))
    for _ in range(4):
        stream = pair.opened(signed=False)
        pair.pump(pair.alice, stream, bytes(8 * WINDOW_FIRST))
        pair.reset(pair.bob, stream)
        pair.exchange()
    assert pair.bob.streams.count == 0


def test_no_more_is_read_than_came() -> None:
    pair = Pair()
    stream = pair.opened()
    with pytest.raises(LocalProtocolError, match="more bytes read"):
        pair.bob.streams.consumed(stream, 1, pair.now)


# --- writing --------------------------------------------------------------------------------------------------------


def test_pieces_are_slices_of_what_was_written_and_fit_into_frames() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    data = memoryview(pattern(200_000))
    size, pieces = pair.alice.streams.write(stream, data, pair.now)
    assert size == 200_000
    assert [len(body) for _, _, body in pieces] == [50_000] * 4
    assert all(kind is DATA and isinstance(body, memoryview) and body.obj is data.obj for kind, _, body in pieces)


@pytest.mark.parametrize("size", [0, 1, 65_511, 65_512, 2 * 65_511, 2 * 65_511 + 1])
def test_pieces_are_as_few_as_frames_allow_and_equally_long(size: int) -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    data = pattern(size)
    taken, pieces = pair.alice.streams.write(stream, memoryview(data), pair.now)
    lengths = [len(body) for _, _, body in pieces]
    assert taken == size
    assert b"".join(body for _, _, body in pieces) == data
    assert len(lengths) == -(-size // FRAME_BODY_MAX)
    assert max(lengths, default=0) <= FRAME_BODY_MAX
    assert max(lengths, default=0) - min(lengths, default=0) < max(len(lengths), 1)


def test_one_write_takes_no_more_than_a_batch() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    pair.deliver((CREDIT, stream, pack_credit(2**40)), to=pair.alice)
    size, _ = pair.alice.streams.write(stream, memoryview(bytes(2 * WRITE_MAX)), pair.now)
    assert size == WRITE_MAX


def test_nothing_is_written_before_what_must_go_first() -> None:
    pair = Pair()
    stream = pair.alice.streams.open("copy", b"", signed=True, deadline=0, now=pair.now)
    with pytest.raises(LocalProtocolError, match="frames_to_send"):
        pair.alice.streams.write(stream, memoryview(b"early"), pair.now)
    with pytest.raises(LocalProtocolError, match="frames_to_send"):
        pair.alice.streams.finish(stream, pair.now)
    pair.alice.flush()
    assert pair.write(pair.alice, stream, b"now") == 3


def test_nothing_is_written_after_the_end() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.finish(pair.alice, stream)
    assert pair.alice.streams.room(stream) == 0
    with pytest.raises(LocalProtocolError):
        pair.alice.streams.write(stream, memoryview(b"late"), pair.now)
    with pytest.raises(LocalProtocolError):
        pair.alice.streams.finish(stream, pair.now)


@pytest.mark.parametrize("stream", [0, 3, 4])
def test_a_stream_that_never_was_is_our_own_fault(stream: int) -> None:
    pair = Pair()
    pair.opened()
    streams = pair.alice.streams
    for use in (
        lambda: streams.accept(stream, pair.now), lambda: streams.write(stream, memoryview(b"!"), pair.now),
        lambda: streams.finish(stream, pair.now), lambda: streams.consumed(stream, 1, pair.now),
        lambda: streams.reset(stream, ReplyStatus.CANCELLED, "", pair.now),
    ):  # fmt: skip
        with pytest.raises(LocalProtocolError, match="never opened"):
            use()
    assert streams.room(stream) == 0


# --- segments -------------------------------------------------------------------------------------------------------


def test_a_segment_stands_at_each_mebibyte_and_at_the_end() -> None:
    pair = Pair()
    stream = pair.opened()
    data = pattern(5 * SEGMENT_BYTES // 2)
    pair.pump(pair.alice, stream, data)
    pair.finish(pair.alice, stream)
    pair.exchange()
    assert bytes(pair.bob.heard[stream]) == data
    signed = pair.bob.told(StreamSigned)
    assert [(one.offset, one.final) for one in signed] == [
        (SEGMENT_BYTES, False), (2 * SEGMENT_BYTES, False), (len(data), True),
    ]  # fmt: skip
    assert pair.bob.told(StreamEnded) == [StreamEnded(stream, truncated=False)]


def test_a_write_that_crosses_a_mebibyte_has_the_segment_in_its_middle() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.deliver((CREDIT, stream, pack_credit(2**40)), to=pair.alice)
    pair.write(pair.alice, stream, bytes(SEGMENT_BYTES - 10))
    _, pieces = pair.alice.streams.write(stream, memoryview(bytes(30)), pair.now)
    assert [(kind, len(body)) for kind, _, body in pieces if kind is DATA] == [(DATA, 10), (DATA, 20)]
    assert [kind for kind, _, _ in pieces] == [DATA, SEGMENT, DATA]
    assert pair.alice.streams.deadline == pair.now + SEGMENT_AFTER


def test_bytes_are_signed_after_a_second() -> None:
    pair = Pair()
    stream = pair.opened()
    assert pair.alice.streams.deadline == math.inf
    pair.write(pair.alice, stream, b"one")
    pair.now += SEGMENT_AFTER / 2
    pair.write(pair.alice, stream, b"two")
    assert pair.alice.streams.deadline == pair.now + SEGMENT_AFTER / 2
    assert pair.alice.streams.tick(pair.now) == []
    assert not pair.alice.streams.frames_to_send()
    pair.now += SEGMENT_AFTER / 2
    pair.alice.streams.tick(pair.now)
    events = pair.move(pair.alice)
    assert isinstance(events[-1], StreamSigned)
    assert (events[-1].offset, events[-1].final) == (6, False)
    assert pair.alice.streams.deadline == pair.bob.streams.deadline == math.inf


def test_only_what_is_due_is_signed() -> None:
    pair = Pair()
    early, late = pair.opened(), pair.opened()
    pair.write(pair.alice, early, b"one")
    pair.now += SEGMENT_AFTER / 2
    pair.write(pair.alice, late, b"two")
    pair.now += SEGMENT_AFTER / 2
    pair.alice.streams.tick(pair.now)
    assert [(kind, stream) for kind, stream, _ in pair.alice.streams.frames_to_send()] == [(SEGMENT, early)]


def test_the_evidence_of_a_stream_is_its_last_segment() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.write(pair.alice, stream, b"all of it")
    pair.finish(pair.alice, stream)
    pair.exchange()
    [signed] = pair.bob.told(StreamSigned)
    assert signed.evidence == pair.segment(stream, offset=9, digest=blake3(b"all of it").digest(), final=True)


def test_segments_go_on_under_new_credentials() -> None:
    pair = Pair()
    stream = pair.opened()
    later = make_member(LAB, "alice", start=2)
    pair.write(pair.alice, stream, b"before")
    pair.alice.identity, pair.bob.peer = local(later), later.peer
    pair.finish(pair.alice, stream)
    pair.exchange()
    assert [one.final for one in pair.bob.told(StreamSigned)] == [True]


def test_both_directions_of_a_signed_stream_are_signed() -> None:
    pair = Pair()
    stream = pair.opened()
    for end in (pair.alice, pair.bob):
        pair.write(end, stream, b"x")
        pair.finish(end, stream)
    pair.exchange()
    assert len(pair.alice.told(StreamSigned)) == len(pair.bob.told(StreamSigned)) == 1


def test_a_segment_over_other_bytes_is_refused() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.deliver((DATA, stream, b"x"), to=pair.bob)
    wrong = pair.segment(stream, offset=1, digest=blake3(b"y").digest())
    assert refused(lambda: pair.deliver((SEGMENT, stream, wrong), to=pair.bob)) is Reason.CHAIN_BROKEN
    right = pair.segment(stream, offset=1, digest=blake3(b"x").digest())
    assert pair.deliver((SEGMENT, stream, right), to=pair.bob) == [StreamSigned(stream, 1, False, right)]


def test_a_segment_of_another_stream_of_the_link_is_refused() -> None:
    pair = Pair()
    other, stream = pair.opened(), pair.opened()
    pair.deliver((DATA, stream, b"x"), to=pair.bob)
    raw = pair.segment(other, offset=1, digest=blake3(b"x").digest())
    assert refused(lambda: pair.deliver((SEGMENT, stream, raw), to=pair.bob)) is Reason.WRONG_LINK


def test_our_own_segment_does_not_pass_for_the_peers() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.deliver((DATA, stream, b"x"), to=pair.bob)
    mine = pair.segment(stream, member=pair.bob.member, to=pair.alice.member, offset=1, digest=blake3(b"x").digest())
    assert refused(lambda: pair.deliver((SEGMENT, stream, mine), to=pair.bob)) is Reason.WRONG_AUTHOR


def test_a_segment_on_an_unsigned_stream_is_refused() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    raw = pair.segment(stream, final=True)
    assert refused(lambda: pair.deliver((SEGMENT, stream, raw), to=pair.bob)) is Reason.FLOW_CONTROL


def test_a_mebibyte_without_a_segment_is_refused() -> None:
    pair = Pair()
    stream = pair.opened()
    for _ in range(SEGMENT_BYTES // WINDOW_FIRST):
        pair.deliver((DATA, stream, bytes(WINDOW_FIRST)), to=pair.bob)
        pair.read(pair.bob, stream)
    assert refused(lambda: pair.deliver((DATA, stream, b"!"), to=pair.bob)) is Reason.UNSIGNED


def test_bytes_that_stay_unsigned_for_long_are_refused() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.deliver((DATA, stream, b"x"), to=pair.bob)
    due = pair.bob.streams.deadline
    assert due == pair.now + UNSIGNED_AFTER
    pair.deliver((DATA, stream, b"y"), to=pair.bob)
    assert pair.bob.streams.tick(due - 0.1) == []
    assert refused(lambda: pair.bob.streams.tick(due)) is Reason.UNSIGNED


def test_bytes_after_a_segment_have_their_own_time() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.deliver((DATA, stream, b"x"), to=pair.bob)
    pair.deliver((SEGMENT, stream, pair.segment(stream, offset=1, digest=blake3(b"x").digest())), to=pair.bob)
    pair.now += UNSIGNED_AFTER / 2
    pair.deliver((DATA, stream, b"y"), to=pair.bob)
    assert pair.bob.streams.deadline == pair.now + UNSIGNED_AFTER


def test_an_unsigned_stream_is_never_due() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    pair.write(pair.alice, stream, b"x")
    pair.exchange()
    assert pair.alice.streams.deadline == pair.bob.streams.deadline == math.inf


# --- the end --------------------------------------------------------------------------------------------------------


def test_a_stream_that_ended_both_ways_and_was_read_is_forgotten() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.write(pair.alice, stream, b"question")
    pair.finish(pair.alice, stream)
    pair.exchange()
    pair.write(pair.bob, stream, b"answer")
    pair.finish(pair.bob, stream)
    pair.exchange()
    assert (pair.alice.streams.count, pair.bob.streams.count) == (1, 1)
    pair.read(pair.alice, stream)
    pair.read(pair.bob, stream)
    assert (pair.alice.streams.count, pair.bob.streams.count) == (0, 0)
    assert (bytes(pair.bob.heard[stream]), bytes(pair.alice.heard[stream])) == (b"question", b"answer")


def test_one_direction_goes_on_after_the_other_has_ended() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.finish(pair.alice, stream)
    pair.exchange()
    pair.pump(pair.bob, stream, pattern(WINDOW_FIRST * 3))
    assert bytes(pair.alice.heard[stream]) == pattern(WINDOW_FIRST * 3)


def test_an_end_may_come_before_the_open_is_acknowledged() -> None:
    pair = Pair()
    stream = pair.open(pair.alice)
    pair.write(pair.alice, stream, b"short")
    pair.finish(pair.alice, stream)
    pair.exchange()
    pair.bob.streams.accept(stream, pair.now)
    pair.exchange()
    pair.read(pair.bob, stream)
    pair.finish(pair.bob, stream)
    pair.exchange()
    assert pair.alice.told(StreamAccepted) == [StreamAccepted(stream)]
    assert (pair.alice.streams.count, pair.bob.streams.count) == (0, 0)


def test_a_signed_stream_that_ends_without_a_final_segment_is_truncated() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.deliver((DATA, stream, b"x"), to=pair.bob)
    assert pair.deliver((END, stream, b""), to=pair.bob) == [StreamEnded(stream, truncated=True)]
    assert pair.bob.streams.deadline == math.inf


def test_an_unsigned_stream_that_ends_is_whole() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    assert pair.deliver((END, stream, b""), to=pair.bob) == [StreamEnded(stream, truncated=False)]


def test_an_end_with_a_body_is_refused() -> None:
    pair = Pair()
    stream = pair.opened()
    assert refused(lambda: pair.deliver((END, stream, b"x"), to=pair.bob)) is Reason.MALFORMED


def test_a_frame_of_data_without_data_is_refused() -> None:
    pair = Pair()
    stream = pair.opened()
    assert refused(lambda: pair.deliver((DATA, stream, b""), to=pair.bob)) is Reason.MALFORMED


@pytest.mark.parametrize("kind", [DATA, SEGMENT, END])
def test_nothing_comes_after_the_end(kind: FrameType) -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    pair.deliver((END, stream, b""), to=pair.bob)
    assert refused(lambda: pair.deliver((kind, stream, b"late"), to=pair.bob)) is Reason.FLOW_CONTROL


def test_data_after_both_ends_is_refused_whether_the_stream_is_held_or_not() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    pair.deliver((DATA, stream, b"x"), to=pair.bob)
    pair.deliver((END, stream, b""), to=pair.bob)
    pair.finish(pair.bob, stream)
    assert refused(lambda: pair.deliver((DATA, stream, b"late"), to=pair.bob)) is Reason.FLOW_CONTROL
    pair.read(pair.bob, stream)
    assert pair.bob.streams.count == 0
    assert refused(lambda: pair.deliver((DATA, stream, b"late"), to=pair.bob)) is Reason.FLOW_CONTROL


def test_credit_and_reset_that_were_under_way_at_the_end_are_dropped() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    pair.deliver((DATA, stream, b"x"), to=pair.bob)
    pair.deliver((END, stream, b""), to=pair.bob)
    pair.finish(pair.bob, stream)
    assert pair.deliver((CREDIT, stream, pack_credit(2 * WINDOW_FIRST)), to=pair.bob) == []
    assert pair.deliver((RESET, stream, pack_reset(ReplyStatus.CANCELLED, "")), to=pair.bob) == []
    assert pair.bob.streams.room(stream) == 0
    assert pair.bob.streams.write(stream, memoryview(b"late"), pair.now) == (0, [])
    assert pair.bob.streams.finish(stream, pair.now) == []


def test_no_credit_is_given_for_a_direction_that_has_ended() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    pair.write(pair.alice, stream, bytes(WINDOW_FIRST))
    pair.finish(pair.alice, stream)
    pair.exchange()
    pair.read(pair.bob, stream)
    assert not pair.bob.wire


# --- breaking off ---------------------------------------------------------------------------------------------------


def test_a_reset_ends_both_directions_and_says_why() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.reset(pair.bob, stream, "no more")
    assert pair.move(pair.bob) == [StreamBroken(stream, ReplyStatus.CANCELLED, "no more")]
    assert (pair.alice.streams.count, pair.bob.streams.count) == (0, 0)
    assert pair.alice.streams.deadline == math.inf


def test_what_had_come_before_a_reset_may_still_be_read() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.write(pair.alice, stream, b"before")
    pair.reset(pair.alice, stream)
    pair.exchange()
    assert pair.bob.streams.room(stream) == 0
    assert pair.bob.streams.deadline == math.inf
    assert pair.write(pair.bob, stream, b"nothing") == 0
    assert pair.bob.streams.count == 1
    pair.read(pair.bob, stream)
    assert pair.bob.streams.count == 0


def test_what_is_not_read_of_a_broken_stream_is_forgotten_by_a_reset_that_says_nothing() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.write(pair.alice, stream, b"before")
    pair.reset(pair.alice, stream)
    pair.exchange()
    pair.reset(pair.bob, stream)
    assert not pair.bob.wire
    assert pair.bob.streams.count == 0


def test_a_stream_that_the_peer_breaks_off_before_we_took_it_is_forgotten() -> None:
    pair = Pair()
    stream = pair.open(pair.alice)
    pair.write(pair.alice, stream, b"before")
    pair.move(pair.alice)
    pair.reset(pair.alice, stream)
    pair.move(pair.alice)
    assert pair.bob.streams.count == 0
    pair.bob.streams.accept(stream, pair.now)
    assert pair.bob.streams.frames_to_send() == []


def test_what_we_do_on_a_stream_that_is_over_does_nothing() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.reset(pair.bob, stream)
    pair.exchange()
    for end in (pair.alice, pair.bob):
        assert end.streams.write(stream, memoryview(b"late"), pair.now) == (0, [])
        assert end.streams.finish(stream, pair.now) == []
        end.streams.consumed(stream, 1, pair.now)
        end.streams.reset(stream, ReplyStatus.CANCELLED, "", pair.now)
        assert end.streams.frames_to_send() == []


def test_timers_of_a_stream_end_with_it() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.write(pair.alice, stream, b"x")
    pair.exchange()
    pair.reset(pair.bob, stream)
    assert pair.bob.streams.deadline == math.inf
    pair.exchange()
    assert pair.alice.streams.deadline == math.inf
    assert pair.alice.streams.tick(pair.now + 100) == []


def test_frames_under_way_on_a_stream_that_we_broke_off_are_dropped() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.reset(pair.bob, stream)
    frames = [(CREDIT, pack_credit(0)), (SEGMENT, b""), (END, b""), (RESET, b""), (DATA, bytes(WINDOW_FIRST))]
    for kind, body in frames:
        assert pair.deliver((kind, stream, body), to=pair.bob) == []


@pytest.mark.parametrize("sent", [0, 1000])
def test_a_peer_that_goes_on_sending_on_a_stream_that_we_broke_off_is_refused(sent: int) -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    if sent:
        pair.deliver((DATA, stream, bytes(sent)), to=pair.bob)
    pair.reset(pair.bob, stream)
    pair.deliver((DATA, stream, bytes(WINDOW_FIRST - sent)), to=pair.bob)
    assert refused(lambda: pair.deliver((DATA, stream, b"!"), to=pair.bob)) is Reason.FLOW_CONTROL


def test_nothing_may_be_under_way_on_a_direction_that_had_ended_when_we_broke_the_stream_off() -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    pair.deliver((END, stream, b""), to=pair.bob)
    pair.reset(pair.bob, stream)
    assert refused(lambda: pair.deliver((DATA, stream, b"!"), to=pair.bob)) is Reason.FLOW_CONTROL


def test_the_first_window_of_an_open_that_was_turned_away_may_be_under_way() -> None:
    pair = Pair(StreamLimits(windows=0))
    assert pair.deliver((OPEN, 1, pair.call(OPENING)), to=pair.bob) == []
    assert pair.deliver((DATA, 1, bytes(WINDOW_FIRST)), to=pair.bob) == []
    assert refused(lambda: pair.deliver((DATA, 1, b"!"), to=pair.bob)) is Reason.FLOW_CONTROL


@pytest.mark.parametrize("stream", [0, 3, 2, 4])
@pytest.mark.parametrize("kind", [DATA, CREDIT, SEGMENT, END, RESET])
def test_a_frame_for_a_stream_that_nobody_opened_is_refused(kind: FrameType, stream: int) -> None:
    pair = Pair()
    pair.opened()
    assert refused(lambda: pair.deliver((kind, stream, b""), to=pair.bob)) is Reason.FLOW_CONTROL


@pytest.mark.parametrize(
    "body", [b"", make_map(2), make_map(99, ""), make_map(256, ""), make_map(1, "x" * (RESET_TEXT_MAX + 1)), make_map(1, b"")]
)
def test_a_reset_of_another_form_is_refused(body: bytes) -> None:
    pair = Pair()
    stream = pair.opened()
    assert refused(lambda: pair.deliver((RESET, stream, body), to=pair.bob)) is Reason.MALFORMED


def test_the_text_of_a_reset_is_cut_to_what_a_peer_takes() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.reset(pair.bob, stream, "é" * 200 + "\ud800")
    [broken] = pair.move(pair.bob)
    assert isinstance(broken, StreamBroken)
    assert broken.text == "é" * 128


def test_when_the_link_ends_every_stream_that_is_not_over_is_broken() -> None:
    pair = Pair()
    over, one, two = pair.opened(), pair.opened(), pair.open(pair.alice)
    pair.write(pair.bob, over, b"unread")
    for end in (pair.alice, pair.bob):
        pair.finish(end, over)
        pair.exchange()
    pair.write(pair.alice, one, b"x")
    events = pair.alice.streams.end_all(ReplyStatus.FAILED, "the link ended")
    assert events == [StreamBroken(stream, ReplyStatus.FAILED, "the link ended") for stream in (one, two)]
    assert (pair.alice.streams.count, pair.alice.streams.deadline) == (0, math.inf)
    assert pair.alice.streams.end_all(ReplyStatus.FAILED, "again") == []


# --- whole talks ----------------------------------------------------------------------------------------------------


def test_both_push_without_reading_and_then_read() -> None:
    pair = Pair()
    stream = pair.opened()
    data = {end.role: pattern(3 * SEGMENT_BYTES + int(end.role)) for end in (pair.alice, pair.bob)}
    taken = {end.role: 0 for end in (pair.alice, pair.bob)}

    def push(end: End) -> None:
        taken[end.role] += pair.write(end, stream, data[end.role][taken[end.role] :])

    while any(taken[end.role] < len(data[end.role]) for end in (pair.alice, pair.bob)):
        before = dict(taken)
        for end in (pair.alice, pair.bob):
            push(end)
        pair.exchange()
        for end in (pair.alice, pair.bob):
            pair.read(end, stream)
        pair.exchange()
        assert taken != before
    for end in (pair.alice, pair.bob):
        pair.finish(end, stream)
    pair.exchange()
    for end in (pair.alice, pair.bob):
        assert bytes(pair.other(end).heard[stream]) == data[end.role]


def test_the_same_frames_one_by_one_give_the_same_bytes() -> None:
    pair = Pair()
    stream = pair.opened()
    pair.write(pair.alice, stream, pattern(WINDOW_FIRST))
    pair.finish(pair.alice, stream)
    pair.move(pair.alice, merge=False)
    assert bytes(pair.bob.heard[stream]) == pattern(WINDOW_FIRST)
    assert len(pair.bob.told(StreamData)) > 1


@pytest.mark.parametrize("form", [bytearray, memoryview])
def test_data_is_passed_on_uncopied_in_whatever_form_it_comes(form: type) -> None:
    pair = Pair()
    stream = pair.opened()
    body = form(b"as it was decrypted")
    [event] = pair.bob.streams.receive(DATA, stream, body, pair.now)
    assert isinstance(event, StreamData)
    assert event.data is body
