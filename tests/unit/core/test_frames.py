"""Tests of overlay/core/frames.py: the form of frames, and messages in parts within their bounds."""

import pytest

from overlay.core.frames import Frame, Reassembler, coalesce, pack, pack_message, parse_frames
from overlay.core.limits import FRAME_BODY_MAX, NOISE_PLAINTEXT_MAX, PARTIAL_MESSAGES_MAX
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import RESERVED_FRAMES, FrameFlag, FrameType, Reason

PING = Frame(FrameType.PING, body=b"12345678")
CALL = Frame(FrameType.CALL, FrameFlag.MORE, 5, b"part")


def refused(reason: Reason, plaintext: bytes) -> None:
    """The record must be refused for this reason."""
    with pytest.raises(Refused) as caught:
        parse_frames(plaintext)
    assert caught.value.reason is reason


def test_a_frame_is_type_flags_stream_length_and_body() -> None:
    assert pack(CALL) == b"\x20\x01\x00\x00\x00\x05\x00\x04part"


def test_several_frames_share_a_record() -> None:
    assert parse_frames(pack(PING) + pack(CALL) + pack(Frame(FrameType.DONE))) == [PING, CALL, Frame(FrameType.DONE)]


@pytest.mark.parametrize("kind", sorted(FrameType))
def test_every_type_of_the_registry_is_given_out(kind: FrameType) -> None:
    (frame,) = parse_frames(pack(Frame(kind)))
    assert frame.type is kind


def test_reserved_types_are_given_out_so_that_they_can_be_answered() -> None:
    assert {parse_frames(pack(Frame(kind)))[0].type for kind in RESERVED_FRAMES} == RESERVED_FRAMES


def test_the_longest_frame_fills_a_record() -> None:
    frame = Frame(FrameType.PUBLISH, body=bytes(FRAME_BODY_MAX))
    assert len(pack(frame)) == NOISE_PLAINTEXT_MAX
    assert parse_frames(pack(frame)) == [frame]
    with pytest.raises(LocalProtocolError):
        pack(Frame(FrameType.PUBLISH, body=bytes(FRAME_BODY_MAX + 1)))


def test_an_empty_record_is_malformed() -> None:
    refused(Reason.MALFORMED, b"")


def test_a_frame_that_is_cut_off_is_malformed() -> None:
    whole = pack(PING) + pack(CALL)
    for length in set(range(1, len(whole))) - {len(pack(PING))}:
        refused(Reason.MALFORMED, whole[:length])


def test_no_frame_reaches_into_the_next_record() -> None:
    refused(Reason.MALFORMED, b"\x10\x00\x00\x00\x00\x00\x00\x09" + b"12345678")


@pytest.mark.parametrize("flags", [0x02, 0x03, 0x80, 0xFF])
@pytest.mark.parametrize("kind", [FrameType.PING, 0x80])
def test_an_unknown_flag_is_malformed(kind: int, flags: int) -> None:
    refused(Reason.MALFORMED, bytes([kind, flags, 0, 0, 0, 0, 0, 0]))


@pytest.mark.parametrize("kind", [0x00, 0x1A, 0x46, 0x7F])
def test_an_unknown_type_below_0x80_is_unsupported(kind: int) -> None:
    refused(Reason.UNSUPPORTED, pack(PING) + bytes([kind, 0, 0, 0, 0, 0, 0, 0]))


@pytest.mark.parametrize("kind", [0x80, 0xC3, 0xFF])
def test_an_unknown_type_from_0x80_on_is_skipped(kind: int) -> None:
    unknown = bytes([kind, 1, 0, 0, 0, 0, 0, 2]) + b"??"
    assert parse_frames(unknown + pack(PING) + unknown) == [PING]
    assert parse_frames(unknown) == []


def test_a_body_is_hidden_from_repr() -> None:
    assert "part" not in repr(CALL)


@pytest.mark.parametrize("length", [0, 1, FRAME_BODY_MAX, FRAME_BODY_MAX + 1, 2 * FRAME_BODY_MAX, 200_000])
def test_a_message_of_any_length_travels_in_parts(length: int) -> None:
    body = bytes(index % 251 for index in range(length))
    packed = pack_message(FrameType.CALL, 3, body)
    assert len(packed) == max(1, -(-length // FRAME_BODY_MAX))
    frames = [frame for one in packed for frame in parse_frames(one)]
    assert [bool(frame.flags & FrameFlag.MORE) for frame in frames] == [True] * (len(frames) - 1) + [False]
    assert join(frames) == [Frame(FrameType.CALL, FrameFlag.NONE, 3, body)]


def join(frames: list[Frame], limit: int = 10**6) -> list[Frame]:
    """The whole messages that come out."""
    parts = Reassembler(lambda _: limit)
    return [whole for frame in frames if (whole := parts.add(frame)) is not None]


def test_parts_of_several_messages_may_interleave_on_different_streams_and_types() -> None:
    more = FrameFlag.MORE
    frames = [
        Frame(FrameType.CALL, more, 1, b"a"),
        Frame(FrameType.CALL, more, 3, b"x"),
        Frame(FrameType.REPLY, more, 1, b"r"),
        Frame(FrameType.CALL, body=b"b", stream=1),
        Frame(FrameType.REPLY, body=b"", stream=1),
        Frame(FrameType.CALL, body=b"y", stream=3),
    ]
    assert [(whole.type, whole.stream, whole.body) for whole in join(frames)] == [
        (FrameType.CALL, 1, b"ab"),
        (FrameType.REPLY, 1, b"r"),
        (FrameType.CALL, 3, b"xy"),
    ]


def test_a_message_above_the_limit_of_its_type_is_refused_at_the_part_that_exceeds_it() -> None:
    parts = Reassembler(lambda kind: 10 if kind is FrameType.CALL else 5)
    assert parts.add(Frame(FrameType.CALL, FrameFlag.MORE, 1, b"1234567890")) is None
    for frame in (Frame(FrameType.CALL, stream=1, body=b"1"), Frame(FrameType.PING, body=b"123456")):
        with pytest.raises(Refused) as caught:
            parts.add(frame)
        assert caught.value.reason is Reason.TOO_LARGE
    assert parts.add(Frame(FrameType.CALL, stream=1)) == Frame(FrameType.CALL, stream=1, body=b"1234567890")


def test_an_empty_part_before_the_last_is_malformed() -> None:
    with pytest.raises(Refused) as caught:
        join([Frame(FrameType.CALL, FrameFlag.MORE, 1)])
    assert caught.value.reason is Reason.MALFORMED


def test_only_so_many_messages_may_be_under_way() -> None:
    parts = Reassembler(lambda _: 10)
    for stream in range(PARTIAL_MESSAGES_MAX):
        parts.add(Frame(FrameType.CALL, FrameFlag.MORE, stream, b"a"))
    assert parts.under_way == PARTIAL_MESSAGES_MAX
    with pytest.raises(Refused) as caught:
        parts.add(Frame(FrameType.CALL, FrameFlag.MORE, PARTIAL_MESSAGES_MAX, b"a"))
    assert caught.value.reason is Reason.TOO_LARGE
    assert parts.add(Frame(FrameType.CALL, FrameFlag.MORE, 0, b"b")) is None
    assert parts.add(Frame(FrameType.CALL, stream=0, body=b"c")) == Frame(FrameType.CALL, stream=0, body=b"abc")
    assert parts.under_way == PARTIAL_MESSAGES_MAX - 1


def test_parts_that_nobody_wants_any_more_are_forgotten() -> None:
    parts = Reassembler(lambda _: 10)
    parts.add(Frame(FrameType.CALL, FrameFlag.MORE, 1, b"a"))
    parts.drop(FrameType.CALL, 1)
    parts.drop(FrameType.CALL, 2)
    assert parts.under_way == 0
    assert parts.add(Frame(FrameType.CALL, stream=1, body=b"new")) == Frame(FrameType.CALL, stream=1, body=b"new")


def test_small_frames_share_a_record_and_large_ones_fill_it() -> None:
    small, large = b"s" * 100, b"l" * NOISE_PLAINTEXT_MAX
    assert coalesce([]) == []
    assert coalesce([small] * 3) == [small * 3]
    assert coalesce([small, large, small, small]) == [small, large, small * 2]
    full = NOISE_PLAINTEXT_MAX // 100
    assert [len(record) for record in coalesce(iter([small] * (full + 1)))] == [full * 100, 100]
    assert coalesce([b"a" * (NOISE_PLAINTEXT_MAX - 100), small]) == [b"a" * (NOISE_PLAINTEXT_MAX - 100) + small]
