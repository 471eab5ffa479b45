"""Identities and the keys behind them: NodeId, key pairs, the Signer port, and the one place where signatures are verified.

Ed25519 is verified by libsodium, which is strict about small orders and non-canonical encodings; P-256 by OpenSSL, low s only.
"""

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol, Self

import nacl.bindings
import nacl.exceptions
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, COSE_ES256, Label, Reason

P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # FIPS 186-5, SP 800-186 3.2.1.3


def base32(data: bytes) -> str:
    """Lower-case base32 without padding: how ids are shown."""
    return base64.b32encode(data).decode().rstrip("=").lower()


def from_base32(text: str) -> bytes:
    """The bytes behind `base32`; raises ValueError for anything else."""
    data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    if base32(data) != text.lower():
        raise ValueError("not canonical base32")
    return data


class NodeId(bytes):
    """32 bytes: SHA-256 of the SubjectPublicKeyInfo of the identity key. Nothing else identifies a node."""

    def __new__(cls, data: bytes) -> Self:
        """Raises ValueError unless there are 32 bytes."""
        if len(data) != 32:
            raise ValueError("a node id has 32 bytes")
        return super().__new__(cls, data)

    @classmethod
    def of_key(cls, spki: bytes) -> Self:
        """The id of an identity key, given as SubjectPublicKeyInfo DER."""
        return cls(hashlib.sha256(spki).digest())

    @classmethod
    def parse(cls, text: str) -> Self:
        """From base32; raises ValueError."""
        return cls(from_base32(text))

    def __str__(self) -> str:
        """All 52 letters."""
        return base32(self)

    def __repr__(self) -> str:
        """The first eight letters, for logs."""
        return f"NodeId({base32(self)[:8]}…)"

    @property
    def short(self) -> str:
        """The first eight letters, for tables."""
        return base32(self)[:8]


class MeshId(NodeId):
    """32 bytes: names a mesh for ever, by its founding root."""

    @classmethod
    def of_root(cls, spki: bytes) -> Self:
        """The id of the mesh that this root key founded."""
        return cls(hashlib.sha256(Label.MESH + spki).digest())

    def __repr__(self) -> str:
        """The first eight letters, for logs."""
        return f"MeshId({base32(self)[:8]}…)"


class Signer(Protocol):
    """A key that signs: a file key or one in a TPM."""

    @property
    def algorithm(self) -> int:
        """COSE number: -8 (EdDSA) or -7 (ES256)."""
        ...

    @property
    def public_key(self) -> bytes:
        """Raw 32 bytes (Ed25519) or 65 bytes of the uncompressed point (P-256)."""
        ...

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo DER."""
        ...

    def sign(self, data: bytes) -> bytes:
        """64 bytes; for ES256 r || s with low s. May block."""
        ...


class Ed25519Signer:
    """A Signer over an Ed25519 key held in memory."""

    algorithm: Final = COSE_EDDSA

    def __init__(self, seed: bytes) -> None:
        self._key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        public, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)
        self.public_key: Final[bytes] = public

    @cached_property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo DER."""
        return self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def private_key(self) -> ed25519.Ed25519PrivateKey:
        """For builders of `cryptography` (CSR, certificate)."""
        return self._key

    def sign(self, data: bytes) -> bytes:
        """RFC 8032, 64 bytes."""
        return nacl.bindings.crypto_sign(data, self._secret)[:64]

    def __repr__(self) -> str:
        return f"Ed25519Signer({self.public_key.hex()[:8]}…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class X25519Pair:
    """A Noise static or ephemeral key pair, 32 bytes each."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def from_private(cls, private: bytes) -> "X25519Pair":
        """The pair of a private key."""
        key = x25519.X25519PrivateKey.from_private_bytes(private)
        return cls(private=private, public=key.public_key().public_bytes_raw())


def verify_signature(algorithm: int, public_key: bytes, signature: bytes, data: bytes) -> None:
    """Verify a 64-byte signature; the only place where the library does.

    Raises:
        Refused: BAD_SIGNATURE.
    """
    if algorithm == COSE_EDDSA:
        verify_ed25519(public_key, signature, data)
    elif algorithm == COSE_ES256:
        verify_p256(public_key, signature, data)
    else:
        raise Refused(Reason.BAD_SIGNATURE, f"algorithm {algorithm}")


def verify_ed25519(public_key: bytes, signature: bytes, data: bytes) -> None:
    """RFC 8032, as strict as libsodium; raises Refused(BAD_SIGNATURE)."""
    if len(signature) != 64 or len(public_key) != 32:
        raise Refused(Reason.BAD_SIGNATURE, "length")
    try:
        nacl.bindings.crypto_sign_open(signature + data, public_key)
    except (nacl.exceptions.BadSignatureError, nacl.exceptions.CryptoError, ValueError, TypeError):
        raise Refused(Reason.BAD_SIGNATURE, "Ed25519") from None


def verify_p256(public_key: bytes, signature: bytes, data: bytes) -> None:
    """ECDSA P-256 with SHA-256 over r || s, r and s in range and s low; raises Refused(BAD_SIGNATURE)."""
    if len(signature) != 64:
        raise Refused(Reason.BAD_SIGNATURE, "length")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not 0 < r < P256_ORDER or not 0 < s <= P256_ORDER // 2:
        raise Refused(Reason.BAD_SIGNATURE, "r or s out of range, or s high")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        raise Refused(Reason.BAD_SIGNATURE, "ECDSA P-256") from None


def low_s(r: int, s: int) -> bytes:
    """r || s, 64 bytes, with s lowered: a TPM gives a high s half the time."""
    return r.to_bytes(32, "big") + min(s, P256_ORDER - s).to_bytes(32, "big")


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """The public half of an identity key, from its SubjectPublicKeyInfo: Ed25519 or P-256, nothing else."""

    spki: bytes = field(repr=False)
    algorithm: int
    public_key: bytes = field(repr=False)

    @property
    def node_id(self) -> NodeId:
        """The id that belongs to this key."""
        return NodeId.of_key(self.spki)

    @classmethod
    def parse(cls, spki: bytes) -> "IdentityKey":
        """Raises Refused(BAD_CERTIFICATE) for other key types and other encodings of the same key."""
        try:
            key = load_der_public_key(spki)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise Refused(Reason.BAD_CERTIFICATE, "public key") from None
        if isinstance(key, ed25519.Ed25519PublicKey):
            found = cls(spki, COSE_EDDSA, key.public_bytes_raw())
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            found = cls(spki, COSE_ES256, key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
        else:
            raise Refused(Reason.BAD_CERTIFICATE, "identity keys are Ed25519 or P-256")
        if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != spki:
            raise Refused(Reason.BAD_CERTIFICATE, "public key is not in its one encoding")
        return found


def point_has_prime_order(public_key: bytes) -> bool:
    """Whether 32 bytes are a canonical Ed25519 point of the prime-order group, the identity excluded."""
    return len(public_key) == 32 and bool(nacl.bindings.crypto_core_ed25519_is_valid_point(public_key))


_SMALL_ORDER_CHECK: Final = x25519.X25519PrivateKey.from_private_bytes(bytes([0x40]) * 32)


def x25519_is_safe(public_key: bytes) -> bool:
    """Whether a Noise public key is not of low order (RFC 7748, section 6.1: the shared secret is not all zeros)."""
    try:
        _SMALL_ORDER_CHECK.exchange(x25519.X25519PublicKey.from_public_bytes(public_key))
    except ValueError:
        return False
    return True
