"""Who was ever seen with a good certificate: names, roles and serials, for orders that name nodes and for revocations.

A value. What is known of a node only grows: of two certificates the later one says what the node is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from overlay.core.certificate_profile import PERSON_MAX, ROLE_SIZE_MAX, ROLES_MAX
from overlay.core.certificates import VerifiedCertificate
from overlay.core.keys import NodeId
from overlay.core.revocation_profile import TIME_MAX, serial_bytes
from overlay.core.wire import Array, Bytes, Maybe, Text, Tuple, UInt, make_map, open_map

MEMBERS_MAX: Final = 16_384  # our guess
SERIALS_KEPT: Final = 16  # of one node, the newest: certificates live a day, and a revocation by node id covers all
SIZE_MAX: Final = 16 * 1024 * 1024

_ROW: Final = Tuple((
    Bytes(32), Text(63), Array(Text(ROLE_SIZE_MAX), ROLES_MAX), Maybe(Text(PERSON_MAX)), UInt(5), UInt(TIME_MAX),
    UInt(TIME_MAX), Array(Bytes(20), SERIALS_KEPT),
))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One node, as its newest certificate says."""

    node_id: NodeId
    name: str
    roles: tuple[str, ...]
    person: str | None
    level: int
    not_before: datetime
    not_after: datetime
    serials: tuple[bytes, ...]  # 20 bytes each, oldest first

    def row(self) -> list[object]:
        """For a file."""
        times = int(self.not_before.timestamp()), int(self.not_after.timestamp())
        return [self.node_id, self.name, list(self.roles), self.person or "", self.level, *times, list(self.serials)]


@dataclass(frozen=True, slots=True)
class Members:
    """Everybody, by node id."""

    seen: Mapping[NodeId, Seen] = field(default_factory=dict)
    frozen: frozenset[bytes] | None = None  # serials that were seen before the newest root; None before there was another

    def __iter__(self) -> Iterator[Seen]:
        return iter(self.seen.values())

    def get(self, node_id: NodeId) -> Seen | None:
        """What is known of a node."""
        return self.seen.get(node_id)

    def find(self, text: str) -> Seen | None:
        """By id, or by name: of several that ever had it, the one with the newest certificate."""
        named = [one for one in self if text in (one.name, str(one.node_id))]
        return max(named, key=lambda one: (one.not_before, one.node_id), default=None)

    def with_certificate(self, found: VerifiedCertificate) -> "Members":
        """After a good certificate; the same where it says nothing new."""
        known, serial = self.seen.get(found.node_id), serial_bytes(found.serial)
        if known is not None and (serial in known.serials or found.not_before < known.not_before):
            return self
        if known is None and len(self.seen) >= MEMBERS_MAX:
            return self
        serials = (*(() if known is None else known.serials), serial)[-SERIALS_KEPT:]
        one = Seen(
            node_id=found.node_id, name=found.name, roles=found.roles, person=found.facts.person, level=found.facts.level,
            not_before=found.not_before, not_after=found.not_after, serials=serials,
        )
        return replace(self, seen={**self.seen, found.node_id: one})

    def at_new_root(self) -> "Members":
        """A root has a successor: of its leaves those count that were seen until now, not what a thief of its key makes."""
        return replace(self, frozen=frozenset(serial for one in self for serial in one.serials))

    def pack(self) -> bytes:
        """For a file."""
        frozen = None if self.frozen is None else sorted(self.frozen)
        return make_map([one.row() for _, one in sorted(self.seen.items())], frozen)

    @classmethod
    def unpack(cls, data: bytes) -> "Members":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        rows, frozen = open_map(
            data, Array(_ROW, MEMBERS_MAX), Maybe(Array(Bytes(20), MEMBERS_MAX * SERIALS_KEPT)), limit=SIZE_MAX
        )
        found = {}
        for node_id, name, roles, person, level, begin, end, serials in rows:
            found[NodeId(node_id)] = Seen(
                node_id=NodeId(node_id), name=name, roles=tuple(roles), person=person or None, level=level,
                not_before=datetime.fromtimestamp(begin, UTC), not_after=datetime.fromtimestamp(end, UTC),
                serials=tuple(serials),
            )
        return cls(found, None if frozen is None else frozenset(frozen))
