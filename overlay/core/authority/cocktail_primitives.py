"""The primitives of COCKTAIL(Ed25519, SHA-512), c2sp.org/cocktail-dkg: its Schnorr signatures and its sealed shares.

The text wants ECDH results hashed in their Ristretto255 encoding ("ECDH Shared-Secret Encoding"); the published vectors of
this ciphersuite hash the raw compressed Edwards point. We do what the vectors show. Both sides of a run do the same, so this
concerns only who wants to talk to an implementation that follows the text. Scalars are 32 bytes little endian, points 32
bytes (RFC 8032), every point that comes in lies in the prime-order subgroup and is not the identity.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import nacl.bindings
import nacl.exceptions

from overlay.core.authority.group import BASE, POINT_SIZE, SCALAR_SIZE, Point, Scalar
from overlay.core.chance import Chance
from overlay.errors import Refused
from overlay.registry import Reason

SIGNATURE_SIZE: Final = 64
CIPHERTEXT_SIZE: Final = SCALAR_SIZE + 16  # one share and the tag of XChaCha20-Poly1305; we send no payloads

_H6: Final = b"COCKTAIL-DKG-Ed25519-SHA512-H6"  # "Ciphersuite Definitions"
_H7: Final = b"COCKTAIL-DKG-Ed25519-SHA512-H7"  # "Schnorr Prefix Strings"
_NONCE: Final = b"COCKTAIL-DKG-Ed25519-SHA512-NONCE"


def sha512(*parts: bytes) -> bytes:
    """H of the ciphersuite, 64 bytes."""
    return hashlib.sha512(b"".join(parts)).digest()


def random_scalar(chance: Chance) -> Scalar:
    """RandomScalar(), never zero: 64 random bytes reduced, drawn again in the case that never happens."""
    while True:
        found = Scalar.reduce(chance.token(64))
        if not found.is_zero:
            return found


def join(points: Sequence[Point]) -> bytes:
    """Their encodings, one after the other."""
    return b"".join(point.encode() for point in points)


def read_point(data: bytes) -> Point:
    """Raises Refused(MALFORMED) for what is no point of the prime-order group, or is its identity."""
    try:
        return Point.from_bytes(data)
    except ValueError:
        raise Refused(Reason.MALFORMED, "not a point of the prime-order group") from None


def add_points(points: Sequence[Point]) -> Point:
    """Their sum, of one at least."""
    total = points[0]
    for point in points[1:]:
        total = total + point
    return total


def add_scalars(scalars: Sequence[Scalar]) -> Scalar:
    """Their sum, of one at least."""
    total = scalars[0]
    for scalar in scalars[1:]:
        total = total + scalar
    return total


# --- Signatures ("Schnorr Signature Scheme") ------------------------------------------------------------------------


def sign(secret: Scalar, message: bytes) -> bytes:
    """R || z, 64 bytes; no EdDSA signature, by its prefixes. The nonce is the hash of key and message."""
    nonce = signature_nonce(secret, message)
    commitment = (BASE * nonce).encode()
    challenge = _challenge(commitment, (BASE * secret).encode(), message)
    return commitment + (nonce + challenge * secret).encode()


def signature_nonce(secret: Scalar, message: bytes) -> Scalar:
    """k; raises ValueError for zero, which would give the key away (and does not happen)."""
    nonce = Scalar.reduce(sha512(_NONCE, secret.encode(), message))
    if nonce.is_zero:
        raise ValueError("a nonce of zero")
    return nonce


def verify(public: Point, message: bytes, signature: bytes) -> None:
    """Raises Refused(BAD_SIGNATURE)."""
    try:
        commitment, response = Point.from_bytes(signature[:POINT_SIZE]), Scalar.from_bytes(signature[POINT_SIZE:])
        right = commitment + public * _challenge(signature[:POINT_SIZE], public.encode(), message)
        left = BASE * response
    except ValueError as error:
        raise Refused(Reason.BAD_SIGNATURE, str(error)) from None
    if left != right:
        raise Refused(Reason.BAD_SIGNATURE, "Schnorr")


def _challenge(commitment: bytes, public: bytes, message: bytes) -> Scalar:
    return Scalar.reduce(sha512(_H7, commitment, public, message))


# --- Sealed shares --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SealKey:
    """Key and nonce under which one member's share for one other travels."""

    key: bytes = field(repr=False)
    nonce: bytes = field(repr=False)

    @classmethod
    def of_sender(cls, context: bytes, static: Scalar, ephemeral: Scalar, receiver: Point) -> "SealKey":
        """What the sender computes: d_i, e_i and P_j."""
        shared = (receiver * ephemeral).encode() + (receiver * static).encode()
        return cls._derive(shared, BASE * ephemeral, BASE * static, receiver, context)

    @classmethod
    def of_receiver(cls, context: bytes, static: Scalar, ephemeral: Point, sender: Point) -> "SealKey":
        """What the receiver computes: d_i, E_j and P_j."""
        shared = (ephemeral * static).encode() + (sender * static).encode()
        return cls._derive(shared, ephemeral, sender, BASE * static, context)

    @classmethod
    def _derive(cls, shared: bytes, ephemeral: Point, sender: Point, receiver: Point, context: bytes) -> "SealKey":
        """H6; the whole of the key's and nonce's 56 bytes come from one SHA-512."""
        keys = ephemeral.encode() + sender.encode() + receiver.encode()
        found = sha512(_H6, shared, keys, struct.pack("<Q", len(context)), context)
        return cls(found[:32], found[32:56])

    def seal(self, share: Scalar, payload: bytes = b"") -> bytes:
        """48 bytes and the payload's length."""
        return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            share.encode() + payload, b"", self.nonce, self.key
        )

    def open(self, ciphertext: bytes) -> tuple[Scalar, bytes]:
        """Share and payload; raises Refused(BAD_SHARE)."""
        try:
            plain = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, b"", self.nonce, self.key)
            return Scalar.from_bytes(plain[:SCALAR_SIZE]), plain[SCALAR_SIZE:]
        except (nacl.exceptions.CryptoError, ValueError):
            raise Refused(Reason.BAD_SHARE, "a sealed share does not open to a scalar") from None
