"""Request and bundle files: read as written, refused when cut, swapped or changed, and opened by one TPM only."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.authority.objects import OBJECT_MAX
from overlay.core.enrolment_files import (
    BUNDLE_MAX,
    FILE_MAX,
    Bundle,
    EnrolmentRequest,
    SealedBundle,
    TpmParts,
    armor,
    read_bundle,
    unarmor,
)
from overlay.core.limits import CHAIN_BYTES_MAX
from overlay.core.policy import POLICY_MAX
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import Reason

BUNDLE = Bundle(
    mesh_name="lab",
    root=b"root",
    leaf=b"leaf",
    chain=(b"upper",),
    gate_number=1,
    gate_key=bytes(32),
    policy=b"policy",
    authority_object=b"object",
)
LARGEST = Bundle(
    mesh_name="a" * 63,
    root=bytes(CHAIN_BYTES_MAX),
    leaf=bytes(CHAIN_BYTES_MAX),
    chain=(bytes(2730),) * 3,
    gate_number=2**64 - 1,
    gate_key=bytes(32),
    policy=bytes(POLICY_MAX),
    authority_object=bytes(OBJECT_MAX),
)
PARTS = TpmParts(
    ek_public=b"ek",
    ak_public=b"ak",
    identity_public=b"id",
    certify_attest=b"at",
    certify_signature=b"si",
    parent_name=bytes(34),
)
SECRET = bytes(range(32))
SEALED = BUNDLE.seal(SECRET, credential_blob=b"blob", encrypted_secret=b"encrypted", nonce=bytes(12))


@pytest.mark.parametrize("request_file", [EnrolmentRequest(b"csr"), EnrolmentRequest(b"csr", PARTS)])
def test_a_request_is_read_as_it_was_written(request_file: EnrolmentRequest) -> None:
    assert EnrolmentRequest.from_text(request_file.to_text()) == request_file


def test_a_request_has_all_tpm_parts_or_none() -> None:
    for left_out in range(2, 8):
        fields = [b"x" * 34 if number != left_out else None for number in range(2, 8)]
        with pytest.raises(Refused, match="all TPM parts or none"):
            EnrolmentRequest.from_text(armor("REQUEST", make_map(b"csr", *fields)))


@pytest.mark.parametrize("bundle", [BUNDLE, LARGEST])
def test_a_bundle_is_read_as_it_was_written_also_the_largest(bundle: Bundle) -> None:
    assert Bundle.from_text(bundle.to_text()) == bundle
    assert read_bundle(bundle.to_text()) == bundle
    assert len(bundle.pack()) <= BUNDLE_MAX
    sealed = bundle.seal(SECRET, credential_blob=bytes(2048), encrypted_secret=bytes(2048), nonce=bytes(12))
    found = read_bundle(sealed.to_text())
    assert isinstance(found, SealedBundle)
    assert found.open(SECRET) == bundle
    assert len(sealed.to_text()) <= FILE_MAX


def test_a_sealed_bundle_is_not_opened_with_another_secret() -> None:
    with pytest.raises(Refused, match="another TPM") as caught:
        SEALED.open(bytes(32))
    assert caught.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "changed",
    [
        replace(SEALED, nonce=bytes([1]) + bytes(11)),
        replace(SEALED, ciphertext=SEALED.ciphertext[:-1]),
        replace(SEALED, ciphertext=bytes([SEALED.ciphertext[0] ^ 1]) + SEALED.ciphertext[1:]),
    ],
)
def test_a_sealed_bundle_that_was_changed_is_refused(changed: SealedBundle) -> None:
    with pytest.raises(Refused):
        changed.open(SECRET)


@pytest.mark.parametrize("secret", [b"", bytes(15), bytes(65)])
def test_a_secret_of_another_size_is_refused(secret: bytes) -> None:
    with pytest.raises(Refused, match="16 to 64 bytes"):
        SEALED.open(secret)


def test_nothing_of_a_sealed_bundle_can_be_read_in_its_file() -> None:
    data = unarmor("SEALED BUNDLE", SEALED.to_text())
    assert not any(part in data for part in (b"leaf", b"root", b"policy", b"object"))


# --- armor ----------------------------------------------------------------------------------------------------------


def test_text_around_the_lines_and_other_line_ends_do_not_matter() -> None:
    text = BUNDLE.to_text()
    assert text.startswith("-----BEGIN OVERLAY BUNDLE-----\n")
    assert max(map(len, text.splitlines())) <= 64
    assert Bundle.from_text("Hello,\n\n" + text.replace("\n", " \r\n") + "\nBye") == BUNDLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-----BEGIN OVERLAY BUNDLE-----",
        BUNDLE.to_text()[:-20],
        BUNDLE.to_text().replace("END OVERLAY BUNDLE", "END OVERLAY REQUEST"),
        armor("BUNDLE", bytes(4)).replace("=", ""),
        BUNDLE.to_text().replace("BUNDLE-----\n", "BUNDLE-----\n!", 1),
        armor("BUNDLE", b""),
        armor("BUNDLE", b"\xff"),
        armor("BUNDLE", BUNDLE.pack() + b"\0"),
    ],
)
def test_a_file_that_was_cut_or_changed_is_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        Bundle.from_text(text)
    assert caught.value.reason is Reason.MALFORMED


def test_a_file_of_another_kind_is_named() -> None:
    with pytest.raises(Refused, match="holds an OVERLAY REQUEST and not an OVERLAY BUNDLE"):
        read_bundle(EnrolmentRequest(b"csr").to_text())
    with pytest.raises(Refused, match="holds an OVERLAY BUNDLE and not an OVERLAY REQUEST"):
        EnrolmentRequest.from_text(BUNDLE.to_text())


def test_a_file_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(Refused) as caught:
        unarmor("BUNDLE", "a" * (FILE_MAX + 1))
    assert caught.value.reason is Reason.TOO_LARGE


@given(st.text(max_size=100), st.binary(max_size=200))
def test_any_text_and_any_bytes_are_refused_and_nothing_else(text: str, data: bytes) -> None:
    for kind, parse in (
        ("REQUEST", EnrolmentRequest.from_text),
        ("BUNDLE", Bundle.from_text),
        ("SEALED BUNDLE", read_bundle),
    ):
        for candidate in (text, armor(kind, data)):
            with pytest.raises(Refused):
                parse(candidate)


@given(st.binary(min_size=1, max_size=300))
def test_armor_and_back(data: bytes) -> None:
    assert unarmor("BUNDLE", armor("BUNDLE", data)) == data
