"""An entry's bytes: what comes back, and what is no entry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.entry import Entry, Place, TpmTime, make_log_id, parse_entry, sign_entry
from overlay.core.keys import Ed25519Signer, MeshId, NodeId
from overlay.core.wire import encode, make_map, sha256, sign1
from overlay.errors import Refused, UsageError
from overlay.registry import GENESIS, EntryType, Label, Reason

MESH_ID = MeshId(b"m" * 32)
NODE_ID = NodeId(b"n" * 32)
KEY = Ed25519Signer(b"k" * 32)
KID = b"i" * 32
PLACE = Place(node_id=NODE_ID, log_id=b"l" * 16, seq=7, prev=b"p" * 32, hlc=1_772_366_400_000 << 16)
BODY = {0: 1, 1: b"body"}


def an_entry(**fields: object) -> Entry:
    return sign_entry(PLACE, EntryType.LIFECYCLE, BODY, signer=KEY, kid=KID, mesh_id=MESH_ID, **fields)  # type: ignore[arg-type]


def raw_of(*values: object) -> bytes:
    return sign1(make_map(*values), signer=KEY, aad=Label.AUDIT + MESH_ID, kid=KID)


def refusal(raw: bytes) -> Reason:
    with pytest.raises(Refused) as caught:
        parse_entry(raw)
    return caught.value.reason


def fields(**other: object) -> list[object]:
    """The fields of a good entry, some of them replaced."""
    good = {"node": NODE_ID, "log": b"l" * 16, "seq": 7, "prev": b"p" * 32, "hlc": 1, "type": 5, "body": BODY,
            "references": [], "clock": None}  # fmt: skip
    return list((good | other).values())


def test_an_entry_comes_back_as_it_was_signed() -> None:
    entry = an_entry(references=(b"r" * 32,), tpm_time=TpmTime(reset=1, restart=2, clock=3))
    found = parse_entry(entry.raw).verify(KEY.public_key, MESH_ID)
    assert found == entry
    assert (found.seq, found.prev, found.kid, found.body) == (7, b"p" * 32, KID, BODY)
    assert (found.references, found.tpm_time) == ((b"r" * 32,), TpmTime(reset=1, restart=2, clock=3))


def test_the_hash_is_the_leaf_hash_of_all_bytes() -> None:
    entry = an_entry()
    assert entry.hash == sha256(b"\0", entry.raw)


def test_an_entry_of_one_fact_is_small() -> None:
    assert len(an_entry().raw) < 280


def test_a_time_shows_the_authors_milliseconds() -> None:
    assert an_entry().at.isoformat() == "2026-03-01T12:00:00+00:00"


@pytest.mark.parametrize(("number", "name"), [(5, "lifecycle"), (17, "application"), (200, "type 200")])
def test_a_type_has_a_name(number: int, name: str) -> None:
    assert parse_entry(raw_of(*fields(type=number))).says.type_name == name


def test_another_key_did_not_sign_it() -> None:
    with pytest.raises(Refused) as caught:
        parse_entry(an_entry().raw).verify(Ed25519Signer(b"o" * 32).public_key, MESH_ID)
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_it_was_not_signed_for_another_mesh() -> None:
    with pytest.raises(Refused) as caught:
        parse_entry(an_entry().raw).verify(KEY.public_key, MeshId(b"o" * 32))
    assert caught.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("other", [
    {"node": bytes(31)}, {"log": bytes(15)}, {"seq": 2**53 + 1}, {"prev": bytes(33)}, {"hlc": 2**63}, {"type": 256},
    {"body": b"bytes"}, {"body": [1]}, {"references": [bytes(32)] * 9}, {"references": [bytes(31)]},
    {"clock": [1, 2]}, {"clock": [2**32, 0, 0]}, {"seq": "7"}, {"body": None},
])  # fmt: skip
def test_a_field_of_another_form_is_refused(other: dict[str, object]) -> None:
    assert parse_entry(raw_of(*fields())).says.seq == 7
    assert refusal(raw_of(*fields(**other))) is Reason.MALFORMED


def test_another_format_number_is_unsupported() -> None:
    payload = encode({0: 2} | dict(enumerate(fields()[:8], 1)))
    assert refusal(sign1(payload, signer=KEY, aad=b"", kid=KID)) is Reason.UNSUPPORTED


def test_an_entry_names_its_endorsement() -> None:
    raw = sign1(make_map(*fields()), signer=KEY, aad=Label.AUDIT + MESH_ID, kid=None)
    assert refusal(raw) is Reason.MALFORMED


def test_an_entry_has_at_most_60_kib() -> None:
    whole = len(raw_of(*fields(body={0: 1, 1: b"x" * 60_000})))
    fits = 60_000 + 61_440 - whole
    assert parse_entry(raw_of(*fields(body={0: 1, 1: b"x" * fits})))
    assert refusal(raw_of(*fields(body={0: 1, 1: b"x" * (fits + 1)}))) is Reason.TOO_LARGE


def test_what_cannot_be_an_entry_is_our_users_mistake() -> None:
    for body in ({0: 1, 1: b"x" * 61_440}, {0: 1, 1: 0.5}, {0: 1, "text": 1}):
        with pytest.raises(UsageError) as caught:
            sign_entry(PLACE, 5, body, signer=KEY, kid=KID, mesh_id=MESH_ID)  # type: ignore[arg-type]
        assert caught.value.hint


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(Refused):
        parse_entry(data)


@given(st.integers(0, len(an_entry().raw) - 1), st.integers(1, 255))
def test_no_changed_byte_leaves_an_entry_that_verifies(index: int, flip: int) -> None:
    raw = bytearray(an_entry().raw)
    raw[index] ^= flip
    with pytest.raises(Refused):
        found = parse_entry(bytes(raw)).verify(KEY.public_key, MESH_ID)
        if found.kid != KID:
            raise Refused(Reason.BAD_ENDORSEMENT)  # the chain looks up the key by this


def test_a_log_id_depends_on_all_that_it_is_made_of() -> None:
    start = b"s" * 16
    ids = {
        make_log_id(MESH_ID, NODE_ID, 0, GENESIS, start), make_log_id(MeshId(bytes(32)), NODE_ID, 0, GENESIS, start),
        make_log_id(MESH_ID, NodeId(bytes(32)), 0, GENESIS, start), make_log_id(MESH_ID, NODE_ID, 1, GENESIS, start),
        make_log_id(MESH_ID, NODE_ID, 0, KID, start), make_log_id(MESH_ID, NODE_ID, 0, GENESIS, bytes(16)),
    }  # fmt: skip
    assert {len(one) for one in ids} == {16}
    assert len(ids) == 6
