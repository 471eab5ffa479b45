"""MakeCredential against an own reading of the TPM's side: only the right EK and the right name open it."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from attest.areas import EK_TEMPLATE, Attributes, parse_area
from attest.credential import Credential, kdfa, make_credential, parse_endorsement_key
from attest.structures import Reader, sized
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.attest.software_tpm import AK, EK, OTHER_AK, SoftwareKey

SECRET = bytes(range(32))
OTHER_EK = SoftwareKey.make(EK_TEMPLATE, 99)


def activate(ek: SoftwareKey, name: bytes, credential: Credential) -> bytes:
    """What a TPM with a P-256 EK does; ValueError where it would say TPM_RC_INTEGRITY."""
    reader = Reader(credential.encrypted_seed, "point")
    x, y = reader.sized(), reader.sized()
    one_time = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)
    shared = ek.private.exchange(ec.ECDH(), one_time)
    seed = hashlib.sha256(b"\0\0\0\x01" + shared + b"IDENTITY\0" + x + ek.area.x).digest()
    reader = Reader(credential.blob, "credential")
    mac, encrypted = reader.sized(), credential.blob[34:]
    integrity_key = hmac.digest(seed, b"\0\0\0\x01INTEGRITY\0\0\0\x01\0", "sha256")
    if not hmac.compare_digest(mac, hmac.digest(integrity_key, encrypted + name, "sha256")):
        raise ValueError("integrity")
    key = hmac.digest(seed, b"\0\0\0\x01STORAGE\0" + name + b"\0\0\0\x80", "sha256")[:16]
    decryptor = Cipher(AES(key), CFB(bytes(16))).decryptor()
    return Reader(decryptor.update(encrypted) + decryptor.finalize(), "secret").sized()


def test_the_right_tpm_with_the_right_key_gets_the_secret() -> None:
    credential = make_credential(parse_endorsement_key(EK.area.raw), AK.area.name, SECRET)
    assert activate(EK, AK.area.name, credential) == SECRET


def test_another_attestation_key_does_not_get_it() -> None:
    credential = make_credential(EK.area, AK.area.name, SECRET)
    with pytest.raises(ValueError, match="integrity"):
        activate(EK, OTHER_AK.area.name, credential)


def test_another_tpm_does_not_get_it() -> None:
    credential = make_credential(EK.area, AK.area.name, SECRET)
    with pytest.raises(ValueError, match="integrity"):
        activate(OTHER_EK, AK.area.name, credential)


def test_two_credentials_for_one_secret_differ() -> None:
    one, other = (make_credential(EK.area, AK.area.name, SECRET) for _ in range(2))
    assert one.blob != other.blob
    assert one.encrypted_seed != other.encrypted_seed


@pytest.mark.parametrize(
    "bad",
    [
        AK.area.raw,
        EK.without(Attributes.RESTRICTED).area.raw,
        EK.without(Attributes.DECRYPT).area.raw,
        EK.having(Attributes.SIGN).area.raw,
        EK.without(Attributes.FIXED_TPM).area.raw,
        EK.area.raw.replace(b"\x00\x06\x00\x80\x00\x43", b"\x00\x06\x01\x00\x00\x43"),  # AES-256 under P-256
        EK.area.raw.replace(b"\x00\x06\x00\x80\x00\x43", b"\x00\x06\x00\x80\x00\x42"),  # CBC
        EK.area.raw.replace(b"\x00\x06\x00\x80\x00\x43", b"\x00\x26\x00\x80\x00\x43"),  # Camellia
    ],
)
def test_what_is_no_endorsement_key_is_refused(bad: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        parse_endorsement_key(bad)
    assert refusal.value.reason is Reason.BAD_EVIDENCE


def test_a_point_that_is_not_on_the_curve_is_refused() -> None:
    off = parse_area(EK.area.raw[:-1] + bytes([EK.area.raw[-1] ^ 1]))
    with pytest.raises(Refused) as refusal:
        make_credential(off, AK.area.name, SECRET)
    assert refusal.value.reason is Reason.BAD_EVIDENCE


def test_a_modulus_that_is_no_rsa_key_is_refused() -> None:
    numbers = bytes.fromhex("0006008000430010080000000000")
    even = bytes.fromhex("0001000b000300b2") + sized(b"") + numbers + sized(b"\xff" * 255 + b"\xfe")
    with pytest.raises(Refused) as refusal:
        make_credential(parse_endorsement_key(even), AK.area.name, SECRET)
    assert refusal.value.reason is Reason.BAD_EVIDENCE


def test_sizes_that_no_tpm_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        make_credential(EK.area, AK.area.name, bytes(33))
    for sizes in ((133, 0), (0, 513)):
        with pytest.raises(Refused):
            Credential(bytes(sizes[0]), bytes(sizes[1]))


def test_a_derived_key_may_be_longer_than_a_digest() -> None:
    long = kdfa("sha256", b"key", b"LABEL", b"context", 512)
    message = b"\0\0\0\x02LABEL\0context" + (512).to_bytes(4, "big")
    assert len(long) == 64
    assert long[32:] == hmac.digest(b"key", message, "sha256")
