"""Tests of overlay/core/outbox.py: whose message goes first, under which keys, and in which records."""

import struct
from collections.abc import Sequence

import pytest

from overlay.core.frames import Frame, Reassembler, parse_frames
from overlay.core.limits import (
    FRAME_BODY_MAX,
    MESSAGE_MAX,
    NOISE_PLAINTEXT_MAX,
    RECORD_MAX,
    SEAL_AT_ONCE,
    SEGMENT_MAX,
    TELEMETRY_QUEUE_MAX,
    WRITE_MAX,
)
from overlay.core.outbox import ROOM, Lane, Outbox, Piece
from overlay.core.records import OVERHEAD, Opener, RecordReader, Sealer
from overlay.registry import FrameFlag, FrameType

OLD, NEW = bytes(32), bytes([1]) * 32
KIB = 1024
PING, OFFER, GOODBYE = FrameType.PING, FrameType.OFFER, FrameType.GOODBYE
HEADS, CALL, TELEMETRY = FrameType.HEADS, FrameType.CALL, FrameType.TRANSIENT_BATCH
DATA, SEGMENT, END = FrameType.STREAM_DATA, FrameType.STREAM_SEGMENT, FrameType.STREAM_END


class Reader:
    """The other end: opens everything in order, so nothing may be sealed twice with a nonce, nor be left out."""

    def __init__(self, key: bytes = OLD) -> None:
        self._reader = RecordReader()
        self._opener = Opener(key)
        self._whole = Reassembler(lambda _kind: 2**32)
        self.records: list[list[Frame]] = []

    def take(self, data: bytes | bytearray | memoryview) -> list[tuple[FrameType, bytes]]:
        """The messages in there, in order."""
        found: list[tuple[FrameType, bytes]] = []
        rest = memoryview(bytes(data))
        while rest:  # a reader takes about one record ahead
            self._reader.feed(rest[: RECORD_MAX + 2])
            rest = rest[RECORD_MAX + 2 :]
            while (body := self._reader.next_record()) is not None:
                frames = parse_frames(self._opener.open(body))
                self.records.append(frames)
                found += [(frame.type, frame.body) for frame in map(self._whole.add, frames) if frame is not None]
        assert not self._reader.buffered
        return found

    def change(self, key: bytes) -> None:
        self._opener = Opener(key)


def begun() -> Outbox:
    outbox = Outbox()
    outbox.begin(Sealer(OLD))
    return outbox


def taken(outbox: Outbox) -> list[bytes]:
    """Until nothing waits."""
    found = []
    while data := outbox.take():
        found.append(data)
    assert outbox.queued == 0
    return found


def said(outbox: Outbox, reader: Reader | None = None) -> list[tuple[FrameType, bytes]]:
    return (reader or Reader()).take(b"".join(taken(outbox)))


# --- lanes ----------------------------------------------------------------------------------------------------------


def test_an_outbox_that_holds_nothing_gives_nothing() -> None:
    assert begun().take() == b""
    assert Outbox().take() == b""


def test_bytes_of_the_handshake_go_as_they_are_and_before_everything_that_is_sealed() -> None:
    outbox = Outbox()
    outbox.raw(b"message 1")
    assert outbox.queued == 9
    outbox.raw(b", and 2")
    outbox.begin(Sealer(OLD))
    outbox.put(PING, 0, b"p")
    data = outbox.take()
    assert data.startswith(b"message 1, and 2")
    assert Reader().take(data[16:]) == [(PING, b"p")]
    assert outbox.queued == 0


def test_control_goes_before_whatever_waits_in_other_lanes() -> None:
    outbox = begun()
    for kind in (TELEMETRY, CALL, HEADS, PING):
        outbox.put(kind, 0, kind.name.encode())
    assert [kind for kind, _ in said(outbox)] == [PING, HEADS, CALL, TELEMETRY]


def test_audit_calls_and_telemetry_take_turns_message_by_message() -> None:
    outbox = begun()
    for number in b"012":
        outbox.put(TELEMETRY, 0, b"t%c" % number)
    for number in b"0123":
        outbox.put(CALL, 0, b"c%c" % number)
    for number in b"01":
        outbox.put(HEADS, 0, b"h%c" % number)
    assert [body for _, body in said(outbox)] == [b"h0", b"c0", b"t0", b"h1", b"c1", b"t1", b"c2", b"t2", b"c3"]


@pytest.mark.parametrize(
    ("kind", "before"),
    [
        (FrameType.HEADS, CALL), (FrameType.WANT, CALL), (FrameType.ITEMS, CALL),
        (FrameType.CALL, TELEMETRY), (FrameType.REPLY, TELEMETRY), (FrameType.REPLY_CREDIT, TELEMETRY),
        (FrameType.CANCEL, TELEMETRY),
        (FrameType.STREAM_OPEN, HEADS), (FrameType.STREAM_CREDIT, HEADS), (FrameType.EVIDENCE, HEADS),
    ],
)  # fmt: skip
def test_every_message_has_its_lane(kind: FrameType, before: FrameType) -> None:
    outbox = begun()
    outbox.put(before, 0, b"")
    outbox.put(kind, 0, b"")
    assert [found for found, _ in said(outbox)] == [kind, before]


@pytest.mark.parametrize("greedy", [HEADS, CALL, TELEMETRY])
def test_no_lane_starves_while_another_is_never_empty(greedy: FrameType) -> None:
    """However much one lane holds, a message of another is in the next bytes that are taken."""
    outbox, reader = begun(), Reader()
    for _ in range(8):
        outbox.put(greedy, 0, bytes(120 * KIB))
    for kind in {HEADS, CALL, TELEMETRY} - {greedy}:
        outbox.put(kind, 0, b"short")
        outbox.put(greedy, 0, bytes(KIB))
        assert (kind, b"short") in reader.take(outbox.take())


def test_messages_of_one_lane_keep_their_order_and_their_streams() -> None:
    outbox, reader = begun(), Reader()
    for stream, kind in enumerate([CALL, FrameType.REPLY, FrameType.CANCEL, FrameType.REPLY_CREDIT, CALL]):
        outbox.put(kind, stream, b"")
    reader.take(outbox.take())
    assert [(frame.stream, frame.type) for frame in reader.records[0]] == [
        (0, CALL), (1, FrameType.REPLY), (2, FrameType.CANCEL), (3, FrameType.REPLY_CREDIT), (4, CALL)
    ]  # fmt: skip


def test_telemetry_drops_its_oldest_and_nothing_else() -> None:
    outbox = begun()
    outbox.put(CALL, 0, bytes(900 * KIB))
    for number in range(4):
        outbox.put(TELEMETRY, 0, bytes([number]) * (400 * KIB))
    assert outbox.queued < TELEMETRY_QUEUE_MAX + 901 * KIB
    assert [(kind, body[0]) for kind, body in said(outbox)] == [(CALL, 0), (TELEMETRY, 2), (TELEMETRY, 3)]


def test_one_message_of_telemetry_is_kept_however_large_it_is() -> None:
    outbox = begun()
    for number in range(2):
        outbox.put(TELEMETRY, 0, bytes([number]) * MESSAGE_MAX)
    [(_, body)] = said(outbox)
    assert body == bytes([1]) * MESSAGE_MAX


def test_telemetry_that_was_taken_counts_no_more() -> None:
    outbox, reader = begun(), Reader()
    for _ in range(5):
        outbox.put(TELEMETRY, 0, bytes(600 * KIB))
        assert reader.take(b"".join(taken(outbox))) == [(TELEMETRY, bytes(600 * KIB))]
    for number in range(2):
        outbox.put(TELEMETRY, 0, bytes([number]) * (500 * KIB))
    assert len(said(outbox, reader)) == 2


# --- what is taken at once --------------------------------------------------------------------------------------------


def test_what_is_taken_at_once_is_bounded_and_all_of_it_comes() -> None:
    outbox, reader = begun(), Reader()
    bodies = [bytes([number]) * (100 * KIB) for number in range(40)]
    for body in bodies:
        outbox.put(CALL, 0, body)
    found = taken(outbox)
    assert max(map(len, found)) < SEAL_AT_ONCE + 110 * KIB
    assert len(found) >= 40 * 100 * KIB // (SEAL_AT_ONCE + 110 * KIB)
    assert reader.take(b"".join(found)) == [(CALL, body) for body in bodies]


def test_small_messages_share_a_record_and_no_record_is_too_long() -> None:
    outbox, reader = begun(), Reader()
    for size in (10, 20, 30, FRAME_BODY_MAX, 1, 40 * KIB, 40 * KIB, 3 * FRAME_BODY_MAX + 1):
        outbox.put(CALL, 0, bytes(size))
    reader.take(b"".join(taken(outbox)))
    assert [[len(frame.body) for frame in frames] for frames in reader.records] == [
        [10, 20, 30], [FRAME_BODY_MAX], [1, 40 * KIB], [40 * KIB], [FRAME_BODY_MAX], [FRAME_BODY_MAX], [FRAME_BODY_MAX], [1]
    ]  # fmt: skip


def test_what_waits_is_counted_in_bytes() -> None:
    outbox = begun()
    outbox.put(CALL, 0, bytes(100))
    outbox.put(TELEMETRY, 0, b"")
    assert outbox.queued == (8 + 100) + 8
    outbox.put_last(GOODBYE, b"bye")
    sealed = (8 + 100) + 8 + 2 * OVERHEAD  # one lane after the other
    assert outbox.queued == sealed + (8 + 3)
    assert len(outbox.take()) == sealed + (8 + 3) + OVERHEAD
    assert outbox.queued == 0


# --- other keys, and what goes last -----------------------------------------------------------------------------------


def test_a_change_of_keys_seals_control_under_the_old_ones_and_nothing_else() -> None:
    outbox, reader = begun(), Reader()
    outbox.put(CALL, 0, b"call")
    outbox.put(FrameType.DONE, 0, b"")
    outbox.change(Sealer(NEW))
    outbox.put(FrameType.CONFIRM, 0, b"confirm")
    assert outbox.sealer.records == 0
    data = outbox.take()
    end = 2 + struct.unpack(">H", data[:2])[0]
    assert reader.take(data[:end]) == [(FrameType.DONE, b"")]
    reader.change(NEW)
    assert reader.take(data[end:]) == [(FrameType.CONFIRM, b"confirm"), (CALL, b"call")]


def test_a_change_of_keys_with_nothing_to_say_seals_nothing() -> None:
    outbox = begun()
    old = outbox.sealer
    outbox.change(Sealer(NEW))
    assert old.records == outbox.sealer.records == outbox.queued == 0


def test_what_is_put_last_goes_behind_everything_in_any_lane() -> None:
    outbox = begun()
    for kind in (TELEMETRY, CALL, HEADS, PING):
        outbox.put(kind, 0, b"before")
        outbox.put(kind, 0, b"too")
    outbox.put_last(GOODBYE, b"bye")
    found = said(outbox)
    assert found[-1] == (GOODBYE, b"bye")
    assert {kind for kind, _ in found[:-1]} == {TELEMETRY, CALL, HEADS, PING}
    assert len(found) == 9


def test_what_is_put_after_the_last_goes_after_it() -> None:
    outbox = begun()
    outbox.put(CALL, 0, b"under the old credentials")
    outbox.put_last(FrameType.CREDENTIALS, b"")
    outbox.put(HEADS, 0, b"under the new ones")
    outbox.put(PING, 0, b"")
    assert [kind for kind, _ in said(outbox)] == [CALL, FrameType.CREDENTIALS, PING, HEADS]


# --- streams ----------------------------------------------------------------------------------------------------------


def pieces_of(*sizes: int) -> list[Piece]:
    return [(DATA, 7, bytes([number]) * size) for number, size in enumerate(sizes)]


def into(outbox: Outbox, pieces: Sequence[Piece]) -> bytes:
    """Sealed into a buffer that was used before; nothing behind what is said to be filled has changed."""
    room = memoryview(bytearray(b"\xee" * ROOM))
    size = outbox.seal_into(pieces, room)
    assert bytes(room[size:]) == b"\xee" * (ROOM - size)
    return bytes(room[:size])


def test_pieces_of_a_stream_go_behind_control_and_before_all_other_lanes() -> None:
    outbox = begun()
    outbox.put(CALL, 0, b"call")
    outbox.put(FrameType.STREAM_CREDIT, 7, b"credit")
    outbox.seal_pieces([(SEGMENT, 7, b"segment"), (END, 7, b"")])
    assert [kind for kind, _ in said(outbox)] == [FrameType.STREAM_CREDIT, SEGMENT, END, CALL]


def test_no_pieces_of_a_stream_are_no_record() -> None:
    outbox = begun()
    outbox.seal_pieces([])
    assert into(outbox, []) == b""
    assert outbox.sealer.records == outbox.queued == 0


def test_small_pieces_share_a_record_and_large_ones_have_one_each() -> None:
    outbox, reader = begun(), Reader()
    pieces: list[Piece] = [*pieces_of(10, 20, FRAME_BODY_MAX, FRAME_BODY_MAX, 30), (SEGMENT, 7, bytes(300)), (END, 7, b"")]
    assert reader.take(into(outbox, pieces)) == [(kind, bytes(body)) for kind, _, body in pieces]
    assert [len(frames) for frames in reader.records] == [2, 1, 1, 3]
    assert {(frame.stream, frame.flags) for frames in reader.records for frame in frames} == {(7, FrameFlag.NONE)}


@pytest.mark.parametrize("short", [0, 1])
def test_a_record_of_pieces_is_filled_to_the_last_byte_and_not_beyond(short: int) -> None:
    outbox, reader = begun(), Reader()
    first = 1000
    second = NOISE_PLAINTEXT_MAX - (8 + first) - 8 + (1 - short)
    data = into(outbox, pieces_of(first, second))
    assert [body for _, body in reader.take(data)] == [bytes(first), bytes([1]) * second]
    assert len(reader.records) == 2 - short
    assert len(data) == 8 + first + 8 + second + OVERHEAD * (2 - short)


def test_pieces_may_be_views_and_are_not_changed() -> None:
    data = bytearray(b"abcdefgh")
    outbox = begun()
    sealed = into(outbox, [(DATA, 7, memoryview(data)[2:5]), (DATA, 7, memoryview(data)[5:])])
    assert Reader().take(sealed) == [(DATA, b"cde"), (DATA, b"fgh")]
    assert data == b"abcdefgh"


def test_both_ways_to_seal_pieces_are_the_same_bytes() -> None:
    pieces = [*pieces_of(10, FRAME_BODY_MAX, 20, 30)]
    one, other = begun(), begun()
    one.seal_pieces(pieces)
    assert one.take() == into(other, pieces)


def test_the_largest_write_of_a_stream_fits_into_the_buffer() -> None:
    """A segment may stand anywhere in it, and no record is longer than the protocol allows."""
    for before in (1, FRAME_BODY_MAX - 1, FRAME_BODY_MAX, WRITE_MAX // 2, WRITE_MAX - 1):
        whole, rest = divmod(before, FRAME_BODY_MAX)
        after, last = divmod(WRITE_MAX - before, FRAME_BODY_MAX)
        pieces: list[Piece] = [*pieces_of(*[FRAME_BODY_MAX] * whole, *[rest] * bool(rest)), (SEGMENT, 7, bytes(SEGMENT_MAX))]
        pieces += pieces_of(*[FRAME_BODY_MAX] * after, *[last] * bool(last))
        assert [body for _, body in Reader().take(into(begun(), pieces))] == [bytes(body) for _, _, body in pieces]


def test_nothing_is_sealed_twice_under_a_nonce_whichever_way_it_goes() -> None:
    """One reader opens everything in the order in which it was sealed; its counter allows no gap and no repetition."""
    outbox, reader = begun(), Reader()
    found = []
    for number in range(3):
        outbox.put(PING, 0, b"ping")
        outbox.put(CALL, 0, bytes(SEAL_AT_ONCE))
        outbox.seal_pieces(pieces_of(5))
        outbox.put_last(OFFER, bytes([number]))
        found += reader.take(b"".join(taken(outbox)))
        found += reader.take(into(outbox, pieces_of(10, FRAME_BODY_MAX)))
    assert len(found) == 3 * 6
    assert outbox.sealer.records == len(reader.records)


def test_lanes_stand_in_their_order() -> None:
    assert sorted(Lane) == [Lane.CONTROL, Lane.AUDIT, Lane.CALLS, Lane.TELEMETRY]
