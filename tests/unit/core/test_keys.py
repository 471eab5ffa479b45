"""Tests of overlay/core/keys.py: ids, keys in their one encoding, and signatures as strict as we say."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from overlay.core.keys import (
    P256_ORDER,
    Ed25519Signer,
    IdentityKey,
    MeshId,
    NodeId,
    X25519Pair,
    base32,
    from_base32,
    low_s,
    point_has_prime_order,
    verify_ed25519,
    verify_p256,
    verify_signature,
    x25519_is_safe,
)
from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, COSE_ES256, Label, Reason

SIGNER = Ed25519Signer(b"s" * 32)
P256 = ec.derive_private_key(7, ec.SECP256R1())
P256_POINT = P256.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
DATA = b"what was said"
ED25519_IDENTITY_POINT = b"\x01" + bytes(31)


def spki_of(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    """SubjectPublicKeyInfo DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def p256_signature() -> tuple[int, int]:
    """r and s of a good signature."""
    return decode_dss_signature(P256.sign(DATA, ec.ECDSA(hashes.SHA256())))


def refused(algorithm: int, public_key: bytes, signature: bytes, data: bytes = DATA) -> None:
    """The signature must be refused."""
    with pytest.raises(Refused) as caught:
        verify_signature(algorithm, public_key, signature, data)
    assert caught.value.reason is Reason.BAD_SIGNATURE


# --- ids


def test_base32_is_lower_case_without_padding_and_has_one_form() -> None:
    assert base32(b"\xff" * 5 + b"a") == "77777777me"
    assert from_base32("77777777ME") == b"\xff" * 5 + b"a"


@pytest.mark.parametrize("text", ["mf", "me======", "m e", "1", "8888", "é", "ß", "m", "me\n"])
def test_what_is_not_that_form_is_no_base32(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_base32(text)


def test_a_node_id_is_the_hash_of_the_key_and_is_shown_in_base32() -> None:
    node = NodeId.of_key(SIGNER.spki)
    assert node == hashlib.sha256(SIGNER.spki).digest()
    assert str(node) == base64.b32encode(node).decode().rstrip("=").lower()
    assert node.short == str(node)[:8]
    assert repr(node) == f"NodeId({node.short}…)"
    assert NodeId.parse(str(node)) == node


def test_a_mesh_id_has_its_own_label() -> None:
    mesh = MeshId.of_root(SIGNER.spki)
    assert mesh == hashlib.sha256(Label.MESH + SIGNER.spki).digest()
    assert mesh != NodeId.of_key(SIGNER.spki)
    assert repr(mesh) == f"MeshId({mesh.short}…)"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_an_id_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32"):
        NodeId(bytes(length))
    with pytest.raises(ValueError, match="32"):
        MeshId.parse(base32(bytes(length)))


# --- keys


def test_a_file_key_signs_what_verifies() -> None:
    assert SIGNER.algorithm == COSE_EDDSA
    assert SIGNER.private_key.public_key().public_bytes_raw() == SIGNER.public_key
    signature = SIGNER.sign(DATA)
    assert signature == SIGNER.private_key.sign(DATA)
    verify_signature(COSE_EDDSA, SIGNER.public_key, signature, DATA)


def test_no_repr_shows_a_secret() -> None:
    pair = X25519Pair.from_private(b"p" * 32)
    assert repr(b"p" * 32) not in repr(pair)
    assert repr(SIGNER) == f"Ed25519Signer({SIGNER.public_key.hex()[:8]}…)"


def test_the_public_half_of_an_x25519_pair_is_that_of_rfc_7748_section_6_1() -> None:
    bob = X25519Pair.from_private(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"


def test_identity_keys_are_ed25519_or_p256() -> None:
    ed25519 = IdentityKey.parse(SIGNER.spki)
    assert (ed25519.algorithm, ed25519.public_key) == (COSE_EDDSA, SIGNER.public_key)
    assert ed25519.node_id == NodeId.of_key(SIGNER.spki)
    p256 = IdentityKey.parse(spki_of(P256.public_key()))
    assert (p256.algorithm, p256.public_key) == (COSE_ES256, P256_POINT)


@pytest.mark.parametrize(
    "spki",
    [
        b"",
        b"not DER",
        SIGNER.spki + b"\0",
        spki_of(ec.derive_private_key(7, ec.SECP384R1()).public_key()),
        spki_of(ec.derive_private_key(7, ec.SECP256K1()).public_key()),
        spki_of(rsa.generate_private_key(65_537, 2048).public_key()),
        SIGNER.spki.replace(b"\x2b\x65\x70", b"\x2b\x65\x11"),  # an algorithm that nobody knows
        spki_of(P256.public_key()).replace(b"\x01\x07\x03", b"\x01\x06\x03"),  # a curve that nobody knows
    ],
    ids=["nothing", "no DER", "longer", "P-384", "secp256k1", "RSA", "unknown algorithm", "unknown curve"],
)
def test_any_other_identity_key_is_refused(spki: bytes) -> None:
    with pytest.raises(Refused) as caught:
        IdentityKey.parse(spki)
    assert caught.value.reason is Reason.BAD_CERTIFICATE


def test_the_same_key_in_another_encoding_is_refused() -> None:
    compressed = P256.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    with pytest.raises(Refused, match="one encoding"):
        IdentityKey.parse(head + compressed)


def test_low_order_points_are_no_keys() -> None:
    assert point_has_prime_order(SIGNER.public_key)
    assert not point_has_prime_order(ED25519_IDENTITY_POINT)
    assert not point_has_prime_order(SIGNER.public_key[1:])
    assert x25519_is_safe(X25519Pair.from_private(b"p" * 32).public)
    assert not x25519_is_safe(bytes(32))
    assert not x25519_is_safe(b"\x01" + bytes(31))
    assert not x25519_is_safe(bytes(31))


# --- signatures


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_has_64_bytes(length: int) -> None:
    refused(COSE_EDDSA, SIGNER.public_key, bytes(length))
    refused(COSE_ES256, P256_POINT, bytes(length))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_an_ed25519_key_has_32_bytes(length: int) -> None:
    refused(COSE_EDDSA, bytes(length), SIGNER.sign(DATA))


def test_another_message_signature_or_key_is_refused() -> None:
    signature = SIGNER.sign(DATA)
    refused(COSE_EDDSA, SIGNER.public_key, signature, DATA + b"!")
    refused(COSE_EDDSA, Ed25519Signer(bytes(32)).public_key, signature)
    for at in range(64):
        refused(COSE_EDDSA, SIGNER.public_key, signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :])


def test_an_ed25519_key_of_small_order_verifies_nothing() -> None:
    refused(COSE_EDDSA, ED25519_IDENTITY_POINT, ED25519_IDENTITY_POINT + bytes(32))


def test_an_ed25519_signature_with_s_above_the_order_is_refused() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    signature = SIGNER.sign(DATA)
    s = int.from_bytes(signature[32:], "little") + order
    with pytest.raises(Refused):
        verify_ed25519(SIGNER.public_key, signature[:32] + s.to_bytes(32, "little"), DATA)


def test_p256_is_verified_with_low_s_only() -> None:
    r, s = p256_signature()
    verify_p256(P256_POINT, low_s(r, s), DATA)
    verify_p256(P256_POINT, low_s(r, P256_ORDER - s), DATA)
    verify_signature(COSE_ES256, P256_POINT, low_s(r, s), DATA)
    high = max(s, P256_ORDER - s)
    refused(COSE_ES256, P256_POINT, r.to_bytes(32, "big") + high.to_bytes(32, "big"))


@pytest.mark.parametrize(("r", "s"), [(0, 1), (1, 0), (P256_ORDER, 1), (2**256 - 1, 1), (1, 2**256 - 1)])
def test_r_and_s_out_of_range_are_refused(r: int, s: int) -> None:
    refused(COSE_ES256, P256_POINT, r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def test_another_message_or_point_is_refused_for_p256() -> None:
    signature = low_s(*p256_signature())
    refused(COSE_ES256, P256_POINT, signature, DATA + b"!")
    refused(COSE_ES256, P256_POINT[:-1] + b"\0", signature)
    refused(COSE_ES256, b"", signature)


def test_an_algorithm_that_we_do_not_know_is_refused() -> None:
    refused(-19, SIGNER.public_key, SIGNER.sign(DATA))
