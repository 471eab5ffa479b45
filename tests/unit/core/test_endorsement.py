"""Endorsements: each thing that is checked, refused once when it alone is wrong."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.endorsement import ENDORSEMENT_MAX, TIME_MAX, verify_endorsement
from overlay.core.keys import Ed25519Signer, Signer
from overlay.core.limits import CLOCK_TOLERANCE
from overlay.core.wire import make_map, sha256, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason
from tests.unit.core.authority_kit import DAY, NOW, Member, make_member, make_mesh, seed
from tests.unit.core.mixed_order import add_order_two, sign_mixed

MESH = make_mesh()
ALICE = make_member(MESH, "alice")
BOB = make_member(MESH, "bob", tpm_like=True)
WITNESS = Ed25519Signer(seed("witness"))
TOLERANCE = timedelta(seconds=CLOCK_TOLERANCE)
SECOND = timedelta(seconds=1)

# u-coordinates of low order on Curve25519 (RFC 7748, section 7; https://cr.yp.to/ecdh.html#validate)
LOW_ORDER_U = [
    bytes(32),
    bytes([1]) + bytes(31),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


def make(
    member: Member = ALICE,
    *,
    signer: Signer | None = None,
    aad: bytes | None = None,
    kid: bytes | None = None,
    **other: object,
) -> bytes:
    """An endorsement put together field by field; those in `other` are replaced before the identity key signs."""
    begin = NOW - SECOND * 60
    noise, start_id = member.noise.public, member.start_id
    fields: dict[str, object] = {
        "node_id": member.node_id,
        "leaf": sha256(member.credentials.leaf),
        "noise": noise,
        "message": member.message.public_key,
        "start": start_id,
        "begin": int(begin.timestamp()),
        "end": int((begin + DAY).timestamp()),
        "pop": None,
        "witness": None,
        "witness_pop": None,
    }
    assert other.keys() <= fields.keys()
    fields |= other
    if fields["pop"] is None:
        parts = (fields["node_id"], fields["noise"], fields["start"])
        fields["pop"] = member.message.sign(Label.ENDORSE_POP + MESH.mesh_id + b"".join(parts))  # type: ignore[arg-type]
    return sign1(
        make_map(*fields.values()), signer=signer or member.signer, aad=aad or Label.ENDORSE + MESH.mesh_id, kid=kid
    )


def verify(raw: bytes, member: Member = ALICE, at: datetime = NOW) -> object:
    return verify_endorsement(raw, member.peer.certificate, MESH.mesh_id, at)


def reason_for(raw: bytes, member: Member = ALICE, at: datetime = NOW) -> Reason:
    with pytest.raises(Refused) as caught:
        verify(raw, member, at)
    return caught.value.reason


def witness_pop(signer: Ed25519Signer = WITNESS, public: bytes = WITNESS.public_key) -> bytes:
    return signer.sign(Label.WITNESS_POP + MESH.mesh_id + ALICE.node_id + public + ALICE.start_id)


@pytest.mark.parametrize("member", [ALICE, BOB])
def test_an_endorsement_says_which_keys_a_node_uses_today(member: Member) -> None:
    found = verify_endorsement(member.credentials.endorsement, member.peer.certificate, MESH.mesh_id, NOW)
    assert found.node_id == member.node_id
    assert found.leaf_hash == sha256(member.credentials.leaf)
    assert (found.noise_public, found.message_public) == (member.noise.public, member.message.public_key)
    assert found.start_id == member.start_id
    assert found.hash == sha256(member.credentials.endorsement) == member.kid
    assert found.not_before == NOW - 60 * SECOND
    assert found.not_after == found.not_before + DAY
    assert found.witness_public is None


def test_the_endorsement_written_out_field_by_field_is_the_same() -> None:
    assert make() == ALICE.credentials.endorsement


def test_a_witness_key_is_read_with_its_proof() -> None:
    raw = make(witness=WITNESS.public_key, witness_pop=witness_pop())
    assert verify_endorsement(raw, ALICE.peer.certificate, MESH.mesh_id, NOW).witness_public == WITNESS.public_key


# --- signature ------------------------------------------------------------------------------------------------------


def test_an_endorsement_by_another_key_is_refused() -> None:
    assert reason_for(make(signer=Ed25519Signer(seed("thief")))) is Reason.BAD_ENDORSEMENT
    assert reason_for(make(signer=BOB.signer)) is Reason.BAD_ENDORSEMENT  # another algorithm too


def test_an_endorsement_for_another_mesh_or_another_purpose_is_refused() -> None:
    assert reason_for(make(aad=Label.ENDORSE + make_mesh("other").mesh_id)) is Reason.BAD_ENDORSEMENT
    assert reason_for(make(aad=Label.CALL + MESH.mesh_id)) is Reason.BAD_ENDORSEMENT


def test_an_endorsement_with_a_kid_is_refused() -> None:
    assert reason_for(make(kid=bytes(32))) is Reason.MALFORMED


@pytest.mark.parametrize("member", [ALICE, BOB])
def test_one_flipped_bit_in_any_byte_is_refused(member: Member) -> None:
    raw = member.credentials.endorsement
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        assert reason_for(bytes(damaged), member) in (Reason.BAD_ENDORSEMENT, Reason.MALFORMED)


# --- ids and hash ---------------------------------------------------------------------------------------------------


def test_an_endorsement_that_names_another_node_is_refused() -> None:
    assert reason_for(make(node_id=BOB.node_id)) is Reason.BAD_ENDORSEMENT


def test_an_endorsement_made_under_another_certificate_is_refused() -> None:
    assert reason_for(make(leaf=sha256(BOB.credentials.leaf))) is Reason.BAD_ENDORSEMENT
    renewed = make_member(MESH, "alice", not_before=NOW)
    assert reason_for(ALICE.credentials.endorsement, renewed) is Reason.BAD_ENDORSEMENT


# --- times ----------------------------------------------------------------------------------------------------------


def test_five_minutes_of_wrong_clock_are_tolerated_and_not_more() -> None:
    member = make_member(MESH, "alice", endorsement_life=timedelta(hours=1))
    raw, begin, end = (
        member.credentials.endorsement,
        member.peer.endorsement.not_before,
        member.peer.endorsement.not_after,
    )
    verify(raw, member, begin - TOLERANCE)
    verify(raw, member, end + TOLERANCE)
    assert reason_for(raw, member, begin - TOLERANCE - SECOND) is Reason.CLOCK
    assert reason_for(raw, member, end + TOLERANCE + SECOND) is Reason.ENDORSEMENT_EXPIRED


def test_an_error_about_time_shows_both_times_in_utc() -> None:
    member = make_member(MESH, "alice", endorsement_life=timedelta(hours=1))
    with pytest.raises(Refused, match="expired on 2026-03-01T12:59:00Z, it is now 2026-03-01T14:00:00Z"):
        verify(member.credentials.endorsement, member, NOW + timedelta(hours=2))


def test_an_endorsement_for_longer_than_a_day_is_refused() -> None:
    week = make_member(MESH, "alice", life=7 * DAY)
    begin = int(NOW.timestamp())
    verify(make(week, begin=begin, end=begin + 86_400), week)
    assert reason_for(make(week, begin=begin, end=begin + 86_401), week) is Reason.BAD_ENDORSEMENT


def test_an_endorsement_that_outlives_its_certificate_is_refused() -> None:
    end = int(ALICE.peer.certificate.not_after.timestamp())
    verify(make(begin=int(NOW.timestamp()), end=end))
    assert reason_for(make(begin=int(NOW.timestamp()), end=end + 1)) is Reason.BAD_ENDORSEMENT


def test_an_endorsement_whose_times_are_reversed_or_beyond_all_calendars_is_refused() -> None:
    begin = int(NOW.timestamp())
    assert reason_for(make(begin=begin, end=begin)) is Reason.BAD_ENDORSEMENT
    assert reason_for(make(begin=begin, end=begin - 10)) is Reason.BAD_ENDORSEMENT
    assert reason_for(make(begin=begin, end=TIME_MAX)) is Reason.BAD_ENDORSEMENT
    assert reason_for(make(begin=begin, end=TIME_MAX + 1)) is Reason.MALFORMED
    assert datetime.fromtimestamp(TIME_MAX, UTC).year == 2514


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_message_key_without_proof_that_the_node_holds_it_is_refused() -> None:
    assert reason_for(make(message=BOB.message.public_key)) is Reason.BAD_ENDORSEMENT
    assert reason_for(make(pop=bytes(64))) is Reason.BAD_ENDORSEMENT
    other_start = ALICE.message.sign(Label.ENDORSE_POP + MESH.mesh_id + ALICE.node_id + ALICE.noise.public + bytes(16))
    assert reason_for(make(pop=other_start)) is Reason.BAD_ENDORSEMENT


@pytest.mark.parametrize("public", LOW_ORDER_U)
def test_a_noise_key_of_low_order_is_refused(public: bytes) -> None:
    assert reason_for(make(noise=public)) is Reason.BAD_ENDORSEMENT


def test_a_message_key_that_is_not_of_prime_order_is_refused_although_its_proof_verifies() -> None:
    secret = seed("mixed")
    public = add_order_two(Ed25519Signer(secret).public_key)
    data = Label.ENDORSE_POP + MESH.mesh_id + ALICE.node_id + ALICE.noise.public + ALICE.start_id
    with pytest.raises(Refused, match="message key is not of prime order"):
        verify(make(message=public, pop=sign_mixed(secret, public, data)))


def test_a_witness_key_is_held_proven_and_of_prime_order() -> None:
    public = WITNESS.public_key
    assert reason_for(make(witness=public)) is Reason.BAD_ENDORSEMENT
    assert reason_for(make(witness_pop=witness_pop())) is Reason.BAD_ENDORSEMENT
    assert reason_for(make(witness=public, witness_pop=bytes(64))) is Reason.BAD_ENDORSEMENT
    assert reason_for(make(witness=BOB.message.public_key, witness_pop=witness_pop())) is Reason.BAD_ENDORSEMENT
    secret = seed("mixed")
    mixed = add_order_two(Ed25519Signer(secret).public_key)
    data = Label.WITNESS_POP + MESH.mesh_id + ALICE.node_id + mixed + ALICE.start_id
    with pytest.raises(Refused, match="witness key is not of prime order"):
        verify(make(witness=mixed, witness_pop=sign_mixed(secret, mixed, data)))


# --- form -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [{"node_id": bytes(31)}, {"leaf": bytes(33)}, {"message": bytes(31)}, {"start": bytes(17)}, {"begin": b"now"}],
)
def test_a_field_of_another_form_is_refused(field: dict[str, Any]) -> None:
    assert reason_for(make(**{"pop": bytes(64)} | field)) is Reason.MALFORMED


def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    assert reason_for(b"\xd2" + bytes(ENDORSEMENT_MAX + 1)) is Reason.TOO_LARGE


@given(st.binary(max_size=ENDORSEMENT_MAX + 10))
def test_any_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    reason_for(data)
    reason_for(b"\xd2\x84" + data)


@given(st.binary(max_size=300))
def test_any_payload_by_the_identity_key_is_refused_and_nothing_else(payload: bytes) -> None:
    reason_for(sign1(payload, signer=ALICE.signer, aad=Label.ENDORSE + MESH.mesh_id, kid=None))
