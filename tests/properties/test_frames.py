"""Properties of records, frames and first messages: cuts do not matter, any bytes are read or refused."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.frames import Frame, Reassembler, coalesce, pack, pack_message, parse_frames
from overlay.core.gate import NO_TAG, SeenEphemerals, check_hello, make_hello
from overlay.core.keys import X25519Pair
from overlay.core.limits import FRAME_BODY_MAX, NOISE_PLAINTEXT_MAX, PARTIAL_MESSAGES_MAX, RECORD_MAX
from overlay.core.noise import XX, KKpsk0
from overlay.core.records import Opener, RecordReader, Sealer
from overlay.errors import Refused
from overlay.registry import FrameFlag, FrameType, Mode, Reason

KEY = bytes(range(32))
OPENER, OTHER, FRESH, FRESH_OTHER = (X25519Pair.from_private(bytes([number]) * 32) for number in range(1, 5))

many = settings(deadline=None, max_examples=200)
some = settings(deadline=None, max_examples=50)

frame_types = st.sampled_from(list(FrameType))
frames = st.builds(
    Frame,
    type=frame_types,
    flags=st.sampled_from([FrameFlag.NONE, FrameFlag.MORE]),
    stream=st.integers(0, 2**32 - 1),
    body=st.binary(max_size=40),
)
plaintexts = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8)
lengths = st.one_of(
    st.integers(0, 100),
    st.sampled_from([FRAME_BODY_MAX - 1, FRAME_BODY_MAX, FRAME_BODY_MAX + 1, 2 * FRAME_BODY_MAX, 200_000]),
)


def read_all(reader: RecordReader, pieces: list[bytes]) -> list[bytes | Reason]:
    """What comes out, with the reason at the end if it ends in a refusal."""
    found: list[bytes | Reason] = []
    for piece in pieces:
        reader.feed(piece)
        try:
            while (body := reader.next_record()) is not None:
                found.append(body)
        except Refused as error:
            return [*found, error.reason]
    return found


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def only_refuses(act: Callable[[], object]) -> None:
    """Whatever it does, it may raise Refused and nothing else."""
    try:
        act()
    except Refused:
        return


@many
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10), st.integers(1, 300))
def test_records_are_the_same_however_the_bytes_were_cut(data: bytes, places: list[int], maximum: int) -> None:
    whole = read_all(RecordReader(maximum), [data])
    assert read_all(RecordReader(maximum), cut(data, places)) == whole
    assert read_all(RecordReader(maximum), [bytes([byte]) for byte in data]) == whole


@some
@given(st.lists(st.binary(max_size=2000), max_size=20))
def test_a_reader_holds_no_more_than_one_record_and_the_last_piece(pieces: list[bytes]) -> None:
    reader = RecordReader()
    for piece in pieces:
        held = reader.buffered
        read_all(reader, [piece])
        assert reader.buffered <= min(held + len(piece), RECORD_MAX + 1)


@many
@given(plaintexts)
def test_what_is_sealed_in_one_piece_is_what_is_sealed_one_by_one(parts: list[bytes]) -> None:
    sealer = Sealer(KEY)
    together = bytes(Sealer(KEY).seal_all(parts))
    assert together == b"".join(sealer.seal(part) for part in parts)
    opener = Opener(KEY)
    bodies = read_all(RecordReader(), [together])
    assert [opener.open(body) for body in bodies if not isinstance(body, Reason)] == parts


@many
@given(plaintexts, st.data())
def test_a_record_mutated_dropped_doubled_or_moved_is_refused(parts: list[bytes], data: st.DataObject) -> None:
    sealer = Sealer(KEY)
    good = [sealer.seal(part)[2:] for part in parts]
    at = data.draw(st.integers(0, len(good) - 1))
    tamper = data.draw(st.sampled_from([_mutate, _cut_short, _drop, _double, _swap, _invent]))
    bad = tamper(good, at, data)
    opener = Opener(KEY)
    opened, reason = [], None
    for body in bad:
        try:
            opened.append(opener.open(body))
        except Refused as error:
            reason = reason or error.reason
    assert opened == parts[: len(opened)]
    assert len(opened) <= at + 1
    assert reason is Reason.BAD_RECORD or (tamper in (_drop, _swap) and at == len(good) - 1)


def _mutate(good: list[bytes], at: int, data: st.DataObject) -> list[bytes]:
    bit = data.draw(st.integers(0, len(good[at]) * 8 - 1))
    wrong = bytearray(good[at])
    wrong[bit // 8] ^= 1 << bit % 8
    return [*good[:at], bytes(wrong), *good[at + 1 :]]


def _cut_short(good: list[bytes], at: int, data: st.DataObject) -> list[bytes]:
    return [*good[:at], good[at][: data.draw(st.integers(1, len(good[at]) - 1))], *good[at + 1 :]]


def _drop(good: list[bytes], at: int, _: st.DataObject) -> list[bytes]:
    return good[:at] + good[at + 1 :]


def _double(good: list[bytes], at: int, _: st.DataObject) -> list[bytes]:
    return good[: at + 1] + good[at:]


def _swap(good: list[bytes], at: int, _: st.DataObject) -> list[bytes]:
    return good[:at] + good[at : at + 2][::-1] + good[at + 2 :]


def _invent(good: list[bytes], at: int, data: st.DataObject) -> list[bytes]:
    return [*good[:at], data.draw(st.binary(min_size=1, max_size=60)), *good[at:]]


@many
@given(st.lists(frames, max_size=10))
def test_frames_come_back_as_they_went(sent: list[Frame]) -> None:
    found = [frame for record in coalesce(pack(frame) for frame in sent) for frame in parse_frames(record)]
    assert found == sent


@many
@given(st.binary(max_size=100) | st.lists(frames, max_size=3).map(lambda sent: b"".join(map(pack, sent))), st.data())
def test_any_bytes_are_frames_or_refused(plaintext: bytes, data: st.DataObject) -> None:
    wrong = bytearray(plaintext)
    if wrong:
        wrong[data.draw(st.integers(0, len(wrong) - 1))] ^= data.draw(st.integers(1, 255))
    only_refuses(lambda: parse_frames(plaintext))
    only_refuses(lambda: parse_frames(bytes(wrong)))


@some
@given(st.lists(lengths, min_size=1, max_size=5))
def test_messages_of_any_length_come_back_whole(sizes: list[int]) -> None:
    bodies = [bytes([number]) * size for number, size in enumerate(sizes)]
    packed = [part for number, body in enumerate(bodies) for part in pack_message(FrameType.CALL, number, body)]
    records = coalesce(packed)
    assert all(len(record) <= NOISE_PLAINTEXT_MAX for record in records)
    parts = Reassembler(lambda _: 200_000)
    wholes = [parts.add(frame) for record in records for frame in parse_frames(record)]
    assert [whole.body for whole in wholes if whole is not None] == bodies
    assert parts.under_way == 0


@many
@given(st.lists(frames, max_size=200))
def test_any_frames_are_joined_within_bounds_or_refused(sent: list[Frame]) -> None:
    parts = Reassembler(lambda _: 100)
    for frame in sent:
        before = parts.under_way
        try:
            whole = parts.add(frame)
        except Refused:
            assert parts.under_way == before
        else:
            assert whole is None or len(whole.body) <= 100
        assert parts.under_way <= PARTIAL_MESSAGES_MAX


@many
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_no_bytes_pass_the_gate_without_its_key(hello: bytes, ephemeral: bytes) -> None:
    with pytest.raises(Refused):
        check_hello(hello, ephemeral, [KEY], [NO_TAG], SeenEphemerals())


@many
@given(st.binary(min_size=19, max_size=19))
def test_only_one_hello_passes_for_an_e(hello: bytes) -> None:
    good = make_hello(KEY, Mode.MEMBER, NO_TAG, FRESH.public)
    mixed = good[:3] + hello[3:]
    with pytest.raises(Refused):
        check_hello(mixed, FRESH.public, [KEY], [NO_TAG], SeenEphemerals())


@many
@given(st.binary(max_size=200))
def test_any_bytes_as_a_handshake_message_are_refused(message: bytes) -> None:
    opener = XX.initiator(b"", OPENER, FRESH)
    other = XX.responder(b"", OTHER, FRESH_OTHER)
    other.read(opener.write())
    other.write()
    answerer = KKpsk0.responder(b"", OTHER, FRESH_OTHER, OPENER.public, KEY)
    for side in (opener, other, answerer):
        with pytest.raises(Refused):
            side.read(message)
    first = XX.responder(b"", OTHER, FRESH_OTHER)
    only_refuses(lambda: (first.read(message), first.write()))
