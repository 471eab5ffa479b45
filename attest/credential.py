"""MakeCredential without a TPM: a secret that only the TPM with a given EK, holding a given key, can open.

TPM 2.0 Library, part 1: section 24 (credential protection), 11.4.10 (KDFa, KDFe), B.10 (RSA) and C.6 (ECC). CFB is what
the TPM uses here; `cryptography` keeps it among the discouraged modes, rightly for new designs.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from attest.areas import Attributes, PublicArea, parse_area
from attest.structures import (
    ALG_AES,
    ALG_CFB,
    ALG_ECC,
    ALG_RSA,
    ALG_SHA256,
    ALG_SHA384,
    CURVE_P256,
    CURVE_P384,
    bad_evidence,
    sized,
)
from overlay.errors import Refused
from overlay.registry import Reason

BLOB_MAX: Final = 132  # sizeof(TPMS_ID_OBJECT), as libtss2 has it
SEED_MAX: Final = 512  # sizeof(TPMU_ENCRYPTED_SECRET)
SECRET_SIZE: Final = 32  # the largest that fits a key with a SHA-256 name

# (type, curve, nameAlg, AES bits) of the templates L-1, L-2 and H-3: TCG EK Credential Profile 2.5, B.4.3, B.4.4, B.5.4
EK_KINDS: Final = {
    (ALG_RSA, 0, ALG_SHA256, 128),
    (ALG_ECC, CURVE_P256, ALG_SHA256, 128),
    (ALG_ECC, CURVE_P384, ALG_SHA384, 256),
}
CURVES: Final[dict[int, ec.EllipticCurve]] = {CURVE_P256: ec.SECP256R1(), CURVE_P384: ec.SECP384R1()}
HASH_CLASSES: Final[dict[int, hashes.HashAlgorithm]] = {ALG_SHA256: hashes.SHA256(), ALG_SHA384: hashes.SHA384()}


@dataclass(frozen=True, slots=True)
class Credential:
    """What TPM2_ActivateCredential wants: the contents of TPM2B_ID_OBJECT and of TPM2B_ENCRYPTED_SECRET."""

    blob: bytes = field(repr=False)
    encrypted_seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raises Refused(MALFORMED) for what no TPM takes: it comes from a file."""
        if len(self.blob) > BLOB_MAX or len(self.encrypted_seed) > SEED_MAX:
            raise Refused(Reason.MALFORMED, "credential is too large")


def parse_endorsement_key(data: bytes) -> PublicArea:
    """A public area that can be an endorsement key: a storage key made in its TPM, of one of the three kinds.

    Raises:
        Refused: BAD_EVIDENCE.
    """
    area = parse_area(data)
    algorithm, bits, mode = area.symmetric or (0, 0, 0)
    if not area.is_kind(Attributes.RESTRICTED | Attributes.DECRYPT):
        bad_evidence("endorsement key: attributes")
    if (area.kind, area.curve, area.name_algorithm, bits) not in EK_KINDS or (algorithm, mode) != (ALG_AES, ALG_CFB):
        bad_evidence("endorsement key: type")
    return area


def make_credential(ek: PublicArea, name: bytes, secret: bytes) -> Credential:
    """Wrap up to 32 bytes for the key `name` in the TPM of `ek`, which `parse_endorsement_key` gave.

    Raises:
        Refused: BAD_EVIDENCE if the EK is no usable public key.
    """
    if len(secret) > SECRET_SIZE:
        raise ValueError("the secret is too long")
    seed, encrypted_seed = _seed_rsa(ek) if ek.kind == ALG_RSA else _seed_ecc(ek)
    assert ek.symmetric is not None  # parse_endorsement_key has seen it
    key = kdfa(ek.hash_name, seed, b"STORAGE", name, ek.symmetric[1])
    encryptor = Cipher(AES(key), CFB(bytes(16))).encryptor()
    encrypted = encryptor.update(sized(secret)) + encryptor.finalize()
    mac_key = kdfa(ek.hash_name, seed, b"INTEGRITY", b"", _digest_size(ek) * 8)
    return Credential(sized(hmac.digest(mac_key, encrypted + name, ek.hash_name)) + encrypted, encrypted_seed)


def _digest_size(ek: PublicArea) -> int:
    return HASH_CLASSES[ek.name_algorithm].digest_size


def _seed_rsa(ek: PublicArea) -> tuple[bytes, bytes]:
    """A random seed, and the same under OAEP with the label IDENTITY (B.10.4)."""
    seed = secrets.token_bytes(_digest_size(ek))
    algorithm = HASH_CLASSES[ek.name_algorithm]
    try:
        key = rsa.RSAPublicNumbers(ek.exponent, int.from_bytes(ek.modulus, "big")).public_key()
        oaep = padding.OAEP(mgf=padding.MGF1(algorithm), algorithm=algorithm, label=b"IDENTITY\0")
        return seed, key.encrypt(seed, oaep)
    except ValueError:
        bad_evidence("endorsement key: modulus")


def _seed_ecc(ek: PublicArea) -> tuple[bytes, bytes]:
    """The seed is agreed with a one-time key, whose point is sent as TPMS_ECC_POINT (C.6.4)."""
    curve = CURVES[ek.curve]
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(curve, ek.point)
    except ValueError:
        bad_evidence("endorsement key: point")
    one_time = ec.generate_private_key(curve)
    shared = one_time.exchange(ec.ECDH(), public)
    size = (curve.key_size + 7) // 8
    numbers = one_time.public_key().public_numbers()
    x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    seed = kdfe(ek.name_algorithm, shared, b"IDENTITY", x, ek.point[1 : 1 + size])
    return seed, sized(x) + sized(y)


def kdfa(hash_name: str, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa (part 1, section 11.4.10.2): SP 800-108 in counter mode with HMAC, the second context empty."""
    found, counter = b"", 0
    while len(found) * 8 < bits:
        counter += 1
        data = counter.to_bytes(4, "big") + label + b"\0" + context + bits.to_bytes(4, "big")
        found += hmac.digest(key, data, hash_name)
    return found[: bits // 8]


def kdfe(name_algorithm: int, shared: bytes, label: bytes, their_x: bytes, own_x: bytes) -> bytes:
    """KDFe (part 1, section 11.4.10.3): SP 800-56A's one-step derivation, one digest long."""
    digest = hashes.Hash(HASH_CLASSES[name_algorithm])
    digest.update((1).to_bytes(4, "big") + shared + label + b"\0" + their_x + own_x)
    return digest.finalize()
