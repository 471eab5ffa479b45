"""The bodies of messages about one signature (docs/protocol/signing.md). Each is small, apart from the request itself."""

from dataclasses import dataclass, field
from typing import Final

from overlay.core.authority.contents import MEMBERS_MAX
from overlay.core.authority.frost import Commitment
from overlay.core.authority.group import POINT_SIZE, Point
from overlay.core.authority.request_kinds import REQUEST_MAX
from overlay.core.authority.round_messages import ROUND_BODY_MAX
from overlay.core.wire import Array, Bytes, Maybe, Tuple, UInt, make_map, malformed, open_map, sha256
from overlay.errors import Refused
from overlay.registry import Reason

COMMITMENT_SIZE: Final = 2 * POINT_SIZE  # hiding, binding (RFC 9591, section 5.1)
SMALL_MAX: Final = 8 * 1024  # a package of 64 members takes 4.5 KiB

_HASH: Final = Bytes(32)
_COMMITMENT: Final = Bytes(COMMITMENT_SIZE)
_REASONS: Final = {int(reason): reason for reason in Reason}
_LIST: Final = Array(Tuple((UInt(MEMBERS_MAX), _COMMITMENT)), MEMBERS_MAX)


@dataclass(frozen=True, slots=True)
class SignRequest:
    """SIGN_REQUEST {1:generation, 2:request}."""

    generation: int
    request: bytes = field(repr=False)

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.generation, self.request)

    @classmethod
    def unpack(cls, body: bytes) -> "SignRequest":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED), as all of these."""
        return cls(*open_map(body, UInt(), Bytes(1, REQUEST_MAX), limit=ROUND_BODY_MAX))


@dataclass(frozen=True, slots=True)
class Committed:
    """COMMITMENT {1:generation, 2:H(to be signed), 3:commitment}."""

    generation: int
    message_hash: bytes
    commitment: bytes

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.generation, self.message_hash, self.commitment)

    @classmethod
    def unpack(cls, body: bytes) -> "Committed":
        """From a body."""
        return cls(*open_map(body, UInt(), _HASH, _COMMITMENT, limit=SMALL_MAX))


@dataclass(frozen=True, slots=True)
class Package:
    """PACKAGE {1:generation, 2:H(to be signed), 3:[[identifier, commitment], ...] rising}: who signs together."""

    generation: int
    message_hash: bytes
    commitments: tuple[tuple[int, bytes], ...]

    def points(self, own: Commitment) -> list[Commitment]:
        """All commitments; our own is known to be good. Raises Refused(BAD_SHARE)."""
        known = (own.identifier, pack_commitment(own))
        return [own if row == known else read_commitment(*row) for row in self.commitments]

    @property
    def hash(self) -> bytes:
        """By which answers name it. 32 bytes."""
        return sha256(self.pack())

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.generation, self.message_hash, [list(item) for item in self.commitments])

    @classmethod
    def unpack(cls, body: bytes) -> "Package":
        """From a body."""
        generation, message_hash, rows = open_map(body, UInt(), _HASH, _LIST, limit=SMALL_MAX)
        identifiers = [identifier for identifier, _ in rows]
        if identifiers != sorted(set(identifiers)) or 0 in identifiers:
            malformed("identifiers of a package rise from 1")
        return cls(generation, message_hash, tuple((identifier, commitment) for identifier, commitment in rows))


@dataclass(frozen=True, slots=True)
class ShareSent:
    """SIGNATURE_SHARE {1:H(package), 2:share, 3:commitment for another attempt?}."""

    package_hash: bytes
    share: bytes = field(repr=False)
    following: bytes | None = None

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.package_hash, self.share, self.following)

    @classmethod
    def unpack(cls, body: bytes) -> "ShareSent":
        """From a body."""
        return cls(*open_map(body, _HASH, _HASH, Maybe(_COMMITMENT), limit=SMALL_MAX))


def pack_commitment(commitment: Commitment) -> bytes:
    """64 bytes; whose it is, is said beside it."""
    return commitment.hiding.encode() + commitment.binding.encode()


def read_commitment(identifier: int, data: bytes) -> Commitment:
    """From 64 bytes; raises Refused(BAD_SHARE) for what is no pair of points."""
    try:
        hiding, binding = (Point.from_bytes(half) for half in (data[:POINT_SIZE], data[POINT_SIZE:]))
    except ValueError as error:
        raise Refused(Reason.BAD_SHARE, str(error)) from None
    return Commitment(identifier, hiding, binding)


def pack_declined(reason: Reason) -> bytes:
    """DECLINED {1:reason}."""
    return make_map(int(reason))


def unpack_declined(body: bytes) -> Reason:
    """From a body."""
    (number,) = open_map(body, UInt(255), limit=SMALL_MAX)
    if number not in _REASONS:
        malformed(f"reason {number}")
    return _REASONS[number]
