"""Shamir's secret sharing with commitments: polynomials, interpolation, and what a holder of a share knows.

The polynomial is a list of coefficients, the constant one (the secret) first; a commitment is the same list times the base
point (RFC 9591, appendix C.2). Identifiers are 1, 2, 3, ...
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from overlay.core.authority.group import BASE, POINT_SIZE, SCALAR_SIZE, Point, Scalar
from overlay.core.wire import Array, Bytes, UInt, make_map, malformed, open_map
from overlay.errors import Refused

MEMBERS_MAX: Final = 64  # our guess, as in authority objects
SIZE_MAX: Final = 16 * 1024
ADDITIONS_MAX: Final = 5  # measured: an addition takes 16 us, a multiplication 105 us


def evaluate(coefficients: Sequence[Scalar], identifier: int) -> Scalar:
    """The value of the polynomial at an identifier."""
    value, at = Scalar.of(0), Scalar.of(identifier)
    for coefficient in reversed(coefficients):
        value = value * at + coefficient
    return value


def evaluate_commitment(points: Sequence[Point], identifier: int) -> Point:
    """The value of the committed polynomial there, times the base point."""
    value = points[-1]
    for point in reversed(points[:-1]):
        value = _times(value, identifier) + point
    return value


def _times(point: Point, number: int) -> Point:
    """A point times a public identifier; a few additions are faster than one multiplication in constant time."""
    bits = f"{number:b}"[1:]
    if number == 0 or len(bits) + bits.count("1") > ADDITIONS_MAX:
        return point * Scalar.of(number)
    total = point
    for bit in bits:
        total = total + total
        total = total + point if bit == "1" else total
    return total


def commit_to(coefficients: Iterable[Scalar]) -> tuple[Point, ...]:
    """The commitment to a polynomial."""
    return tuple(BASE * coefficient for coefficient in coefficients)


def lagrange(identifier: int, identifiers: Iterable[int]) -> Scalar:
    """derive_interpolating_value (RFC 9591, section 4.2): the weight of one share in the secret.

    Raises ValueError for an identifier that is 0, missing or there twice.
    """
    everyone = list(identifiers)
    if identifier not in everyone or 0 in everyone or len(set(everyone)) != len(everyone):
        raise ValueError("identifiers are different, above 0, and hold the one that is asked for")
    above, below, own = Scalar.of(1), Scalar.of(1), Scalar.of(identifier)
    for other in everyone:
        if other != identifier:
            above = above * Scalar.of(other)
            below = below * (Scalar.of(other) - own)
    return above * below.invert()


def split(secret: Scalar, threshold: int, members: int, rest: Sequence[Scalar]) -> dict[int, Scalar]:
    """Shares of a secret for members 1 to n; `rest` are the t - 1 random coefficients."""
    if not 1 <= threshold <= members or len(rest) != threshold - 1:
        raise ValueError("a threshold is from 1 to the number of members, and one less is random")
    coefficients = [secret, *rest]
    return {identifier: evaluate(coefficients, identifier) for identifier in range(1, members + 1)}


@dataclass(frozen=True, slots=True)
class GroupKey:
    """What everybody may know of a shared key."""

    threshold: int
    public: bytes  # 32: the group's key, plain Ed25519
    shares: Mapping[int, bytes]  # each member's share times the base point, 32 bytes, by identifier from 1 to n

    def __post_init__(self) -> None:
        if set(self.shares) != set(range(1, len(self.shares) + 1)) or not 1 <= self.threshold <= len(self.shares):
            raise ValueError("identifiers go from 1 to n, and a threshold is among them")

    def pack(self) -> bytes:
        """As CBOR."""
        return make_map(self.threshold, self.public, [self.shares[one] for one in sorted(self.shares)])

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED), also for what is no element of the group."""
        threshold, public, shares = open_map(
            data, UInt(MEMBERS_MAX), Bytes(POINT_SIZE), Array(Bytes(POINT_SIZE), MEMBERS_MAX), limit=SIZE_MAX
        )
        try:
            for encoded in (public, *shares):
                Point.from_bytes(encoded)
            return cls(threshold, public, dict(enumerate(shares, 1)))
        except ValueError as error:
            malformed(str(error))


@dataclass(frozen=True, slots=True)
class Share:
    """One member's part of a key."""

    identifier: int
    generation: int
    secret: Scalar = field(repr=False)
    group: GroupKey

    def __post_init__(self) -> None:
        if (BASE * self.secret).encode() != self.group.shares.get(self.identifier):
            raise ValueError("the share is not the one that the group knows of this member")

    def pack_with_secret(self) -> bytes:
        """For the file that only this member reads: the only way the secret leaves memory."""
        return make_map(self.identifier, self.generation, self.secret.encode(), self.group.pack())

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        identifier, generation, secret, group = open_map(
            data, UInt(MEMBERS_MAX), UInt(), Bytes(SCALAR_SIZE), Bytes(1, SIZE_MAX), limit=SIZE_MAX + 256
        )
        try:
            return cls(identifier, generation, Scalar.from_bytes(secret), GroupKey.unpack(group))
        except Refused:
            raise
        except ValueError as error:
            malformed(str(error))
