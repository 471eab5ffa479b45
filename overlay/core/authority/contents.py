"""What an authority object says, before anyone has signed it: its fields, and the rules by which one may follow another.

    payload = {0:1, 1:mesh_id, 2:k, 3:root k DER, 4:cross-certificate by root k-1?, 5:[[SPKI of each member, by node id], t],
               6:transcript32?, 7:H(payload k-1)?, 8:[[node_id, log_id16, size, root32], ...]?, 9:[[recovery keys], m]}

An object is known by the hash of its payload, because signatures of several hands come out different each time.

| kind | root k | field 4 | instead of root k-1 signs |
| --- | --- | --- | --- |
| founding | the founder's | - | - |
| roll-over | a new key | yes | root k-1 itself |
| resharing | root k-1, the same bytes | - | root k, which is the same |
| recovery | a new key | - | m recovery keys |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NoReturn

from overlay.core.authority.recovery_keys import FIELD, RecoveryKeys
from overlay.core.authority.roots import check_cross, parse_next_root
from overlay.core.certificates import Root
from overlay.core.keys import IdentityKey, MeshId, NodeId
from overlay.core.limits import CHAIN_BYTES_MAX
from overlay.core.wire import Array, Bytes, Maybe, Tuple, UInt, make_map, open_map, sha256
from overlay.errors import Refused
from overlay.registry import Reason

OBJECT_MAX: Final = 64 * 1024  # protocol: of all that may come in mode 3 before the certificate
NUMBER_MAX: Final = 1023  # our guess: one each week for twenty years
MEMBERS_MAX: Final = 64  # our guess
SPKI: Final = Bytes(44, 91)  # Ed25519 (RFC 8410) to P-256 (RFC 5480)

DER: Final = Bytes(1, CHAIN_BYTES_MAX)
MEMBERS: Final = Tuple((Array(SPKI, MEMBERS_MAX), UInt(MEMBERS_MAX)))
CLOSING: Final = Array(Tuple((Bytes(32), Bytes(16), UInt(), Bytes(32))), MEMBERS_MAX)


class ObjectKind(Enum):
    """Why there is this object."""

    FOUNDING = "founding"
    ROLLOVER = "roll-over"
    RESHARING = "resharing"
    RECOVERY = "recovery"


@dataclass(frozen=True, slots=True, order=True)
class ClosingCheckpoint:
    """Up to where the log of one signer counts as history of the authority before."""

    node_id: NodeId
    log_id: bytes  # 16
    size: int  # entries
    root: bytes  # 32, RFC 9162, section 2.1.1

    @property
    def fields(self) -> list[bytes | int]:
        """As it stands in the payload."""
        return [self.node_id, self.log_id, self.size, self.root]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The fields of one object, in rules with those of the object before it."""

    kind: ObjectKind
    number: int
    root: Root
    members: tuple[IdentityKey, ...]  # by node id; the first one's share has identifier 1
    threshold: int
    recovery: RecoveryKeys
    cross: bytes | None = field(default=None, repr=False)  # DER
    transcript: bytes | None = field(default=None, repr=False)  # 32, of the key generation or resharing
    previous: bytes | None = field(default=None, repr=False)  # 32
    closing: tuple[ClosingCheckpoint, ...] = ()

    @property
    def mesh_id(self) -> MeshId:
        """The mesh."""
        return self.root.mesh_id

    @property
    def hash(self) -> bytes:
        """By which the next object names this one. 32 bytes."""
        return hash_of(self.pack())

    @property
    def member_ids(self) -> tuple[NodeId, ...]:
        """Who they are."""
        return tuple(member.node_id for member in self.members)

    def pack(self) -> bytes:
        """The payload; raises Refused(BAD_AUTHORITY_OBJECT) for what no verifier would accept."""
        check_members(self.members, self.threshold)
        closing = [item.fields for item in self.closing]
        return make_map(
            self.mesh_id, self.number, self.root.der, self.cross, [[member.spki for member in self.members], self.threshold],
            self.transcript, self.previous, None if self.kind is ObjectKind.FOUNDING else closing,
            [list(self.recovery.keys), self.recovery.threshold],
        )


def founding_contents(root: Root, founder: IdentityKey, recovery: RecoveryKeys) -> Contents:
    """Object 0: the founder alone."""
    return Contents(kind=ObjectKind.FOUNDING, number=0, root=root, members=(founder,), threshold=1, recovery=recovery)


def next_contents(
    before: Contents,
    root: Root,
    members: Sequence[IdentityKey],
    threshold: int,
    *,
    transcript: bytes,
    closing: Sequence[ClosingCheckpoint],
    cross: bytes | None = None,
) -> Contents:
    """The object after `before`, checked as a verifier would: a cross-certificate makes it a roll-over, the same root a
    resharing, neither a recovery. Raises Refused(BAD_AUTHORITY_OBJECT or BAD_CERTIFICATE).
    """
    found = Contents(
        kind=_kind(root.der, cross, before), number=before.number + 1, root=root, cross=cross,
        members=tuple(sorted(members, key=lambda member: member.node_id)), threshold=threshold, transcript=transcript,
        previous=before.hash, closing=tuple(sorted(closing)), recovery=before.recovery,
    )
    return read_next(found.pack(), before)


def hash_of(payload: bytes) -> bytes:
    """By which the next object names this one. 32 bytes."""
    return sha256(payload)


def number_of(payload: bytes) -> int:
    """k of a payload that nobody has verified; raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
    number: int = _open(payload)[1]
    return number


def read_founding(payload: bytes, root: Root) -> Contents:
    """The fields of an object 0 of this mesh.

    Raises:
        Refused: BAD_AUTHORITY_OBJECT, OTHER_MESH, MALFORMED, TOO_LARGE or UNSUPPORTED.
    """
    mesh_id, number, root_der, cross, members, transcript, previous, closing, recovery = _open(payload)
    if mesh_id != root.mesh_id or root_der != root.der:
        raise Refused(Reason.OTHER_MESH, "the authority object is of another root")
    if number != 0 or any(part is not None for part in (cross, transcript, previous, closing)):
        refuse("not the founding object")
    keys = read_members(*members)
    if len(keys) != 1:
        refuse("a mesh has one founder")
    return founding_contents(root, keys[0], RecoveryKeys.checked(tuple(recovery[0]), recovery[1]))


def read_next(payload: bytes, before: Contents) -> Contents:
    """The fields of the object after `before`. Whether it was signed is not seen here.

    Raises:
        Refused: WRONG_GENERATION for another number; BAD_AUTHORITY_OBJECT, BAD_CERTIFICATE, OTHER_MESH, MALFORMED,
            TOO_LARGE or UNSUPPORTED.
    """
    mesh_id, number, root_der, cross, members, transcript, previous, closing, recovery = _open(payload)
    if mesh_id != before.mesh_id:
        raise Refused(Reason.OTHER_MESH, "the authority object is of another mesh")
    if number != before.number + 1:
        raise Refused(Reason.WRONG_GENERATION, f"object {number} where {before.number + 1} comes next")
    if previous != before.hash:
        refuse("it follows another object")
    if transcript is None or closing is None:
        refuse("a later object has a transcript and closing checkpoints")
    if (tuple(recovery[0]), recovery[1]) != (before.recovery.keys, before.recovery.threshold):
        refuse("recovery keys never change")
    kind = _kind(root_der, cross, before)
    found = Contents(
        kind=kind, number=number, root=_read_root(kind, root_der, cross, before), cross=cross, members=read_members(*members),
        threshold=members[1], transcript=transcript, previous=previous, closing=read_closing(closing),
        recovery=before.recovery,
    )
    _check_closing(kind, found.closing, before)
    if kind is ObjectKind.RESHARING and (found.members, found.threshold) == (before.members, before.threshold):
        refuse("neither key nor members nor threshold are new: that is a refresh, which needs no object")
    return found


def _open(payload: bytes) -> list[Any]:
    return open_map(
        payload, Bytes(32), UInt(NUMBER_MAX), DER, Maybe(DER), MEMBERS, Maybe(Bytes(32)), Maybe(Bytes(32)),
        Maybe(CLOSING), FIELD, limit=OBJECT_MAX,
    )


def _kind(root_der: bytes, cross: bytes | None, before: Contents) -> ObjectKind:
    if cross is not None:
        return ObjectKind.ROLLOVER
    return ObjectKind.RESHARING if root_der == before.root.der else ObjectKind.RECOVERY


def _read_root(kind: ObjectKind, root_der: bytes, cross: bytes | None, before: Contents) -> Root:
    if kind is ObjectKind.RESHARING:
        return before.root
    root = parse_next_root(root_der, before.root)
    if cross is not None:
        check_cross(cross, root, before.root)
    return root


def read_closing(closing: list[list[Any]]) -> tuple[ClosingCheckpoint, ...]:
    """Of what CLOSING has let through."""
    return tuple(ClosingCheckpoint(NodeId(node_id), log_id, size, root) for node_id, log_id, size, root in closing)


def _check_closing(kind: ObjectKind, closing: tuple[ClosingCheckpoint, ...], before: Contents) -> None:
    """One of each signer that is still there: the others' history ends where witnesses saw it last."""
    authors = [item.node_id for item in closing]
    if authors != sorted(set(authors)) or not set(authors) <= set(before.member_ids):
        refuse("closing checkpoints are of members of the authority before, one each, by node id")
    if kind is not ObjectKind.RECOVERY and len(authors) < before.threshold:
        refuse("those who sign close their logs")


def read_members(spkis: list[bytes], threshold: int) -> tuple[IdentityKey, ...]:
    """Raises Refused(BAD_AUTHORITY_OBJECT)."""
    try:
        keys = tuple(IdentityKey.parse(spki) for spki in spkis)
    except Refused as error:
        refuse(error.detail)
    check_members(keys, threshold)
    return keys


def check_members(members: Sequence[IdentityKey], threshold: int) -> None:
    """Sorted and different, and two quorums always share a member, else there could be two stories.

    Raises Refused(BAD_AUTHORITY_OBJECT).
    """
    ids = [member.node_id for member in members]
    if not ids or ids != sorted(set(ids)) or len(ids) > MEMBERS_MAX:
        refuse(f"members are different, sorted by node id, and 1 to {MEMBERS_MAX}")
    if not len(ids) < 2 * threshold <= 2 * len(ids):
        refuse("more than half of the members, and at most all, are needed to sign")


def refuse(detail: str) -> NoReturn:
    """Refuse an authority object."""
    raise Refused(Reason.BAD_AUTHORITY_OBJECT, detail)
