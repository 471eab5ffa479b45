"""Authority objects, sealed: the record of each generation of those who together hold the mesh key.

    object = {0:1, 1:payload, 2:[signature by root k, then by each member's identity key], 3:signature by root k-1?,
              4:[[which recovery key, its signature], ...]?}

Each signature is 64 bytes over label || mesh_id || payload (`contents.py`). Field 3 stands in a roll-over, field 4 in a
recovery. Signatures of roots are made by many, so what is to be signed, the signatures and the sealing are apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from overlay.core.authority.contents import (
    MEMBERS_MAX,
    OBJECT_MAX,
    Contents,
    ObjectKind,
    founding_contents,
    hash_of,
    read_founding,
    read_next,
    refuse,
)
from overlay.core.authority.recovery_keys import SIGNATURES, RecoveryKeys
from overlay.core.certificates import Root
from overlay.core.keys import IdentityKey, MeshId, NodeId, Signer, verify_signature
from overlay.core.wire import Array, Bytes, Maybe, make_map, open_map
from overlay.errors import Refused
from overlay.registry import Label

__all__ = ["OBJECT_MAX", "AuthorityObject", "Signatures", "assemble", "make_object_zero", "to_be_signed", "verify_next",
           "verify_object_zero"]  # fmt: skip

NO_RECOVERY: Final = RecoveryKeys()


@dataclass(frozen=True, slots=True)
class AuthorityObject:
    """One generation of the authority, verified."""

    contents: Contents
    raw: bytes = field(repr=False)
    hash: bytes = field(repr=False)  # of the payload, which the next object names

    @property
    def number(self) -> int:
        """k."""
        return self.contents.number

    @property
    def kind(self) -> ObjectKind:
        """Why there is this object."""
        return self.contents.kind

    @property
    def root(self) -> Root:
        """Root k."""
        return self.contents.root

    @property
    def cross(self) -> bytes | None:
        """Root k-1's certificate for root k, DER."""
        return self.contents.cross

    @property
    def members(self) -> tuple[IdentityKey, ...]:
        """Who hold the key, by node id."""
        return self.contents.members

    @property
    def member_ids(self) -> tuple[NodeId, ...]:
        """Who they are."""
        return self.contents.member_ids

    @property
    def threshold(self) -> int:
        """How many of them sign."""
        return self.contents.threshold

    @property
    def recovery(self) -> RecoveryKeys:
        """Who may recover the mesh."""
        return self.contents.recovery


@dataclass(frozen=True, slots=True)
class Signatures:
    """What is gathered before an object is complete. 64 bytes each."""

    root: bytes
    members: Sequence[bytes]  # in the order of the members
    previous_root: bytes | None = None
    recovery: Mapping[int, bytes] = field(default_factory=dict)  # by the place of the key

    @property
    def recovery_field(self) -> list[list[int | bytes]] | None:
        """As it stands in the object."""
        return [[place, signature] for place, signature in sorted(self.recovery.items())] or None


def to_be_signed(mesh_id: MeshId, payload: bytes) -> bytes:
    """What roots, members and recovery keys sign."""
    return Label.AUTHORITY_OBJECT + mesh_id + payload


def assemble(payload: bytes, signatures: Signatures) -> bytes:
    """The object; whether the signatures are good is seen when it is verified."""
    members = [signatures.root, *signatures.members]
    return make_map(payload, members, signatures.previous_root, signatures.recovery_field)


def make_object_zero(root: Root, root_key: Signer, founder: Signer, recovery: RecoveryKeys = NO_RECOVERY) -> bytes:
    """The founding generation: the founder alone, and who may recover the mesh."""
    payload = founding_contents(root, IdentityKey.parse(founder.spki), recovery).pack()
    data = to_be_signed(root.mesh_id, payload)
    return assemble(payload, Signatures(root_key.sign(data), [founder.sign(data)]))


def verify_object_zero(raw: bytes, root: Root) -> AuthorityObject:
    """Check the founding record against the root that we trust.

    Raises:
        Refused: BAD_AUTHORITY_OBJECT, OTHER_MESH, MALFORMED, TOO_LARGE or UNSUPPORTED.
    """
    payload, signatures = _open(raw)
    contents = read_founding(payload, root)
    if signatures.previous_root is not None or signatures.recovery:
        refuse("nobody comes before the founder")
    _check_holders(contents, payload, signatures)
    return AuthorityObject(contents, raw, hash_of(payload))


def verify_next(raw: bytes, before: Contents) -> AuthorityObject:
    """Check an object against the one before it, which was verified.

    Raises:
        Refused: as `read_next`.
    """
    payload, signatures = _open(raw)
    contents = read_next(payload, before)
    _check_before(contents, before, payload, signatures)
    _check_holders(contents, payload, signatures)
    return AuthorityObject(contents, raw, hash_of(payload))


def payload_of(raw: bytes) -> bytes:
    """The payload of an object that nobody has verified; raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
    return _open(raw)[0]


def _open(raw: bytes) -> tuple[bytes, Signatures]:
    payload, signed, previous_root, recovery = open_map(
        raw, Bytes(1, OBJECT_MAX), Array(Bytes(64), MEMBERS_MAX + 1), Maybe(Bytes(64)), Maybe(SIGNATURES), limit=OBJECT_MAX
    )
    places = [place for place, _ in recovery or []]
    if places != sorted(set(places)) or recovery == []:
        refuse("signatures of recovery keys are in order, and of different keys")
    return payload, Signatures(signed[0] if signed else b"", signed[1:], previous_root, dict(recovery or []))


def _check_before(contents: Contents, before: Contents, payload: bytes, signatures: Signatures) -> None:
    """The authority before agrees, by its root key; or, where that is lost, the recovery keys do."""
    if (signatures.previous_root is not None) != (contents.kind is ObjectKind.ROLLOVER):
        refuse("root k-1 signs a roll-over, and nothing else apart from root k")
    if contents.kind is ObjectKind.RECOVERY:
        before.recovery.verify(signatures.recovery, to_be_signed(contents.mesh_id, payload))
    elif signatures.recovery:
        refuse("recovery keys sign a recovery, and nothing else")
    if signatures.previous_root is not None:
        check_signature(before.root.identity, signatures.previous_root, contents.mesh_id, payload)


def _check_holders(contents: Contents, payload: bytes, signatures: Signatures) -> None:
    """Root k and every member agree."""
    if len(signatures.members) != len(contents.members):
        refuse("one signature by the root and one by each member")
    check_signature(contents.root.identity, signatures.root, contents.mesh_id, payload)
    for key, signature in zip(contents.members, signatures.members, strict=True):
        check_signature(key, signature, contents.mesh_id, payload)


def check_signature(key: IdentityKey, signature: bytes, mesh_id: MeshId, payload: bytes) -> None:
    """One signature of an object; raises Refused(BAD_AUTHORITY_OBJECT)."""
    try:
        verify_signature(key.algorithm, key.public_key, signature, to_be_signed(mesh_id, payload))
    except Refused:
        refuse("a signature does not verify")
