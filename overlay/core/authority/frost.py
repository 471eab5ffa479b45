"""FROST(Ed25519, SHA-512), RFC 9591: t of n holders of shares make one plain Ed25519 signature, in two rounds.

Round one: each signer makes nonces and shows its commitment. Round two: each signs with its share, once all commitments are
known. Anybody puts the signature shares together, and can name whose is bad.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from overlay.core.authority.group import BASE, IDENTITY, POINT_SIZE, Point, Scalar
from overlay.core.authority.sharing import GroupKey, Share, lagrange
from overlay.core.chance import Chance
from overlay.core.keys import verify_ed25519
from overlay.core.wire import Bytes, UInt, make_map, open_map
from overlay.errors import Refused
from overlay.registry import Reason

CONTEXT: Final = b"FROST-ED25519-SHA512-v1"  # RFC 9591, section 6.1
RANDOM_SIZE: Final = 32
COMMITMENT_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class Commitment:
    """What a signer shows in round one."""

    identifier: int
    hiding: Point
    binding: Point

    def pack(self) -> bytes:
        """As CBOR."""
        return make_map(self.identifier, self.hiding.encode(), self.binding.encode())

    @classmethod
    def unpack(cls, data: bytes) -> "Commitment":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED; BAD_SHARE for what is no element of the group)."""
        identifier, hiding, binding = open_map(data, UInt(2**16), Bytes(POINT_SIZE), Bytes(POINT_SIZE), limit=COMMITMENT_MAX)
        try:
            return cls(identifier, Point.from_bytes(hiding), Point.from_bytes(binding))
        except ValueError as error:
            raise Refused(Reason.BAD_SHARE, str(error)) from None

    def encode(self) -> bytes:
        """Its part of encode_group_commitment_list (RFC 9591, section 4.3)."""
        return Scalar.of(self.identifier).encode() + self.hiding.encode() + self.binding.encode()


class Nonces:
    """The secret half of a commitment. `take` gives it out once; then it is gone, and no copy can be made."""

    __slots__ = ("_hiding_binding", "commitment")

    def __init__(self, identifier: int, hiding: Scalar, binding: Scalar) -> None:
        self._hiding_binding: tuple[Scalar, Scalar] | None = (hiding, binding)
        self.commitment = Commitment(identifier, BASE * hiding, BASE * binding)

    def take(self) -> tuple[Scalar, Scalar]:
        """Both, once; raises ValueError afterwards: one nonce under two messages gives the share away."""
        if self._hiding_binding is None:
            raise ValueError("these nonces are used up")
        found, self._hiding_binding = self._hiding_binding, None
        return found

    def erase(self) -> None:
        """Nobody will sign with them."""
        self._hiding_binding = None

    def __repr__(self) -> str:
        return "Nonces(...)"

    def __reduce__(self) -> str:
        raise TypeError("nonces are never copied")

    def __copy__(self) -> "Nonces":
        raise TypeError("nonces are never copied")

    def __deepcopy__(self, memo: object) -> "Nonces":
        raise TypeError("nonces are never copied")


@dataclass(frozen=True, slots=True)
class _Case:
    """What a list of commitments, a group and a message come to."""

    factors: Mapping[int, Scalar] = field(repr=False)  # binding factor by identifier
    parts: Mapping[int, Point] = field(repr=False)  # of R, by identifier
    commitment: Point  # R
    challenge: Scalar


# --- round one ------------------------------------------------------------------------------------------------------


def commit(share: Share, chance: Chance) -> tuple[Nonces, Commitment]:
    """Fresh nonces, and what to show of them (RFC 9591, section 5.1)."""
    nonces = nonces_from(share, chance.token(RANDOM_SIZE), chance.token(RANDOM_SIZE))
    return nonces, nonces.commitment


def nonces_from(share: Share, hiding_random: bytes, binding_random: bytes) -> Nonces:
    """nonce_generate (RFC 9591, section 4.1) for given randomness: hedged with the secret, should chance be bad."""
    secret = share.secret.encode()
    hiding, binding = (_hash_to_scalar(b"nonce", random + secret) for random in (hiding_random, binding_random))
    return Nonces(share.identifier, hiding, binding)


# --- round two ------------------------------------------------------------------------------------------------------


def sign(share: Share, nonces: Nonces, message: bytes, commitments: Sequence[Commitment]) -> bytes:
    """Our signature share, 32 bytes (RFC 9591, section 5.2); the nonces are gone afterwards, whatever happens.

    Raises:
        Refused: BAD_SHARE for a list that does not hold our commitment as it is; whatever `check_commitments` raises.
        ValueError: these nonces were used before.
    """
    hiding, binding = nonces.take()
    check_commitments(share.group, commitments)
    if nonces.commitment not in commitments or nonces.commitment.identifier != share.identifier:
        raise Refused(Reason.BAD_SHARE, "our commitment is not in the list as we have shown it")
    case = _case(share.group, message, commitments)
    weight = lagrange(share.identifier, _identifiers(commitments))
    return (hiding + binding * case.factors[share.identifier] + weight * share.secret * case.challenge).encode()


def check_commitments(group: GroupKey, commitments: Sequence[Commitment]) -> None:
    """Sorted, different, of members (BAD_SHARE), and at least t (NOT_ENOUGH_SIGNERS): raises Refused."""
    identifiers = _identifiers(commitments)
    if identifiers != sorted(set(identifiers)) or not set(identifiers) <= set(group.shares):
        raise Refused(Reason.BAD_SHARE, "commitments are of different members, sorted")
    if len(identifiers) < group.threshold:
        raise Refused(Reason.NOT_ENOUGH_SIGNERS, f"{len(identifiers)} signers where {group.threshold} are needed")
    if any(one.hiding.is_identity or one.binding.is_identity for one in commitments):
        raise Refused(Reason.BAD_SHARE, "a commitment to nothing")


# --- putting together -----------------------------------------------------------------------------------------------


class Gathering:
    """The shares of one signature, as whoever puts them together judges them: what all have in common is worked out once."""

    def __init__(self, group: GroupKey, message: bytes, commitments: Sequence[Commitment]) -> None:
        """Raises what `check_commitments` raises."""
        check_commitments(group, commitments)
        self._group = group
        self._message = message
        self._identifiers = _identifiers(commitments)
        self._case = _case(group, message, commitments)

    def fits(self, identifier: int, signature_share: bytes) -> bool:
        """Whether this member's signature share is good (RFC 9591, section 5.4)."""
        part = self._case.parts.get(identifier)
        if part is None:
            return False
        try:
            response = Scalar.from_bytes(signature_share)
        except ValueError:
            return False
        weight = lagrange(identifier, self._identifiers)
        return BASE * response == part + Point(self._group.shares[identifier]) * (self._case.challenge * weight)

    def bad(self, shares: Mapping[int, bytes]) -> tuple[int, ...]:
        """The members whose signature shares are bad or missing: identifiable abort."""
        return tuple(one for one in self._identifiers if not self.fits(one, shares.get(one, b"")))

    def aggregate(self, shares: Mapping[int, bytes]) -> bytes:
        """The signature, 64 bytes, verified (RFC 9591, section 5.3). Raises Refused(BAD_SHARE) with whose shares are bad."""
        total = Scalar.of(0)
        try:
            for identifier in self._identifiers:
                total = total + Scalar.from_bytes(shares.get(identifier, b""))
            signature = self._case.commitment.encode() + total.encode()
            verify_ed25519(self._group.public, signature, self._message)
        except (ValueError, Refused):
            names = ", ".join(map(str, self.bad(shares)))
            raise Refused(Reason.BAD_SHARE, f"signature shares of members {names}") from None
        return signature


def verify_share(
    group: GroupKey, identifier: int, signature_share: bytes, message: bytes, commitments: Sequence[Commitment]
) -> bool:
    """`Gathering.fits`, for one share."""
    return Gathering(group, message, commitments).fits(identifier, signature_share)


def bad_shares(
    group: GroupKey, message: bytes, commitments: Sequence[Commitment], shares: Mapping[int, bytes]
) -> tuple[int, ...]:
    """`Gathering.bad`, once."""
    return Gathering(group, message, commitments).bad(shares)


def aggregate(
    group: GroupKey, message: bytes, commitments: Sequence[Commitment], shares: Mapping[int, bytes]
) -> bytes:
    """`Gathering.aggregate`, once."""
    return Gathering(group, message, commitments).aggregate(shares)


def _case(group: GroupKey, message: bytes, commitments: Sequence[Commitment]) -> _Case:
    """compute_binding_factors, compute_group_commitment, compute_challenge (RFC 9591, sections 4.4 to 4.6)."""
    listed = b"".join(one.encode() for one in commitments)
    prefix = group.public + _hash(b"msg", message) + _hash(b"com", listed)
    factors = {one: _hash_to_scalar(b"rho", prefix + Scalar.of(one).encode()) for one in _identifiers(commitments)}
    parts = {one.identifier: one.hiding + one.binding * factors[one.identifier] for one in commitments}
    total = IDENTITY
    for part in parts.values():
        total = total + part
    challenge = Scalar.reduce(hashlib.sha512(total.encode() + group.public + message).digest())
    return _Case(factors, parts, total, challenge)


def _identifiers(commitments: Iterable[Commitment]) -> list[int]:
    return [one.identifier for one in commitments]


def _hash(name: bytes, data: bytes) -> bytes:
    return hashlib.sha512(CONTEXT + name + data).digest()


def _hash_to_scalar(name: bytes, data: bytes) -> Scalar:
    return Scalar.reduce(_hash(name, data))
