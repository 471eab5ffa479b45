"""The founding authority: one machine that holds the mesh key, until it is distributed. No method signs given bytes."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Self

from overlay.core import certificate_profile as profile
from overlay.core.authority.objects import NO_RECOVERY, make_object_zero
from overlay.core.authority.recovery_keys import RecoveryKeys
from overlay.core.certificate_profile import ED25519_OID, Issuer, LeafFacts, Life, is_name, seal
from overlay.core.certificate_request import Request
from overlay.core.certificates import LEAF_LIFE_MAX, Root, parse_root
from overlay.core.keys import Ed25519Signer, MeshId, Signer
from overlay.core.policy import Policy
from overlay.core.wire import sign1
from overlay.registry import Label

# A root that ends kills the whole mesh at once, as users of other meshes have found after a year. Successors are made
# long before this, and nothing is gained by an earlier end: a stolen key is answered by a new root, not by waiting.
ROOT_LIFE: Final = timedelta(days=20 * 365.25)
LEAF_LIFE: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class FoundingAuthority:
    """The mesh key in memory, and the root that it stands for."""

    key: Ed25519Signer = field(repr=False)
    root: Root

    def __post_init__(self) -> None:
        if self.key.public_key != self.root.public_key:
            raise ValueError("the founding key is not the root's")

    @classmethod
    def load(cls, seed: bytes, root: Root) -> Self:
        """From the stored seed (32 bytes); raises ValueError if it belongs to another root."""
        return cls(Ed25519Signer(seed), root)

    @classmethod
    def create(cls, mesh_name: str, seed: bytes, at: datetime) -> Self:
        """Found a mesh: `.root.der` is its root certificate. Raises ValueError for what is not a name."""
        if not is_name(mesh_name):
            raise ValueError(f"{mesh_name!r} is not a name")
        key = Ed25519Signer(seed)
        issuer = Issuer(MeshId.of_root(key.spki), mesh_name, key.spki)
        content = profile.authority_to_be_signed(issuer, key.spki, mesh_name, Life.between(at, at + ROOT_LIFE))
        return cls(key, parse_root(seal(content, ED25519_OID, key.sign(content))))

    def issue(
        self, request: Request, *, name: str, facts: LeafFacts, not_before: datetime, not_after: datetime
    ) -> bytes:
        """A node's certificate, DER; the same arguments give the same bytes.

        Raises:
            ValueError: for a life beyond seven days or what is not a name.
            Refused: MALFORMED for facts that no verifier would accept.
        """
        life = Life.between(not_before, not_after)
        if not is_name(name) or life.not_after - life.not_before > LEAF_LIFE_MAX:
            raise ValueError(f"cannot issue to {name!r} from {not_before} to {not_after}")
        LeafFacts.unpack(facts.pack())
        content = profile.leaf_to_be_signed(self.root.issuer, request.identity.spki, name, facts, life)
        return seal(content, ED25519_OID, self.key.sign(content))

    def sign_policy(self, policy: Policy) -> bytes:
        """The signed policy; raises Refused(MALFORMED) for one that no verifier would accept."""
        payload = policy.pack()
        Policy.unpack(payload)
        return sign1(payload, signer=self.key, aad=Label.POLICY + self.root.mesh_id, kid=None)

    def object_zero(self, founder: Signer, recovery: RecoveryKeys = NO_RECOVERY) -> bytes:
        """The record of the founding generation, signed by the root and the founder's identity key."""
        return make_object_zero(self.root, self.key, founder, recovery)
