"""What orders about the mesh key say: who shall hold it together, and how many of them it takes.

What cannot be meant (a member twice, a threshold that no group can have) is no body.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from overlay.core.authority.contents import MEMBERS_MAX
from overlay.core.keys import NodeId
from overlay.core.wire import Array, Bytes, UInt, make_map, malformed, open_map
from overlay.registry import OrderKind

BODY_MAX: Final = 16 * 1024  # of any order, our guess: 64 nodes and 64 ends of their logs take 8.3 KiB

_ID: Final = Bytes(32)
_GROUP: Final = (Array(_ID, MEMBERS_MAX), UInt(MEMBERS_MAX))


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribute:
    """These members make a mesh key that no machine holds."""

    kind: ClassVar = OrderKind.DISTRIBUTE

    members: tuple[NodeId, ...]  # sorted
    threshold: int

    def pack(self) -> bytes:
        """The body."""
        return make_map(list(self.members), self.threshold)

    @classmethod
    def unpack(cls, body: bytes) -> "Distribute":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED), as all of them do."""
        members, threshold = open_map(body, *_GROUP, limit=BODY_MAX)
        return cls(members=_members(members, threshold), threshold=threshold)


@dataclass(frozen=True, slots=True)
class Refresh:
    """The members make new shares of the same key."""

    kind: ClassVar = OrderKind.REFRESH

    def pack(self) -> bytes:
        """The body."""
        return make_map()

    @classmethod
    def unpack(cls, body: bytes) -> "Refresh":
        """See Distribute."""
        open_map(body, limit=BODY_MAX)
        return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshare:
    """The key goes to these members."""

    kind: ClassVar = OrderKind.RESHARE

    members: tuple[NodeId, ...]  # sorted
    threshold: int

    def pack(self) -> bytes:
        """The body."""
        return make_map(list(self.members), self.threshold)

    @classmethod
    def unpack(cls, body: bytes) -> "Reshare":
        """See Distribute."""
        members, threshold = open_map(body, *_GROUP, limit=BODY_MAX)
        return cls(members=_members(members, threshold), threshold=threshold)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover:
    """The key is lost: these members make another one. The recovery keys sign the authority object that comes of it."""

    kind: ClassVar = OrderKind.RECOVER

    after: bytes  # 32: hash of the authority object that is succeeded
    members: tuple[NodeId, ...]  # sorted
    threshold: int

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.after, list(self.members), self.threshold)

    @classmethod
    def unpack(cls, body: bytes) -> "Recover":
        """See Distribute."""
        after, members, threshold = open_map(body, _ID, *_GROUP, limit=BODY_MAX)
        return cls(after=after, members=_members(members, threshold), threshold=threshold)


def read_nodes(found: Sequence[bytes]) -> tuple[NodeId, ...]:
    """One at least, sorted and different. Raises Refused(MALFORMED)."""
    if not found or list(found) != sorted(set(found)):
        malformed("an order names nodes, sorted and different")
    return tuple(map(NodeId, found))


def _members(found: Sequence[bytes], threshold: int) -> tuple[NodeId, ...]:
    """Two quorums share a member, else there could be two stories; and one alone is no quorum."""
    members = read_nodes(found)
    if threshold < 2 or not len(members) < 2 * threshold <= 2 * len(members):
        malformed("two members at least, more than half of them, and at most all are needed to sign")
    return members
