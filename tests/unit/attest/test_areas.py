"""Public areas: names as a TPM computes them, and what is no public area."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.areas import AK_TEMPLATE, EK_TEMPLATE, IDENTITY_TEMPLATE, SRK_TEMPLATE, Attributes, parse_area
from attest.structures import ALG_ECC, ALG_RSA, ALG_SHA256, ALG_SHA384, CURVE_P384, sized
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.attest.software_tpm import AK

RSA_NUMBERS = bytes.fromhex("0006008000430010080000000000")  # AES-128-CFB, no scheme, 2048 bits, exponent 65,537
RSA_EK = bytes.fromhex("0001000b000300b2") + sized(bytes(32)) + RSA_NUMBERS + sized(b"\xff" * 256)
HIGH_NUMBERS = bytes.fromhex("000601000043001000040010")  # AES-256-CFB, no scheme, P-384, no key derivation
HIGH_EK = bytes.fromhex("0023000c000300f2") + sized(bytes(48)) + HIGH_NUMBERS + sized(bytes(48)) * 2


def test_the_templates_are_those_of_the_profiles() -> None:
    assert EK_TEMPLATE[:8] == bytes.fromhex("0023000b000300b2")
    assert SRK_TEMPLATE[:8] == bytes.fromhex("0023000b00030472")
    assert AK_TEMPLATE[:8] == bytes.fromhex("0023000b00050472")
    assert IDENTITY_TEMPLATE[:8] == bytes.fromhex("0023000b00040472")


def test_a_name_is_the_hash_of_the_area_behind_its_algorithm() -> None:
    assert AK.area.name == b"\x00\x0b" + sha256(AK.area.raw)
    assert AK.area.qualified_name(b"parent") == b"\x00\x0b" + sha256(b"parent" + AK.area.name)
    assert len(parse_area(HIGH_EK).name) == 2 + 48


def test_a_point_is_padded() -> None:
    short = AK_TEMPLATE[:-4] + sized(b"\x01") + sized(b"\x02")
    assert parse_area(short).point == b"\x04" + bytes(31) + b"\x01" + bytes(31) + b"\x02"


def test_rsa_and_p384_areas_are_read() -> None:
    rsa, high = parse_area(RSA_EK), parse_area(HIGH_EK)
    assert (rsa.kind, rsa.exponent, rsa.name_algorithm, len(rsa.modulus)) == (ALG_RSA, 65_537, ALG_SHA256, 256)
    assert (high.kind, high.curve, high.name_algorithm) == (ALG_ECC, CURVE_P384, ALG_SHA384)


def test_a_key_is_of_a_kind_only_with_exactly_these_uses() -> None:
    assert AK.area.is_kind(Attributes.RESTRICTED | Attributes.SIGN)
    assert not AK.area.is_kind(Attributes.SIGN)
    assert not AK.having(Attributes.DECRYPT).area.is_kind(Attributes.RESTRICTED | Attributes.SIGN)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        AK.area.raw[:-1],
        AK.area.raw + b"\0",
        bytes(513),
        b"\x00\x08" + AK.area.raw[2:],  # a keyed hash
        AK.area.raw[:2] + b"\x00\x04" + AK.area.raw[4:],  # a SHA-1 name
        AK_TEMPLATE[:12] + b"\x00\x14" + AK_TEMPLATE[14:],  # RSASSA
        AK_TEMPLATE[:16] + b"\x00\x05" + AK_TEMPLATE[18:],  # P-521
        AK_TEMPLATE[:18] + b"\x00\x20" + AK_TEMPLATE[20:],  # a key derivation
        AK_TEMPLATE[:-4] + sized(bytes(33)) + sized(bytes(32)),
        RSA_EK.replace(b"\x08\x00\x00\x00\x00\x00", b"\x04\x00\x00\x00\x00\x00"),
        RSA_EK[:-258] + sized(bytes(255)),
    ],
)
def test_other_areas_are_refused(bad: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        parse_area(bad)
    assert refusal.value.reason is Reason.BAD_EVIDENCE


@given(st.binary(max_size=400))
def test_any_bytes_are_an_area_or_refused(data: bytes) -> None:
    try:
        parse_area(data)
    except Refused as error:
        assert error.reason is Reason.BAD_EVIDENCE


@given(st.sampled_from([AK.area.raw, RSA_EK, HIGH_EK]), st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_any_change_gives_another_name_or_a_refusal(raw: bytes, place: int, patch: bytes) -> None:
    place %= len(raw)
    changed = raw[:place] + patch + raw[place + len(patch) :]
    try:
        assert changed == raw or parse_area(changed).name != parse_area(raw).name
    except Refused as error:
        assert error.reason is Reason.BAD_EVIDENCE
