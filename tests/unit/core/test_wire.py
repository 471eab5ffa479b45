"""Tests of overlay/core/wire.py: one encoding for each value, nothing outside the profile, signatures in context."""

from enum import IntEnum

import cbor2
import pytest

from overlay.core.keys import Ed25519Signer, NodeId
from overlay.core.wire import (
    _NO_TAGS,
    Anything,
    Array,
    Bytes,
    Flag,
    Kind,
    Maybe,
    Text,
    Tuple,
    UInt,
    decode,
    encode,
    lv,
    make_map,
    open_map,
    parse_sign1,
    read_map,
    sha256,
    sign1,
    u32,
    u64,
)
from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, COSE_ES256, Reason

SIGNER = Ed25519Signer(bytes(32))
KID = b"k" * 32
AAD = b"label\0mesh"


class Small(IntEnum):
    """An enum such as the registry's."""

    ONE = 1


def refused(reason: Reason, data: str, limit: int = 1000) -> None:
    """The hex must be refused for this reason."""
    with pytest.raises(Refused) as caught:
        decode(bytes.fromhex(data), limit=limit)
    assert caught.value.reason is reason


# --- lengths and hashes


def test_integers_and_lengths_are_big_endian() -> None:
    assert (u32(1), u64(1)) == (b"\0\0\0\1", bytes(7) + b"\1")
    assert lv(b"ab", b"", b"c") == b"\0\2ab\0\0\0\1c"
    with pytest.raises(OverflowError):
        lv(bytes(65_536))


def test_the_hash_is_over_the_parts_put_together() -> None:
    assert sha256(b"a", b"bc") == sha256(b"abc")
    assert sha256().hex().startswith("e3b0c442")


# --- CBOR


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (0, "00"),
        (2**64 - 1, "1bffffffffffffffff"),
        (b"ab", "426162"),
        ("ab", "626162"),
        (True, "f5"),
        ([1, [2]], "82018102"),
        ({2: b"", 1: False}, "a201f40240"),
        ({256: 1, 24: 2}, "a2181802190100" + "01"),
    ],
)
def test_a_value_has_one_encoding(value: object, data: str) -> None:
    assert encode(value).hex() == data  # type: ignore[arg-type]
    assert decode(bytes.fromhex(data), limit=100) == value


def test_ids_and_enums_are_encoded_as_what_they_are() -> None:
    assert encode([NodeId(bytes(32)), Small.ONE]) == encode([bytes(32), 1])


@pytest.mark.parametrize(
    "value",
    [None, 1.5, -1, 2**64, {"a": 1}, {-1: 1}, {True: 1}, {1, 2}, [None], {1: {2: None}}, bytearray(b"a"), object()],
)
def test_what_is_outside_the_profile_is_never_encoded(value: object) -> None:
    with pytest.raises(TypeError):
        encode(value)  # type: ignore[arg-type]


def test_eight_levels_are_encoded_and_nine_are_not() -> None:
    value: object = 1
    for _ in range(8):
        value = [value]
    assert decode(encode(value), limit=100) == value  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="deep"):
        encode([value])
    refused(Reason.MALFORMED, "81" * 9 + "01")
    refused(Reason.MALFORMED, "a101" * 9 + "01")


@pytest.mark.parametrize(
    "data",
    [
        "",  # nothing
        "0000",  # two values
        "1800",  # integers that are not the shortest
        "190001",
        "1b0000000000000001",
        "5800",  # and lengths
        "20",  # negative
        "f6",  # null
        "f7",  # undefined
        "f0",  # a simple value
        "f90000",  # floats of each size
        "fa3f800000",
        "fb3ff0000000000000",
        "9f01ff",  # indefinite lengths
        "bf0101ff",
        "5f4161ff",
        "7f6161ff",
        "a161610 1".replace(" ", ""),  # keys that are no unsigned integers
        "a12001",
        "a14101" + "01",
        "a1f501",
        "a18001",
        "a1fb3ff000000000000001",
        "a2010101" + "02",  # a key twice
        "a202000100",  # keys in the wrong order
        "61ff",  # not UTF-8
        "8201",  # cut off
        "9bffffffffffffffff",  # lengths that nobody has
        "5bffffffffffffffff",
        "bb7fffffffffffffff",
        "c000",  # tags: date, bignum, regular expression, shared value, set, COSE, self-described
        "c24101",
        "c349010000000000000000",
        "d82361 28".replace(" ", ""),
        "d81c81d81d00",
        "d9010281 01".replace(" ", ""),
        "d28443a10127a0f640",
        "d9d9f700",
        "81c11a514b67b0",
        "ff",  # a break with nothing to break
        "1c",  # reserved
    ],
)
def test_everything_else_is_malformed(data: str) -> None:
    refused(Reason.MALFORMED, data)


def test_the_table_of_tags_refuses_however_it_is_asked() -> None:
    for ask in (_NO_TAGS.get, _NO_TAGS.__getitem__):
        with pytest.raises(Refused):
            ask(0)


def test_size_is_checked_before_anything_is_decoded() -> None:
    assert decode(bytes.fromhex("426162"), limit=3) == b"ab"
    refused(Reason.TOO_LARGE, "426162", limit=2)
    refused(Reason.TOO_LARGE, "ff" * 10, limit=9)


# --- maps

FIELDS: list[tuple[Kind, object, list[object]]] = [
    (Bytes(2), b"ab", [b"a", b"abc", "ab", 1]),
    (Bytes(1, 3), b"ab", [b"", b"abcd", [b"ab"]]),
    (Text(2), "é", ["éa", b"ab", 1]),
    (UInt(), 2**64 - 1, [True, "1", b"1"]),
    (UInt(7), 7, [8, False]),
    (Flag(), False, [0, 1, "true"]),
    (Array(UInt(), 2), [1, 2], [[1, 2, 3], [b"a"], 1, {0: 1}]),
    (Tuple((UInt(), Text(1))), [1, "a"], [[1], [1, "a", 2], ["a", 1], 1]),
    (Maybe(UInt()), 1, ["a"]),
]


@pytest.mark.parametrize(("kind", "good", "bad"), FIELDS, ids=[str(kind) for kind, _, _ in FIELDS])
def test_a_field_is_of_its_kind_or_the_map_is_malformed(kind: Kind, good: object, bad: list[object]) -> None:
    assert open_map(make_map(good), kind, limit=100) == [good]
    for value in bad:
        with pytest.raises(Refused) as caught:
            open_map(make_map(value), kind, limit=100)
        assert caught.value.reason is Reason.MALFORMED


def test_a_field_of_any_kind_takes_any_value() -> None:
    for value in (1, "a", [b"x"], {1: 2}):
        assert open_map(make_map(value), Anything(), limit=100) == [value]


def test_fields_keep_their_numbers_when_one_is_left_out() -> None:
    assert make_map(None, 2) == encode({0: 1, 2: 2})
    assert open_map(make_map(None, 2), Maybe(UInt()), UInt(), limit=100) == [None, 2]


def test_a_missing_field_and_one_too_many_are_malformed() -> None:
    for data in (make_map(), make_map(1, 2), encode({0: 1, 1: 1, 9: 9})):
        with pytest.raises(Refused) as caught:
            open_map(data, UInt(), limit=100)
        assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("value", [{0: 2}, {0: True}, {}, {1: 1}, {0: b"1"}])
def test_another_format_number_is_unsupported(value: dict[int, object]) -> None:
    with pytest.raises(Refused) as caught:
        read_map(decode(encode(value), limit=100))
    assert caught.value.reason is Reason.UNSUPPORTED


def test_what_is_no_map_is_malformed() -> None:
    with pytest.raises(Refused) as caught:
        open_map(encode([1]), limit=100)
    assert caught.value.reason is Reason.MALFORMED


# --- COSE_Sign1


class P256Stand:
    """A Signer whose signature is never looked at."""

    algorithm = COSE_ES256
    public_key = bytes(65)
    spki = b""

    def sign(self, data: bytes) -> bytes:
        """Any 64 bytes."""
        return bytes(64)


def signed(kid: bytes | None = KID) -> bytes:
    """A good one."""
    return sign1(b"payload", signer=SIGNER, aad=AAD, kid=kid)


def sign1_refused(raw: bytes, *, with_kid: bool = True, limit: int = 1000) -> Reason:
    """Why it was refused."""
    with pytest.raises(Refused) as caught:
        parse_sign1(raw, limit=limit, with_kid=with_kid)
    return caught.value.reason


def remade(*parts: object) -> bytes:
    """The four parts, or what stands in their place."""
    return b"\xd2" + cbor2.dumps(list(parts), canonical=True)


def test_what_was_signed_verifies_and_gives_its_payload() -> None:
    message = parse_sign1(signed(), limit=1000)
    assert (message.algorithm, message.kid, message.payload) == (COSE_EDDSA, KID, b"payload")
    assert message.raw == signed()
    assert message.verify(SIGNER.public_key, aad=AAD) == b"payload"


def test_without_kid_both_algorithms_are_read() -> None:
    message = parse_sign1(signed(kid=None), limit=1000, with_kid=False)
    assert (message.algorithm, message.kid) == (COSE_EDDSA, None)
    assert message.verify(SIGNER.public_key, aad=AAD) == b"payload"
    other = parse_sign1(sign1(b"x", signer=P256Stand(), aad=AAD, kid=None), limit=1000, with_kid=False)
    assert other.algorithm == COSE_ES256


def test_the_bytes_are_those_that_the_rfc_says() -> None:
    raw = signed()
    assert raw[:8].hex() == "d2845826a2012704"
    body = cbor2.loads(raw[1:])
    assert body[1:3] == [{}, b"payload"]
    assert cbor2.loads(body[0]) == {1: -8, 4: KID}
    assert SIGNER.sign(cbor2.dumps(["Signature1", body[0], AAD, b"payload"])) == body[3]


@pytest.mark.parametrize("aad", [b"", b"label\0mesi", AAD + b"x"])
def test_another_label_or_mesh_is_refused(aad: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse_sign1(signed(), limit=1000).verify(SIGNER.public_key, aad=aad)
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_another_key_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        parse_sign1(signed(), limit=1000).verify(Ed25519Signer(b"x" * 32).public_key, aad=AAD)
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_every_flipped_bit_is_refused() -> None:
    raw = signed()
    for bit in range(len(raw) * 8):
        wrong = bytearray(raw)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Refused):
            parse_sign1(bytes(wrong), limit=1000).verify(SIGNER.public_key, aad=AAD)


def test_a_sign1_of_another_form_is_malformed() -> None:
    protected, _, payload, signature = cbor2.loads(signed()[1:])
    bad = [
        b"",
        signed()[1:],  # no tag
        b"\xd1" + signed()[1:],  # another tag
        signed() + b"\0",
        remade(protected, {}, payload),
        remade(protected, {}, payload, signature, 1),
        remade({}, {}, payload, signature),
        remade(protected, {4: KID}, payload, signature),
        remade(protected, [], payload, signature),
        remade(protected, {}, [], signature),
        remade(protected, {}, payload, signature[:63]),
        remade(protected, {}, payload, signature + b"x"),
        remade(protected, {}, payload, "x" * 64),
        b"\xd2" + encode({0: 1}),
    ]
    assert {sign1_refused(raw) for raw in bad} == {Reason.MALFORMED}


@pytest.mark.parametrize(
    "header",
    [
        {},
        {1: -8},
        {1: -7, 4: KID},
        {1: -19, 4: KID},
        {4: KID},
        {1: -8, 4: KID[1:]},
        {1: -8, 4: KID + b"x"},
        {1: -8, 4: KID, 2: [4]},
        {1: -8, 5: KID},
    ],
)
def test_a_protected_header_other_than_ours_is_malformed(header: dict[int, object]) -> None:
    _, _, payload, signature = cbor2.loads(signed()[1:])
    assert sign1_refused(remade(cbor2.dumps(header, canonical=True), {}, payload, signature)) is Reason.MALFORMED


def test_a_kid_where_none_belongs_is_malformed_and_the_other_way_round() -> None:
    assert sign1_refused(signed(), with_kid=False) is Reason.MALFORMED
    assert sign1_refused(signed(kid=None)) is Reason.MALFORMED


def test_a_sign1_above_its_limit_is_refused() -> None:
    assert sign1_refused(signed(), limit=100) is Reason.TOO_LARGE


def test_payload_and_signature_are_hidden_from_repr() -> None:
    assert "payload" not in repr(parse_sign1(signed(), limit=1000)).replace("payload=", "")
