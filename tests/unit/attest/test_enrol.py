"""What a signer checks before it believes that a key lives in a TPM: each check alone says no in one test."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.areas import IDENTITY_TEMPLATE, Attributes, parse_area
from attest.enrol import TpmRequest, certify_data, check_request, ek_tag
from attest.structures import sized
from overlay.core.keys import Ed25519Signer, IdentityKey
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.attest.software_tpm import (
    AK,
    AK_QUALIFIED,
    EK,
    IDENTITY,
    OTHER_AK,
    SRK,
    Machine,
    SoftwareKey,
    show,
)

Change = Callable[[TpmRequest], TpmRequest]
OTHER_IDENTITY = SoftwareKey.make(IDENTITY_TEMPLATE, 77)


def refusal_of(shown: TpmRequest, request: bytes = b"csr", identity: IdentityKey = IDENTITY.identity) -> Reason:
    with pytest.raises(Refused) as refusal:
        check_request(shown, request, identity)
    return refusal.value.reason


def certified(data: bytes, name: bytes, qualified_name: bytes, machine: Machine | None = None) -> TpmRequest:
    """A request whose certification says just this, rightly signed."""
    header = (machine or Machine(structure=b"\x80\x17")).header(data)
    attested = header + sized(name) + sized(qualified_name)
    return replace(show(), attested=attested, signature=AK.sign(attested))


DATA = certify_data(b"csr", AK.area.name, EK.area.name)
QUALIFIED = IDENTITY.area.qualified_name(b"\x00\x0b" + sha256(b"\x40\0\0\x01" + SRK.area.name))


def test_a_good_request_gives_the_names_for_the_certificate() -> None:
    checked = check_request(show(), b"csr", IDENTITY.identity)
    assert checked.ak_name == AK.area.name
    assert checked.ak_qualified_name == AK_QUALIFIED
    assert checked.ek_name == EK.area.name


def test_the_certified_data_ties_request_and_both_keys() -> None:
    parts = b"\x00\x20" + sha256(b"csr") + b"\x00\x22" + AK.area.name + b"\x00\x22" + EK.area.name
    assert sha256(b"overlay/1 attest certify\0" + parts) == DATA
    check_request(certified(DATA, IDENTITY.area.name, QUALIFIED), b"csr", IDENTITY.identity)


@pytest.mark.parametrize(
    "ak",
    [
        AK.without(Attributes.RESTRICTED),
        AK.without(Attributes.SIGN),
        AK.having(Attributes.DECRYPT),
        AK.without(Attributes.FIXED_TPM),
        AK.without(Attributes.FIXED_PARENT),
        AK.without(Attributes.SENSITIVE_DATA_ORIGIN),
    ],
)
def test_a_key_that_is_no_attestation_key_is_refused(ak: SoftwareKey) -> None:
    assert refusal_of(show(ak=ak)) is Reason.BAD_EVIDENCE


@pytest.mark.parametrize(
    "identity",
    [
        IDENTITY.having(Attributes.RESTRICTED),
        IDENTITY.having(Attributes.DECRYPT),
        IDENTITY.without(Attributes.SIGN),
        IDENTITY.without(Attributes.FIXED_TPM),
        IDENTITY.without(Attributes.FIXED_PARENT),
        IDENTITY.without(Attributes.SENSITIVE_DATA_ORIGIN),
    ],
)
def test_an_identity_key_with_other_attributes_is_refused(identity: SoftwareKey) -> None:
    assert refusal_of(show(identity=identity)) is Reason.BAD_EVIDENCE


def test_an_identity_key_on_another_curve_is_refused() -> None:
    raw = IDENTITY.area.raw
    other = replace(IDENTITY, area=parse_area(raw[:16] + b"\x00\x04" + raw[18:]))
    assert refusal_of(show(identity=other)) is Reason.BAD_EVIDENCE


def test_a_request_for_another_key_than_the_shown_one_is_refused() -> None:
    assert refusal_of(show(), identity=OTHER_IDENTITY.identity) is Reason.ATTESTATION_KEY_MISMATCH


def test_a_request_for_a_file_key_is_refused() -> None:
    file_key = IdentityKey.parse(Ed25519Signer(bytes(32)).spki)
    assert refusal_of(show(), identity=file_key) is Reason.ATTESTATION_KEY_MISMATCH


def test_a_certification_by_another_key_is_refused() -> None:
    assert refusal_of(replace(show(), signature=OTHER_AK.sign(show().attested))) is Reason.EVIDENCE_SIGNATURE


def test_an_attestation_key_of_another_tpm_is_refused() -> None:
    elsewhere = Machine(structure=b"\x80\x17", qualified_signer=b"\x00\x0b" + sha256(b"other EK"))
    shown = certified(DATA, IDENTITY.area.name, QUALIFIED, elsewhere)
    assert refusal_of(shown) is Reason.ATTESTATION_KEY_MISMATCH


def test_a_certification_for_another_request_is_refused() -> None:
    assert refusal_of(show(), request=b"another csr") is Reason.EVIDENCE_NOT_BOUND


@pytest.mark.parametrize(
    "data",
    [
        certify_data(b"csr", OTHER_AK.area.name, EK.area.name),
        certify_data(b"csr", AK.area.name, SRK.area.name),
        b"",
    ],
)
def test_a_certification_for_other_keys_is_refused(data: bytes) -> None:
    assert refusal_of(certified(data, IDENTITY.area.name, QUALIFIED)) is Reason.EVIDENCE_NOT_BOUND


def test_a_certification_of_another_key_is_refused() -> None:
    shown = certified(DATA, OTHER_IDENTITY.area.name, QUALIFIED)
    assert refusal_of(shown) is Reason.ATTESTATION_KEY_MISMATCH


def test_an_identity_key_under_another_parent_is_refused() -> None:
    shown = certified(DATA, IDENTITY.area.name, IDENTITY.area.qualified_name(b"another parent"))
    assert refusal_of(shown) is Reason.ATTESTATION_KEY_MISMATCH
    assert refusal_of(replace(show(), parent_name=EK.area.name)) is Reason.ATTESTATION_KEY_MISMATCH


@pytest.mark.parametrize(
    "change",
    [
        lambda shown: replace(shown, ek_public=AK.area.raw),
        lambda shown: replace(shown, ek_public=b""),
        lambda shown: replace(shown, parent_name=b""),
        lambda shown: replace(shown, parent_name=b"\x00\x0c" + bytes(32)),
        lambda shown: replace(shown, attested=Machine().attested(DATA), signature=AK.sign(Machine().attested(DATA))),
        lambda shown: replace(shown, ak_public=show().identity_public),
        lambda shown: replace(shown, identity_public=show().ak_public),
    ],
)
def test_parts_of_another_kind_are_refused(change: Change) -> None:
    assert refusal_of(change(show())) is Reason.BAD_EVIDENCE


@given(st.sampled_from(list(TpmRequest.__dataclass_fields__)), st.binary(max_size=200))
def test_any_bytes_in_place_of_a_part_are_refused(part: str, data: bytes) -> None:
    fields = {name: getattr(show(), name) for name in TpmRequest.__dataclass_fields__} | {part: data}
    assert isinstance(refusal_of(TpmRequest(**fields)), Reason)


def test_the_tag_of_an_endorsement_key_differs_from_mesh_to_mesh() -> None:
    assert ek_tag(bytes(32), b"name") == sha256(b"overlay/1 ek\0" + bytes(32) + b"name")
    assert ek_tag(bytes(32), b"name") != ek_tag(bytes(31) + b"\1", b"name")
