"""What orders say: one frozen value per kind, and its bytes (docs/protocol/orders.md). About the mesh key: group_orders.py.

Each body has exactly one encoding. What cannot be meant (a node twice, an invite without a use) is no body.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar, Final

from overlay.core.authority.group_orders import BODY_MAX, Distribute, Recover, Refresh, Reshare, read_nodes
from overlay.core.certificate_profile import PERSON_MAX, ROLE_SIZE_MAX, ROLES_MAX, is_name
from overlay.core.keys import NodeId, point_has_prime_order
from overlay.core.revocation_profile import TIME_MAX, LogEnd, LogName, RevocationReason
from overlay.core.wire import Array, Bytes, Maybe, Text, Tuple, UInt, make_map, malformed, open_map
from overlay.errors import Refused
from overlay.registry import OrderKind, Reason

NODES_MAX: Final = 64  # revoked by one order: our guess
ENDS_MAX: Final = 64  # logs ended by one order: our guess
USES_MAX: Final = 1024  # of one invite: our guess
INVITE_ID_SIZE: Final = 16
NAME_MAX: Final = 63

_ROLE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")  # as in certificates
_ID: Final = Bytes(32)
_ROLES: Final = Array(Text(ROLE_SIZE_MAX), ROLES_MAX)
_ENDS: Final = Array(Tuple((_ID, Bytes(16), UInt(), Bytes(32))), ENDS_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """Whoever holds the join key may become a node. Who invites, and until when, stands in the order."""

    kind: ClassVar = OrderKind.INVITE

    invite_id: bytes  # 16
    join_public: bytes = field(repr=False)  # 32: Ed25519
    roles: tuple[str, ...] = ()  # sorted
    name: str | None = None  # None: the joiner chooses
    uses: int = 1

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.invite_id, self.join_public, list(self.roles), self.name, self.uses)

    @classmethod
    def unpack(cls, body: bytes) -> "Invite":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED), as all of them do."""
        invite_id, join_public, roles, name, uses = open_map(
            body, Bytes(INVITE_ID_SIZE), _ID, _ROLES, Maybe(Text(NAME_MAX)), UInt(USES_MAX), limit=BODY_MAX
        )
        if not point_has_prime_order(join_public):
            malformed("join key is not of prime order")
        if name is not None and not is_name(name):
            malformed("an invite for something that is no name")
        if not uses or (name is not None and uses > 1):
            malformed("an invite has a use, and one that gives a name has no more")
        return cls(invite_id=invite_id, join_public=join_public, roles=_roles(roles), name=name, uses=uses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """These nodes are out, for ever, and what they signed since `since` is not believed."""

    kind: ClassVar = OrderKind.REVOKE

    nodes: tuple[NodeId, ...]  # sorted
    reason: RevocationReason
    since: datetime  # invalidityDate: whole seconds
    ends: Mapping[LogName, LogEnd] = field(default_factory=dict)  # where their logs end for everybody

    def pack(self) -> bytes:
        """The body."""
        ends = [[*name, end.size, end.last] for name, end in sorted(self.ends.items())]
        return make_map(list(self.nodes), int(self.reason), int(self.since.timestamp()), ends)

    @classmethod
    def unpack(cls, body: bytes) -> "Revoke":
        """See Invite."""
        nodes, reason, since, rows = open_map(
            body, Array(_ID, NODES_MAX), UInt(255), UInt(TIME_MAX), _ENDS, limit=BODY_MAX
        )
        names = [(node_id, log_id) for node_id, log_id, _, _ in rows]
        if names != sorted(set(names)) or not {node_id for node_id, _ in names} <= set(nodes):
            malformed("ends are of the revoked nodes' logs, sorted and different")
        return cls(
            nodes=read_nodes(nodes), reason=_reason(reason), since=datetime.fromtimestamp(since, UTC),
            ends={(node_id, log_id): LogEnd(size, last) for node_id, log_id, size, last in rows},
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Nobody speaks to this node until the order ends."""

    kind: ClassVar = OrderKind.QUARANTINE

    node: NodeId

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.node)

    @classmethod
    def unpack(cls, body: bytes) -> "Quarantine":
        """See Invite."""
        (node,) = open_map(body, _ID, limit=BODY_MAX)
        return cls(NodeId(node))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """Name and roles go from the old node to the new one, and the old one is revoked."""

    kind: ClassVar = OrderKind.REPLACE

    old: NodeId
    new: NodeId

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.old, self.new)

    @classmethod
    def unpack(cls, body: bytes) -> "Replace":
        """See Invite."""
        old, new = open_map(body, _ID, _ID, limit=BODY_MAX)
        if old == new:
            malformed("a node does not replace itself")
        return cls(old=NodeId(old), new=NodeId(new))


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRoles:
    """From its next certificate on the node has these roles, and no others."""

    kind: ClassVar = OrderKind.ROLES

    node: NodeId
    roles: tuple[str, ...]  # sorted
    person: str | None = None  # whose node it is

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.node, list(self.roles), self.person)

    @classmethod
    def unpack(cls, body: bytes) -> "GrantRoles":
        """See Invite."""
        node, roles, person = open_map(body, _ID, _ROLES, Maybe(Text(PERSON_MAX)), limit=BODY_MAX)
        if person == "":
            malformed("a person has a name")
        return cls(node=NodeId(node), roles=_roles(roles), person=person)


@dataclass(frozen=True, slots=True)
class PolicyOrder:
    """The mesh key shall sign this policy."""

    kind: ClassVar = OrderKind.POLICY

    policy_hash: bytes  # SHA-256 of `Policy.pack()`: what is to be signed

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.policy_hash)

    @classmethod
    def unpack(cls, body: bytes) -> "PolicyOrder":
        """See Invite."""
        (policy_hash,) = open_map(body, _ID, limit=BODY_MAX)
        return cls(policy_hash)


@dataclass(frozen=True, slots=True)
class WithdrawInvite:
    """Nobody joins by this invite any more."""

    kind: ClassVar = OrderKind.WITHDRAW

    invite_id: bytes

    def pack(self) -> bytes:
        """The body."""
        return make_map(self.invite_id)

    @classmethod
    def unpack(cls, body: bytes) -> "WithdrawInvite":
        """See Invite."""
        (invite_id,) = open_map(body, Bytes(INVITE_ID_SIZE), limit=BODY_MAX)
        return cls(invite_id)


Body = (
    Invite | Revoke | Quarantine | Replace | GrantRoles | PolicyOrder | Distribute | Refresh | Reshare | Recover
    | WithdrawInvite
)  # fmt: skip

_BODIES: Final[Mapping[OrderKind, type[Body]]] = {
    one.kind: one
    for one in (
        Invite, Revoke, Quarantine, Replace, GrantRoles, PolicyOrder, Distribute, Refresh, Reshare, Recover,
        WithdrawInvite,
    )
}  # fmt: skip


def open_body(kind: int, body: bytes) -> Body:
    """The body of an order of this kind. Raises Refused: MALFORMED, TOO_LARGE; UNSUPPORTED for a kind of a later version."""
    try:
        form = _BODIES[OrderKind(kind)]
    except ValueError:
        raise Refused(Reason.UNSUPPORTED, f"order of kind {kind}") from None
    return form.unpack(body)


def _roles(found: Sequence[str]) -> tuple[str, ...]:
    if list(found) != sorted(set(found)) or not all(_ROLE.fullmatch(role) for role in found):
        malformed("roles are sorted, different and of a-z, 0-9 and inner hyphens")
    return tuple(found)


def _reason(code: int) -> RevocationReason:
    try:
        return RevocationReason(code)
    except ValueError:
        malformed(f"reason {code} of a revocation")
