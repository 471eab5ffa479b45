"""Segments: what they cover, and what no segment may do."""

from functools import partial
from typing import Any

import pytest
from blake3 import blake3

from overlay.core.identity import LocalIdentity
from overlay.core.keys import Ed25519Signer
from overlay.core.segments import (
    SEGMENT_BYTES,
    SEGMENT_MAX,
    Segment,
    SegmentReader,
    SegmentWriter,
    SignedStream,
    sign_segment,
    verify_segment,
)
from overlay.core.wire import make_map, parse_sign1, sign1
from overlay.registry import Label, Reason
from tests.unit.core.authority_kit import Member, make_member, seed
from tests.unit.core.session_kit import ALICE, BOB, LAB, OTHER_LAB, local
from tests.unit.core.stream_kit import H1, refused

NAMED = SignedStream(mesh_id=LAB.mesh_id, first_h=H1, stream=7, opening=b"o" * 32)
DATA = b"what was said"


def named(**changes: Any) -> SignedStream:
    fields: dict[str, Any] = {"mesh_id": LAB.mesh_id, "first_h": H1, "stream": 7, "opening": b"o" * 32}
    return SignedStream(**(fields | changes))


def segment(member: Member = ALICE, to: Member = BOB, place: SignedStream = NAMED, **changes: Any) -> bytes:
    fields: dict[str, Any] = {"index": 0, "offset": len(DATA), "digest": blake3(DATA).digest(), "final": False}
    return sign_segment(local(member), to.node_id, place, **(fields | changes))


def read(raw: bytes) -> Segment:
    """What Bob makes of it."""
    return verify_segment(raw, NAMED, own_id=BOB.node_id, peer=ALICE.peer)


def reader(data: bytes = DATA) -> SegmentReader:
    """Bob, who has got these bytes of Alice."""
    found = SegmentReader(NAMED)
    found.add(data)
    return found


def check(one: SegmentReader, raw: bytes) -> Segment:
    return one.check(raw, own_id=BOB.node_id, peer=ALICE.peer)


def alice() -> LocalIdentity:
    return local(ALICE)


# --- what goes well -------------------------------------------------------------------------------------------------


def test_a_segment_is_read_as_it_was_signed() -> None:
    raw = segment(index=3, offset=2**64 - 1, final=True)
    assert read(raw) == Segment(
        author=ALICE.node_id, index=3, offset=2**64 - 1, digest=blake3(DATA).digest(), final=True, raw=raw
    )
    assert len(raw) <= SEGMENT_MAX


def test_segments_of_a_writer_pass_its_reader_and_each_covers_the_whole_prefix() -> None:
    writer, one = SegmentWriter(NAMED), SegmentReader(NAMED)
    sent = b""
    for part in (b"one", b"two", b"three"):
        writer.add(part)
        one.add(part)
        sent += part
        assert writer.unsigned == len(part)
        found = check(one, writer.sign(alice(), BOB.node_id))
        assert (found.offset, found.digest) == (len(sent), blake3(sent).digest())
        assert writer.unsigned == 0
    last = check(one, writer.sign(alice(), BOB.node_id, final=True))
    assert (last.index, last.offset, last.final, one.final) == (3, len(sent), True, True)


def test_an_empty_stream_has_one_segment_the_final_one() -> None:
    raw = SegmentWriter(NAMED).sign(alice(), BOB.node_id, final=True)
    assert check(SegmentReader(NAMED), raw).offset == 0


# --- author, recipient, place ---------------------------------------------------------------------------------------


def test_a_segment_of_somebody_else_is_refused() -> None:
    assert refused(lambda: read(segment(make_member(LAB, "carol")))) is Reason.WRONG_AUTHOR


def test_a_segment_under_an_older_endorsement_is_refused() -> None:
    later = make_member(LAB, "alice", start=2)
    raw = segment()
    assert refused(lambda: verify_segment(raw, NAMED, own_id=BOB.node_id, peer=later.peer)) is Reason.WRONG_AUTHOR


def test_a_segment_in_the_name_of_somebody_else_is_refused() -> None:
    carol, own = make_member(LAB, "carol"), alice()
    payload = make_map(carol.node_id, BOB.node_id, H1, 7, b"o" * 32, 0, len(DATA), blake3(DATA).digest(), False)
    raw = sign1(payload, signer=own.message, aad=Label.SEGMENT + LAB.mesh_id, kid=own.kid)
    assert refused(lambda: read(raw)) is Reason.WRONG_AUTHOR


def test_a_segment_for_somebody_else_is_refused() -> None:
    assert refused(lambda: read(segment(to=make_member(LAB, "carol")))) is Reason.WRONG_RECIPIENT


def test_a_segment_of_another_link_is_refused() -> None:
    assert refused(lambda: read(segment(place=named(first_h=b"H" * 32)))) is Reason.WRONG_LINK


def test_a_segment_of_another_stream_is_refused() -> None:
    assert refused(lambda: read(segment(place=named(stream=9)))) is Reason.WRONG_LINK


def test_a_segment_of_another_opening_call_is_refused() -> None:
    assert refused(lambda: read(segment(place=named(opening=b"O" * 32)))) is Reason.WRONG_LINK


# --- signature and form ---------------------------------------------------------------------------------------------


def test_one_flipped_bit_in_any_byte_is_refused() -> None:
    raw = segment()
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        assert refused(partial(read, bytes(damaged))) in (Reason.BAD_SIGNATURE, Reason.MALFORMED, Reason.WRONG_AUTHOR)


def test_a_key_that_is_not_the_endorsed_one_is_refused() -> None:
    message = parse_sign1(segment(), limit=SEGMENT_MAX)
    forged = sign1(message.payload, signer=Ed25519Signer(seed("thief")), aad=Label.SEGMENT + LAB.mesh_id, kid=ALICE.kid)
    assert refused(lambda: read(forged)) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("aad", [Label.SEGMENT + OTHER_LAB.mesh_id, Label.CALL + LAB.mesh_id, Label.REPLY + LAB.mesh_id])
def test_a_segment_of_another_mesh_or_kind_is_refused(aad: bytes) -> None:
    message = parse_sign1(segment(), limit=SEGMENT_MAX)
    other = sign1(message.payload, signer=ALICE.message, aad=aad, kid=ALICE.kid)
    assert refused(lambda: read(other)) is Reason.BAD_SIGNATURE


GOOD: list[object] = [ALICE.node_id, BOB.node_id, H1, 7, b"o" * 32, 0, len(DATA), bytes(32), False]


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, b""), (1, b""), (2, b""), (3, 2**32), (4, b""), (5, True), (6, b""), (7, bytes(31)), (8, 0), (9, 1), (8, None)],
)
def test_a_signed_payload_of_another_form_is_refused(place: int, value: object) -> None:
    fields = [*GOOD[:place], value, *GOOD[place + 1 :]]
    raw = sign1(make_map(*fields), signer=ALICE.message, aad=Label.SEGMENT + LAB.mesh_id, kid=ALICE.kid)
    assert refused(lambda: read(raw)) is Reason.MALFORMED


def test_a_segment_above_its_limit_is_refused_unread() -> None:
    assert refused(lambda: read(b"\xd2" + bytes(SEGMENT_MAX))) is Reason.TOO_LARGE


# --- what it covers -------------------------------------------------------------------------------------------------


def test_a_segment_with_another_index_is_refused() -> None:
    assert refused(lambda: check(reader(), segment(index=1))) is Reason.CHAIN_BROKEN


@pytest.mark.parametrize("offset", [len(DATA) - 1, len(DATA) + 1])
def test_a_segment_at_another_offset_is_refused(offset: int) -> None:
    assert refused(lambda: check(reader(), segment(offset=offset))) is Reason.CHAIN_BROKEN


def test_a_segment_over_other_bytes_is_refused() -> None:
    assert refused(lambda: check(reader(DATA[::-1]), segment())) is Reason.CHAIN_BROKEN


def test_a_segment_that_came_before_is_refused() -> None:
    one = reader()
    check(one, segment())
    assert refused(lambda: check(one, segment())) is Reason.CHAIN_BROKEN


def test_a_segment_that_signs_nothing_new_is_refused() -> None:
    one = reader()
    check(one, segment())
    assert refused(lambda: check(one, segment(index=1))) is Reason.MALFORMED
    check(one, segment(index=1, final=True))  # and the final one may


def test_a_segment_after_the_final_one_is_refused() -> None:
    one = reader()
    check(one, segment(final=True))
    assert refused(lambda: check(one, segment(index=1, final=True))) is Reason.MALFORMED


def test_bytes_after_the_final_segment_are_refused() -> None:
    one = reader()
    check(one, segment(final=True))
    assert refused(lambda: one.add(b"more")) is Reason.FLOW_CONTROL


def test_more_than_a_mebibyte_without_a_segment_is_refused() -> None:
    one = reader(bytes(SEGMENT_BYTES - 1))
    one.add(b"!")
    assert refused(lambda: one.add(b"!")) is Reason.UNSIGNED
