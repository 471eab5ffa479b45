"""Whatever an authentic peer says, what comes of it does not depend on how TCP cut the bytes."""


from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.frames import Frame, pack
from overlay.core.limits import FRAME_BODY_MAX, SEGMENT_AFTER, SEGMENT_BYTES, WINDOW_FIRST
from overlay.core.messages import sign_call
from overlay.core.outbox import ROOM
from overlay.core.session_events import Event, Failed
from overlay.core.stream_events import StreamData, StreamOffered
from overlay.core.stream_formats import pack_credit, pack_opening, pack_reset
from overlay.core.wire import make_map, sha256
from overlay.registry import FrameFlag, FrameType, Reason, ReplyStatus
from tests.fuzz.kit import hear_in_pieces, open_pair
from tests.unit.core.session_kit import ALICE, BOB, LAB, Pair, local, records

Told = list[Event]
DATA = FrameType.STREAM_DATA

streams = st.sampled_from([1, 1, 1, 3, 2, 0])
control = st.sampled_from(
    [
        Frame(FrameType.PING, body=make_map(1, 1)), Frame(FrameType.PONG, body=make_map(1, 1)),
        Frame(FrameType.CALL, FrameFlag.MORE, 5, b"part"), Frame(FrameType.CALL, stream=5, body=b"end"),
        Frame(FrameType.ATTEST_OPEN, body=make_map(1)), Frame(FrameType.GOODBYE, body=make_map(int(Reason.SHUTDOWN))),
        Frame(FrameType.DONE), Frame(FrameType.CHALLENGE), Frame(FrameType.STREAM_END, stream=1),
        Frame(FrameType.STREAM_RESET, stream=1, body=pack_reset(ReplyStatus.CANCELLED, "no")),
        Frame(FrameType.STREAM_CREDIT, stream=1, body=pack_credit(300_000)),
    ]
)  # fmt: skip
sizes = st.sampled_from([0, 1, 9, 60_000, 65_511])
bulk = st.builds(lambda stream, size: Frame(DATA, stream=stream, body=bytes(size)), streams, sizes)
run = st.lists(sizes, min_size=2, max_size=6).map(lambda all_: [[Frame(DATA, stream=1, body=bytes(size))] for size in all_])
mixed = st.lists(bulk | control, min_size=1, max_size=3).map(lambda frames: [frames])
talks = st.lists(run | mixed, max_size=6).map(lambda parts: [record for part in parts for record in part])
opened = st.sampled_from([[(1, False)], [(1, True)], [(1, False), (3, True)], []])


def opening_call(pair: Pair, stream: int, *, signed: bool) -> bytes:
    """STREAM_OPEN as Alice would say it."""
    raw = sign_call(
        local(ALICE), LAB.mesh_id, to=BOB.node_id, call_id=sha256(bytes([stream]))[:16], first_h=pair.bob.session.first_h,
        method="copy", deadline=0, body=pack_opening(b"", signed=signed),
    )  # fmt: skip
    return pack(Frame(FrameType.STREAM_OPEN, stream=stream, body=raw))


def said(openings: list[tuple[int, bool]], talk: list[list[Frame]]) -> bytes:
    """All that Alice says, sealed."""
    pair = open_pair()
    plaintexts = [opening_call(pair, stream, signed=signed) for stream, signed in openings]
    plaintexts += [b"".join(map(pack, frames)) for frames in talk]
    sizes = [plaintext[:65_519] for plaintext in plaintexts]  # what does not fit a record is cut off, and malformed
    return b"".join(pair.alice.sealer.seal(plaintext) for plaintext in sizes)


@settings(max_examples=100)
@given(opened, talks, st.data())
def test_any_talk_of_a_peer_ends_the_same_in_any_pieces(
    openings: list[tuple[int, bool]], talk: list[list[Frame]], data: st.DataObject
) -> None:
    wire = said(openings, talk)
    borders = [0]
    for record in records(wire):
        borders.append(borders[-1] + len(record))
    near = st.sampled_from(borders).flatmap(lambda border: st.integers(max(0, border - 2), min(len(wire), border + 2)))
    whole = hear_in_pieces(wire, [])
    assert hear_in_pieces(wire, borders) == whole  # record by record
    assert hear_in_pieces(wire, data.draw(st.lists(st.integers(0, len(wire)) | near, max_size=12))) == whole
    assert sum(isinstance(event, StreamOffered) for event in whole[0]) == len(openings)


@pytest.mark.parametrize("sizes", [(9, 0), (0, 9), (60_000,) * 5, (65_511,) * 4 + (1,) * 200], ids=str)
def test_a_run_of_data_that_is_refused_somewhere_is_delivered_up_to_there(sizes: tuple[int, ...]) -> None:
    wire = said([(1, False)], [[Frame(DATA, stream=1, body=bytes(size))] for size in sizes])
    whole, _ = hear_in_pieces(wire, [])
    borders = list(accumulate(map(len, records(wire))))
    assert hear_in_pieces(wire, borders)[0] == whole
    delivered = next((index for index, size in enumerate(sizes) if not size or sum(sizes[: index + 1]) > WINDOW_FIRST), None)
    heard = b"".join(bytes(event.data) for event in whole if isinstance(event, StreamData))
    assert len(heard) == sum(sizes[:delivered])
    assert isinstance(whole[-1], Failed) == (delivered is not None)


def wide_open() -> tuple[Pair, int]:
    """A signed stream of Alice's on which Bob's window has grown beyond what may stay unsigned, and nothing is unsigned."""
    pair = open_pair()
    session = pair.alice.session
    stream = session.streams.open("copy", b"", signed=True, deadline=0, now=pair.now)
    session.stirred()
    pair.exchange()
    pair.bob.session.streams.accept(stream, pair.now)
    for _ in range(40):
        room = memoryview(bytearray(ROOM))
        session.stirred()
        session.data_to_send()
        _, filled = session.write_stream(stream, memoryview(bytes(128 * 1024)), pair.now, room)
        for event in pair.deliver(bytes(room[:filled]), to=pair.bob):
            if isinstance(event, StreamData):
                pair.bob.session.streams.consumed(stream, len(event.data), pair.now)
        pair.bob.session.stirred()
        pair.move(pair.bob)
    pair.now += SEGMENT_AFTER
    pair.tick(pair.alice)
    pair.move(pair.alice)
    assert session.streams.room(stream) > SEGMENT_BYTES + FRAME_BODY_MAX
    return pair, stream


def test_bytes_that_are_signed_too_late_are_refused_at_the_same_place_however_they_are_cut() -> None:
    frames = SEGMENT_BYTES // FRAME_BODY_MAX
    heard = []
    for together in (True, False):
        pair, stream = wide_open()
        record = pack(Frame(DATA, stream=stream, body=bytes(FRAME_BODY_MAX)))
        wire = [pair.alice.sealer.seal(record) for _ in range(frames + 1)]
        events = [event for data in ([b"".join(wire)] if together else wire) for event in pair.deliver(data, to=pair.bob)]
        last = events[-1]
        assert isinstance(last, Failed) and last.reason is Reason.UNSIGNED
        heard.append(sum(len(event.data) for event in events if isinstance(event, StreamData)))
    assert heard == [frames * FRAME_BODY_MAX] * 2
