"""Revocation lists and later roots of a test mesh."""

from datetime import datetime, timedelta

from overlay.core import certificate_profile as profile
from overlay.core.certificate_profile import Issuer, LeafFacts, Life, seal
from overlay.core.endorsement import make_endorsement
from overlay.core.keys import Ed25519Signer, X25519Pair
from overlay.core.revocation_profile import (
    LIST_LIFE,
    ListFacts,
    Mark,
    RevocationReason,
    Revocations,
    node_revocation,
    revocation_list_to_be_signed,
    serial_bytes,
)
from overlay.core.trust import Credentials
from tests.unit.core.authority_kit import DAY, HOUR, NOW, Member, Mesh, seed

MINUTE = timedelta(minutes=1)
MARK = Mark(NOW - HOUR, NOW - MINUTE, RevocationReason.KEY_COMPROMISE)


def root_key(mesh: Mesh, generation: int) -> Ed25519Signer:
    """The mesh key of a generation; 0 is the founding one."""
    return mesh.authority.key if generation == 0 else Ed25519Signer(seed("root", mesh.root.name, str(generation)))


def root_issuer(mesh: Mesh, generation: int) -> Issuer:
    """Who signs in a generation."""
    return Issuer(mesh.mesh_id, mesh.root.name, root_key(mesh, generation).spki)


def cross(mesh: Mesh, generation: int, *, key: Ed25519Signer | None = None, life: Life | None = None) -> bytes:
    """The certificate of the root of a generation, by the one before."""
    content = profile.authority_to_be_signed(
        root_issuer(mesh, generation - 1), (key or root_key(mesh, generation)).spki, mesh.root.name,
        life or Life.between(NOW - DAY, NOW + 1000 * DAY),
    )
    return seal(content, profile.ED25519_OID, root_key(mesh, generation - 1).sign(content))


def chain_to(mesh: Mesh, generation: int) -> tuple[bytes, ...]:
    """From the root of that generation up to the first one after the founding one."""
    return tuple(cross(mesh, number) for number in range(generation, 0, -1))


def credentials_under(
    mesh: Mesh, member: Member, generation: int, *, chain: tuple[bytes, ...] | None = None, key: Ed25519Signer | None = None
) -> Credentials:
    """The member with a leaf of another generation, or by that key in its name."""
    signer = key or root_key(mesh, generation)
    issuer = Issuer(mesh.mesh_id, mesh.root.name, signer.spki)
    life = Life.between(NOW - HOUR, NOW - HOUR + 7 * DAY)
    content = profile.leaf_to_be_signed(issuer, member.signer.spki, member.name, LeafFacts(), life)
    leaf = seal(content, profile.ED25519_OID, signer.sign(content))
    endorsement = endorse(mesh, member, leaf, NOW - MINUTE, NOW + DAY - MINUTE)
    return Credentials(endorsement, leaf, chain_to(mesh, generation) if chain is None else chain)


def endorse(mesh: Mesh, member: Member, leaf: bytes, not_before: datetime, not_after: datetime) -> bytes:
    """An endorsement of the member's keys under that leaf."""
    noise: X25519Pair = member.noise
    return make_endorsement(
        member.signer, mesh_id=mesh.mesh_id, leaf=leaf, noise_public=noise.public, message=member.message,
        start_id=member.start_id, not_before=not_before, not_after=not_after,
    )


def revoked(member: Member, mark: Mark = MARK) -> Revocations:
    """A node with the serial of its certificate."""
    return node_revocation(member.node_id, mark, serials=[serial_bytes(member.peer.certificate.serial)])


def facts_of(
    revocations: Revocations, *, number: int = 1, this_update: datetime = NOW, next_update: datetime | None = None
) -> ListFacts:
    """What a list says."""
    return ListFacts(
        number=number, this_update=this_update, next_update=next_update or this_update + LIST_LIFE, revocations=revocations
    )


def make_list(
    mesh: Mesh, revocations: Revocations, *, number: int = 1, generation: int = 0, this_update: datetime = NOW,
    next_update: datetime | None = None,
) -> bytes:
    """A signed list, DER."""
    facts = facts_of(revocations, number=number, this_update=this_update, next_update=next_update)
    content = revocation_list_to_be_signed(root_issuer(mesh, generation), facts)
    return seal(content, profile.ED25519_OID, root_key(mesh, generation).sign(content))
