"""Properties of the CBOR profile and of COSE_Sign1: one encoding for each value, any bytes are read or refused."""

from datetime import UTC
from typing import Any

import cbor2
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from overlay.core.keys import Ed25519Signer
from overlay.core.wire import (
    Anything,
    Array,
    Bytes,
    Flag,
    Maybe,
    Text,
    Tuple,
    UInt,
    decode,
    encode,
    make_map,
    open_map,
    parse_sign1,
    sign1,
)
from overlay.errors import Refused

SIGNER = Ed25519Signer(b"s" * 32)
KID, AAD = b"k" * 32, b"label\0"

many = settings(deadline=None, max_examples=300)

uints = st.integers(0, 2**64 - 1)
leaves = st.one_of(uints, st.binary(max_size=20), st.text(max_size=10), st.booleans())
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(uints, inner, max_size=4), max_leaves=12
)
wild = st.recursive(
    leaves | st.none() | st.floats() | st.integers() | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def depth(value: Any) -> int:
    """How many containers lie in one another."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@many
@given(values)
def test_a_value_comes_back_as_it_went(value: Any) -> None:
    assume(depth(value) <= 8)
    data = encode(value)
    assert decode(data, limit=len(data)) == value
    assert encode(decode(data, limit=len(data))) == data


@many
@given(st.binary(max_size=200))
@example(b"\x81" * 200)
@example(b"\xd8\x1c\x81\xd8\x1d\x00")
@example(b"\xc3" * 100)
def test_any_bytes_are_the_one_encoding_of_a_value_or_refused(data: bytes) -> None:
    try:
        value = decode(data, limit=200)
    except Refused:
        return
    assert encode(value) == data


@many
@given(wild)
def test_no_other_type_gets_through(value: Any) -> None:
    data = cbor2.dumps(value, canonical=True, timezone=None)
    try:
        found = decode(data, limit=len(data))
    except Refused:
        return
    assert encode(found) == data


@many
@given(values, st.data())
def test_a_changed_byte_gives_another_value_or_is_refused(value: Any, data: st.DataObject) -> None:
    assume(depth(value) <= 8)
    wrong = bytearray(encode(value))
    wrong[data.draw(st.integers(0, len(wrong) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(bytes(wrong), limit=len(wrong))
    except Refused:
        return
    assert encode(found) == bytes(wrong)


@many
@given(st.binary(max_size=100) | values.filter(lambda value: depth(value) < 8).map(make_map))
def test_any_bytes_are_the_map_that_was_asked_for_or_refused(data: bytes) -> None:
    for kind in (Bytes(1, 9), Text(9), UInt(9), Flag(), Array(UInt(), 3), Tuple((UInt(), Text(3))), Maybe(UInt())):
        try:
            (found,) = open_map(data, kind, limit=1000)
        except Refused:
            continue
        kind.check(found)
        assert open_map(data, Anything() if found is not None else kind, limit=1000) == [found]


@many
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_sign1_of_the_right_form_or_refused(data: bytes, with_kid: bool) -> None:
    for raw in (data, b"\xd2" + data, b"\xd2\x84" + data):
        with pytest.raises(Refused):
            parse_sign1(raw, limit=300, with_kid=with_kid).verify(SIGNER.public_key, aad=AAD)


@many
@given(st.binary(max_size=100), st.data())
def test_a_changed_sign1_is_refused(payload: bytes, data: st.DataObject) -> None:
    raw = sign1(payload, signer=SIGNER, aad=AAD, kid=KID)
    assert parse_sign1(raw, limit=300).verify(SIGNER.public_key, aad=AAD) == payload
    wrong = bytearray(raw)
    wrong[data.draw(st.integers(0, len(wrong) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Refused):
        parse_sign1(bytes(wrong), limit=300).verify(SIGNER.public_key, aad=AAD)
