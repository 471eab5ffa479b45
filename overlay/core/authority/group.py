"""The prime-order group of Ed25519 on libsodium: secret scalars, and points that have been checked (RFC 9591, section 6.1).

Scalars never become Python integers, whose arithmetic takes a time that depends on their values.
"""

import hashlib
import hmac
from typing import Final, Self

from nacl import bindings as sodium
from nacl.exceptions import RuntimeError as SodiumError

SCALAR_SIZE: Final = 32
POINT_SIZE: Final = 32
WIDE_SIZE: Final = 64

_ZERO: Final = bytes(SCALAR_SIZE)
_IDENTITY: Final = b"\x01" + bytes(POINT_SIZE - 1)


class Scalar:
    """An integer modulo the order of the group, perhaps a secret one: nothing of it shows in repr. Immutable."""

    __slots__ = ("_bytes",)

    def __init__(self, data: bytes) -> None:
        """From 32 bytes, little endian, that are known to be reduced; use `from_bytes` or `reduce` for all others."""
        self._bytes = data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """DeserializeScalar (RFC 9591, section 6.1): raises ValueError for what is not 32 bytes below the order."""
        if len(data) != SCALAR_SIZE:
            raise ValueError("a scalar has 32 bytes")
        reduced = sodium.crypto_core_ed25519_scalar_reduce(data + bytes(WIDE_SIZE - SCALAR_SIZE))
        if not hmac.compare_digest(reduced, data):
            raise ValueError("a scalar is below the order of the group")
        return cls(data)

    @classmethod
    def reduce(cls, wide: bytes) -> Self:
        """64 bytes, little endian, modulo the order."""
        if len(wide) != WIDE_SIZE:
            raise ValueError("64 bytes are reduced")
        return cls(sodium.crypto_core_ed25519_scalar_reduce(wide))

    @classmethod
    def of(cls, number: int) -> Self:
        """A public one that is small, as an identifier."""
        if not 0 <= number < 2**64:
            raise ValueError("only small public numbers are made into scalars")
        return cls(number.to_bytes(SCALAR_SIZE, "little"))

    @classmethod
    def of_seed(cls, seed: bytes) -> Self:
        """The secret scalar of a plain Ed25519 key (RFC 8032, section 5.1.5), reduced: it has the same public key."""
        half = bytearray(hashlib.sha512(seed).digest()[:SCALAR_SIZE])
        half[0] &= 0xF8
        half[31] = half[31] & 0x7F | 0x40
        return cls.reduce(bytes(half) + bytes(SCALAR_SIZE))

    def __add__(self, other: "Scalar") -> "Scalar":
        return Scalar(sodium.crypto_core_ed25519_scalar_add(self._bytes, other._bytes))

    def __sub__(self, other: "Scalar") -> "Scalar":
        return Scalar(sodium.crypto_core_ed25519_scalar_sub(self._bytes, other._bytes))

    def __mul__(self, other: "Scalar") -> "Scalar":
        return Scalar(sodium.crypto_core_ed25519_scalar_mul(self._bytes, other._bytes))

    def invert(self) -> "Scalar":
        """Its inverse; raises ValueError for zero."""
        if self.is_zero:
            raise ValueError("zero has no inverse")
        return Scalar(sodium.crypto_core_ed25519_scalar_invert(self._bytes))

    @property
    def is_zero(self) -> bool:
        """Whether it is zero."""
        return hmac.compare_digest(self._bytes, _ZERO)

    def encode(self) -> bytes:
        """SerializeScalar: 32 bytes, little endian. They are as secret as the scalar."""
        return self._bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scalar) and hmac.compare_digest(self._bytes, other._bytes)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Scalar(...)"

    def __reduce__(self) -> str:
        raise TypeError("a scalar is not pickled")


class Point:
    """An element of the group. Immutable."""

    __slots__ = ("_bytes",)

    def __init__(self, data: bytes) -> None:
        """From 32 bytes that are known to be an element; use `from_bytes` for all others."""
        self._bytes = data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """DeserializeElement (RFC 9591, section 6.1).

        Raises ValueError for what is not canonical, not on the curve, not of prime order, or the identity.
        """
        if len(data) != POINT_SIZE or not sodium.crypto_core_ed25519_is_valid_point(data):
            raise ValueError("not an element of the prime-order group")
        return cls(data)

    @property
    def is_identity(self) -> bool:
        """Whether it is the neutral element, which sums may come to, and nobody may send."""
        return self._bytes == _IDENTITY

    def __add__(self, other: "Point") -> "Point":
        return Point(sodium.crypto_core_ed25519_add(self._bytes, other._bytes))

    def __sub__(self, other: "Point") -> "Point":
        return Point(sodium.crypto_core_ed25519_sub(self._bytes, other._bytes))

    def __mul__(self, scalar: Scalar) -> "Point":
        if scalar.is_zero or self.is_identity:  # libsodium refuses both
            return Point(_IDENTITY)
        if self._bytes == _BASE:
            return Point(sodium.crypto_scalarmult_ed25519_base_noclamp(scalar.encode()))
        try:
            return Point(sodium.crypto_scalarmult_ed25519_noclamp(scalar.encode(), self._bytes))
        except SodiumError:
            raise ValueError("not an element of the prime-order group") from None

    def encode(self) -> bytes:
        """SerializeElement: 32 bytes (RFC 8032, section 5.1.2)."""
        return self._bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"Point({self._bytes.hex()[:16]})"


_BASE: Final = b"\x58" + b"\x66" * 31  # RFC 8032, section 5.1: y = 4/5
BASE: Final = Point(_BASE)
IDENTITY: Final = Point(_IDENTITY)
