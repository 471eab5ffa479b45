"""Public areas of TPM keys: what they say about a key, the names computed from them, and the templates of our own keys.

A public area is a TPMT_PUBLIC (TPM 2.0 Library, part 2, section 12.2.4). Names: part 1, section 16.
"""

import hashlib
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final

from attest.structures import (
    ALG_AES,
    ALG_CFB,
    ALG_ECC,
    ALG_ECDSA,
    ALG_KEYEDHASH,
    ALG_NULL,
    ALG_RSA,
    ALG_SHA256,
    ALG_SHA384,
    CURVE_P256,
    CURVE_P384,
    Reader,
    bad_evidence,
    sized,
)

AREA_MAX: Final = 512  # an RSA-2048 endorsement key takes 314 bytes

HASHES: Final = {ALG_SHA256: "sha256", ALG_SHA384: "sha384"}
COORDINATE_SIZES: Final = {CURVE_P256: 32, CURVE_P384: 48}


class Attributes(IntFlag):
    """TPMA_OBJECT (part 2, section 8.3), the bits in use."""

    FIXED_TPM = 1 << 1
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


BORN_HERE: Final = Attributes.FIXED_TPM | Attributes.FIXED_PARENT | Attributes.SENSITIVE_DATA_ORIGIN
KIND_BITS: Final = Attributes.RESTRICTED | Attributes.DECRYPT | Attributes.SIGN


@dataclass(frozen=True, slots=True)
class PublicArea:
    """A parsed public area. `scheme` and `scheme_hash` are ALG_NULL where the key fixes none; `curve` is 0 for RSA."""

    raw: bytes = field(repr=False)
    kind: int
    name_algorithm: int
    attributes: int
    symmetric: tuple[int, int, int] | None  # algorithm, bits, mode: for parents only
    scheme: int
    scheme_hash: int
    curve: int
    x: bytes = field(repr=False)
    y: bytes = field(repr=False)
    modulus: bytes = field(repr=False)
    exponent: int

    @property
    def name(self) -> bytes:
        """nameAlg || digest of the area: what a TPM calls this key."""
        return self.name_algorithm.to_bytes(2, "big") + self.digest(self.raw)

    @property
    def hash_name(self) -> str:
        """The name algorithm, in hashlib's words."""
        return HASHES[self.name_algorithm]

    def digest(self, data: bytes) -> bytes:
        """Hash with the key's name algorithm."""
        return hashlib.new(self.hash_name, data).digest()

    def qualified_name(self, parent: bytes) -> bytes:
        """The name with its whole line of parents; `parent` is the parent's qualified name, or a hierarchy's handle."""
        return self.name_algorithm.to_bytes(2, "big") + self.digest(parent + self.name)

    @property
    def point(self) -> bytes:
        """The uncompressed point of an ECC key (SEC 1, section 2.3.3), not checked to be on the curve."""
        size = COORDINATE_SIZES[self.curve]
        return b"\x04" + self.x.rjust(size, b"\0") + self.y.rjust(size, b"\0")

    def is_kind(self, wanted: Attributes) -> bool:
        """Whether the key was made in its TPM, cannot leave it, and is exactly of this kind of use."""
        return self.attributes & BORN_HERE == BORN_HERE and self.attributes & KIND_BITS == wanted


def parse_area(data: bytes) -> PublicArea:
    """Read an RSA-2048, P-256 or P-384 public area with a SHA-256 or SHA-384 name.

    Raises:
        Refused: BAD_EVIDENCE for anything else.
    """
    if len(data) > AREA_MAX:
        bad_evidence("public area is too large")
    reader = Reader(data, "public area")
    kind, name_algorithm, attributes = reader.integer(2), reader.integer(2), reader.integer(4)
    if name_algorithm not in HASHES:
        bad_evidence("name algorithm of a public area")
    reader.sized()  # authorization policy: part of the name, of no meaning to us
    symmetric = _symmetric(reader)
    scheme, scheme_hash = _scheme(reader)
    curve, exponent, x, y, modulus = 0, 0, b"", b"", b""
    if kind == ALG_ECC:
        curve, x, y = _ecc(reader)
    elif kind == ALG_RSA:
        exponent, modulus = _rsa(reader)
    else:
        bad_evidence("type of a public area")
    reader.end()
    return PublicArea(
        data, kind, name_algorithm, attributes, symmetric, scheme, scheme_hash, curve, x, y, modulus, exponent
    )


def _symmetric(reader: Reader) -> tuple[int, int, int] | None:
    """TPMT_SYM_DEF_OBJECT (section 11.1.7)."""
    algorithm = reader.integer(2)
    return None if algorithm == ALG_NULL else (algorithm, reader.integer(2), reader.integer(2))


def _scheme(reader: Reader) -> tuple[int, int]:
    """TPMT_ASYM_SCHEME (section 11.2.3.5): none, or ECDSA with a hash."""
    scheme = reader.integer(2)
    if scheme == ALG_NULL:
        return scheme, ALG_NULL
    if scheme != ALG_ECDSA:
        bad_evidence("scheme of a public area")
    return scheme, reader.integer(2)


def _ecc(reader: Reader) -> tuple[int, bytes, bytes]:
    """The rest of TPMS_ECC_PARMS and the point (sections 12.2.3.6 and 11.2.5.2)."""
    curve = reader.integer(2)
    if curve not in COORDINATE_SIZES:
        bad_evidence("curve of a public area")
    reader.expect(2, ALG_NULL, "key derivation")
    x, y = reader.sized(), reader.sized()
    if max(len(x), len(y)) > COORDINATE_SIZES[curve]:
        bad_evidence("point of a public area")
    return curve, x, y


def _rsa(reader: Reader) -> tuple[int, bytes]:
    """The rest of TPMS_RSA_PARMS and the modulus (section 12.2.3.5); exponent 0 stands for 65,537."""
    reader.expect(2, 2048, "key size")
    exponent = reader.integer(4) or 65_537
    modulus = reader.sized()
    if len(modulus) != 256:
        bad_evidence("modulus of a public area")
    return exponent, modulus


# --- templates ------------------------------------------------------------------------------------------------------

# PolicySecret(endorsement hierarchy): TCG EK Credential Profile 2.5, B.6.2 "PolicyA SHA256"
EK_POLICY: Final = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")

_PARENT: Final = Attributes.RESTRICTED | Attributes.DECRYPT
_OURS: Final = BORN_HERE | Attributes.USER_WITH_AUTH | Attributes.NO_DA


def _p256_template(attributes: Attributes, policy: bytes, *, parent: bool, unique: bytes) -> bytes:
    """A P-256 template: a storage key with AES-128-CFB, or a signing key that is bound to ECDSA with SHA-256."""
    use = (ALG_AES, 128, ALG_CFB, ALG_NULL) if parent else (ALG_NULL, ALG_ECDSA, ALG_SHA256)
    head = _u16s(ALG_ECC, ALG_SHA256) + int(attributes).to_bytes(4, "big") + sized(policy)
    return head + _u16s(*use, CURVE_P256, ALG_NULL) + sized(unique) + sized(unique)


def _u16s(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in numbers)


# TCG EK Credential Profile 2.5, B.4.4: template L-2
EK_TEMPLATE: Final = _p256_template(
    BORN_HERE | Attributes.ADMIN_WITH_POLICY | _PARENT, EK_POLICY, parent=True, unique=bytes(32)
)
# TCG TPM v2.0 Provisioning Guidance 1.0, 7.5.1: storage root key, on P-256
SRK_TEMPLATE: Final = _p256_template(_OURS | _PARENT, b"", parent=True, unique=bytes(32))
# Ours. NO_DA: these keys have no password, so somebody else's wrong guesses must not lock them.
AK_TEMPLATE: Final = _p256_template(_OURS | Attributes.RESTRICTED | Attributes.SIGN, b"", parent=False, unique=b"")
IDENTITY_TEMPLATE: Final = _p256_template(_OURS | Attributes.SIGN, b"", parent=False, unique=b"")
# Ours: data of 32 bytes and no key (part 2, section 12.2.3.3), so SENSITIVE_DATA_ORIGIN is clear (part 3, section 12.1)
SEALED_TEMPLATE: Final = (
    _u16s(ALG_KEYEDHASH, ALG_SHA256) + int(_OURS & ~Attributes.SENSITIVE_DATA_ORIGIN).to_bytes(4, "big") + sized(b"")
    + _u16s(ALG_NULL) + sized(b"")
)
