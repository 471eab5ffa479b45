"""Certificate requests: either kind of key, one form, and a signature by the key that is asked for."""

import subprocess
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.certificate_profile import ED25519_OID, open_signed, seal
from overlay.core.certificate_request import build_request, verify_request
from overlay.core.keys import P256_ORDER, Ed25519Signer, NodeId, Signer
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import P256Signer, seed

SIGNERS: list[Signer] = [Ed25519Signer(seed("request")), P256Signer(seed("request"))]


def refused(der: bytes) -> None:
    with pytest.raises(Refused) as caught:
        verify_request(der)
    assert caught.value.reason is Reason.BAD_CERTIFICATE


@pytest.mark.parametrize("signer", SIGNERS)
def test_a_request_says_who_asks_for_which_name(signer: Signer) -> None:
    der = build_request(signer, "alice")
    request = verify_request(der)
    assert request.name == "alice"
    assert request.der == der
    assert request.node_id == NodeId.of_key(signer.spki)
    assert request.identity.public_key == signer.public_key


@pytest.mark.parametrize("signer", SIGNERS)
def test_openssl_verifies_a_request(signer: Signer) -> None:
    done = subprocess.run(
        ["openssl", "req", "-inform", "DER", "-verify", "-noout"],
        input=build_request(signer, "alice"),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_request_for_what_is_not_a_name_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="not a name"):
        build_request(SIGNERS[0], "Alice!")


def test_a_high_s_in_a_request_is_accepted_because_a_tpm_gives_it_half_the_time() -> None:
    der = build_request(SIGNERS[1], "alice")
    signed = open_signed(der)
    r, s = decode_dss_signature(signed.signature.as_bytes())
    changed = seal(content(der), signed.algorithm.oid, encode_dss_signature(r, P256_ORDER - s))
    assert verify_request(changed).name == "alice"


def content(der: bytes) -> bytes:
    return x509.load_der_x509_csr(der).tbs_certrequest_bytes


@pytest.mark.parametrize("signer", SIGNERS)
def test_one_flipped_bit_in_any_byte_is_refused(signer: Signer) -> None:
    der = build_request(signer, "alice")
    for place in range(len(der)):
        damaged = bytearray(der)
        damaged[place] ^= 1 << place % 8
        refused(bytes(damaged))


@pytest.mark.parametrize(
    "forge", [lambda r, s: (0, s), lambda r, s: (r, 0), lambda r, s: (r, P256_ORDER), lambda r, s: (P256_ORDER, s)]
)
def test_a_signature_out_of_range_is_refused(forge: Callable[[int, int], tuple[int, int]]) -> None:
    der = build_request(SIGNERS[1], "alice")
    signed = open_signed(der)
    pair = decode_dss_signature(signed.signature.as_bytes())
    refused(seal(content(der), signed.algorithm.oid, encode_dss_signature(*forge(*pair))))


def test_a_request_signed_by_another_key_is_refused() -> None:
    inner = content(build_request(SIGNERS[0], "alice"))
    refused(seal(inner, ED25519_OID, Ed25519Signer(seed("thief")).sign(inner)))


def test_a_request_that_asks_for_more_than_a_name_is_refused() -> None:
    signer = Ed25519Signer(seed("request"))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])
    wider = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(x509.OCSPNoCheck(), critical=False)
    refused(wider.sign(signer.private_key, None).public_bytes(Encoding.DER))


@pytest.mark.parametrize("names", [[], ["Alice"], ["alice", "bob"]])
def test_a_request_whose_subject_is_not_one_name_is_refused(names: list[str]) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject)
    refused(made.sign(Ed25519Signer(seed("request")).private_key, None).public_bytes(Encoding.DER))


def test_a_request_for_another_kind_of_key_is_refused() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name)
    refused(made.sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()).public_bytes(Encoding.DER))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    refused(data)


@given(st.data())
def test_any_change_is_refused_and_nothing_else(data: st.DataObject) -> None:
    der = bytearray(build_request(SIGNERS[0], "alice"))
    place = data.draw(st.integers(0, len(der) - 1))
    der[place] ^= data.draw(st.integers(1, 255))
    refused(bytes(der))
