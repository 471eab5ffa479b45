"""Authority objects: the record of each generation of those who together hold the mesh key. Here: object 0.

    payload = {0:1, 1:mesh_id, 2:k, 3:root DER, 5:[[SPKI of each member, by node id], t], 9:[[recovery keys], m]}
    object  = {0:1, 1:payload, 2:[signature by the root's key, then by each member's identity key]}

Each signature is 64 bytes over label || mesh_id || payload. Fields 4 and 6 to 8 belong to later generations.
"""

from dataclasses import dataclass, field
from typing import Final, NoReturn

from overlay.core.certificates import Root
from overlay.core.keys import IdentityKey, NodeId, Signer, verify_signature
from overlay.core.limits import CHAIN_BYTES_MAX
from overlay.core.wire import Anything, Array, Bytes, Maybe, Tuple, UInt, make_map, open_map, sha256
from overlay.errors import Refused
from overlay.registry import Label, Reason

OBJECT_MAX: Final = 64 * 1024
MEMBERS_MAX: Final = 64  # our guess
RECOVERY_MAX: Final = 16  # our guess
SPKI: Final = Bytes(44, 91)  # Ed25519 (RFC 8410) to P-256 (RFC 5480)

_MEMBERS: Final = Tuple((Array(SPKI, MEMBERS_MAX), UInt(MEMBERS_MAX)))
_RECOVERY: Final = Tuple((Array(Bytes(32), RECOVERY_MAX), UInt(RECOVERY_MAX)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityObject:
    """One generation of the authority, verified."""

    number: int
    members: tuple[IdentityKey, ...]
    threshold: int
    recovery_keys: tuple[bytes, ...]
    recovery_threshold: int
    raw: bytes = field(repr=False)
    hash: bytes = field(repr=False)  # SHA-256 of raw, which the next object names

    @property
    def member_ids(self) -> tuple[NodeId, ...]:
        """Who they are."""
        return tuple(member.node_id for member in self.members)


def make_object_zero(root: Root, root_key: Signer, founder: Signer) -> bytes:
    """The founding generation: the founder alone, no recovery keys."""
    payload = make_map(root.mesh_id, 0, root.der, None, [[founder.spki], 1], None, None, None, [[], 0])
    data = _to_be_signed(root, payload)
    return make_map(payload, [root_key.sign(data), founder.sign(data)])


def verify_object_zero(raw: bytes, root: Root) -> AuthorityObject:
    """Check the founding record against the root that we trust.

    Raises:
        Refused: BAD_CERTIFICATE, OTHER_MESH, MALFORMED, TOO_LARGE or UNSUPPORTED.
    """
    payload, signatures = open_map(raw, Bytes(1, OBJECT_MAX), Array(Bytes(64), MEMBERS_MAX + 1), limit=OBJECT_MAX)
    found = _read(raw, payload, root)
    keys = [root.identity, *found.members]
    if len(signatures) != len(keys):
        _bad("one signature by the root and one by each member")
    for key, signature in zip(keys, signatures, strict=True):
        _check_signature(key, signature, _to_be_signed(root, payload))
    return found


def _read(raw: bytes, payload: bytes, root: Root) -> AuthorityObject:
    """The fields of an object 0 of this mesh, signatures not checked."""
    mesh_id, number, root_der, cross, members, transcript, previous, closing, recovery = open_map(
        payload, Bytes(32), UInt(), Bytes(1, CHAIN_BYTES_MAX), Maybe(Anything()), _MEMBERS, Maybe(Anything()),
        Maybe(Anything()), Maybe(Anything()), _RECOVERY, limit=OBJECT_MAX,
    )
    if mesh_id != root.mesh_id or root_der != root.der:
        raise Refused(Reason.OTHER_MESH, "the authority object is of another root")
    later = [part for part in (cross, transcript, previous, closing) if part is not None]
    if number != 0 or later:
        _bad("not the founding object")
    keys = tuple(IdentityKey.parse(spki) for spki in members[0])
    if len(keys) != 1 or members[1] != 1:
        _bad("a mesh has one founder")
    if len(set(recovery[0])) != len(recovery[0]) or not min(1, len(recovery[0])) <= recovery[1] <= len(recovery[0]):
        _bad("recovery keys are different, and at least one and at most all are needed")
    return AuthorityObject(
        number=number, members=keys, threshold=1, recovery_keys=tuple(recovery[0]), recovery_threshold=recovery[1],
        raw=raw, hash=sha256(raw),
    )


def _check_signature(key: IdentityKey, signature: bytes, data: bytes) -> None:
    try:
        verify_signature(key.algorithm, key.public_key, signature, data)
    except Refused:
        _bad("a signature does not verify")


def _to_be_signed(root: Root, payload: bytes) -> bytes:
    return Label.AUTHORITY_OBJECT + root.mesh_id + payload


def _bad(detail: str) -> NoReturn:
    raise Refused(Reason.BAD_CERTIFICATE, f"authority object: {detail}")
